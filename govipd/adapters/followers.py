"""Who stands in the queue behind us."""

import itertools
from collections.abc import Sequence

from govipd.adapters.membership import addresses_of
from govipd.adapters.store import Get, KeyValue, Store


class Followers:
    """The members behind one key, as last looked at.

    Args:
        store: the etcd client.
        queue: prefix of the election's keys.
        records: reads every member's record.
    """

    def __init__(self, store: Store, queue: str, records: Get) -> None:
        self._store = store
        self._queue = queue
        self._records = records
        self._keys: tuple[KeyValue, ...] = ()
        self._addresses: dict[int, frozenset[str]] = {}  # of each member's file, by its lease

    async def look(self, own: KeyValue | None) -> None:
        """Find the members' keys behind ours, in order, up to the first candidate that is none of ours.

        A key may be deleted only where its owner proves its place before it takes, as govipd does and publishes a
        record under the same lease. Others may take the deletion for their turn (clientv3/concurrency does).

        Raises:
            EtcdError: etcd did not answer.
        """
        queue, records = (await self._store.txn((), (Get(self._queue, prefix=True), self._records))).gets
        self._addresses = {kv.lease: addresses_of(kv) for kv in records}
        ours = 0 if own is None else own.create_revision
        behind = sorted((kv for kv in queue if kv.create_revision > ours), key=lambda kv: kv.create_revision)
        self._keys = tuple(itertools.takewhile(lambda kv: kv.lease in self._addresses, behind))

    def names(self) -> Sequence[str]:
        """The members, the next first."""
        return [kv.value.decode(errors="replace") for kv in self._keys]

    def addresses(self, key: KeyValue) -> frozenset[str]:
        """What a member's file has, as it has published it."""
        return self._addresses.get(key.lease, frozenset())

    def until(self, name: str) -> tuple[tuple[KeyValue, ...], KeyValue | None]:
        """The keys between ours and that member's, and its own; "", or one that is not there, is whoever is next.

        One may have left since look(): keys are to be deleted by their create revisions, all or none.
        """
        names = [kv.value for kv in self._keys]
        at = names.index(name.encode()) if name.encode() in names else 0
        return self._keys[:at], next(iter(self._keys[at:]), None)
