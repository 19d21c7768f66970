"""A schedule: a world and its faults. Drawn from a seed, biased towards violations, shrunk when it finds one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from govipd.core.lease import SLEW
from tests.sim import edits, plans
from tests.sim.edits import BEGIN_S
from tests.sim.fault import HOLDER, Fault
from tests.sim.faults import BREAKS_PROXY, BROKEN_PROMISES, SLUGGISH

# Time-outs in seconds, 0 for none. The shortest costs most: its datagrams come every 20 ms.
_PACTS = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.2, 0.5, 0.5, 0.5)


ONE_GROUP = (("api", "192.0.2.100"),)
_SEVERAL = (  # groups, or addresses of one
    (("api", "192.0.2.100", "192.0.2.101"),),
    (("api", "192.0.2.100"), ("web", "192.0.2.102")),
    (("api", "192.0.2.100", "192.0.2.101"), ("web", "192.0.2.102", "192.0.2.103")),
)
_TWO_LINKS = (  # the second group's, or each group's second address is on another interface
    (("api", "192.0.2.100", "198.51.100.100"),),
    (("api", "192.0.2.100", "198.51.100.100"), ("web", "192.0.2.102", "198.51.100.102")),
    (("api", "192.0.2.100"), ("web", "198.51.100.102")),
)
_SEVERAL_SHARE = 0.15
_EDITED_SHARE = 0.08
_STRANGE_SHARE = 0.08
_OF_ONE_GROUP_SHARE = 0.2  # of the calm schedules


@dataclass(frozen=True, slots=True)
class Schedule:
    """The world of one run, and its faults. The run depends on nothing else.

    Attributes:
        seed: of everything that chance decides in the run: delays, places.
        nodes: how many run govipd, on hosts 0, 1, ...; etcd runs on hosts 0 to 2.
        margin: election.margin in seconds; the TTL is 3.
        watchdog: whether systemd watches the daemons.
        rates: of the three hosts' clocks, then of the three etcd members'.
        end: when every fault has ended, in seconds.
        calm: only daemons are disturbed, one at a time: the VIP must stay where it is.
        of_one_group: only the first group is disturbed: the others must stay where they are.
        left_out: whose proxy is broken in the end, and stays so.
        pact: pact.timeout in seconds; 0 is none.
        groups: of the file, each its name and its addresses.
    """

    seed: int
    nodes: int
    margin: float
    watchdog: bool
    rates: tuple[float, ...]
    faults: tuple[Fault, ...]
    end: float
    calm: bool = False
    of_one_group: bool = False
    left_out: int | None = None
    pact: float = 0.0
    groups: tuple[tuple[str, ...], ...] = ONE_GROUP

    def __str__(self) -> str:
        pact = f"a pact of {self.pact:g} s, " if self.pact else ""
        kind = "only daemons are disturbed" if self.calm else "anything goes"
        kind = "only one group is disturbed" if self.of_one_group else kind
        head = (
            f"schedule {self.seed}: {self.nodes} nodes, margin {self.margin:g} s, {kind}, "
            f"{'a' if self.watchdog else 'no'} watchdog, {pact}clock rates {', '.join(f'{r:.4f}' for r in self.rates)}"
        )
        left_out = [] if self.left_out is None else [f"  in the end node{self.left_out}'s proxy stays broken"]
        for name, *addresses in self.groups if self.groups != ONE_GROUP else ():
            head += f", {name} has {' and '.join(addresses)}"
        return "\n".join([head, *(f"  {fault}" for fault in self.faults), *left_out])


def make(seed: int, *, plan: str = "") -> Schedule:
    """Draw the schedule of a seed: a few kinds of fault (swarm testing) that strike close together.

    Args:
        seed: what everything is drawn from.
        plan: one of plans.RARE; "": chance chooses the plan.
    """
    random = Random(seed)
    margin = random.choice((0.6, 0.6, 0.5))  # the default, and the least
    spread = SLEW
    nodes = random.choice((2, 2, 3))
    watchdog = random.random() < 0.7
    calm = random.random() < 0.15 and not plan
    if calm:
        spread = 0.01
    worst = (1.0 - spread,) * 3 + (1.0 + spread,) * 3  # nodes that hold too long, an etcd that gives up too soon
    pact = 0.0 if calm else random.choice(_PACTS)
    apart = tuple(1.0 + random.choice((-spread, spread)) for _ in range(6))  # the two ends of a pact among them
    some = tuple(1.0 + random.uniform(-spread, spread) for _ in range(6))
    rates = random.choice((worst, worst, apart, some))
    groups = random.choice((*_SEVERAL, *_TWO_LINKS)) if random.random() < _SEVERAL_SHARE else ONE_GROUP
    of_one_group = calm and random.random() < _OF_ONE_GROUP_SHARE
    if of_one_group:
        groups, faults = random.choice((*_SEVERAL[1:], *_TWO_LINKS[1:])), plans.of_one_group(random)
    elif plan:
        groups = random.choice((ONE_GROUP, *_SEVERAL))
        faults = plans.RARE[plan](random, nodes, BEGIN_S + random.uniform(0.0, 3.0))
    elif not calm and random.random() < _EDITED_SHARE:
        groups = random.choice((ONE_GROUP, *_SEVERAL, *_TWO_LINKS))
        faults = edits.edited(random, nodes)
    elif not calm and random.random() < _STRANGE_SHARE:
        faults = plans.strange(random, nodes)
    elif calm:
        faults = plans.calm(random, nodes, watchdog=watchdog)
    elif pact and random.random() < 0.5:
        faults = plans.in_doubt(random, nodes, pact)
    else:
        faults = plans.hostile(random, nodes)
    if groups in _TWO_LINKS:
        faults = tuple(_on_either_link(random, fault) for fault in faults)
    kinds = {fault.kind for fault in faults}
    if kinds & set(BROKEN_PROMISES) and kinds & set(SLUGGISH):
        pact = 0.0  # a fence that follows datagrams may lapse just when it is asked, and open again (docs/adr/0025)
    end = max((BEGIN_S if f.moment else f.at) + f.seconds for f in faults) + 0.5
    left_out = None if calm else _left_out(random, nodes, faults)
    end = min(max(end, 6.0), 14.0)
    calm = calm and not of_one_group
    return Schedule(seed, nodes, margin, watchdog, rates, faults, end, calm, of_one_group, left_out, pact, groups)


def _on_either_link(random: Random, fault: Fault) -> Fault:
    strikes_link = fault.kind == "link down" and random.random() < 0.6
    return replace(fault, kind="second link down") if strikes_link else fault


def _left_out(random: Random, nodes: int, faults: tuple[Fault, ...]) -> int | None:
    """The node whose proxy stays broken in the end: one of those that the faults broke, or at times any node."""
    broken = [fault.node for fault in faults if fault.kind in BREAKS_PROXY and fault.node != HOLDER]
    if broken and random.random() < 0.5:
        return random.choice(broken)
    return random.randrange(nodes) if random.random() < 0.2 else None


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """The schedule with the fewest and simplest faults that still fails: leave faults out, then round numbers."""
    again = True
    while again:
        again = False
        for i in range(len(schedule.faults) - 1, -1, -1):
            fewer = replace(schedule, faults=schedule.faults[:i] + schedule.faults[i + 1 :])
            if fails(fewer):
                schedule, again = fewer, True
    if schedule.nodes == 3 and fails(replace(schedule, nodes=2)):
        schedule = replace(schedule, nodes=2)
    for plainer in ({"groups": ONE_GROUP}, {"rates": (1.0,) * 6}):
        if schedule.of_one_group and "groups" in plainer:
            continue
        plain = replace(schedule, **plainer)
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
