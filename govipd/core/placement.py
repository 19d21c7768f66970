"""On which interface each address of a VIP group is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from govipd.core.actions import Address


@dataclass(frozen=True, slots=True)
class Placement:
    """The interfaces of one VIP group.

    Attributes:
        interface: the group's own interface. An address is there unless `others` names another interface.
        others: the other interfaces, by address.
    """

    interface: str
    others: Mapping[IPv4Address | IPv6Address, str] = field(default_factory=dict)

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Every interface of the group, its own first."""
        return tuple(dict.fromkeys((self.interface, *self.others.values())))

    @property
    def identity(self) -> tuple[str, ...]:
        """Equal for equal placements."""
        return (self.interface, *sorted(f"{ip} on {interface}" for ip, interface in self.others.items()))

    def of(self, address: Address) -> str:
        """The interface of an address."""
        return self.others.get(address.ip, self.interface)

    def by_interface(self, addresses: Iterable[Address]) -> Mapping[str, tuple[Address, ...]]:
        """The addresses, by interface. Every interface of the group is there."""
        found: dict[str, list[Address]] = {interface: [] for interface in self.interfaces}
        for address in addresses:
            found[self.of(address)].append(address)
        return {interface: tuple(on_it) for interface, on_it in found.items()}
