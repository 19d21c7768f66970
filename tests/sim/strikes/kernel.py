"""How faults of the kernel and operators' commands begin. The returned function ends the fault (None: by itself)."""

from ipaddress import ip_interface
from typing import TYPE_CHECKING

from govipd.core.events import Address
from tests.sim.fault import End, Fault
from tests.sim.kernel import INTERFACE, SECOND
from tests.sim.oracle import STREWN_S

if TYPE_CHECKING:
    from tests.sim.run import Simulation


def flush(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if machine.process is not None:
        machine.kernel.flush()
    return None


def hold_mutex(sim: "Simulation", fault: Fault) -> End:
    """Another program loads rules: a transaction waits for nf_tables' mutex, and its process cannot be killed."""
    machine = sim.machine(fault)
    machine.mutex_held = 0.05 + 0.35 * fault.place
    machine.disturb()

    def end() -> None:
        machine.mutex_held = 0.0
        machine.disturbed()

    return end


def redirect(sim: "Simulation", fault: Fault) -> End:
    """A NAT rule redirects packets for the VIP to this machine's server at another address, until the boot."""
    machine = sim.machine(fault)
    machine.kernel.redirect(_one(machine.file.addresses, fault).ip)
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
    machine = sim.machine(fault)
    machine.kernel.delete_address(_one(machine.file.addresses, fault))
    return None


def add_address(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if machine.read is not None and not machine.job:  # where no daemon runs, no fence guards a new address
        address = _one(machine.read.addresses, fault)
        machine.kernel.add_by_hand(_twin(address) if 0.25 <= fault.place < 0.5 else address)
    return None


def add_elsewhere(sim: "Simulation", fault: Fault) -> End:
    """Add the VIP on an interface that is not govipd's. govipd can only keep the address silent."""
    machine = sim.machine(fault)
    if machine.read is None or machine.job:
        return None
    group = machine.read.groups[0]
    where = _twin(group.addresses[0]) if fault.place < 0.5 else group.addresses[0]
    machine.kernel.add_elsewhere(where)
    since, daemon, read = machine.kernel.elsewhere[where], machine.daemon, machine.read

    def look() -> None:
        if machine.kernel.elsewhere.get(where) == since and machine.daemon is daemon and machine.read is read:
            queue = [kv for kv in sim.cluster.keys.values() if kv.key.startswith(f"{group.election}/")]
            queue.sort(key=lambda kv: kv.create_revision)
            sim.oracle.strewn(machine, [kv.value.decode() for kv in queue])

    sim.world.after(STREWN_S, look)
    return lambda: machine.kernel.delete_elsewhere(where)


def _twin(address: Address) -> Address:
    """The address with another prefix."""
    return ip_interface(f"{address.ip}/24")


def _one(addresses: tuple[Address, ...], fault: Fault) -> Address:
    """One of several, by `place`; half of the time the first."""
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
    kernel.set_link(INTERFACE, carrier=False)
    return lambda: kernel.set_link(INTERFACE, carrier=True)


def second_link_down(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.kernel.set_link(SECOND, carrier=False)
    machine.oracle.unplugged(machine)
    return lambda: machine.kernel.set_link(SECOND, carrier=True)
