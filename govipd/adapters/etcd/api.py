"""The part of etcd that the election needs, as a protocol and its records.

`adapters.etcd.client` implements the protocol; so does the simulation. Every call is one attempt with a deadline: the
call returns, or raises an EtcdError. Only the caller tries again, because it knows whether repeating is safe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as etcd returns it. Revisions and lease ids are etcd's 64-bit numbers; lease 0: no lease."""

    key: str
    value: bytes
    create_revision: int
    lease: int


@dataclass(frozen=True, slots=True)
class Get:
    """Read one key or, with `prefix`, all keys that begin with `key`.

    `max_create_revision` 0: no limit.
    """

    key: str
    prefix: bool = False
    max_create_revision: int = 0


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key, attached to a lease: the key lives as long as the lease; with lease 0, until it is deleted."""

    key: str
    value: bytes
    lease: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one key; deleting an absent key succeeds."""

    key: str


@dataclass(frozen=True, slots=True)
class IfCreateRevision:
    """A transaction's condition: the key's create revision; 0 means that the key does not exist."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class IfOldest:
    """A transaction's condition: no key below the prefix has a create revision lower than this one."""

    prefix: str
    revision: int


@dataclass(frozen=True, slots=True)
class IfValue:
    """A transaction's condition: the key exists and has this value."""

    key: str
    value: bytes


Operation = Get | Put | Delete
Compare = IfCreateRevision | IfOldest | IfValue


@dataclass(frozen=True, slots=True)
class TxnResult:
    """Whether the conditions held, the store's revision, and what each Get of the transaction returned, in order.

    `term`: the raft term that the answering etcd member knew; see Renewal.
    """

    succeeded: bool
    revision: int
    gets: tuple[tuple[KeyValue, ...], ...]
    term: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """A lease's granted TTL in seconds, and the raft term in which the renewing etcd member took itself for the leader.

    A renewal alone proves nothing: an etcd leader that was cut off still renews leases for one to two election
    time-outs. Meanwhile the other etcd members elect another leader, for which this renewal never happened (LeaseRenew
    in etcd's server/etcdserver/v3_server.go asks no other member). A linearizable transaction that *began later* and
    names the same term shows that the leader of that term still had a majority: then the renewal counts.
    """

    ttl: float
    term: int


class Store(Protocol):
    """A client of one etcd cluster. Every call may raise EtcdUnavailableError or EtcdRefusedError."""

    async def grant(self, ttl: int) -> tuple[int, float]:
        """Get a new lease. Returns the id that etcd chose, and the granted TTL in seconds."""

    async def renew(self, lease: int) -> Renewal:
        """Renew a lease.

        Raises:
            LeaseNotFoundError: the lease does not exist (any more).
        """

    async def revoke(self, lease: int) -> bool:
        """End a lease and delete its keys. Returns False where the lease does not exist, which is no error."""

    async def attached(self, lease: int) -> Sequence[str]:
        """The keys that are attached to a lease, as etcd's leader knows them; empty where the lease does not exist."""

    async def txn(
        self, compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TxnResult:
        """One linearizable transaction.

        Raises:
            LeaseNotFoundError: a Put names a lease that does not exist.
            EtcdWriteRefusedError: etcd takes no writes now; nothing was done.
        """

    async def close(self) -> None:
        """Close the connection. The next call connects again."""

    async def wait_changed(self, key: str, from_revision: int) -> None:
        """Wait, without a time limit, for a change of `key` (a put or a deletion) at or after `from_revision`.

        Raises:
            WatchLostError: the watch ended without an answer.
        """
