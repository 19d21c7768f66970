"""The faults of a schedule and their times: by chance close together, or by a plan that is known to find violations."""

from collections.abc import Callable, Mapping
from random import Random

from tests.sim.edits import BEGIN_S, TTL, edited_in_a_handover, read_by_the_successor
from tests.sim.fault import HOLDER, Fault
from tests.sim.faults import (
    BESIDE_BROKEN_PROMISES,
    BREAKS_PROXY,
    BROKEN_PROMISES,
    DAEMON_ENDS,
    DAEMON_ONLY,
    DELAYS,
    DISRUPTIONS,
    EDITS,
    ENDS,
    HISTORIES,
    INTERFERENCE,
    KINDS,
    LEAVES,
    MESSAGE_LOSSES,
    NOT_YET,
    OF_ONE_GROUP,
    REFUSALS,
    SLIPS,
    SLUGGISH,
    TAMPERING,
)
from tests.sim.moments import Moment

CALM_BEGIN_S = 4.0
_PACT_S = 3.8  # when there is a pact, usually

_APART = ("equal identities", "nf_tables busy", "authentication switched")  # they have plans of their own, below
_OF_ONE = (
    "one group drained",  # and so has this
    "second link down",
)  # takes the place of others where a group has two
_ANY = sorted(KINDS.keys() - {*BROKEN_PROMISES, *EDITS, *SLIPS, *REFUSALS, *HISTORIES, *_APART, *_OF_ONE, *NOT_YET})
_STRANGE = [kind for kind in (*REFUSALS, *HISTORIES, *_APART) if kind not in NOT_YET]


def _ended_as_the_pact_begins(random: Random, _nodes: int, _at: float) -> tuple[Fault, ...]:
    """The leader's process ends in the first moments of the pact, and its kernel refuses what the next one asks."""
    began, ends = Moment.PACT, random.choice(("govipd killed", "govipd killed", "govipd restarted"))
    return (
        Fault("nft refuses", HOLDER, random.uniform(0.8, 1.2), random.random(), 0.0, began),
        Fault(ends, HOLDER, random.uniform(1.0, 3.0), 0.5, random.uniform(0.2, 0.35), began),
    )


def strange(random: Random, nodes: int) -> tuple[Fault, ...]:
    """etcd's data, the kernel or another machine changes while a holder leaves, or worse."""
    at, kind = BEGIN_S + random.uniform(0.5, 3.0), random.choice(_STRANGE)
    if kind == "authentication switched" and random.random() < 0.5:
        return _refused_while_cut_off(random, nodes, at)
    if kind == "etcd restored" and random.random() < 0.6:
        return _brought_back(random, nodes, at)
    if kind == "etcd's data lost" and random.random() < 0.4:
        return _lost_unseen(random, nodes, at)
    node = random.choice((HOLDER, HOLDER, *range(nodes)))
    if kind in REFUSALS:
        leaves = [Fault(random.choice((*LEAVES, *BREAKS_PROXY)), HOLDER, 12.0, random.random(), at)]
        if random.random() < 0.3:
            leaves.append(Fault(random.choice((*LEAVES, *BREAKS_PROXY)), HOLDER, 2.0, random.random(), at + 1.0))
        return Fault(kind, node, random.choice((0.5, 4.0, 12.0)), random.random(), at - random.random()), *leaves
    length = random.choice((0.1, 1.0, TTL, 5.0)) * random.uniform(0.7, 1.3)
    faults = [Fault(kind, node, length, random.random(), at)]
    for other in random.choices((*LEAVES, *BREAKS_PROXY, *ENDS, *DISRUPTIONS, *DELAYS), k=random.randint(0, 3)):
        when = at + random.uniform(-0.3, 1.2) * length
        whom = random.choice((HOLDER, HOLDER, *range(nodes)))
        faults.append(Fault(other, whom, random.uniform(0.3, 4.0), random.random(), when))
    return tuple(faults)


def _refused_while_cut_off(random: Random, nodes: int, at: float) -> tuple[Fault, ...]:
    """A holder that is cut off leaves, and its own etcd member refuses the calls. Then the next holder leaves, too."""
    cut = random.choice(("isolated", "isolated", "cut one way", "isolated with etcd's leader", "pair cut"))
    refusal = random.choice(("authentication switched", "authentication switched", "tokens expired", *REFUSALS))
    length = random.uniform(1.0, 3.0)
    return (
        Fault(cut, HOLDER, length, random.random(), at),
        Fault(refusal, random.randrange(nodes), 5.0, random.random(), at + length * random.random()),
        Fault(random.choice(LEAVES), HOLDER, 2.0, random.random(), at + length + random.uniform(-0.3, 0.5)),
    )


def _brought_back(random: Random, nodes: int, at: float) -> tuple[Fault, ...]:
    """A restore brings back the key of a member that has left. The member may campaign again, or stay out."""
    node, unfit = random.randrange(nodes), random.choice((*BREAKS_PROXY, "drained"))
    length = random.choice((0.6, 1.5, 8.0)) * random.uniform(0.8, 1.2)
    recent = random.choice((0.0, 0.5)) + random.uniform(0.15, 0.5)  # the snapshot, with the cluster's id or another one
    restored_at = at + random.uniform(0.5, 2.5)
    restored = Fault("etcd restored", HOLDER, random.choice((0.05, 1.0)), recent, restored_at)
    return Fault(unfit, node, length, random.random(), at), restored


def _lost_unseen(random: Random, nodes: int, at: float) -> tuple[Fault, ...]:
    """The holder is cut off while etcd loses its data; the process that saw more of the data ends.

    Not by `systemctl stop`: a process that is started after that knows as little as a machine's first (docs/adr/0027).
    """
    gone = random.uniform(0.05, 1.0)
    ends = random.choice([kind for kind in ENDS if kind != "govipd stopped"])
    return (
        Fault("isolated", HOLDER, random.uniform(2.0, 5.0), random.random(), at - 0.2 * random.random()),
        Fault("etcd's data lost", HOLDER, gone, 0.5 * random.random(), at),
        Fault(ends, random.randrange(nodes), gone, random.random(), at + gone * random.random()),
    )


def hostile(random: Random, nodes: int) -> tuple[Fault, ...]:
    """Any faults; half of the time by a plan."""
    hot = BEGIN_S + random.uniform(0.0, 3.0)  # faults gather around it
    if random.random() < 0.03:
        return _unheard(random, hot)
    if random.random() < 0.12:
        kinds = [random.choice(BROKEN_PROMISES), *random.sample(BESIDE_BROKEN_PROMISES, random.randint(0, 3))]
        if set(kinds) & set(SLUGGISH):  # a link that is down while the wire is asked: not covered (docs/adr/0025)
            kinds = [kind for kind in kinds if kind != "link down"]
    elif random.random() < 0.65:
        return random.choice(_PLANS)(random, nodes, hot)
    else:
        kinds = random.sample(_ANY, random.randint(1, 5))
    return tuple(_fault(random, random.choice(kinds), nodes, hot) for _ in range(random.randint(2, 10)))


def _unheard(random: Random, hot: float) -> tuple[Fault, ...]:
    """The holder does not learn that its lease is gone, and its kernel is silent for a moment."""
    sluggish = random.choice(SLUGGISH)
    silent = random.choice(("link down", "link down", "nft refuses", "datagrams blocked"))
    silent_at = hot + 0.2 + random.choice((0.3, 2.0)) * random.random()
    return (
        Fault(sluggish, HOLDER, random.uniform(0.5, 4.0), random.random(), hot - random.random()),
        Fault(random.choice((*BROKEN_PROMISES, "claim deleted")), HOLDER, 0.0, random.random(), hot),
        Fault(silent, HOLDER, random.uniform(0.1, 0.6), random.random(), silent_at),
    )


def _disruptions(random: Random, _nodes: int, hot: float) -> tuple[Fault, ...]:
    """Delays of a decision, and faults for which the decision is then too late."""
    delays = random.sample(DELAYS, random.randint(1, 2))
    disruptions = random.choices(DISRUPTIONS, k=random.randint(1, 3))
    return tuple(_disruption(random, kind, hot) for kind in (*delays, *disruptions))


def _late_then_cut(random: Random, _nodes: int, hot: float) -> tuple[Fault, ...]:
    """The last call before a cut was slow: its confirmation is older than its arrival."""
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
    """No other member can take over, so the holder comes back after a cut, and its delayed messages with it."""
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


def _cut_off_early(random: Random, nodes: int, hot: float) -> tuple[Fault, ...]:
    """A member joins the queue, hears no answer, and becomes ineligible: its key may be in etcd or not."""
    lone = random.randrange(nodes)
    cut = random.choice(("isolated", "deaf", "cut one way", "slow network", "lossy network"))
    at = random.choice((1.0, hot)) * random.uniform(0.8, 1.6)
    blow = random.choice((*BREAKS_PROXY, "link down", "drained"))
    return (
        Fault(cut, lone, random.uniform(0.5, 3.0), random.random(), at),
        Fault(blow, lone, random.uniform(2.0, 6.0), random.random(), at + random.uniform(0.0, 2.5)),
    )


def _unfit_start(random: Random, nodes: int, hot: float) -> tuple[Fault, ...]:
    """A daemon starts on an unhealthy machine, before it knows the gates."""
    node = random.choice((HOLDER, *range(nodes)))
    unfit = random.choice((*BREAKS_PROXY, "drained"))
    faults = [Fault(unfit, node, random.uniform(5.0, 8.0), random.random(), hot)]
    if random.random() < 0.3:
        faults.append(Fault("D-Bus away", node, 8.0, random.random(), hot))
    if node == HOLDER:  # by then it is another
        node = random.randrange(nodes)
    return *faults, Fault(random.choice(ENDS), node, random.uniform(0.1, 1.0), 0.5, hot + random.uniform(2.2, 4.0))


def _passing(random: Random, nodes: int, hot: float) -> tuple[Fault, ...]:
    """A healthy holder leaves, and is disturbed during the handover."""
    faults = [Fault(random.choice(LEAVES), HOLDER, random.uniform(0.5, 3.0), random.random(), hot)]
    if random.random() < 0.3:
        faults.append(Fault("nft flushed", random.randrange(nodes), 0.0, 0.5, hot - random.random()))
    if random.random() < 0.3:  # nothing but time ends it
        faults.append(Fault("datagrams blocked", HOLDER, random.uniform(0.1, 1.0), 0.5, hot - 0.01))
    for kind in random.choices(INTERFERENCE, k=random.randint(1, 3)):
        node, at = random.choice((HOLDER, HOLDER, *range(nodes))), hot + random.uniform(-0.02, 0.06)
        faults.append(Fault(kind, node, random.choice((0.1, 2.0)) * random.random(), random.random(), at))
    return tuple(faults)


def _tampering(random: Random, nodes: int, hot: float) -> tuple[Fault, ...]:
    """An operator changes addresses, nftables or files, on any machine."""
    faults = []
    for kind in random.choices(TAMPERING, k=random.randint(1, 4)):
        longest = 6.0 if kind == "address added elsewhere" else 2.0  # until it is known, and the queue is left
        node, length = random.choice((HOLDER, *range(nodes))), random.uniform(0.1, longest)
        faults.append(Fault(kind, node, length, random.random(), hot + random.random()))
    return tuple(faults)


_PLANS = (
    *(_disruptions, _disruptions, _late_then_cut, _late_then_cut),
    *(_cut_off_alone, _cut_off_early, _unfit_start, _tampering, _passing),
)


def in_doubt(random: Random, nodes: int, pact: float) -> tuple[Fault, ...]:
    """Silences about as long as the pact's time-out, while etcd's answers are late."""
    at = _PACT_S + random.uniform(0.0, 1.5)
    faults = []
    if random.random() < 0.15:  # from the very beginning
        refuses = Fault("nft refuses", HOLDER, 1.0, random.random(), 0.0, Moment.PACT)
        silence = random.choice(MESSAGE_LOSSES)
        length, after = random.uniform(1.0, 3.0), 0.3 * random.random()
        return refuses, Fault(silence, HOLDER, length, 0.5, after, refuses.moment)
    if random.random() < 0.15:  # an answer that was long under way, to the last that was heard
        late = Fault("slow network", HOLDER, random.uniform(1.0, 3.0), random.random(), at - random.uniform(0.0, 0.4))
        return late, Fault("datagrams blocked one way", HOLDER, random.uniform(1.0, 3.0), 0.4 * random.random(), at)
    for _ in range(random.randint(1, 2)):
        slow = random.choice(("slow network", "lossy network", "etcd leader paused", "etcd member paused"))
        node = random.choice((HOLDER, *range(nodes)))
        faults.append(Fault(slow, node, random.uniform(0.3, 3.0), random.random(), at - random.uniform(0.0, 0.4)))
    for _ in range(random.randint(1, 3)):
        silence = random.choice(MESSAGE_LOSSES)
        length = pact * random.choice((0.6, 1.0, 1.2, 2.0)) * random.uniform(0.9, 1.2)
        faults.append(Fault(silence, HOLDER, length, random.random(), at))
        at += length + pact * random.choice((0.0, 0.1, 0.5, 2.0)) * random.random()
    if random.random() < 0.3:
        faults.append(Fault(random.choice(DISRUPTIONS), HOLDER, random.uniform(0.2, 3.0), random.random(), at))
    return tuple(faults)


def of_one_group(random: Random) -> tuple[Fault, ...]:
    """Faults of the first group alone, one after the other."""
    faults, at = [], CALM_BEGIN_S
    for _ in range(random.randint(1, 3)):
        at += random.uniform(0.2, 0.7)
        length = random.uniform(0.1, 3.0)
        first = random.randrange(0, 1000, 2) / 1000  # of two groups, whose names chance takes from this number
        faults.append(Fault(random.choice(OF_ONE_GROUP), HOLDER, length, first, at))
        at += length + 0.5
    return tuple(faults)


def _disruption(random: Random, kind: str, hot: float) -> Fault:
    """One of several faults of the holder that overlap."""
    at = hot + random.choice((0.05, 0.5, 2.0)) * random.random()
    return Fault(kind, HOLDER, random.uniform(0.2, 5.5), random.random(), at)


def _fault(random: Random, kind: str, nodes: int, hot: float) -> Fault:
    node = HOLDER if random.random() < 0.6 else random.randrange(nodes)
    # As long as a step, a renewal, a lease or an election of etcd's, and not quite.
    length = random.choice((0.05, 0.5, 1.0, 2.0, TTL, 4.5)) * random.uniform(0.7, 1.3)
    if random.random() < 0.5:
        delay = random.choice((0.0, 0.003, 0.02, 0.1, 0.5, 2.5)) * random.random()
        return Fault(kind, node, length, random.random(), delay, random.choice(tuple(Moment)), random.randint(1, 3))
    at = random.uniform(0.3, BEGIN_S + 6.0) if random.random() < 0.5 else random.gauss(hot, 0.5)
    return Fault(kind, node, length, random.random(), max(0.3, at))


def calm(random: Random, nodes: int, *, watchdog: bool) -> tuple[Fault, ...]:
    faults, at = [], CALM_BEGIN_S
    for _ in range(random.randint(1, 3)):
        at += random.uniform(0.2, 0.7)
        kind = random.choice((*DAEMON_ONLY, *DAEMON_ENDS))
        length = random.uniform(0.05, 4.0 if watchdog and kind == "govipd frozen" else 1.0)
        faults.append(Fault(kind, random.choice((HOLDER, *range(nodes))), length, random.random(), at))
        at += length + 2.5
    return tuple(faults)


# Plans that chance chooses seldom. A hunt may draw all its schedules from one of them.
RARE: Mapping[str, Callable[[Random, int, float], tuple[Fault, ...]]] = {
    "edited in a handover": edited_in_a_handover,
    "refused while cut off": _refused_while_cut_off,
    "read by the successor": read_by_the_successor,
    "ended as the pact begins": _ended_as_the_pact_begins,
    "brought back": _brought_back,
}
