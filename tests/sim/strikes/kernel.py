"""How faults of the kernel begin, and what people do to it; what is returned ends it (None: it ends by itself)."""

from typing import TYPE_CHECKING

from govipd.core.events import Address
from tests.sim.fault import End, Fault

if TYPE_CHECKING:
    from tests.sim.run import Simulation


def flush(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if machine.process is not None:
        machine.kernel.flush()
    return None


def hold_mutex(sim: "Simulation", fault: Fault) -> End:
    """Another program loads rules: whoever has a transaction waits for nf_tables' mutex, and cannot be killed."""
    machine = sim.machine(fault)
    machine.mutex_held = 0.05 + 0.35 * fault.place
    machine.disturb()

    def end() -> None:
        machine.mutex_held = 0.0
        machine.disturbed()

    return end


def refuse_fence(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kernel.refuses += 1 + int(8 * fault.place)
    return None


def refuse_everything(sim: "Simulation", fault: Fault) -> End:
    kernel = sim.machine(fault).kernel
    kernel.refuses += 1 + int(8 * fault.place)
    kernel.route_refuses += 1 + int(8 * fault.place)
    return None


def refuse_addresses(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kernel.route_refuses += 1 + int(8 * fault.place)
    return None


def remove_address(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.kernel.delete_address(_one(machine.file.addresses, fault))
    return None


def add_address(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if machine.read is not None and not machine.job:  # where no daemon runs, nobody guards the address
        machine.kernel.add_by_hand(_one(machine.read.addresses, fault))
    return None


def _one(addresses: tuple[Address, ...], fault: Fault) -> Address:
    """One of several, by `place`: the first half of the time."""
    return addresses[max(0, int((2 * fault.place - 1) * len(addresses)))]


def overrun(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kernel.overruns = True
    return None


def late_events(sim: "Simulation", fault: Fault) -> End:
    kernel = sim.machine(fault).kernel
    kernel.event_delay = fault.place
    return lambda: setattr(kernel, "event_delay", 0.0)


def link_down(sim: "Simulation", fault: Fault) -> End:
    kernel = sim.machine(fault).kernel
    kernel.set_link(carrier=False)
    return lambda: kernel.set_link(carrier=True)
