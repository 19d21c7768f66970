"""A VIP group's addresses on its interface, over rtnetlink(7).

The interface is looked up by its name for each operation: it may be deleted and created anew, with another
index. Addresses are compared without their prefix: a kernel that has 192.0.2.100/24 answers for 192.0.2.100/32, and
on whichever interface it has it (the weak host model). An address on another interface is reported, and left alone.
"""

import math
from errno import EADDRNOTAVAIL, ENODEV

from govipd.adapters.kernel.rtnetlink import IFA_F_DADFAILED, IFA_F_TENTATIVE, RouteSocket
from govipd.core.events import Address, Elsewhere
from govipd.errors import InterfaceMissingError, KernelError
from govipd.runtime.ports import Clock

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
        """The interface's hardware address now; None without one."""
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
