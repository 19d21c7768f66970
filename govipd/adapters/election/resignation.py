"""How a member leaves the queue: its key, its claims and its pact go in one transaction.

A call without an answer may take effect at any later time (a proposal that etcd commits after all, a request that TCP
repeats). So each deletion compares the key's create revision and the claims' values, and cannot hit later ones.
"""

from collections.abc import Callable, Sequence

from govipd.adapters.election.claims import Claims
from govipd.adapters.election.handover import HandoverSender
from govipd.adapters.election.queue import Place
from govipd.adapters.election.session import EtcdSession
from govipd.adapters.election.successors import Successor
from govipd.adapters.etcd.api import Compare, Delete, Get, IfCreateRevision, KeyValue, Operation, Put
from govipd.core.actions import Address
from govipd.core.events import Resigned
from govipd.errors import EtcdRefusedError, EtcdWriteRefusedError
from govipd.keys import GroupKeys
from govipd.runtime.ports import Clock, Sink
from govipd.runtime.step_timing import StepTimings

LEAVE_S = 1.0  # a member that etcd has not let leave for so long stops renewing its lease
_TRIES = 4  # each try learns what changed since the one before


class Resignation:
    """The resignation of one member.

    Args:
        session: the process's lease.
        sink: where Resigned goes.
        clock: CLOCK_BOOTTIME.
        keys: where the group's keys are.
        place: the member's place in the queue.
        claims: the member's claims.
        sender: the member's handovers.
        timings: where the steps of a release are noted.
    """

    def __init__(
        self,
        *,
        session: EtcdSession,
        sink: Sink,
        clock: Clock,
        keys: GroupKeys,
        place: Place,
        claims: Claims,
        sender: HandoverSender,
        timings: StepTimings,
    ) -> None:
        self._session = session
        self._sink = sink
        self._clock = clock
        self._keys = keys
        self._place = place
        self._claims = claims
        self._sender = sender
        self._timings = timings
        self._campaign: int | None = None  # the campaign whose end must be confirmed
        self._since: float | None = None  # when etcd first refused the leaving

    def ask(self, campaign: int) -> None:
        """Ask for the confirmation of this campaign's end. It comes at once where no key and no claim can exist."""
        if self._place.key is not None or self._place.put_unanswered or self._claims.held:
            self._campaign = campaign
        else:
            self._sink(Resigned(campaign))

    def stuck(self) -> bool:
        """Whether etcd has refused the leaving for LEAVE_S. Then the lease must end by itself."""
        return self._since is not None and self._clock.now() >= self._since + LEAVE_S

    def lost(self) -> None:
        """Confirm the end of the campaign: the lease is gone, and every key with it."""
        self._since = None
        self._confirm()

    async def leave(
        self,
        lease: int,
        passed_over: Sequence[KeyValue],
        successor: Successor | None,
        *,
        free: bool,
        in_order: Callable[[Address], bool],
    ) -> None:
        """Delete our key, let go of the claims, write the marker, and confirm.

        A put of our key that got no answer may take effect later; then the contender finds the key, and leaves again.
        Leaving needs no write: where etcd takes none, the key is deleted without a marker. Where etcd refuses the
        deletion, too, the renewer stops, and the key goes with the lease.

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
        if place.key is not None or self._claims.held or place.put_unanswered:
            try:
                await self._release(lease, passed_over, successor, free=free, in_order=in_order)
            except EtcdRefusedError:
                if self._since is None:
                    self._since = self._clock.now()
                raise
            place.key, place.put_unanswered = None, False
        self._since = None
        self._confirm()

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
            there: list[Compare] = [IfCreateRevision(kv.key, kv.create_revision) for kv in keys]
            there = there or [IfCreateRevision(name, 0)]
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
            there += claims.unchanged(held)
            reply = await self._session.txn(there, [*operations, *reads], reads, urgent=True)
            self._timings.mark("deletion confirmed")
            own, *answers = reply.gets
            claims.look(named, answers, lease)
            if reply.succeeded and not claims.held:
                break
            # A claim of ours changed, a call without an answer created it or our key, or a key behind ours is gone.
            marks = marks and own == tuple(keys[:1])
            keys, successor = own, None
        claims.forget()

    def _confirm(self) -> None:
        if self._campaign is not None:
            campaign, self._campaign = self._campaign, None
            self._sink(Resigned(campaign))
