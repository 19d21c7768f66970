"""etcd as its clients see it: one linearizable store with revisions, leases and watches, behind three members.

Modelled after etcd 3.4 and 3.5 (server/etcdserver/v3_server.go, server/lease/lessor.go, raft's CheckQuorum):

- writes and linearizable reads need a leader with a majority, and a member that knows it;
- a keep-alive needs only what the asked member takes for the leader, and that this one takes itself for it: a
  leader that was cut off confirms leases until it steps down, one to two election time-outs later, while the
  others may have elected another already;
- a new leader gives every lease its full TTL anew, and an election time-out more (lessor.Promote);
- leases are expired by a scan twice a second, on the leader's clock;
- a watch is served by one member: late when that member lags, and refused when its revision is compacted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from govipd.adapters.etcd.api import Compare, KeyValue, Operation, Renewal
from govipd.errors import EtcdError, EtcdUnavailableError, LeaseNotFoundError, WatchLostError
from tests.sim.clockwork import World
from tests.sim.keyspace import Keyspace, Lease
from tests.sim.network import Network
from tests.sim.raft import ELECTION_S, Raft

MIN_TTL = 2  # etcd's (election time-out / heartbeat) rounding: 2 s at default settings
SCAN_S = 0.5
_COMMIT_S = (0.0005, 0.003)

Reply = Callable[[object], None]  # a value, or an exception


@dataclass(slots=True)
class _Watch:
    member: int
    key: str
    revision: int
    reply: Reply


class Cluster(Raft):
    """Three members, one on each of hosts 0 to 2."""

    def __init__(
        self, world: World, network: Network, random: Random, rates: Sequence[float], cluster: int = 1
    ) -> None:
        super().__init__(world, network, random, rates)
        self.space = Keyspace.empty(cluster)
        self.strays: dict[int, Cluster] = {}  # which cluster answers at a member's address, where it is another
        self.unwritable: set[int] = set()  # hosts whose user may not write
        self.owners: dict[int, int] = {}  # lease: the host it was granted to
        self._watches: list[_Watch] = []
        self._proposals: list[tuple[int, Callable[[], None]]] = []  # at a leader without a majority: term, work
        self._next_lease = 0x694D_0000_0000_0000
        self.gone: Callable[[KeyValue], object] = lambda _kv: None  # see keyspace.Watcher
        self.joined: Callable[[KeyValue], object] = lambda _kv: None
        self._snapshots: list[Keyspace] = []
        self.adopt(self.space)
        world.after(SCAN_S * random.random(), self._scan)

    @property
    def keys(self) -> dict[str, KeyValue]:
        """All keys, by name."""
        return self.space.keys

    @property
    def leases(self) -> dict[int, Lease]:
        """All leases, by id."""
        return self.space.leases

    # What a client asks; `reply` is called once, or never

    def grant(self, member: int, ttl: int, host: int, reply: Reply) -> None:
        """LeaseGrant. `host` serves the oracle only."""

        def work() -> tuple[int, float]:
            self.space.check_space()
            self._next_lease += self._random.randrange(1, 1 << 20)
            self.owners[self._next_lease] = host
            granted = max(ttl, MIN_TTL)
            self.leases[self._next_lease] = Lease(granted, self._expiry(granted))
            return self._next_lease, float(granted)

        self._propose(member, work, reply)

    def revoke(self, member: int, lease: int, reply: Reply) -> None:
        """LeaseRevoke."""
        self._propose(member, lambda: self.space.revoke(lease), reply)

    def txn(
        self, member: int, compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation],
        reply: Reply,
    ) -> None:  # fmt: skip
        """Txn; linearizable, also if it only reads."""
        self._propose(member, lambda: self.space.txn(compare, then, otherwise, self.term), reply)

    def renew(self, member: int, lease: int, reply: Reply) -> None:
        """LeaseKeepAlive: forwarded to the member's supposed leader, which asks no other member."""
        asked = self.members[member]
        leader, term = asked.leader, asked.term
        if leader is None:
            reply(EtcdUnavailableError("etcdserver: no leader"))
            return
        chief = self.members[leader]
        if not self._reaches(member, leader) or chief.leader != leader:
            return
        known = self.leases if leader == self.leader else chief.leases
        if lease not in known:
            reply(LeaseNotFoundError("etcd does not know the lease"))
            return
        ttl = self.leases[lease].ttl if lease in self.leases else MIN_TTL
        if leader == self.leader:
            self.leases[lease].expires = self._expiry(ttl)
        reply(Renewal(float(ttl), term))

    def attached(self, member: int, lease: int, reply: Reply) -> None:
        """LeaseTimeToLive with the keys: answered by the leader that the member knows, which asks no other member."""
        leader = self.members[member].leader
        if leader is None:
            reply(EtcdUnavailableError("etcdserver: no leader"))
        elif self._reaches(member, leader) and self.members[leader].leader == leader:
            keys = self.keys.values() if leader == self.leader else ()
            reply(tuple(kv.key for kv in keys if kv.lease == lease))

    def watch(self, member: int, key: str, revision: int, reply: Reply) -> None:
        """Watch for deletions from a revision on. The reply is the first one."""
        if revision <= self.space.compacted:
            reply(WatchLostError(f"compacted at {self.space.compacted}"))
        elif self.space.changed_at.get(key, 0) >= revision:
            # "unsynced": served by a loop that runs every 100 ms
            self._world.after(0.1 * self._random.random() + self.members[member].lag, reply, None)
        else:
            self._watches.append(_Watch(member, key, revision, reply))

    # What happens to it

    def snapshot(self) -> None:
        """Keep a copy of the present data."""
        self._snapshots.append(self.space.copy())

    def rebuild(self, *, cluster: int, place: float | None = None) -> None:
        """Replace the data by none or by a snapshot. A snapshot's leases have their whole TTL again.

        Raft begins anew, too. `cluster` is its id: with the same token and members, etcd makes the same one again.
        `place` in [0, 1) chooses the snapshot.
        """
        space = Keyspace.empty(cluster)
        if place is not None and self._snapshots:
            space = self._snapshots[int(place * len(self._snapshots))].copy()
            space.id = cluster
        self.break_watches()
        self._proposals.clear()
        self.term = self._random.choice((1, self.term - 1))
        for member in self.members:
            member.leases = frozenset()
        self.adopt(space)
        self._world.note("etcd", f"other data, at revision {space.revision}", "other data")

    def adopt(self, space: Keyspace) -> None:
        """Replace the data by these."""
        self.space.watcher = None
        self.space = space
        space.watcher = self

    def revoke_one(self, place: float) -> None:
        """A deposed leader's revocation of a live lease is committed (etcd #15247); `place` in [0, 1) chooses it."""
        leases = sorted(self.leases)
        if leases and self.leader is not None and self._has_majority(self.leader):
            self.space.revoke(leases[int(place * len(leases))])

    def delete_one(self, place: float, prefixes: tuple[str, ...]) -> None:
        """An operator deletes a key of the election."""
        keys = sorted(key for key in self.keys if key.startswith(prefixes))
        if keys and self.leader is not None:
            self.space.revision += 1
            self.space.delete(keys[int(place * len(keys))])

    def compact(self) -> None:
        """Forget every revision before the present one."""
        self.space.compacted = self.space.revision

    def break_watches(self) -> None:
        """End every watch stream."""
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.reply(WatchLostError("watch stream ended"))

    def lose_watches(self) -> None:
        """Let every watch stream stay open, but silent."""
        self._watches.clear()

    # The log

    def _propose(self, member: int, work: Callable[[], object], reply: Reply) -> None:
        """Commit if a majority can be reached. Otherwise no member answers, but a leader may commit it later."""
        asked, leader = self.members[member], self.leader
        if leader is None or asked.leader != leader or asked.term != self.term or not self._reaches(member, leader):
            return

        def commit() -> None:
            try:
                result = work()
            except EtcdError as e:
                result = e
            self._world.after(self._random.uniform(*_COMMIT_S), reply, result)

        if self._has_majority(leader):
            commit()
        else:
            self._proposals.append((self.term, commit))

    def _deposed(self, before: int | None) -> None:
        """The deposed leader still believes in its leases."""
        if before is not None:
            self.members[before].leases = frozenset(self.leases)

    def _elected(self) -> None:
        """The new leader lacks the old one's uncommitted log, and gives every lease its whole TTL (lessor.Promote)."""
        self._resigned()
        for lease in self.leases.values():
            lease.expires = self._expiry(lease.ttl + ELECTION_S)

    def _resigned(self) -> None:
        self._proposals.clear()

    def _failed(self, member: int) -> None:
        for watch in [w for w in self._watches if w.member == member]:
            self._watches.remove(watch)
            watch.reply(WatchLostError("connection reset"))

    def _agreed(self) -> None:
        """A majority is back: waiting proposals are committed, and watches catch up."""
        proposals, self._proposals = self._proposals, []
        for term, commit in proposals:
            if term == self.term:
                commit()
        for watch in [w for w in self._watches if self.space.changed_at.get(w.key, 0) >= w.revision]:
            if self._current(watch.member):
                self._watches.remove(watch)
                self._world.after(self.members[watch.member].lag, watch.reply, None)

    def _current(self, member: int) -> bool:
        """Whether a member applies committed entries."""
        return self.leader is not None and self._reaches(self.leader, member)

    def changed(self, key: str) -> None:
        """See keyspace.Watcher."""
        for watch in [w for w in self._watches if w.key == key and self._current(w.member)]:
            self._watches.remove(watch)
            self._world.after(self.members[watch.member].lag, watch.reply, None)

    def _expiry(self, ttl: float) -> float:
        rate = 1.0 if self.leader is None else self.members[self.leader].rate
        return self._world.now + ttl / rate

    def _scan(self) -> None:
        """Let the leader revoke expired leases, through the log."""
        self._world.after(SCAN_S * self._random.random(), self._scan)  # at most; often sooner
        leader = self.leader
        if leader is None or not self._has_majority(leader) or self.members[leader].leader != leader:
            return
        for lease in [i for i, state in self.leases.items() if state.expires <= self._world.now]:
            self._world.note("etcd", "a lease has expired", "lease expired")
            self.space.revoke(lease)
