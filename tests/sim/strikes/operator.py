"""The operator's commands, and a full disk. The returned function ends the fault (None: it ends by itself)."""

from typing import TYPE_CHECKING

from tests.sim.fault import End, Fault

if TYPE_CHECKING:
    from tests.sim.run import Simulation


def reload(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.file = machine.file.toggled()
    machine.reload()
    return None


def reload_bad_file(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.file_is_bad = machine.daemon is not None
    machine.reload()
    return lambda: setattr(machine, "file_is_bad", False)


def drain(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.drain(wanted=True)
    return machine.undrain


def hand_over(sim: "Simulation", fault: Fault) -> End:
    """govipctl handover to the next in the queue, or to a named member, which may not be in the queue."""
    names = ["", *(machine.name for machine in sim.machines)]
    sim.machine(fault).hand_over(names[int(len(names) * fault.place)])
    return None


def hand_over_one(sim: "Simulation", fault: Fault) -> End:
    """govipctl handover of one group to the next in its queue; then two machines lead."""
    machine = sim.machine(fault)
    groups = machine.file.groups
    machine.hand_over("", groups[int(fault.place * 1000) % len(groups)].name)
    return None


def drain_one(sim: "Simulation", fault: Fault) -> End:
    """govipctl drain of one group; undrain ends the drain of every group."""
    machine = sim.machine(fault)
    groups = machine.file.groups
    machine.drain(wanted=True, only=groups[int(fault.place * 1000) % len(groups)].name)
    return machine.undrain


def full_disk(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.directory.full = True
    return lambda: setattr(machine.directory, "full", False)


def lose_file(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).directory.holdings.clear()
    return None


def clone(sim: "Simulation", fault: Fault) -> End:
    """Another machine gets this machine's member name and machine id, like a copied template."""
    victim = sim.machine(fault)
    machines = sim.oracle.machines
    machine = machines[(victim.index + 1) % len(machines)]
    machine.member = victim.name
    machine.restart()

    def end() -> None:
        machine.member = machine.name
        machine.restart()

    return end
