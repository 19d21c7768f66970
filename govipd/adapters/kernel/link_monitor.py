"""Watches an interface and the addresses of a VIP group, over rtnetlink(7).

Addresses are compared without their prefix length, on every interface: see kernel.addresses.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_interface
from typing import Any

from govipd.adapters.kernel.rtnetlink import GROUPS, Change, RouteEvents, RouteSocket
from govipd.core.events import Address, AddressesElsewhere, AddressFound, AddressLost, Elsewhere, LinkState
from govipd.errors import InterfaceMissingError, KernelError
from govipd.runtime.ports import Clock, Sink

_BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)  # between attempts to open the socket; the last value is repeated


class NetlinkMonitor:
    """Watches the interface, and the VIP group's addresses on every interface (ports.AddressMonitor).

    "A look" reads the interface and the addresses. The monitor looks at start, after changes that the kernel signals,
    and every `poll_s` seconds. It sends:

    - LinkState at each look;
    - AddressLost when the kernel signals that an address of the group was removed, and when a look misses an address
      that the look before had found;
    - AddressFound at each look, for each address of the group on the interface, with any prefix length;
    - AddressesElsewhere at each look while other interfaces have addresses of the group, and once afterwards.

    After any error (the socket overran, the kernel refused) the monitor opens new sockets and looks again.
    """

    def __init__(
        self,
        *,
        interface: str,
        addresses: tuple[Address, ...],
        sink: Sink,
        clock: Clock,
        poll_s: float = 2.0,
        route: RouteSocket | None = None,
        listen: Callable[[], Any] = RouteEvents,
    ) -> None:
        self._interface = interface
        self._addresses = frozenset(addresses)
        self._sink = sink
        self._clock = clock
        self._poll_s = poll_s
        self._route = route or RouteSocket()
        self._listen = listen
        self._index: int | None = None
        self._present: frozenset[Address] = frozenset()
        self._elsewhere: tuple[Elsewhere, ...] = ()

    def replace(self, addresses: tuple[Address, ...]) -> None:
        """Watch other addresses from now on."""
        self._addresses = frozenset(addresses)
        self._present = frozenset()

    async def run(self) -> None:
        """Watch until cancelled."""
        failures = 0
        try:
            while True:
                with suppress(OSError, KernelError):
                    async with self._listen() as events:
                        await events.bind(GROUPS)
                        await self._look()
                        failures = 0
                        await self._follow(events)
                await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1
        finally:
            self._route.close()

    async def _follow(self, events: Any) -> None:
        next_poll = self._clock.now() + self._poll_s
        while True:
            try:
                async with asyncio.timeout(max(0.0, next_poll - self._clock.now())):
                    messages = [message async for message in events.get()]
            except TimeoutError:
                await self._look()
                next_poll = self._clock.now() + self._poll_s
                continue
            for message in messages:
                await self._handle(message)

    async def _handle(self, message: Change) -> None:
        match message["event"]:
            case "RTM_NEWLINK" | "RTM_DELLINK":
                # By index, too: the interface may have been renamed, so that its name does not match any more.
                if message.get_attr("IFLA_IFNAME") == self._interface or message["index"] == self._index:
                    await self._look()
            case "RTM_DELADDR":
                address, here = _address(message), message["index"] == self._index
                if here and address and address in self._present:
                    self._present -= {address}
                    self._sink(AddressLost(address))
                elif self._concerns(address):
                    await self._look()
            case "RTM_NEWADDR":
                address, here = _address(message), message["index"] == self._index
                if self._concerns(address) and not (here and address in self._present):
                    await self._look()  # the message may be older than a removal

    def _concerns(self, address: Address | None) -> bool:
        return address is not None and any(address.ip == ours.ip for ours in self._addresses)

    async def _look(self) -> None:
        found = self._route.where({address.ip for address in self._addresses})
        try:
            link = self._route.link(self._interface)
        except InterfaceMissingError:
            self._index = None
            self._sink(LinkState(present=False, admin_up=False, carrier=False, mac=""))
        else:
            self._index = link.index
            self._sink(LinkState(present=True, admin_up=link.admin_up, carrier=link.carrier, mac=link.mac.hex(":")))
        here = frozenset(address for index, address in found if index == self._index)
        present = self._addresses & here
        for address in self._present - present:
            self._sink(AddressLost(address))
        for address in sorted(here, key=str):
            self._sink(AddressFound(address))
        self._present = present
        others = [(index, address) for index, address in found if index != self._index]
        elsewhere = tuple(Elsewhere(address, self._route.name(index)) for index, address in others)
        if elsewhere or self._elsewhere:
            self._elsewhere = elsewhere
            self._sink(AddressesElsewhere(elsewhere))


def _address(message: Change) -> Address | None:
    # IFA_LOCAL is the interface's own; IFA_ADDRESS the peer's on point-to-point links (linux/if_addr.h).
    local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    try:
        return ip_interface(f"{local}/{message['prefixlen']}")
    except ValueError:
        return None  # the attributes are optional
