"""Deletes the keys under a process's lease that belong to none of the process's groups.

A group that is not configured any more leaves its record behind. After a crash, it also leaves its place in the queue
and its claims. Other groups keep the lease alive, so these keys would stay, and hold up other members for ever.
"""

from collections.abc import Sequence
from typing import Protocol

from govipd.adapters.election.reads import GETS_MAX
from govipd.adapters.etcd.api import Delete, Get, IfCreateRevision, IfValue, KeyValue, Store


class Owner(Protocol):
    """One group's candidacy, as an owner of keys."""

    def owns(self, kv: KeyValue) -> bool:
        """Whether this key is the candidacy's, or may become so."""


async def sweep(store: Store, lease: int, owners: Sequence[Owner]) -> None:
    """Delete each key that is attached to the lease and has no owner.

    Args:
        store: the etcd client.
        lease: the process's lease.
        owners: the candidacies of the process; looked at after the keys were read.

    Raises:
        EtcdError: the outcome is not known; may be repeated.
    """
    attached = await store.attached(lease)
    for first in range(0, len(attached), GETS_MAX):
        found = (await store.txn((), tuple(map(Get, attached[first : first + GETS_MAX])))).gets
        for kv in (answer[0] for answer in found if answer and answer[0].lease == lease):
            if not any(owner.owns(kv) for owner in owners):
                unchanged = IfCreateRevision(kv.key, kv.create_revision), IfValue(kv.key, kv.value)
                await store.txn(unchanged, (Delete(kv.key),))
