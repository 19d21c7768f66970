"""Addresses and links of one interface, over rtnetlink(7).

The interface is looked up by its name for each operation: it may be deleted and created anew, with another
index. Addresses are compared without their prefix: a kernel that has 192.0.2.100/24 answers for 192.0.2.100/32, and
on whichever interface it has it (the weak host model). What is on another interface is told of, and left alone.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from errno import EADDRNOTAVAIL, ENODEV
from ipaddress import ip_interface
from typing import Any

from govipd.adapters.kernel.rtnetlink import GROUPS, IFA_F_DADFAILED, IFA_F_TENTATIVE, Change, RouteEvents, RouteSocket
from govipd.core.events import Address, AddressesElsewhere, AddressFound, AddressLost, Elsewhere, LinkState
from govipd.errors import InterfaceMissingError, KernelError
from govipd.runtime.ports import Clock, Sink

_BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)  # between attempts to open the monitor's socket; the last one repeats

_TIMER_FUZZ_S = 0.25  # ADDRCONF_TIMER_FUZZ, include/net/addrconf.h


class KernelAddresses:
    """The VIP group's addresses on its interface (ports.Addresses).

    **Lifetime.** Each address carries `valid_lft`, whole seconds, and vanishes without any process's help
    when it is not renewed. The kernel finds expired addresses with a deferrable timer, which it may round up
    to a whole second that is less than 0.25 s away (ADDRCONF_TIMER_FUZZ) and which never fires twice within
    a second (ADDRCONF_TIMER_FUZZ_MAX; net/ipv4/devinet.c check_lifetime, net/ipv6/addrconf.c
    addrconf_verify_rtnl). So an address goes up to 1.25 s after `valid_lft`. Measured on Linux 6.18 at 250 Hz,
    both families, 52 times: 0.00 to 0.53 s after it, but twice 1.05 and 1.25 s.
    `valid_lft` is the whole seconds in the remaining time less 0.25 s, so `until` may be overrun by 1 s. It cannot
    be less than 1, so with less than 1.25 s remaining, by up to 2.25 s less what remains. A longer safety
    distance would let the address vanish when a single renewal is late. Where the lifetime is the only fence,
    the margin has to cover the overrun; nftables needs none. Renewed every 0.5 s or 0.9 s with a `valid_lft`
    of 1, no address flickered.

    Behind another fence (`fenced`) the lifetime is rounded up instead: that fence ends the answers at `until`, and
    the address is there for the next process to go on with.

    **Prefix.** With /32 and /128 the VIP is alone in its subnet. With a shorter IPv4 prefix, the kernel
    deletes a primary address together with its secondaries, unless the sysctl `promote_secondaries` is on
    (systemd's default): leave it on.
    """

    def __init__(
        self,
        *,
        interface: str,
        addresses: tuple[Address, ...],
        clock: Clock,
        fenced: bool = False,
        route: RouteSocket | None = None,
    ) -> None:
        self._interface = interface
        self._addresses = addresses
        self._clock = clock
        self._fenced = fenced
        self._route = route or RouteSocket()

    def mac(self) -> bytes | None:
        """The interface's hardware address now; None when there is none to be had."""
        try:
            link = self._route.link(self._interface)
        except KernelError:
            return None
        return link.mac or None

    async def add(self, until: float) -> None:
        """See that every address is present, with a lifetime that ends at `until` (see the class).

        Idempotent: an address that is present is renewed without a gap. Preferred lifetime 0: the VIP is
        avoided as a source address (RFC 6724 section 5 rule 3). IPv6: no duplicate address detection, which
        would mute the address for a second (RFC 4862 section 5.4): the election has decided already. An
        address that failed it is replaced, as is one that is there with another prefix: it would stay when the
        lifetime ends (and of IPv6 addresses the kernel keeps one, whatever its prefix).

        Raises:
            InterfaceMissingError: the interface does not exist.
            KernelError: the kernel refused, or `until` has passed.
        """
        link = self._route.link(self._interface)
        present = self._route.addresses(link.index)
        for address in self._addresses:
            self._make_way(link.index, address, present)
            what = f"adding {address} to {self._interface}"
            remaining = until - self._clock.now()
            if remaining <= 0:
                raise KernelError(f"{what}: the lease has run out")
            lifetime = math.ceil(remaining) if self._fenced else max(1, math.floor(remaining - _TIMER_FUZZ_S))
            self._route.add(link.index, address, lifetime)

    async def remove(self) -> None:
        """See that no address of the group is on the interface, with any prefix. An absent address is a success.

        Raises:
            KernelError: the kernel refused, or did not answer, for at least one address; all were tried.
        """
        await self._remove(self._addresses)

    async def replace(self, addresses: tuple[Address, ...]) -> None:
        """The group consists of these from now on; those that are no longer among them are removed first.

        Raises:
            KernelError: as remove(). The group is what it was; may be repeated.
        """
        await self._remove(tuple(address for address in self._addresses if address not in addresses))
        self._addresses = addresses

    async def anywhere(self) -> tuple[Elsewhere, ...]:
        """Where on this machine an address of the group is, on this interface or another, with any prefix.

        Raises:
            KernelError: the kernel did not answer.
        """
        found = self._route.where({address.ip for address in self._addresses})
        return tuple(Elsewhere(address, self._route.name(index)) for index, address in found)

    def close(self) -> None:
        """Close the socket. Nothing is removed."""
        self._route.close()

    async def _remove(self, addresses: tuple[Address, ...]) -> None:
        try:
            link = self._route.link(self._interface)
        except InterfaceMissingError:
            return
        ips = {address.ip for address in addresses}
        twins = {address for address in self._route.addresses(link.index) if address.ip in ips}
        errors = []
        for address in (*addresses, *sorted(twins - set(addresses), key=str)):
            try:
                self._delete(link.index, address)
            except KernelError as error:
                errors.append(error)
        if errors:
            raise KernelError("; ".join(map(str, errors))) from errors[0]

    def _make_way(self, index: int, address: Address, present: dict[Address, int]) -> None:
        for other in present:
            if other.ip == address.ip and other != address:
                self._delete(index, other)
        if present.get(address, 0) & (IFA_F_DADFAILED | IFA_F_TENTATIVE):
            self._delete(index, address)

    def _delete(self, index: int, address: Address) -> None:
        try:
            self._route.delete(index, address)
        except KernelError as error:
            if error.number not in {EADDRNOTAVAIL, ENODEV}:
                raise


class NetlinkMonitor:
    """Watches the interface, and the VIP group's addresses on every interface (ports.AddressMonitor).

    Sends LinkState at start, at each change that the kernel signals, and every `poll_s`; AddressLost when the
    kernel signals that an address of the group went, whoever removed it, and when one seen by the last poll
    is not there any more; AddressFound for what is on the interface with any prefix, AddressesElsewhere when what is on
    other interfaces changes, and at every look while there is any. After any error (the socket overran, the kernel
    refused) it opens new sockets and looks again.
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
        """Watch for ever. Ends only by being cancelled."""
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
                # By index too: a link that was ours and is renamed is not ours any more.
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
