"""How faults of daemons and of whole machines begin. The returned function ends the fault (None: by itself)."""

from typing import TYPE_CHECKING

from tests.sim.fault import End, Fault

if TYPE_CHECKING:
    from tests.sim.run import Simulation


def kill(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kill()
    return None


def restart(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).restart()
    return None


def restart_unasked(sim: "Simulation", fault: Fault) -> End:
    """A restart while D-Bus does not answer which job runs."""
    machine = sim.machine(fault)
    machine.job_type_hangs = True
    machine.restart()
    return lambda: setattr(machine, "job_type_hangs", False)


def stop(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.stop()
    return machine.start


def freeze(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).freeze(fault.seconds)
    return None


def slow(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    process, longest = machine.process, 0.02 * fault.place
    if process is None:
        return None
    machine.disturb()
    process.slowness = lambda: sim.random.random() * longest

    def end() -> None:
        process.slowness = None
        machine.disturbed()

    return end


def lose_processor(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.lost_processor = 0.5 * fault.place
    machine.disturb()

    def end() -> None:
        machine.lost_processor = 0.0
        machine.disturbed()

    return end


def break_task(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).break_task()
    return None


def power_off(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if not machine.powered:
        return None
    machine.power_off()
    sim.cluster.fail(machine.index)

    def end() -> None:
        sim.cluster.start(machine.index)
        machine.power_on()

    return end
