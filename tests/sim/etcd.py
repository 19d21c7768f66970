"""etcd as its clients meet it: one linearizable store with revisions, leases and watches, behind three members.

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
from dataclasses import dataclass, field
from random import Random

from govipd.adapters.store import (
    Compare,
    Created,
    Delete,
    Equals,
    Get,
    KeyValue,
    Oldest,
    Operation,
    Put,
    Renewal,
    TxnResult,
)
from govipd.errors import EtcdUnavailableError, LeaseNotFoundError, WatchLostError
from tests.sim.clockwork import World
from tests.sim.network import Network

MEMBERS = 3
MIN_TTL = 2  # etcd's (election time-out / heartbeat) rounding: 2 s at default settings
SCAN_S = 0.5
ELECTION_S = 1.0  # the election time-out; randomized up to twice that
_COMMIT_S = (0.0005, 0.003)
_HEARTBEAT_S = 0.1

Reply = Callable[[object], None]  # a value, or an exception


@dataclass(slots=True)
class _Lease:
    ttl: int
    expires: float  # true time, by the leader's clock


@dataclass(slots=True)
class _Member:
    rate: float = 1.0
    up: bool = True
    paused: bool = False
    leader: int | None = None  # whom it takes for the leader
    term: int = 1  # and in which term
    lag: float = 0.0  # seconds by which its watches are late
    leases: frozenset[int] = frozenset()  # of a leader that was deposed: what it still believes in
    waiting: list[Callable[[], None]] = field(default_factory=list)  # while it is paused


@dataclass(slots=True)
class _Watch:
    member: int
    key: str
    revision: int
    reply: Reply


class Cluster:
    """Three members, one on each of hosts 0 to 2."""

    def __init__(self, world: World, network: Network, random: Random, rates: Sequence[float]) -> None:
        self.term = 1
        self.leader: int | None = random.randrange(MEMBERS)
        self.revision = 1
        self.keys: dict[str, KeyValue] = {}
        self.leases: dict[int, _Lease] = {}
        self.owners: dict[int, int] = {}  # lease: the host it was granted to
        self.members = [_Member(rate=rate, leader=self.leader) for rate in rates]
        self.cut_off: int | None = None  # a member whose links to the others, but not to clients, are cut
        self._world = world
        self._network = network
        self._random = random
        self._compacted = 0
        self._changed_at: dict[str, int] = {}  # the newest revision that put or deleted a key
        self._watches: list[_Watch] = []
        self._proposals: list[tuple[int, Callable[[], None]]] = []  # at a leader without a majority: term, work
        self._election_due = False
        self._next_lease = 0x694D_0000_0000_0000
        self.lost_at: float | None = None  # since when no leader has had a majority
        self.lost: Callable[[float], object] = lambda _when: None
        self.gone: Callable[[KeyValue], object] = lambda _kv: None  # a key is being deleted
        self.joined: Callable[[KeyValue], object] = lambda _kv: None  # a key was created
        world.after(SCAN_S * random.random(), self._scan)

    # What a client asks; `reply` is called once, or never

    def grant(self, member: int, ttl: int, host: int, reply: Reply) -> None:
        """LeaseGrant; `host` is for those who look on."""

        def work() -> tuple[int, float]:
            self._next_lease += self._random.randrange(1, 1 << 20)
            self.owners[self._next_lease] = host
            granted = max(ttl, MIN_TTL)
            self.leases[self._next_lease] = _Lease(granted, self._expiry(granted))
            return self._next_lease, float(granted)

        self._propose(member, work, reply)

    def revoke(self, member: int, lease: int, reply: Reply) -> None:
        """LeaseRevoke."""
        self._propose(member, lambda: self._revoke(lease), reply)

    def txn(
        self, member: int, compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation],
        reply: Reply,
    ) -> None:  # fmt: skip
        """Txn, linearizable also where it only reads."""
        self._propose(member, lambda: self._txn(compare, then, otherwise), reply)

    def renew(self, member: int, lease: int, reply: Reply) -> None:
        """LeaseKeepAlive: forwarded to whom the member takes for the leader, which asks nobody."""
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

    def watch(self, member: int, key: str, revision: int, reply: Reply) -> None:
        """Watch for deletions from a revision on; replies with the first."""
        if revision <= self._compacted:
            reply(WatchLostError(f"compacted at {self._compacted}"))
        elif self._changed_at.get(key, 0) >= revision:
            # "unsynced": served by a loop that runs every 100 ms
            self._world.after(0.1 * self._random.random() + self.members[member].lag, reply, None)
        else:
            self._watches.append(_Watch(member, key, revision, reply))

    def ask(self, member: int, work: Callable[[], None]) -> None:
        """A request has arrived at a member."""
        asked = self.members[member]
        if asked.paused:
            asked.waiting.append(work)
        elif asked.up:
            work()

    # What happens to it

    def fail(self, member: int) -> None:
        """Kill a member."""
        failed = self.members[member]
        failed.up, failed.leader, failed.leases = False, None, frozenset()
        failed.waiting.clear()
        if self.leader == member:
            self.leader = None
            self._proposals.clear()
        for watch in [w for w in self._watches if w.member == member]:
            self._watches.remove(watch)
            watch.reply(WatchLostError("connection reset"))
        self.look()

    def start(self, member: int) -> None:
        """Start a member again."""
        self.members[member].up = True
        self.look()

    def pause(self, member: int) -> None:
        """Stop a member's process."""
        self.members[member].paused = True
        self.look()

    def resume(self, member: int) -> None:
        """Let it go on: it answers what has waited before it hears any news."""
        resumed = self.members[member]
        resumed.paused = False
        waiting, resumed.waiting = resumed.waiting, []
        for work in waiting:
            work()
        self.look()

    def depose(self) -> None:
        """Another member becomes the leader, as when a heartbeat was late."""
        able = [m for m in range(MEMBERS) if m != self.leader and self._has_majority(m)]
        if able:
            self._elect(self._random.choice(able))

    def lead(self, member: int) -> None:
        """This member becomes the leader."""
        if self.leader != member and self._has_majority(member):
            self._elect(member)

    def revoke_one(self, place: float) -> None:
        """A deposed leader's revocation of a live lease is committed (etcd #15247); `place` in [0, 1) chooses it."""
        leases = sorted(self.leases)
        if leases and self.leader is not None and self._has_majority(self.leader):
            self._revoke(leases[int(place * len(leases))])

    def delete_one(self, place: float, prefixes: tuple[str, ...]) -> None:
        """Somebody deletes a key of the election."""
        keys = sorted(key for key in self.keys if key.startswith(prefixes))
        if keys and self.leader is not None:
            self.revision += 1
            self._delete(keys[int(place * len(keys))])

    def compact(self) -> None:
        """Forget every revision before the present one."""
        self._compacted = self.revision

    def break_watches(self) -> None:
        """Every watch stream ends."""
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.reply(WatchLostError("watch stream ended"))

    def lose_watches(self) -> None:
        """Every watch stream says nothing any more, and does not end."""
        self._watches.clear()

    def look(self) -> None:
        """The topology has changed: who can lead, and who learns of it."""
        leader = self.leader
        if leader is not None and self._has_majority(leader):
            self.lost_at = None
        elif self.lost_at is None:
            self.lost_at = self._world.now
            self.lost(self._world.now)
        if leader is not None and self._has_majority(leader):
            self._flush()
            self._world.after(_HEARTBEAT_S * self._random.random(), self._spread, self.term)
            return
        if leader is not None and self.members[leader].leader == leader and self.members[leader].up:
            self._world.after(self._time_out(), self._step_down, leader, self.term)
        if not self._election_due:
            self._election_due = True
            self._world.after(self._time_out(), self._election)

    def _election(self) -> None:
        self._election_due = False
        if self.leader is not None and self._has_majority(self.leader):
            return
        able = [m for m in range(MEMBERS) if self._has_majority(m)]
        if able:
            self._elect(self._random.choice(able))
        else:
            self._election_due = True
            self._world.after(self._time_out(), self._election)

    def _time_out(self) -> float:
        """An election time-out: the extremes are where races are."""
        return ELECTION_S * self._random.choice((1.0, 2.0, self._random.uniform(1.0, 2.0)))

    def _elect(self, member: int) -> None:
        before = self.leader
        if before is not None:
            self.members[before].leases = frozenset(self.leases)
        self.term += 1
        self.leader = member
        self.lost_at = None
        self._proposals.clear()
        for lease in self.leases.values():  # lessor.Promote
            lease.expires = self._expiry(lease.ttl + ELECTION_S)
        chief = self.members[member]
        chief.leader, chief.term, chief.leases = member, self.term, frozenset()
        self._world.note("etcd", f"member {member} leads, term {self.term}")
        self._spread(self.term)

    def _spread(self, term: int) -> None:
        """The leader's heartbeats reach whom they reach."""
        if term != self.term or self.leader is None:
            return
        for index, member in enumerate(self.members):
            if index != self.leader and self._reaches(self.leader, index):
                member.leader, member.term = self.leader, term
                member.leases = frozenset()
        if self._has_majority(self.leader):
            self._flush()

    def _step_down(self, member: int, term: int) -> None:
        """CheckQuorum: a leader that has not heard of a majority."""
        chief = self.members[member]
        if chief.leader == member and chief.term == term and not chief.paused and not self._has_majority(member):
            chief.leader = None
            chief.leases = frozenset()
            if self.leader == member:
                self.leader = None
                self._proposals.clear()

    def _reaches(self, one: int, other: int) -> bool:
        first, second = self.members[one], self.members[other]
        usable = first.up and second.up and not first.paused and not second.paused
        apart = one != other and self.cut_off in (one, other)
        return usable and not apart and self._network.linked(one, other)

    def _has_majority(self, member: int) -> bool:
        return sum(self._reaches(member, other) for other in range(MEMBERS)) * 2 > MEMBERS

    def _expiry(self, ttl: float) -> float:
        rate = 1.0 if self.leader is None else self.members[self.leader].rate
        return self._world.now + ttl / rate

    # The log

    def _propose(self, member: int, work: Callable[[], object], reply: Reply) -> None:
        """Commit if a majority can be had; else nobody answers, but a leader may commit it later."""
        asked, leader = self.members[member], self.leader
        if leader is None or asked.leader != leader or asked.term != self.term or not self._reaches(member, leader):
            return

        def commit() -> None:
            try:
                result = work()
            except LeaseNotFoundError as e:
                result = e
            self._world.after(self._random.uniform(*_COMMIT_S), reply, result)

        if self._has_majority(leader):
            commit()
        else:
            self._proposals.append((self.term, commit))

    def _flush(self) -> None:
        """A majority is back: what waited is committed, and watches catch up."""
        proposals, self._proposals = self._proposals, []
        for term, commit in proposals:
            if term == self.term:
                commit()
        for watch in [w for w in self._watches if self._changed_at.get(w.key, 0) >= w.revision]:
            if self._current(watch.member):
                self._watches.remove(watch)
                self._world.after(self.members[watch.member].lag, watch.reply, None)

    def _current(self, member: int) -> bool:
        """Whether a member applies what is committed."""
        return self.leader is not None and self._reaches(self.leader, member)

    def _txn(
        self, compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation]
    ) -> TxnResult:
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
                    gets.append(self._get(op))
                case Put():
                    created = self._created(op.key)
                    kv = self.keys[op.key] = KeyValue(op.key, op.value, created or self.revision, op.lease)
                    if not created:
                        self.joined(kv)
                    self._watched(op.key)
                case Delete():
                    self._delete(op.key)
        return TxnResult(held, self.revision, tuple(gets), self.term)

    def _holds(self, compare: Compare) -> bool:
        match compare:
            case Created(key, revision):
                return self._created(key) == revision
            case Equals(key, value):
                return key in self.keys and self.keys[key].value == value
            case Oldest(prefix, revision):
                return all(kv.create_revision >= revision for kv in self._get(Get(prefix, prefix=True)))

    def _created(self, key: str) -> int:
        kv = self.keys.get(key)
        return 0 if kv is None else kv.create_revision

    def _get(self, get: Get) -> tuple[KeyValue, ...]:
        found = [
            kv
            for kv in self.keys.values()
            if (kv.key.startswith(get.key) if get.prefix else kv.key == get.key)
            and (get.max_create_revision <= 0 or kv.create_revision <= get.max_create_revision)
        ]
        if get.newest:
            return (max(found, key=lambda kv: kv.create_revision),) if found else ()
        return tuple(sorted(found, key=lambda kv: kv.key))

    def _delete(self, key: str) -> None:
        if key not in self.keys:
            return
        self.gone(self.keys[key])
        del self.keys[key]
        self._watched(key)

    def _watched(self, key: str) -> None:
        """A key was put or deleted."""
        self._changed_at[key] = self.revision
        for watch in [w for w in self._watches if w.key == key and self._current(w.member)]:
            self._watches.remove(watch)
            self._world.after(self.members[watch.member].lag, watch.reply, None)

    def _revoke(self, lease: int) -> None:
        if self.leases.pop(lease, None) is None:
            raise LeaseNotFoundError("etcdserver: requested lease not found")
        self.revision += 1
        for key in [kv.key for kv in self.keys.values() if kv.lease == lease]:
            self._delete(key)

    def _scan(self) -> None:
        """Revoke what has expired; the leader does it, through the log."""
        self._world.after(SCAN_S * self._random.random(), self._scan)  # at most; often sooner
        leader = self.leader
        if leader is None or not self._has_majority(leader) or self.members[leader].leader != leader:
            return
        for lease in [i for i, state in self.leases.items() if state.expires <= self._world.now]:
            self._world.note("etcd", "a lease has expired")
            self._revoke(lease)
