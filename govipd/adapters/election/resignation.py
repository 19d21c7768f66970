"""How a member leaves the queue: its key, its claims and its pact go in one transaction.

A call without an answer may take effect at any later time (a proposal that etcd commits after all, a request that TCP
repeats). So each deletion compares the key's create revision and the claims' values, and cannot hit later ones.
"""

from collections.abc import Callable, Sequence

from govipd.adapters.election.claims import Claims
from govipd.adapters.election.handover import HandoverSender
from govipd.adapters.election.membership import Membership
from govipd.adapters.election.queue import Place
from govipd.adapters.election.session import Session
from govipd.adapters.election.successors import Successor
from govipd.adapters.etcd.api import Delete, Get, IfCreateRevision, KeyValue, Operation, Put
from govipd.core.actions import Address
from govipd.core.events import Resigned
from govipd.errors import EtcdRefusedError, EtcdWriteRefusedError
from govipd.keys import GroupKeys
from govipd.runtime.ports import Clock, Sink
from govipd.runtime.step_timing import StepTimings

LEAVE_S = 1.0  # a member that could not leave for so long stops renewing its lease
_TRIES = 4  # each try learns what changed since the one before


class Resignation:
    """The resignation of one member.

    Args:
        session: the member's lease.
        sink: where Resigned goes.
        clock: CLOCK_BOOTTIME.
        keys: where the group's keys are.
        place: the member's place in the queue.
        claims: the member's claims.
        membership: gives the lease back.
        sender: the member's handovers.
        timings: where the steps of a release are noted.

    Attributes:
        revoked: a revocation of our lease was sent. It may take effect at any time, so no key may be put under it.
    """

    def __init__(
        self,
        *,
        session: Session,
        sink: Sink,
        clock: Clock,
        keys: GroupKeys,
        place: Place,
        claims: Claims,
        membership: Membership,
        sender: HandoverSender,
        timings: StepTimings,
    ) -> None:
        self._session = session
        self._sink = sink
        self._clock = clock
        self._keys = keys
        self._place = place
        self._claims = claims
        self._membership = membership
        self._sender = sender
        self._timings = timings
        self._campaign: int | None = None  # the campaign whose end must be confirmed
        self.revoked = False
        self._since: float | None = None  # when leaving began

    def ask(self, campaign: int) -> None:
        """Ask for the confirmation of this campaign's end. It comes at once where no key and no claim can exist."""
        if self._place.key is not None or self._place.put_unanswered or self._claims.held:
            self._campaign = campaign
        else:
            self._sink(Resigned(campaign))

    def stuck(self) -> bool:
        """Whether leaving has failed for LEAVE_S. Then the lease must end by itself."""
        return self._since is not None and self._clock.now() >= self._since + LEAVE_S

    def lost(self) -> None:
        """Confirm the end of the campaign: the lease is gone, and every key with it."""
        self._since, self.revoked = None, False
        self._confirm()

    async def leave(
        self,
        lease: int,
        passed_over: Sequence[KeyValue],
        successor: Successor | None,
        *,
        free: bool,
        in_order: Callable[[Address], bool],
    ) -> bool:
        """Delete our key, let go of the claims, write the marker, and confirm. False where the lease was given back.

        Where a put of our key has no answer, the lease is given back: etcd refuses a put without its lease. The renewer
        then finds the lease gone. Once a revocation was sent, only the end of the lease confirms: a revocation without
        an answer may take effect later, and would delete the key of a next campaign under this lease. Leaving needs no
        write: where etcd takes no writes, the key is deleted without a marker, or goes with the lease. A lease that
        etcd does not take back ends by itself: the renewer stops.

        Args:
            lease: our lease.
            passed_over: keys behind ours that are deleted together with ours.
            successor: the member behind these keys, if known. It gets the claims that it wants, and need not write.
            free: this member was free to activate: no kernel of an earlier holder can answer any more. So this member
                may write the marker.
            in_order: the same as `free`, for the claim on one address.

        Raises:
            EtcdError: the outcome is not known; may be repeated.
        """
        place = self._place
        if place.key is None and not self._claims.held and not place.put_unanswered and not self.revoked:
            self._confirm()
            return True
        if self._since is None:
            self._since = self._clock.now()
        give_back = place.put_unanswered or self.revoked
        try:
            await self._release(lease, passed_over, successor, free=free, in_order=in_order)
        except EtcdRefusedError:
            give_back = True
        if give_back:
            sent, self.revoked = self.revoked, True
            try:
                await self._membership.give_back(lease)
            except EtcdRefusedError:
                self.revoked = sent  # etcd's answer: this revocation will not take effect
                raise
            self._session.renew_now.set()
            return False
        place.key, self._since = None, None
        self._confirm()
        return True

    async def _release(
        self,
        lease: int,
        passed_over: Sequence[KeyValue],
        successor: Successor | None,
        *,
        free: bool,
        in_order: Callable[[Address], bool],
    ) -> None:
        """Delete our key, and let go of our claims. Where etcd takes no writes, write no marker."""
        key = self._place.key
        if key is not None and await self._sender.finish(key.lease):
            self._place.key = key = None
            if not self._claims.held:
                return
        keys = () if key is None else (key, *passed_over)
        successor = None if key is None else successor
        try:
            await self._delete(lease, keys, successor, marks=free, in_order=in_order)
        except EtcdWriteRefusedError:
            await self._delete(lease, keys, None, marks=False, in_order=lambda _: False)

    async def _delete(
        self,
        lease: int,
        keys: Sequence[KeyValue],
        successor: Successor | None,
        *,
        marks: bool,
        in_order: Callable[[Address], bool],
    ) -> None:
        """Delete `keys` (ours is the first) and let go of our claims; without keys, only let go of the claims.

        `marks`: write the marker. It names the last of the keys, which the successor has seen just ahead of its own.
        """
        name, claims = self._keys.candidate(lease), self._claims
        for _ in range(_TRIES):
            held = tuple(claims.held)
            named = tuple(dict.fromkeys((*held, *claims.wanted)))
            passed = [a for a in held if successor is not None and successor.wants(a) and in_order(a)]
            there = [IfCreateRevision(kv.key, kv.create_revision) for kv in keys] or [IfCreateRevision(name, 0)]
            operations: list[Operation] = [Delete(kv.key) for kv in keys]
            operations += claims.let_go([a for a in held if a not in passed], in_order)
            if successor is not None:
                there.append(IfCreateRevision(successor.key.key, successor.key.create_revision))
                operations += claims.puts(passed, successor.key.lease, successor.name)
            if keys:
                operations += map(Delete, self._keys.pact(lease))
            if keys and marks:
                operations.append(Put(self._keys.release_marker, str(keys[-1].create_revision).encode(), 0))
            reads = (Get(name), *claims.reads(named))
            self._timings.mark("deletion asked")
            reply = await self._session.txn([*there, *claims.unchanged(held)], [*operations, *reads], reads)
            self._timings.mark("deletion confirmed")
            own, *answers = reply.gets
            claims.look(named, answers, lease)
            if reply.succeeded and not claims.held:
                break
            # A claim of ours changed, an earlier call without an answer created one, or a key behind ours is gone.
            keys, successor = keys[:1] if own else (), None
        claims.forget()

    def _confirm(self) -> None:
        if self._campaign is not None:
            campaign, self._campaign = self._campaign, None
            self._sink(Resigned(campaign))
