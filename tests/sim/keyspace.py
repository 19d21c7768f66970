"""The replicated data of an etcd cluster: keys, leases, revisions. Time and raft are in `tests.sim.etcd`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from govipd.adapters.etcd.api import (
    Compare,
    Delete,
    Get,
    IfCreateRevision,
    IfOldest,
    IfValue,
    KeyValue,
    Operation,
    Put,
    TxnResult,
)
from govipd.errors import EtcdWriteRefusedError, LeaseNotFoundError


@dataclass(slots=True)
class Lease:
    """A lease, and when it ends."""

    ttl: int
    expires: float  # true time, by the leader's clock


class Watcher(Protocol):
    """Gets every change."""

    gone: Callable[[KeyValue], object]
    joined: Callable[[KeyValue], object]

    def changed(self, key: str) -> None:
        """A key was put or deleted. A call of `gone` (deleted) or `joined` (created) came before."""


@dataclass(slots=True)
class Keyspace:
    """The data of one cluster.

    Attributes:
        id: the cluster's.
        full: the space is used up (alarm NOSPACE): no Put, no new lease.
        refuses_deletions: and no transaction that only deletes either, as etcd 3.4 above its quota.
    """

    id: int
    revision: int
    keys: dict[str, KeyValue]
    leases: dict[int, Lease]
    changed_at: dict[str, int]  # the newest revision that put or deleted a key
    compacted: int = 0
    full: bool = False
    refuses_deletions: bool = False
    watcher: Watcher | None = None

    @classmethod
    def empty(cls, cluster: int) -> "Keyspace":
        """The data of a new cluster."""
        return cls(cluster, 1, {}, {}, {})

    def copy(self) -> "Keyspace":
        """An independent copy."""
        leases = {number: replace(lease) for number, lease in self.leases.items()}
        return replace(self, keys=dict(self.keys), leases=leases, changed_at=dict(self.changed_at), watcher=None)

    def check_space(self, *operations: Operation) -> None:
        """See that the space suffices; a lease needs some, too.

        Raises:
            EtcdWriteRefusedError: it does not.
        """
        writes = not operations or any(isinstance(op, Put) for op in operations)
        deletes = any(isinstance(op, Delete) for op in operations)
        if self.full and (writes or (deletes and self.refuses_deletions)):
            raise EtcdWriteRefusedError("etcdserver: mvcc: database space exceeded")

    def txn(
        self, compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation], term: int
    ) -> TxnResult:
        """One transaction.

        Raises:
            LeaseNotFoundError: a Put names a lease that does not exist.
            EtcdWriteRefusedError: there is no space; what counts is what it might write, not what it would.
        """
        if then or otherwise:
            self.check_space(*then, *otherwise)
        held = all(map(self._holds, compare))
        operations = then if held else otherwise
        for op in operations:
            if isinstance(op, Put) and op.lease and op.lease not in self.leases:
                raise LeaseNotFoundError("etcdserver: requested lease not found")
        if any(isinstance(op, Put) or (isinstance(op, Delete) and op.key in self.keys) for op in operations):
            self.revision += 1
        gets = []
        for op in operations:
            match op:
                case Get():
                    gets.append(self.get(op))
                case Put():
                    self._put(op)
                case Delete():
                    self.delete(op.key)
        return TxnResult(held, self.revision, tuple(gets), term)

    def _holds(self, compare: Compare) -> bool:
        match compare:
            case IfCreateRevision(key, revision):
                return self._created(key) == revision
            case IfValue(key, value):
                return key in self.keys and self.keys[key].value == value
            case IfOldest(prefix, revision):
                return all(kv.create_revision >= revision for kv in self.get(Get(prefix, prefix=True)))

    def _created(self, key: str) -> int:
        kv = self.keys.get(key)
        return 0 if kv is None else kv.create_revision

    def get(self, get: Get) -> tuple[KeyValue, ...]:
        """The result of a Get."""
        found = [
            kv
            for kv in self.keys.values()
            if (kv.key.startswith(get.key) if get.prefix else kv.key == get.key)
            and (get.max_create_revision <= 0 or kv.create_revision <= get.max_create_revision)
        ]
        return tuple(sorted(found, key=lambda kv: kv.key))

    def _put(self, put: Put) -> None:
        created = self._created(put.key)
        kv = self.keys[put.key] = KeyValue(put.key, put.value, created or self.revision, put.lease)
        if not created and self.watcher is not None:
            self.watcher.joined(kv)
        self._change(put.key)

    def delete(self, key: str) -> None:
        """Delete a key, if it is there."""
        if key in self.keys:
            if self.watcher is not None:
                self.watcher.gone(self.keys[key])
            del self.keys[key]
            self._change(key)

    def _change(self, key: str) -> None:
        self.changed_at[key] = self.revision
        if self.watcher is not None:
            self.watcher.changed(key)

    def revoke(self, lease: int) -> None:
        """Delete a lease and its keys.

        Raises:
            LeaseNotFoundError: there is none.
        """
        if self.leases.pop(lease, None) is None:
            raise LeaseNotFoundError("etcdserver: requested lease not found")
        self.revision += 1
        for key in [kv.key for kv in self.keys.values() if kv.lease == lease]:
            self.delete(key)
