"""Faults of one of two networks."""

from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.play import Outcome, Scenario


def _outer_cable_pulled(lab: Lab, holder: Machine) -> None:
    lab.network.port_down(holder.port)


def _inner_cable_pulled(lab: Lab, holder: Machine) -> None:
    lab.network.port_down(holder.port.inner)


def _inner_interface_deleted(_lab: Lab, holder: Machine) -> None:
    holder.run("ip link delete eth1")


def _inner_rewired(lab: Lab, holder: Machine) -> None:
    lab.network.rewire(holder.port.inner)


def _inner_network_parted(lab: Lab, holder: Machine) -> None:
    lab.network.cut(holder.port.inner, [node.port.inner for node in lab.others(holder)])


OF_TWO = (
    Scenario("outer-cable-pulled", "the holder's cable of the first network is pulled", Outcome.MOVES,
             _outer_cable_pulled),
    Scenario("inner-cable-pulled", "the holder's cable of the second network is pulled", Outcome.MOVES,
             _inner_cable_pulled),
    Scenario("inner-interface-deleted", "the holder's second interface is deleted, and created anew", Outcome.MOVES,
             _inner_interface_deleted, _inner_rewired),
    Scenario("inner-network-parted", "the holder is cut off from the others on the second network only", Outcome.STAYS,
             _inner_network_parted),
)  # fmt: skip
