"""Faults of one of two networks, and many groups on both."""

from functools import partial
from ipaddress import ip_address

from tests.lab.edges import reachable
from tests.lab.files import set_vips
from tests.lab.host import until
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.observe import Vips
from tests.lab.play import Outcome, Scenario

SERVED_S = 30.0


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
    Scenario("inner-interface-deleted", "the holder's second interface is deleted, and later made again", Outcome.MOVES,
             _inner_interface_deleted, _inner_rewired),
    Scenario("inner-network-parted", "the holder is cut off from the others on the second network only", Outcome.STAYS,
             _inner_network_parted),
)  # fmt: skip


def addresses(group: int) -> tuple[str, str, str, str]:
    """The addresses of a group: both families, on both networks. The first group has the lab's."""
    host = 100 + group
    return f"192.0.2.{host}", f"2001:db8::{host}", f"198.51.100.{host}", f"2001:db8:1::{host}"


def name(group: int) -> str:
    """The name of a group."""
    return f"g{group}" if group else "api"


def configure_groups(lab: Lab, both: int, outer: int = 0) -> None:
    """Give every machine's file so many groups on both networks, and then so many on the first one only."""
    groups = {}
    for group in range(both + outer):
        outer4, outer6, inner4, inner6 = addresses(group)
        groups[name(group)] = [f"{outer4}/32", f"{outer6}/128"]
        if group < both:
            groups[name(group)] += [f"{inner4}/24@eth1", f"{inner6}/64@eth1"]
    for node in lab.nodes:
        set_vips(node, **groups)


def watched(groups: int) -> tuple[Vips, Vips]:
    """The addresses for which the machines are asked, on either network."""
    ips = [tuple(map(ip_address, addresses(group))) for group in range(groups)]
    return [each[:2] for each in ips], [each[2:] for each in ips]  # type: ignore[misc]  # as addresses() has them


def wait_all_served(lab: Lab, both: int, outer: int = 0) -> None:
    """Wait until every address of every group is served; see configure_groups().

    Raises:
        LabError: one is not, within SERVED_S.
    """
    for group in range(both + outer):
        for address in addresses(group)[: 4 if group < both else 2]:
            until(partial(reachable, lab, address), SERVED_S, f"{address} is served")
