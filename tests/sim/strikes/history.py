"""Faults of etcd's data and of its users' rights. The returned function ends the fault (None: it ends by itself)."""

from random import Random
from typing import TYPE_CHECKING

from tests.sim.etcd import Cluster
from tests.sim.fault import End, Fault
from tests.sim.raft import MEMBERS

if TYPE_CHECKING:
    from tests.sim.run import Simulation


def fill(sim: "Simulation", fault: Fault) -> End:
    """The alarm NOSPACE, until the operator disarms it; half of the time as etcd 3.4 above its quota."""
    sim.cluster.space.full = True
    sim.cluster.space.refuses_deletions = fault.place < 0.5

    def end() -> None:
        sim.cluster.space.full = sim.cluster.space.refuses_deletions = False

    return end


def take_rights(sim: "Simulation", fault: Fault) -> End:
    """A member's user may read, but not write."""
    host = sim.machine(fault).index
    sim.cluster.unwritable.add(host)
    return lambda: sim.cluster.unwritable.discard(host)


def switch_authentication(sim: "Simulation", fault: Fault) -> End:
    """Switch authentication on or off: each client's next calls are refused until it logs in, or stops to."""
    for machine in sim.oracle.machines:
        for store in machine.stores:
            store.expired_tokens += 1 + int(3 * fault.place)
    return None


def lose_data(sim: "Simulation", fault: Fault) -> End:
    return _rebuild(sim, fault, None)


def restore(sim: "Simulation", fault: Fault) -> End:
    """Restore one of the Simulation's snapshots."""
    return _rebuild(sim, fault, 2 * fault.place % 1.0)


def _rebuild(sim: "Simulation", fault: Fault, snapshot: float | None) -> End:
    """All members are down until the data is replaced. With another token, the cluster has another id."""
    cluster = sim.cluster
    up = [member for member in range(MEMBERS) if cluster.members[member].up]
    for member in up:
        cluster.fail(member)

    def end() -> None:
        identity = cluster.space.id + (fault.place >= 0.5)
        cluster.rebuild(cluster=identity, place=snapshot)
        for member in range(MEMBERS):
            if sim.machines[member].powered:
                cluster.start(member)

    return end


def stray(sim: "Simulation", fault: Fault) -> End:
    """At a member's address another cluster answers: a copy, or an empty one."""
    member = sim.machine(fault).index
    other = Cluster(sim.world, sim.network, Random(sim.random.random()), sim.schedule.rates[3:], cluster=-1 - member)
    if fault.place < 0.3:
        space = sim.cluster.space.copy()
        space.id = other.space.id
        other.adopt(space)
    sim.cluster.strays[member] = other
    return lambda: sim.cluster.strays.pop(member, None)
