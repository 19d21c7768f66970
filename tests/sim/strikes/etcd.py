"""How faults of etcd begin. The returned function ends the fault (None: it ends by itself)."""

from itertools import permutations
from typing import TYPE_CHECKING

from govipd.core.state import State
from tests.sim.fault import End, Fault
from tests.sim.files import CLAIMS
from tests.sim.kernel import INTERFACE
from tests.sim.kernel_adapters import mac_of

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.run import Simulation


def member_fails(sim: "Simulation", fault: Fault) -> End:
    return _fail_member(sim, sim.machine(fault).index)


def leader_fails(sim: "Simulation", fault: Fault) -> End:
    member = sim.cluster.leader
    return None if member is None else _fail_member(sim, member)


def _fail_member(sim: "Simulation", member: int) -> End:
    sim.cluster.fail(member)

    def end() -> None:
        if sim.machines[member].powered:
            sim.cluster.start(member)

    return end


def member_pauses(sim: "Simulation", fault: Fault) -> End:
    member = sim.machine(fault).index
    sim.cluster.pause(member)
    return lambda: sim.cluster.resume(member)


def leader_pauses(sim: "Simulation", fault: Fault) -> End:
    member = sim.cluster.leader
    if member is None:
        return None
    sim.cluster.pause(member)
    return lambda: sim.cluster.resume(member)


def leader_cut_off(sim: "Simulation", fault: Fault) -> End:
    """Cut the leader off from its peers; clients still reach it."""
    sim.cluster.cut_off = sim.cluster.leader
    sim.cluster.look()

    def end() -> None:
        sim.cluster.cut_off = None
        sim.cluster.look()

    return end


def depose(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.depose()
    return None


def compact(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.compact()
    return None


def break_watches(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.break_watches()
    return None


def lose_watches(sim: "Simulation", fault: Fault) -> End:
    """Half-open streams: the watches get no events any more."""
    sim.cluster.lose_watches()
    return None


def lag(sim: "Simulation", fault: Fault) -> End:
    member = sim.cluster.members[sim.machine(fault).index]
    member.lag = 3.0 * fault.place
    return lambda: setattr(member, "lag", 0.0)


def expire_tokens(sim: "Simulation", fault: Fault) -> End:
    for store in sim.machine(fault).stores:
        store.expired_tokens += 1 + int(3 * fault.place)
    return None


def _between_proof_and_answer(sim: "Simulation") -> bool:
    """Whether a stalled daemon has proven that it leads, and does not answer, yet or any more (docs/adr/0025).

    Where its lease or its key is taken away just then, it opens its fence later, and the wire has been silent.
    """
    stalled = [m for m in sim.machines if m.daemon is not None and m.disturbed_until >= sim.world.now]
    return any(
        group.state_machine.state is State.ACTIVATING
        or (
            group.state_machine.state is State.LEADER
            and not {address.ip for address in group.plan.addresses} <= machine.kernel.answers()
        )
        for machine in stalled
        for group in machine.daemon._all()  # type: ignore[union-attr]  # see above
    )


def _stranger_to_another(sim: "Simulation") -> bool:
    """Whether two daemons stall, one before it has read the record of the other, which leads (docs/adr/0025).

    If the leader loses its lease or key just then, the other daemon takes its kernel for a stranger's.
    """
    stalled = [m for m in sim.machines if m.daemon is not None and m.disturbed_until >= sim.world.now]
    return any(
        holder.kernel.answers() and mac_of(holder.index, INTERFACE).hex(":") not in _known_macs(other)
        for holder, other in permutations(stalled, 2)
    )


def _known_macs(machine: "Machine") -> set[str]:
    assert machine.daemon is not None
    return {mac for group in machine.daemon._all() for mac in group._parts.neighbours._members()}  # type: ignore[attr-defined]


def _within_known_limits(sim: "Simulation") -> bool:
    return not _between_proof_and_answer(sim) and not _stranger_to_another(sim)


def revoke(sim: "Simulation", fault: Fault) -> End:
    if _within_known_limits(sim):
        sim.cluster.revoke_one(fault.place)
    return None


def delete_claim(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.delete_one(fault.place, (CLAIMS,))
    return None


def delete_key(sim: "Simulation", fault: Fault) -> End:
    if _within_known_limits(sim):
        sim.cluster.delete_one(fault.place, tuple(f"{group.election}/" for group in sim.file.groups))
    return None
