"""A VIP group's addresses on its interfaces, over rtnetlink(7).

Each operation looks an interface up by its name: an interface that was deleted and created again has another index.
Addresses are compared without their prefix length: a kernel that has 192.0.2.100/24 answers for 192.0.2.100/32,
whichever interface has the address (the weak host model). An address on a wrong interface is reported, not removed.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from errno import EADDRNOTAVAIL, ENODEV
from ipaddress import IPv4Address, IPv6Address

from govipd.adapters.kernel.rtnetlink import IFA_F_DADFAILED, IFA_F_TENTATIVE, RouteSocket
from govipd.core.events import Address, Elsewhere
from govipd.core.placement import Placement
from govipd.errors import InterfaceMissingError, KernelError
from govipd.runtime.ports import Clock

SPARE_S = 1  # seconds
_TIMER_FUZZ_S = 0.25  # ADDRCONF_TIMER_FUZZ, include/net/addrconf.h


_ByIp = dict[IPv4Address | IPv6Address, dict[Address, int]]  # by address: with which prefix lengths, and flags


class PresentAddresses:
    """The addresses of an interface, read once for all groups that look at about the same time.

    Attributes:
        MAX_AGE_S: seconds for which an answer is used.
    """

    MAX_AGE_S = 0.05

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, int, _ByIp]] = {}  # by interface: when it was read, its index, addresses

    def of(self, interface: str, route: RouteSocket, now: float) -> tuple[int, "_ByIp"]:
        """The index of the interface, and what it has of each address, at most MAX_AGE_S old.

        Raises:
            InterfaceMissingError: the interface does not exist.
            KernelError: the kernel did not answer.
        """
        read_at, index, found = self._found.get(interface, (float("-inf"), 0, {}))
        if now - read_at > self.MAX_AGE_S:
            index = route.link(interface).index
            found = {}
            for address, flags in route.addresses(index).items():
                found.setdefault(address.ip, {})[address] = flags
            self._found[interface] = now, index, found
        return index, found

    def forget(self) -> None:
        """Note that an address may have been deleted: the next look reads again."""
        self._found.clear()


class KernelAddresses:
    """The VIP group's addresses on its interfaces (ports.Addresses).

    **Lifetime.** Each address has a `valid_lft` in whole seconds. The kernel removes an address by itself when it is
    not renewed. The kernel finds expired addresses with a deferrable timer, which it may round up
    to a whole second that is less than 0.25 s away (ADDRCONF_TIMER_FUZZ) and which never fires twice within
    a second (ADDRCONF_TIMER_FUZZ_MAX; net/ipv4/devinet.c check_lifetime, net/ipv6/addrconf.c
    addrconf_verify_rtnl). So an address goes up to 1.25 s after `valid_lft`. Measured on Linux 6.18 at 250 Hz,
    both families, 52 times: 0.00 to 0.53 s after it, but twice 1.05 and 1.25 s.
    `valid_lft` is the remaining time less 0.25 s, rounded down to whole seconds, so an address may outlive `until` by
    1 s. `valid_lft` is at least 1. So with less than 1.25 s remaining, the overrun is up to 2.25 s less the remaining
    time. With a shorter `valid_lft`, the address would vanish when a single renewal is late. Where the lifetime is the
    only fence, the margin has to cover the overrun; nf_tables has no overrun. Renewed every 0.5 s or 0.9 s with a
    `valid_lft` of 1, no address flickered.

    Behind the nf_tables fence (`fenced`) the lifetime is rounded up, and SPARE_S longer: the fence ends the answers at
    `until`, and the address stays for the next process to adopt. It is renewed only when it would end before `until`:
    each renewal costs the kernel a timer and an event to every listener.

    **Other groups.** An address that `spared` returns is not removed: a reload has given it to another group of this
    process, or takes it from one, and that group holds it now.

    **Prefix.** With /32 and /128 the VIP is alone in its subnet. With a shorter IPv4 prefix, the kernel
    deletes a primary address together with its secondaries, unless the sysctl `promote_secondaries` is on
    (systemd's default): leave it on.
    """

    def __init__(
        self,
        *,
        placement: Placement,
        addresses: tuple[Address, ...],
        clock: Clock,
        fenced: bool = False,
        route: RouteSocket,
        present: PresentAddresses,
        spared: Callable[[], Collection[IPv4Address | IPv6Address]] = tuple,
    ) -> None:
        self._placement = placement
        self._addresses = addresses
        self._clock = clock
        self._fenced = fenced
        self._route = route
        self._present = present
        self._spared = spared
        self._renews = False  # the last add() succeeded: the next one changes lifetimes only
        self._ends: dict[Address, float] = {}  # until when each address stays at least

    def of_another(self, address: Address) -> bool:
        """See ports.Addresses."""
        return address.ip in self._spared()

    async def add(self, until: float) -> None:
        """Add or renew every address, with a lifetime that ends at `until` (see the class).

        A present address is renewed without a gap. The preferred lifetime is 0, so that the kernel avoids the VIP as a
        source address (RFC 6724 section 5 rule 3). IPv6 addresses skip duplicate address detection, which would mute
        the address for a second (RFC 4862 section 5.4): the election has decided already. An address that failed the
        detection is replaced. So is an address that is present with another prefix length: it would stay when the
        lifetime ends (and the kernel keeps an IPv6 address only once, whatever its prefix length).

        Raises:
            InterfaceMissingError: an interface does not exist.
            KernelError: the kernel refused, or `until` has passed.
        """
        renews, self._renews = self._renews, False
        for interface, addresses in self._placement.by_interface(self._addresses).items():
            self._add(interface, addresses, until, renews=renews)
        self._renews = True

    def _add(self, interface: str, addresses: Iterable[Address], until: float, *, renews: bool) -> None:
        index, present = self._present.of(interface, self._route, self._clock.now())
        for address in addresses:
            twins = present.get(address.ip, {})
            self._make_way(index, address, twins)
            what = f"adding {address} to {interface}"
            remaining = until - self._clock.now()
            if remaining <= 0:
                raise KernelError(f"{what}: the lease has run out")
            sound = not twins.get(address, IFA_F_TENTATIVE) & (IFA_F_DADFAILED | IFA_F_TENTATIVE)
            if renews and sound and until <= self._ends.get(address, 0.0):
                continue
            if self._fenced:
                lifetime = math.ceil(remaining) + SPARE_S
                self._ends[address] = until - remaining + lifetime - _TIMER_FUZZ_S
            else:
                lifetime = max(1, math.floor(remaining - _TIMER_FUZZ_S))
            try:
                self._route.add(index, address, lifetime)
            except KernelError as error:
                self._present.forget()
                if error.number == ENODEV:
                    raise InterfaceMissingError(f"{what}: the interface does not exist") from error
                raise

    async def remove(self) -> None:
        """Remove the group's addresses from its interfaces, with any prefix length. An absent address is a success.

        Raises:
            KernelError: the kernel refused, or did not answer, for at least one address; all were tried.
        """
        await self._remove(self._addresses)

    async def replace(self, addresses: tuple[Address, ...]) -> None:
        """Set the group's addresses. Addresses that leave the group are removed first.

        Raises:
            KernelError: as remove(). The group's addresses are unchanged; may be repeated.
        """
        await self._remove(tuple(address for address in self._addresses if address not in addresses))
        self._addresses = addresses

    async def anywhere(self) -> tuple[Elsewhere, ...]:
        """The group's addresses that are on any interface of this machine, with any prefix length.

        Raises:
            KernelError: the kernel did not answer.
        """
        found = self._route.where({address.ip for address in self._addresses})
        return tuple(Elsewhere(address, self._route.name(index)) for index, address in found)

    async def _remove(self, addresses: tuple[Address, ...]) -> None:
        self._renews = False
        spared, errors = self._spared(), list[KernelError]()
        gone = [address for address in addresses if address.ip not in spared]
        for interface, leaving in self._placement.by_interface(gone).items():
            errors += self._remove_from(interface, leaving) if leaving else ()
        if errors:
            raise KernelError("; ".join(map(str, errors))) from errors[0]

    def _remove_from(self, interface: str, addresses: tuple[Address, ...]) -> Iterator[KernelError]:
        """Remove addresses from one interface. Yields the errors; all addresses are tried."""
        try:
            index = self._route.link(interface).index
            there = self._route.addresses(index)
        except InterfaceMissingError:
            return
        except KernelError as error:
            yield error
            return
        ips = {address.ip for address in addresses}
        twins = {address for address in there if address.ip in ips}
        for address in (*addresses, *sorted(twins - set(addresses), key=str)):
            try:
                self._delete(index, address)
            except KernelError as error:
                yield error

    def _make_way(self, index: int, address: Address, present: dict[Address, int]) -> None:
        for other in present:
            if other != address:
                self._delete(index, other)
        if present.get(address, 0) & (IFA_F_DADFAILED | IFA_F_TENTATIVE):
            self._delete(index, address)

    def _delete(self, index: int, address: Address) -> None:
        self._present.forget()
        try:
            self._route.delete(index, address)
        except KernelError as error:
            if error.number not in {EADDRNOTAVAIL, ENODEV}:
                raise
