"""How faults of the kernel begin, and what people do to it; what is returned ends it (None: it ends by itself)."""

from typing import TYPE_CHECKING

from tests.sim.compose import VIP
from tests.sim.fault import End, Fault

if TYPE_CHECKING:
    from tests.sim.run import Simulation


def flush(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if machine.process is not None:
        machine.kernel.flush()
    return None


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
    sim.machine(fault).kernel.delete_address(VIP)
    return None


def add_address(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if machine.daemon is not None and not machine.job:  # where no daemon runs, nobody guards the address
        machine.kernel.add_by_hand(VIP)
    return None


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
