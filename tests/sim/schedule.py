"""A schedule: what goes wrong when, in which world. Made from a seed, searched by bias, shrunk when it fails."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from tests.sim.fault import HOLDER, Fault
from tests.sim.faults import (
    BESIDE_BROKEN_PROMISES,
    BLOWS,
    BROKEN_PROMISES,
    DAEMON_ONLY,
    DELAYS,
    KINDS,
    SILENCES,
)

BEGIN_S = 2.5  # when somebody holds the VIP, usually
CALM_BEGIN_S = 4.0
PACT_S = 3.8  # when there is a pact, usually
# The difference of two clocks' rates that a margin covers, of margin / ttl; what is left covers jiffies.
_OF_THE_MARGIN = 0.9
_PACT_SPREAD = 0.03  # the pact's margin is a tenth of its time-out, for both rates
TTL = 3.0

# The moments at which something is half done, by the words that the transcript has for them.
MOMENTS = (
    "won the election",
    "the kernel answers for the VIP",
    "answers for 192",
    "answers for nothing",
    "dropping the VIP",
    "VIP dropped",
    "out of the election",
    "standing aside",
    "lease expired",
    "a lease has expired",
    "govipd is started",
    "adopting",
    "still ours",
    "SIGTERM",
    "govipd killed",
    "leads, term",
    "a pact with the next",
    "power o",
    "gate",
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """One hostile while. Everything that happens follows from it.

    Attributes:
        seed: of whatever is left to chance within: delays, places.
        nodes: how many run govipd, on hosts 0, 1, ...; etcd runs on hosts 0 to 2.
        margin: election.margin in seconds; the TTL is 3.
        watchdog: whether systemd watches the daemons.
        rates: of the three hosts' clocks, then of the three etcd members'.
        end: when every fault has ended, in seconds.
        calm: only daemons are disturbed, one at a time: the VIP must stay where it is.
        left_out: whose proxy is broken in the end, and stays so.
        pact: pact.timeout in seconds; 0 is none.
    """

    seed: int
    nodes: int
    margin: float
    watchdog: bool
    rates: tuple[float, ...]
    faults: tuple[Fault, ...]
    end: float
    calm: bool = False
    left_out: int | None = None
    pact: float = 0.0

    def __str__(self) -> str:
        pact = f"a pact of {self.pact:g} s, " if self.pact else ""
        kind = "only daemons are disturbed" if self.calm else "anything goes"
        head = (
            f"schedule {self.seed}: {self.nodes} nodes, margin {self.margin:g} s, {kind}, "
            f"{'a' if self.watchdog else 'no'} watchdog, {pact}clock rates {', '.join(f'{r:.4f}' for r in self.rates)}"
        )
        left_out = [] if self.left_out is None else [f"  in the end node{self.left_out}'s proxy stays broken"]
        return "\n".join([head, *(f"  {fault}" for fault in self.faults), *left_out])


def make(seed: int) -> Schedule:
    """The schedule of a seed: each switches a few kinds of fault on (swarm testing), and strikes close together."""
    random = Random(seed)
    margin = random.choice((0.5, 0.5, 0.3, 0.15))
    spread = _OF_THE_MARGIN * margin / TTL / 2
    nodes = random.choice((2, 2, 3))
    watchdog = random.random() < 0.7
    calm = random.random() < 0.12
    if calm:
        spread = min(spread, 0.01)
    worst = (1.0 - spread,) * 3 + (1.0 + spread,) * 3  # nodes that hold too long, an etcd that gives up too soon
    pact = 0.0 if calm else random.choice((0.0, 0.0, 0.0, 0.1, 0.2, 0.5))
    if pact:
        spread = min(spread, _PACT_SPREAD)
    some = tuple(1.0 + random.uniform(-spread, spread) for _ in range(6))
    rates = worst if random.random() < 0.5 else some
    if pact and random.random() < 0.5:
        faults = _in_doubt(random, nodes, pact)
    else:
        faults = _calm(random, nodes, watchdog=watchdog) if calm else _hostile(random, nodes)
    end = max((BEGIN_S if f.moment else f.at) + f.seconds for f in faults) + 0.5
    left_out = random.randrange(nodes) if not calm and random.random() < 0.2 else None
    return Schedule(seed, nodes, margin, watchdog, rates, faults, min(max(end, 6.0), 14.0), calm, left_out, pact)


def _hostile(random: Random, nodes: int) -> tuple[Fault, ...]:
    hot = BEGIN_S + random.uniform(0.0, 3.0)  # faults gather around it
    kinds = random.sample(sorted(KINDS.keys() - set(BROKEN_PROMISES)), random.randint(1, 5))
    if random.random() < 0.08:
        kinds = [random.choice(BROKEN_PROMISES), *random.sample(BESIDE_BROKEN_PROMISES, random.randint(0, 3))]
    elif random.random() < 0.5:
        plan = random.choice((_blows, _blows, _late_then_cut, _cut_off_alone))
        return plan(random, nodes, hot)
    return tuple(_fault(random, random.choice(kinds), nodes, hot) for _ in range(random.randint(2, 10)))


def _blows(random: Random, _nodes: int, hot: float) -> tuple[Fault, ...]:
    """What delays a decision, and what it is too late for."""
    delays = random.sample(DELAYS, random.randint(1, 2))
    blows = random.choices(BLOWS, k=random.randint(1, 3))
    return tuple(_blow(random, kind, hot) for kind in (*delays, *blows))


def _late_then_cut(random: Random, _nodes: int, hot: float) -> tuple[Fault, ...]:
    """What was done last before a cut took long: what it rests on is older than it seems."""
    cut = random.choice(("isolated", "deaf", "cut one way", "isolated with etcd's leader"))
    cut_at = hot + random.uniform(0.3, 1.8)
    storm = [Fault(cut, HOLDER, random.uniform(2.0, 5.5), random.random(), cut_at)]
    if random.random() < 0.5:
        storm.append(Fault("slow network", HOLDER, random.uniform(2.0, 5.0), random.uniform(0.1, 0.8), hot))
    else:  # and at the deadline the kernel is left to itself
        storm.append(Fault("govipd without processor", HOLDER, 6.0, random.uniform(0.3, 1.0), hot))
        storm.append(Fault("govipd frozen", HOLDER, random.uniform(0.7, 3.0), 0.5, cut_at + random.uniform(1.4, 2.4)))
    return tuple(storm)


def _cut_off_alone(random: Random, nodes: int, hot: float) -> tuple[Fault, ...]:
    """Nobody else can take over, so it comes back after a cut, and with it what was sent into the cut."""
    lone = random.randrange(nodes)
    others = (Fault("haproxy failed", node, 8.0, 0.5, hot - 1.5) for node in range(nodes) if node != lone)
    cut = random.choice(("isolated", "deaf", "cut one way", "etcd leader paused"))
    blow = random.choice(("haproxy failed", "haproxy answers errors", "link down", "govipd stopped", "govipd fault"))
    began = hot + 0.5 * random.random()
    return (
        *others,
        Fault(cut, lone, random.uniform(0.3, 2.0), random.random(), began),
        Fault(blow, lone, random.uniform(0.1, 1.5), random.random(), began + random.uniform(-0.1, 0.8)),
    )


def _in_doubt(random: Random, nodes: int, pact: float) -> tuple[Fault, ...]:
    """A silence about as long as the pact's time-out, while etcd's answers are late: who has learned what, and when?"""
    at = PACT_S + random.uniform(0.0, 1.5)
    faults = []
    if random.random() < 0.15:  # from the very beginning
        refuses = Fault("nft refuses", HOLDER, 1.0, random.random(), 0.0, "a pact with the next")
        silence = random.choice(SILENCES)
        length, after = random.uniform(1.0, 3.0), 0.3 * random.random()
        return refuses, Fault(silence, HOLDER, length, 0.5, after, refuses.moment)
    for _ in range(random.randint(1, 2)):
        slow = random.choice(("slow network", "lossy network", "etcd leader paused", "etcd member paused"))
        node = random.choice((HOLDER, *range(nodes)))
        faults.append(Fault(slow, node, random.uniform(0.3, 3.0), random.random(), at - random.uniform(0.0, 0.4)))
    for _ in range(random.randint(1, 3)):
        silence = random.choice(SILENCES)
        length = pact * random.choice((0.6, 1.0, 1.2, 2.0)) * random.uniform(0.9, 1.2)
        faults.append(Fault(silence, HOLDER, length, random.random(), at))
        at += length + pact * random.choice((0.0, 0.1, 0.5, 2.0)) * random.random()
    if random.random() < 0.3:
        faults.append(Fault(random.choice(BLOWS), HOLDER, random.uniform(0.2, 3.0), random.random(), at))
    return tuple(faults)


def _blow(random: Random, kind: str, hot: float) -> Fault:
    """One of several that befall whoever holds the VIP, one upon the other."""
    at = hot + random.choice((0.05, 0.5, 2.0)) * random.random()
    return Fault(kind, HOLDER, random.uniform(0.2, 5.5), random.random(), at)


def _fault(random: Random, kind: str, nodes: int, hot: float) -> Fault:
    node = HOLDER if random.random() < 0.6 else random.randrange(nodes)
    # As long as a step, a renewal, a lease or an election of etcd's, and not quite.
    length = random.choice((0.05, 0.5, 1.0, 2.0, TTL, 4.5)) * random.uniform(0.7, 1.3)
    if random.random() < 0.5:
        delay = random.choice((0.0, 0.003, 0.02, 0.1, 0.5, 2.5)) * random.random()
        return Fault(kind, node, length, random.random(), delay, random.choice(MOMENTS), random.randint(1, 3))
    at = random.uniform(0.3, BEGIN_S + 6.0) if random.random() < 0.5 else random.gauss(hot, 0.5)
    return Fault(kind, node, length, random.random(), max(0.3, at))


def _calm(random: Random, nodes: int, *, watchdog: bool) -> tuple[Fault, ...]:
    faults, at = [], CALM_BEGIN_S
    for _ in range(random.randint(1, 3)):
        at += random.uniform(0.2, 0.7)
        kind = random.choice(DAEMON_ONLY)
        length = random.uniform(0.05, 4.0 if watchdog and kind == "govipd frozen" else 1.0)
        faults.append(Fault(kind, random.randrange(nodes), length, random.random(), at))
        at += length + 2.5
    return tuple(faults)


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """The fewest and simplest faults that still fail: leave out, then round."""
    again = True
    while again:
        again = False
        for i in range(len(schedule.faults) - 1, -1, -1):
            fewer = replace(schedule, faults=schedule.faults[:i] + schedule.faults[i + 1 :])
            if fails(fewer):
                schedule, again = fewer, True
    if schedule.nodes == 3 and fails(replace(schedule, nodes=2)):
        schedule = replace(schedule, nodes=2)
    plain = replace(schedule, rates=(1.0,) * 6)
    if fails(plain):
        schedule = plain
    for i, fault in enumerate(schedule.faults):
        for rounder in (0, 1, 2):
            simpler = replace(fault, at=round(fault.at, rounder), seconds=round(fault.seconds, rounder))
            candidate = replace(schedule, faults=(*schedule.faults[:i], simpler, *schedule.faults[i + 1 :]))
            if simpler != fault and fails(candidate):
                schedule = candidate
                break
    return schedule
