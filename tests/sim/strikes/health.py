"""How faults of haproxy and of its monitors begin. The returned function ends the fault (None: it ends by itself)."""

from typing import TYPE_CHECKING

from tests.sim.fault import End, Fault

if TYPE_CHECKING:
    from tests.sim.run import Simulation


def proxy_fails(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.set_proxy("failed")
    return lambda: machine.set_proxy("active")


def proxy_errors(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.set_proxy(answers="no")
    return lambda: machine.set_proxy(answers="yes")


def proxy_reloads(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if machine.proxy.active_state == "active":
        machine.set_proxy("reloading")

    def end() -> None:
        if machine.proxy.active_state == "reloading":
            machine.set_proxy("active")

    return end


def bus_away(sim: "Simulation", fault: Fault) -> End:
    proxy = sim.machine(fault).proxy
    proxy.bus_away = True
    return lambda: setattr(proxy, "bus_away", False)
