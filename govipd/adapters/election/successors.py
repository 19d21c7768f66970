"""The members behind us in the queue."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from govipd.adapters.election.membership import Membership
from govipd.adapters.etcd.api import Get, KeyValue, Store
from govipd.core.events import Address


@dataclass(frozen=True, slots=True)
class Successor:
    """A member behind us: its key, and the IP addresses in its file as it has published them."""

    key: KeyValue
    addresses: frozenset[str]

    @property
    def name(self) -> str:
        """The member."""
        return self.key.value.decode(errors="replace")

    def wants(self, address: Address) -> bool:
        """Whether its file has the address."""
        return str(address.ip) in self.addresses


class Successors:
    """The members behind one key, as last looked at.

    A key may be deleted only where its owner proves its place before it takes, as govipd does and publishes a
    record under the same lease. Others may take the deletion for their turn (clientv3/concurrency does). So what
    counts ends at the first candidate that is none of ours.

    Args:
        store: the etcd client.
        queue: prefix of the election's keys.
        membership: the members' records.
    """

    def __init__(self, store: Store, queue: str, membership: Membership) -> None:
        self._store = store
        self._queue = queue
        self._membership = membership
        self._behind: Sequence[KeyValue] = ()

    async def look(self, own: KeyValue | None) -> None:
        """Find the members' keys behind ours, and their records.

        Raises:
            EtcdError: etcd did not answer.
        """
        gets = (Get(self._queue, prefix=True), self._membership.all_records())
        queue, records = (await self._store.txn((), gets)).gets
        self._membership.take_in(records)
        self.take_in(queue, own)

    def take_in(self, queue: Iterable[KeyValue], own: KeyValue | None) -> None:
        """Of a queue that was read, take the keys behind ours."""
        ours = 0 if own is None else own.create_revision
        self._behind = sorted((kv for kv in queue if kv.create_revision > ours), key=lambda kv: kv.create_revision)

    def names(self) -> Sequence[str]:
        """The members, the next first."""
        return [member.name for member in self._members()]

    def until(self, name: str) -> tuple[tuple[KeyValue, ...], Successor | None]:
        """The keys between ours and that member's, and the member. "", or a name that is not there: the next member.

        One may have left since look(): keys are to be deleted by their create revisions, all or none.
        """
        members = self._members()
        names = [member.name for member in members]
        at = names.index(name) if name in names else 0
        return tuple(member.key for member in members[:at]), next(iter(members[at:]), None)

    def _members(self) -> Sequence[Successor]:
        addresses = self._membership.addresses
        known = itertools.takewhile(lambda kv: kv.lease in addresses, self._behind)
        return [Successor(kv, addresses[kv.lease]) for kv in known]
