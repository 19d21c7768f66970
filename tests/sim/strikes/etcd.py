"""How faults of etcd begin. The returned function ends the fault (None: it ends by itself)."""

from typing import TYPE_CHECKING

from govipd.core.state import State
from tests.sim.fault import End, Fault
from tests.sim.files import CLAIMS

if TYPE_CHECKING:
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
    """Whether a stalled daemon has proven that it leads, and does not answer yet (docs/adr/0025).

    Where its lease or its key is taken away just then, it opens its fence later, and the wire has been silent.
    """
    return any(
        machine.disturbed_until >= sim.world.now and machine.daemon is not None
        and any(group.state_machine.state is State.ACTIVATING for group in machine.daemon._all())
        for machine in sim.machines
    )  # fmt: skip


def revoke(sim: "Simulation", fault: Fault) -> End:
    if not _between_proof_and_answer(sim):
        sim.cluster.revoke_one(fault.place)
    return None


def delete_claim(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.delete_one(fault.place, (CLAIMS,))
    return None


def delete_key(sim: "Simulation", fault: Fault) -> End:
    if not _between_proof_and_answer(sim):
        sim.cluster.delete_one(fault.place, tuple(f"{group.election}/" for group in sim.file.groups))
    return None
