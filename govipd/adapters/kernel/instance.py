"""The kernel adapters of an instance, which the VIP groups of a process share."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from govipd.adapters.kernel.addresses import PresentAddresses
from govipd.adapters.kernel.announce import PacketSocket
from govipd.adapters.kernel.fence_tables import FenceTables
from govipd.adapters.kernel.link_monitor import LinkMonitor
from govipd.adapters.kernel.nftables import NfTables
from govipd.adapters.kernel.route_events import RouteEvents
from govipd.adapters.kernel.rtnetlink import RouteSocket
from govipd.runtime.ports import Clock


@dataclass(frozen=True, slots=True)
class InstanceAdapters:
    """The adapters. They open their sockets when first needed, and outlive reloads.

    Attributes:
        route: for requests to rtnetlink.
        present: the interface's addresses.
        tables: the nf_tables tables of the fences.
        monitor: watches the interface and the groups' addresses.
        transmit: sends frames on the interface.
    """

    route: RouteSocket
    present: PresentAddresses
    tables: FenceTables
    monitor: LinkMonitor
    transmit: Callable[[str, Iterable[bytes]], None]


def instance_adapters(
    interface: str,
    clock: Clock,
    *,
    route: RouteSocket | None = None,
    kernel: NfTables | None = None,
    listen: Callable[[], Any] = RouteEvents,
    transmit: Callable[[str, Iterable[bytes]], None] | None = None,
) -> InstanceAdapters:
    """Make the adapters of an interface."""
    route, present = route or RouteSocket(), PresentAddresses()
    return InstanceAdapters(
        route=route,
        present=present,
        tables=FenceTables(interface, kernel or NfTables(), route.mac),
        monitor=LinkMonitor(clock=clock, route=route, listen=listen, removed=present.forget),
        transmit=transmit or PacketSocket().send,
    )
