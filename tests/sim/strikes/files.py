"""Edits of govip.toml, machine after machine, and typos. In the end every machine has the same file again."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.sim.fault import End, Fault
from tests.sim.files import OTHER_PREFIX, File

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.run import Simulation


def rename(sim: "Simulation", fault: Fault) -> End:
    return _machine_after_machine(sim, fault, lambda file: file.renamed(_group(file, fault)), _reload)


def rename_and_restart(sim: "Simulation", fault: Fault) -> End:
    return _machine_after_machine(sim, fault, lambda file: file.renamed(_group(file, fault)), _restart)


def move_address(sim: "Simulation", fault: Fault) -> End:
    return _machine_after_machine(sim, fault, File.moved, _reload)


def move_address_and_restart(sim: "Simulation", fault: Fault) -> End:
    return _machine_after_machine(sim, fault, File.moved, _restart)


def remove_and_reload(sim: "Simulation", fault: Fault) -> End:
    return _machine_after_machine(sim, fault, File.removed, _reload)


def remove_and_restart(sim: "Simulation", fault: Fault) -> End:
    return _machine_after_machine(sim, fault, File.removed, _restart)


def add_and_reload(sim: "Simulation", fault: Fault) -> End:
    return _machine_after_machine(sim, fault, File.added, _reload)


def add_and_restart(sim: "Simulation", fault: Fault) -> End:
    return _machine_after_machine(sim, fault, File.added, _restart)


def add_group(sim: "Simulation", fault: Fault) -> End:
    return _machine_after_machine(sim, fault, File.with_another_group, _reload)


def mistype_name(sim: "Simulation", fault: Fault) -> End:
    """Rename a group on one machine, which has a group of its own then."""
    return _slip(sim, fault, lambda file: file.renamed(_group(file, fault)))


def mistype_election(sim: "Simulation", fault: Fault) -> End:
    def slip(file: File) -> File:
        index = _group(file, fault)
        return file.with_group(index, replace(file.groups[index], election=f"{file.groups[index].election}-a"))

    return _slip(sim, fault, slip)


def mistype_prefix(sim: "Simulation", fault: Fault) -> End:
    return _slip(sim, fault, lambda file: replace(file, prefix=OTHER_PREFIX))


def _group(file: File, fault: Fault) -> int:
    return int(fault.place * 100) % len(file.groups)


def _reload(machine: "Machine") -> None:
    machine.reload()


def _restart(machine: "Machine") -> None:
    machine.restart()


def _machine_after_machine(
    sim: "Simulation", fault: Fault, change: Callable[[File], File], apply: Callable[["Machine"], None]
) -> End:
    """Copy the new file to each machine and apply it. `place` gives the order, `seconds` the whole time."""
    target = sim.file = change(sim.file)
    first = sim.machine(fault).index
    machines = sim.oracle.machines
    step = 1 if fault.place < 0.5 else -1
    order = [machines[(first + step * i) % len(machines)] for i in range(len(machines))]

    def bring(machine: "Machine") -> None:
        if sim.file == target:  # else there is a newer one
            machine.edit(target)
            apply(machine)

    for number, machine in enumerate(order):
        sim.world.after(number * fault.seconds / len(order), bring, machine)
    return sim.agree


def _slip(sim: "Simulation", fault: Fault, slip: Callable[[File], File]) -> End:
    machine = sim.machine(fault)
    machine.edit(slip(sim.file))
    apply = _reload if fault.place < 0.7 else _restart
    apply(machine)
    return sim.agree
