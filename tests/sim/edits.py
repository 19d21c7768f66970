"""Plans in which an operator edits the file while a holder leaves, or worse."""

from random import Random

from tests.sim.fault import HOLDER, Fault
from tests.sim.faults import BREAKS_PROXY, DISRUPTIONS, EDITS, ENDS, LEAVES, NOT_YET, SLIPS
from tests.sim.moments import Moment

TTL = 3.0
BEGIN_S = 2.5  # usually a machine holds the VIP by then

_EDITS = [kind for kind in (*EDITS, *SLIPS) if kind not in NOT_YET]


def edited(random: Random, nodes: int) -> tuple[Fault, ...]:
    """An operator edits the file, machine after machine, while a holder leaves, or worse."""
    at, faults = BEGIN_S + random.uniform(0.0, 3.0), []
    if nodes == 3 and random.random() < 0.3:
        return _edited_by_two(random, nodes, at)
    if random.random() < 0.2:
        return edited_in_a_handover(random, nodes, at)
    if random.random() < 0.1:  # just when a new address begins to answer
        length = random.choice((0.1, 1.0)) * random.uniform(0.7, 1.3)
        frozen = Fault(
            "govipd frozen", HOLDER, random.uniform(3.0, 6.0), 0.5, 0.0, Moment.ANSWERS, random.randint(2, 3)
        )
        return Fault(random.choice(_EDITS), HOLDER, length, random.random(), at), frozen
    for _ in range(random.choice((1, 1, 2))):
        length = random.choice((0.1, 1.0, TTL, 5.0)) * random.uniform(0.7, 1.3)
        editor = random.choice((HOLDER, *range(nodes)))
        faults.append(Fault(random.choice(_EDITS), editor, length, random.random(), at))
        if random.random() < 0.2:  # the operator's next word, while the edit is being applied
            faults.append(Fault(random.choice(LEAVES), editor, 8.0, random.random(), at + 0.02 * random.random()))
        for _ in range(random.randint(0, 2)):
            kind = random.choice((*LEAVES, *LEAVES, *BREAKS_PROXY, *ENDS, *DISRUPTIONS))
            when = at + random.uniform(-0.3, 1.2) * length
            node = random.choice((HOLDER, *range(nodes)))
            faults.append(Fault(kind, node, random.uniform(0.3, 4.0), random.random(), max(0.3, when)))
        at += length + random.uniform(0.0, 1.0)
    return tuple(faults)


def _edited_by_two(random: Random, nodes: int, at: float) -> tuple[Fault, ...]:
    """Two machines lead a group each, and one of them leaves while an address moves from group to group."""
    length = random.uniform(1.0, 5.0)
    first = Fault("one group handed over", HOLDER, 0.0, random.random(), at)
    moved = Fault("address moved", random.randrange(nodes), length, random.random(), at + random.uniform(0.5, 1.5))
    between = moved.at + length * random.uniform(0.0, 0.6)  # machines have read the file, and others have not
    second = Fault(random.choice(("one group handed over", *LEAVES)), HOLDER, 2.0, random.random(), between)
    return first, moved, second


def edited_in_a_handover(random: Random, nodes: int, at: float) -> tuple[Fault, ...]:
    """A daemon reads the file while the VIP is handed over, and its next messages may be lost."""
    leaves = Fault(random.choice(LEAVES), HOLDER, random.uniform(1.0, 3.0), random.random(), at)
    kind = random.choice(("address moved", "address moved", "address removed from the file", *_EDITS))
    length, reader = random.uniform(0.05, 0.15), random.randrange(2)  # the first machine that reads, or the next
    read_at = at + random.uniform(0.0, 0.03) - reader * length / nodes
    edit = Fault(kind, random.choice((HOLDER, *range(nodes))), length, random.random(), read_at)
    if random.random() < 0.5:
        return leaves, edit
    cut, node = random.choice(("deaf", "deaf", "isolated", "cut one way", "govipd frozen")), random.randrange(nodes)
    return leaves, edit, Fault(cut, node, random.uniform(0.5, 2.5), random.random(), at + random.uniform(0.0, 0.06))


def read_by_the_successor(random: Random, nodes: int, at: float) -> tuple[Fault, ...]:
    """The holder reads a file without an address, and leaves. The successor reads it after it asked for its proof."""
    length, read_at = random.uniform(0.08, 0.14), at - random.uniform(0.02, 0.05)
    cut = random.choice(("deaf", "isolated", "cut one way"))
    return (
        Fault("address moved", HOLDER, length, random.random(), read_at),
        Fault(random.choice(LEAVES), HOLDER, random.uniform(1.0, 3.0), random.random(), at),
        Fault(cut, random.randrange(nodes), random.uniform(1.0, 2.5), random.random(), at + random.uniform(0.02, 0.06)),
    )
