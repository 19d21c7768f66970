"""How a member leaves the queue: its key, its claims and its pact go in one transaction.

What a given-up call does may come at any time later (a proposal that etcd commits after all, a request that TCP
repeats). So each deletion names the very key and the very claims, and cannot hit later ones.
"""

from collections.abc import Callable, Sequence

from govipd.adapters.election.claims import Claims
from govipd.adapters.election.session import Session
from govipd.adapters.election.successors import Follower
from govipd.adapters.etcd.api import Created, Delete, Get, KeyValue, Operation, Put
from govipd.core.actions import Address
from govipd.errors import EtcdWriteRefusedError
from govipd.keys import GroupKeys
from govipd.runtime.step_timing import Timeline

_TRIES = 4  # each learns what changed meanwhile


class Departure:
    """One member's.

    Args:
        session: the member's lease.
        keys: where the group's keys stand.
        claims: the member's claims.
        timeline: where the steps of a release are noted.
    """

    def __init__(self, session: Session, keys: GroupKeys, claims: Claims, timeline: Timeline) -> None:
        self._session = session
        self._keys = keys
        self._claims = claims
        self._timeline = timeline

    async def leave(
        self,
        lease: int,
        keys: Sequence[KeyValue],
        heir: Follower | None,
        *,
        marks: bool,
        in_order: Callable[[Address], bool],
    ) -> None:
        """Delete these keys, the first of which is ours, and our claims. Where etcd takes no writes, leave no mark.

        Args:
            lease: ours.
            keys: our key, and those passed over behind it; without any, only claims are left.
            heir: the member behind these keys, if known. It gets the claims that it wants: it need not write then.
            marks: this member was free to take, and closed its fence: it may say so. Another member's predecessor
                may still answer.
            in_order: the same, for each claim.

        Raises:
            EtcdRefusedError: etcd does not let us.
            EtcdError: not known to be done; may be repeated.
        """
        try:
            await self._delete(lease, keys, heir, marks=marks, in_order=in_order)
        except EtcdWriteRefusedError:
            await self._delete(lease, keys, None, marks=False, in_order=lambda _: False)

    async def _delete(
        self,
        lease: int,
        keys: Sequence[KeyValue],
        heir: Follower | None,
        *,
        marks: bool,
        in_order: Callable[[Address], bool],
    ) -> None:
        """The mark names the last of the keys, which is what the next one in the queue has seen ahead of it."""
        name, claims = self._keys.candidate(lease), self._claims
        for _ in range(_TRIES):
            held = tuple(claims.held)
            named = tuple(dict.fromkeys((*held, *claims.wanted)))
            passed = [a for a in held if heir is not None and heir.wants(a) and in_order(a)]
            there = [Created(kv.key, kv.create_revision) for kv in keys] or [Created(name, 0)]
            operations: list[Operation] = [Delete(kv.key) for kv in keys]
            operations += claims.let_go([a for a in held if a not in passed], in_order)
            if heir is not None:
                there.append(Created(heir.key.key, heir.key.create_revision))
                operations += claims.puts(passed, heir.key.lease, heir.name)
            if keys:
                operations += map(Delete, self._keys.pact(lease))
            if keys and marks:
                operations.append(Put(self._keys.mark, str(keys[-1].create_revision).encode(), 0))
            reads = (Get(name), *claims.reads(named))
            self._timeline.mark("deletion asked")
            reply = await self._session.txn([*there, *claims.unchanged(held)], [*operations, *reads], reads)
            self._timeline.mark("deletion confirmed")
            own, *answers = reply.gets
            claims.look(named, answers, lease)
            if reply.succeeded and not claims.held:
                break
            # A claim of ours changed or came with a call that had no answer, or a key behind ours left.
            keys, heir = keys[:1] if own else (), None
        claims.forget()
