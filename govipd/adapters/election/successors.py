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
        """The member's name."""
        return self.key.value.decode(errors="replace")

    def wants(self, address: Address) -> bool:
        """Whether the member's file has the address."""
        return str(address.ip) in self.addresses


class Successors:
    """The members behind our key, as last read.

    A key may be passed over (deleted) only if its owner proves its place before it activates. govipd does so, and
    publishes a record under the same lease. Another program may take the deletion for its turn (clientv3/concurrency
    does). So the list of members ends at the first key without such a record.

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
        """Note the keys behind ours in a queue that was read."""
        ours = 0 if own is None else own.create_revision
        self._behind = sorted((kv for kv in queue if kv.create_revision > ours), key=lambda kv: kv.create_revision)

    def names(self) -> Sequence[str]:
        """The members, the next first."""
        return [member.name for member in self._members()]

    def until(self, name: str) -> tuple[tuple[KeyValue, ...], Successor | None]:
        """The keys between ours and the key of the member `name`, and that member. "" or an unknown name: the next one.

        A member may have left since look(). So the caller must delete the keys by their create revisions, all or none.
        """
        members = self._members()
        names = [member.name for member in members]
        at = names.index(name) if name in names else 0
        return tuple(member.key for member in members[:at]), next(iter(members[at:]), None)

    def _members(self) -> Sequence[Successor]:
        addresses = self._membership.addresses
        known = itertools.takewhile(lambda kv: kv.lease in addresses, self._behind)
        return [Successor(kv, addresses[kv.lease]) for kv in known]
