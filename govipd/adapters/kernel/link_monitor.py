"""Watches the interfaces and the addresses of a process's VIP groups, over rtnetlink(7).

Addresses are compared without their prefix length, on every interface: see kernel.addresses.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_interface
from typing import Any

from govipd.adapters.kernel.route_events import GROUPS, Change, RouteEvents
from govipd.adapters.kernel.rtnetlink import RouteSocket
from govipd.core.events import Address, AddressesElsewhere, AddressFound, AddressLost, Elsewhere, LinkState
from govipd.core.placement import Placement
from govipd.errors import InterfaceMissingError, KernelError
from govipd.runtime.ports import Clock, Sink

_BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)  # between attempts to open the socket; the last value is repeated


class LinkMonitor:
    """Watches the VIP groups' interfaces, and the addresses of every group on every interface.

    "A look" reads the interfaces and the addresses. The monitor looks at start, after changes that the kernel signals,
    and every `poll_s` seconds; where a change concerns the addresses of some groups, only for these. It sends to a
    group:

    - LinkState at each look;
    - AddressLost when the kernel signals that an address of the group was removed, and when a look misses an address
      that the look before had found;
    - AddressFound at each look, for each address of the group on its interface, with any prefix length;
    - AddressesElsewhere at each look while addresses of the group are on other interfaces, and once afterwards.

    `removed` is called before a group hears that an address is gone.

    After any error (the socket overran, the kernel refused) the monitor opens new sockets and looks again.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        poll_s: float = 2.0,
        route: RouteSocket | None = None,
        listen: Callable[[], Any] = RouteEvents,
        removed: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._poll_s = poll_s
        self._route = route or RouteSocket()
        self._listen = listen
        self._removed = removed
        self._indexes: dict[str, int] = {}  # of the groups' interfaces, as last looked at
        self._macs: dict[str, str] = {}  # by interface, as last seen
        self._watches: list[AddressWatch] = []
        self._by_ip: dict[IPv4Address | IPv6Address, list[AddressWatch]] = {}  # see _concerned(); empty: not known
        self._poll_at = 0.0
        self._waiting: asyncio.Timeout | None = None  # for changes, until the next poll

    def watch(self, placement: Placement, addresses: tuple[Address, ...], sink: Sink) -> "AddressWatch":
        """Watch a group's interfaces and addresses, from now on. The events go to `sink`."""
        watch = AddressWatch(self, placement, addresses, sink)
        self._watches.append(watch)
        self._by_ip = {}
        self._poll_at = self._clock.now()
        if self._waiting is not None:
            with suppress(RuntimeError):  # the wait has just ended
                self._waiting.reschedule(asyncio.get_running_loop().time())
        return watch

    def forget(self, watch: "AddressWatch") -> None:
        """End a watch."""
        if watch in self._watches:
            self._watches.remove(watch)
            self._by_ip = {}

    def replaced(self) -> None:
        """Note that a group watches other addresses."""
        self._by_ip = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        failures = 0
        try:
            while True:
                with suppress(OSError, KernelError):
                    async with self._listen() as events:
                        await events.bind(GROUPS)
                        self._look(self._watches)
                        failures = 0
                        await self._follow(events)
                await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1
        finally:
            self._route.close()

    async def _follow(self, events: Any) -> None:
        self._poll_at = self._clock.now() + self._poll_s
        while True:
            try:
                async with asyncio.timeout(max(0.0, self._poll_at - self._clock.now())) as self._waiting:
                    messages = [message async for message in events.get()]
            except TimeoutError:
                self._poll_at = self._clock.now() + self._poll_s
                self._look(self._watches)
                continue
            finally:
                self._waiting = None
            for message in messages:
                self._handle(message)
            await asyncio.sleep(0)  # in a flood, the next messages are there already

    def _handle(self, message: Change) -> None:
        event, index = message["event"], message["index"]
        if event in ("RTM_NEWLINK", "RTM_DELLINK"):
            # By index, too: the interface may have been renamed, so that its name does not match any more.
            names = {message.get_attr("IFLA_IFNAME"), *(name for name, at in self._indexes.items() if at == index)}
            self._look([watch for watch in self._watches if not names.isdisjoint(watch.placement.interfaces)])
        elif (address := _address(message)) is not None:
            if removed := event == "RTM_DELADDR":
                self._removed()
            watches = self._concerned().get(address.ip, ())
            at = ((watch, self._at(watch, address, index)) for watch in watches)
            self._look([watch for watch, here in at if watch.changed(address, here=here, removed=removed)])

    def _concerned(self) -> Mapping[IPv4Address | IPv6Address, Sequence["AddressWatch"]]:
        """By address, the groups that have it."""
        if not self._by_ip:
            for watch in self._watches:
                for ip in watch.ips:
                    self._by_ip.setdefault(ip, []).append(watch)
        return self._by_ip

    def _look(self, watches: Sequence["AddressWatch"]) -> None:
        """Look for these groups."""
        if not watches:
            return
        self._removed()  # events may have been lost
        found: dict[IPv4Address | IPv6Address, list[tuple[int, Address]]] = {}
        for index, address in self._route.where({ip for watch in watches for ip in watch.ips}):
            found.setdefault(address.ip, []).append((index, address))
        names = dict.fromkeys(name for watch in watches for name in watch.placement.interfaces)
        states = {name: self._state(name) for name in names}
        for watch in tuple(watches):
            ours = [each for ip in watch.ips for each in found.get(ip, ())]
            here = frozenset(address for index, address in ours if self._at(watch, address, index))
            others = [(index, address) for index, address in ours if not self._at(watch, address, index)]
            elsewhere = tuple(Elsewhere(address, self._route.name(index)) for index, address in others)
            watch.seen(worst({name: states[name] for name in watch.placement.interfaces}), here, elsewhere)

    def _state(self, interface: str) -> LinkState:
        """The present state of one interface."""
        try:
            link = self._route.link(interface)
        except InterfaceMissingError:
            self._indexes.pop(interface, None)
            return LinkState(present=False, admin_up=False, carrier=False, mac=self._macs.get(interface, ""))
        self._indexes[interface] = link.index
        self._macs[interface] = mac = link.mac.hex(":")
        return LinkState(present=True, admin_up=link.admin_up, carrier=link.carrier, mac=mac)

    def _at(self, watch: "AddressWatch", address: Address, index: int) -> bool:
        """Whether this is the interface where the group has the address."""
        return index == self._indexes.get(watch.placement.of(address))


def worst(states: Mapping[str, LinkState]) -> LinkState:
    """The state of a group's link: of the interface that is missing, else of one that is not up, else of all."""
    macs = " ".join(dict.fromkeys(state.mac for state in states.values() if state.mac))
    name, state = min(states.items(), key=lambda each: (each[1].present, each[1].admin_up and each[1].carrier))
    up = state.present and state.admin_up and state.carrier
    return replace(state, mac=macs, interface="" if up or len(states) == 1 else name)


class AddressWatch:
    """The watch of one VIP group's addresses (ports.AddressMonitor).

    Attributes:
        placement: where the addresses should be.
        ips: the addresses.
    """

    def __init__(self, monitor: LinkMonitor, placement: Placement, addresses: tuple[Address, ...], sink: Sink) -> None:
        self.placement = placement
        self._monitor = monitor
        self._sink = sink
        self._elsewhere: tuple[Elsewhere, ...] = ()
        self._present = frozenset[Address]()
        self.replace(addresses)

    def replace(self, addresses: tuple[Address, ...]) -> None:
        """Watch other addresses from now on."""
        self._addresses = frozenset(addresses)
        self.ips = frozenset(address.ip for address in addresses)
        self._present = frozenset()
        self._monitor.replaced()

    def close(self) -> None:
        """End the watch."""
        self._monitor.forget(self)

    def changed(self, address: Address, *, here: bool, removed: bool) -> bool:
        """Note a change of one of `ips`, which the kernel signals; `here`: on its interface.

        Returns whether a look is due.
        """
        known = here and address in self._present
        if removed and known:
            self._present -= {address}
            self._sink(AddressLost(address))
            return False
        return not known  # the message may be older than a removal

    def seen(self, link: LinkState, here: frozenset[Address], elsewhere: tuple[Elsewhere, ...]) -> None:
        """Note what a look has found."""
        self._sink(link)
        present = self._addresses & here
        for address in self._present - present:
            self._sink(AddressLost(address))
        for address in sorted(here, key=str):
            self._sink(AddressFound(address))
        self._present = present
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
