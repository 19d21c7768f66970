"""How faults of the network begin. The returned function ends the fault (None: it ends by itself)."""

from typing import TYPE_CHECKING

from tests.sim.fault import End, Fault

if TYPE_CHECKING:
    from tests.sim.run import Simulation


def _cut(sim: "Simulation", directions: list[tuple[int, int]]) -> End:
    for source, target in directions:
        sim.network.cut(source, target)
    sim.cluster.look()

    def end() -> None:
        for source, target in directions:
            sim.network.mend(source, target)
        sim.cluster.look()

    return end


def isolate(sim: "Simulation", fault: Fault) -> End:
    """Cut the machine, with its etcd member, off from both others."""
    one = sim.machine(fault).index
    others = [host for host in range(3) if host != one]
    return _cut(sim, [pair for other in others for pair in ((one, other), (other, one))])


def isolate_leader(sim: "Simulation", fault: Fault) -> End:
    """Isolate the machine after etcd's leader has moved to it."""
    sim.cluster.lead(sim.machine(fault).index)
    return isolate(sim, fault)


def cut_pair(sim: "Simulation", fault: Fault) -> End:
    one = sim.machine(fault).index
    other = (one + 1 + int(2 * fault.place)) % 3
    return _cut(sim, [(one, other), (other, one)])


def cut_one_way(sim: "Simulation", fault: Fault) -> End:
    one = sim.machine(fault).index
    other = (one + 1 + int(2 * fault.place)) % 3
    return _cut(sim, [(one, other)])


def deaf(sim: "Simulation", fault: Fault) -> End:
    """The machine's packets arrive; packets to the machine are lost."""
    one = sim.machine(fault).index
    return _cut(sim, [(host, one) for host in range(3) if host != one])


def slow_network(sim: "Simulation", fault: Fault) -> End:
    pairs = _around(sim, fault)
    for pair in pairs:
        sim.network.slow(*pair, longest=0.5 * fault.place)

    def end() -> None:
        for pair in pairs:
            sim.network.slow(*pair, longest=0.0)

    return end


def lossy_network(sim: "Simulation", fault: Fault) -> End:
    """Requests and answers get lost. The caller does not know which of both."""
    pairs = _around(sim, fault)
    for pair in pairs:
        sim.network.lossy(*pair, share=0.6 * fault.place)

    def end() -> None:
        for pair in pairs:
            sim.network.lossy(*pair, share=0.0)

    return end


def wild_datagrams(sim: "Simulation", fault: Fault) -> End:
    """Datagrams get lost, late, out of order, and repeated."""
    return _wild(sim, _around(sim, fault), 0.99 * fault.place)


def block_datagrams(sim: "Simulation", fault: Fault) -> End:
    """A firewall between this machine and the others; TCP passes."""
    return _wild(sim, _around(sim, fault), 1.0)


def block_datagrams_one_way(sim: "Simulation", fault: Fault) -> End:
    """Lose either the datagrams from the machine, or those to it."""
    pairs = _around(sim, fault)
    return _wild(sim, pairs[:3] if fault.place < 0.5 else pairs[3:], 1.0)


def _wild(sim: "Simulation", pairs: list[tuple[int, int]], share: float) -> End:
    for pair in pairs:
        sim.network.wild(*pair, share=share)

    def end() -> None:
        for pair in pairs:
            sim.network.wild(*pair, share=0.0)

    return end


def _around(sim: "Simulation", fault: Fault) -> list[tuple[int, int]]:
    """Both directions of every link of the machine, its own included."""
    one = sim.machine(fault).index
    return [(one, host) for host in range(3)] + [(host, one) for host in range(3)]
