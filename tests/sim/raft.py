"""Raft as etcd's clients see it: who leads, which members know, and how long a change takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from tests.sim.clockwork import World
from tests.sim.network import Network

MEMBERS = 3
ELECTION_S = 1.0  # the election time-out; randomized up to twice that
_HEARTBEAT_S = 0.1


@dataclass(slots=True)
class Member:
    """One of the three members."""

    rate: float = 1.0
    up: bool = True
    paused: bool = False
    leader: int | None = None  # the member that it takes for the leader
    term: int = 1  # and in which term
    lag: float = 0.0  # seconds by which its watches are late
    leases: frozenset[int] = frozenset()  # of a leader that was deposed: what it still believes in
    waiting: list[Callable[[], None]] = field(default_factory=list)  # while it is paused


class Raft:
    """Three members, one on each of hosts 0 to 2. The subclass has the replicated data."""

    def __init__(self, world: World, network: Network, random: Random, rates: Sequence[float]) -> None:
        self.term = 1
        self.leader: int | None = random.randrange(MEMBERS)
        self.members = [Member(rate=rate, leader=self.leader) for rate in rates]
        self.cut_off: int | None = None  # a member whose links to the others, but not to clients, are cut
        self.lost_at: float | None = None  # since when no leader has had a majority
        self.lost: Callable[[float], object] = lambda _when: None
        self._world = world
        self._network = network
        self._random = random
        self._election_due = False

    # What the subclass does about it

    def _deposed(self, before: int | None) -> None:
        """Called before another member leads."""

    def _elected(self) -> None:
        """Called when another member leads."""

    def _agreed(self) -> None:
        """Called when there is a leader with a majority, or when more members have learned of it."""

    def _resigned(self) -> None:
        """Called when the leader has stepped down."""

    def _failed(self, member: int) -> None:
        """Called when a member was killed."""

    # What happens to it

    def ask(self, member: int, work: Callable[[], None]) -> None:
        """A request arrives at a member."""
        asked = self.members[member]
        if asked.paused:
            asked.waiting.append(work)
        elif asked.up:
            work()

    def fail(self, member: int) -> None:
        """Kill a member."""
        failed = self.members[member]
        failed.up, failed.leader, failed.leases = False, None, frozenset()
        failed.waiting.clear()
        if self.leader == member:
            self.leader = None
            self._resigned()
        self._failed(member)
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
        """Let the process continue: it answers the waiting requests before it gets any news."""
        resumed = self.members[member]
        resumed.paused = False
        waiting, resumed.waiting = resumed.waiting, []
        for work in waiting:
            work()
        self.look()

    def depose(self) -> None:
        """Let another member become the leader, as after a late heartbeat."""
        able = [m for m in range(MEMBERS) if m != self.leader and self._has_majority(m)]
        if able:
            self._elect(self._random.choice(able))

    def lead(self, member: int) -> None:
        """Let this member become the leader."""
        if self.leader != member and self._has_majority(member):
            self._elect(member)

    # The topology

    def look(self) -> None:
        """The topology has changed: find which member can lead, and which members learn of the leader."""
        leader = self.leader
        if leader is not None and self._has_majority(leader):
            self.lost_at = None
        elif self.lost_at is None:
            self.lost_at = self._world.now
            self.lost(self._world.now)
        if leader is not None and self._has_majority(leader):
            self._agreed()
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
        """An election time-out. Extreme values are likely, as they cause races."""
        return ELECTION_S * self._random.choice((1.0, 2.0, self._random.uniform(1.0, 2.0)))

    def _elect(self, member: int) -> None:
        self._deposed(self.leader)
        self.term += 1
        self.leader = member
        self.lost_at = None
        self._elected()
        chief = self.members[member]
        chief.leader, chief.term, chief.leases = member, self.term, frozenset()
        self._world.note("etcd", f"member {member} leads, term {self.term}", f"leads: member {member}")
        self._spread(self.term)

    def _spread(self, term: int) -> None:
        """Let the leader's heartbeats reach every connected member."""
        if term != self.term or self.leader is None:
            return
        for index, member in enumerate(self.members):
            if index != self.leader and self._reaches(self.leader, index):
                member.leader, member.term = self.leader, term
                member.leases = frozenset()
        if self._has_majority(self.leader):
            self._agreed()

    def _step_down(self, member: int, term: int) -> None:
        """CheckQuorum: a leader without a majority steps down."""
        chief = self.members[member]
        if chief.leader == member and chief.term == term and not chief.paused and not self._has_majority(member):
            chief.leader = None
            chief.leases = frozenset()
            if self.leader == member:
                self.leader = None
                self._resigned()

    def _reaches(self, one: int, other: int) -> bool:
        first, second = self.members[one], self.members[other]
        usable = first.up and second.up and not first.paused and not second.paused
        apart = one != other and self.cut_off in (one, other)
        return usable and not apart and self._network.linked(one, other)

    def _has_majority(self, member: int) -> bool:
        return sum(self._reaches(member, other) for other in range(MEMBERS)) * 2 > MEMBERS
