"""The messages about the fence's addresses: elements of the sets that its rules look into (kernel.fence_rules)."""

from collections.abc import Callable, Iterable, Iterator

from govipd.adapters.kernel import fence_rules
from govipd.adapters.kernel.fence_rules import SLOTS, IPAddress
from govipd.adapters.kernel.nft_table import Message, Table, timing
from govipd.core.events import Address
from govipd.core.placement import Placement

_LONG_MS = (
    3_600_000  # for elements that one transaction adds and deletes: an element that has timed out cannot be deleted
)

Addresses = Iterable[IPAddress]  # an address with a prefix is one, too: the prefix plays no part


class FenceElements:
    """Makes the messages about addresses, for each table that has them.

    Args:
        inet: the fence's table for both IP versions.
        arp: the fence's table for IPv4's neighbour protocol.
    """

    def __init__(self, inet: Table, arp: Table) -> None:
        self._inet, self._arp = inet, arp

    def guards(self, addresses: Addresses) -> Iterator[Message]:
        """The messages that guard addresses."""
        return self._each(addresses, lambda t, v, key: [_add(t, fence_rules.guarded(v), key)])

    def places(self, placement: Placement, addresses: Iterable[Address]) -> Iterator[Message]:
        """The messages that say on which interface each address is."""
        for interface, placed in placement.by_interface(addresses).items():
            for address in placed:
                yield _add(self._inet, fence_rules.placed(address.version, interface), address.packed)

    def displaces(self, placement: Placement, addresses: Iterable[Address]) -> Iterator[Message]:
        """The messages after which these addresses are on no interface."""
        for interface, placed in placement.by_interface(addresses).items():
            for address in placed:
                yield from _delete(self._inet, fence_rules.placed(address.version, interface), address.packed)

    def forgets(self, addresses: Addresses) -> Iterator[Message]:
        """The messages after which addresses are not guarded."""
        return self._each(addresses, lambda t, v, key: _delete(t, fence_rules.guarded(v), key))

    def fills(self, addresses: Addresses, slot: str) -> Iterator[Message]:
        """The messages that put elements into a slot; timing() sets their time-out."""

        def make(table: Table, version: int, key: bytes) -> Iterator[Message]:
            name = fence_rules.opened(version, slot)
            yield timing(table.add_element(name, key, times_out=True), _LONG_MS)
            yield table.delete_element(name, key)
            yield table.add_element(name, key, times_out=True)

        return self._each(addresses, make)

    def uses(self, addresses: Addresses, slot: str) -> Iterator[Message]:
        """The messages that let this slot count, and the other not."""

        def make(table: Table, version: int, key: bytes) -> Iterator[Message]:
            yield _add(table, fence_rules.used(version, slot), key)
            yield from _delete(table, fence_rules.used(version, other(slot)), key)

        return self._each(addresses, make)

    def closes(self, addresses: Addresses) -> Iterator[Message]:
        """The messages after which neither slot counts."""
        return self._each(
            addresses, lambda t, v, key: [m for s in SLOTS for m in _delete(t, fence_rules.used(v, s), key)]
        )

    def _each(self, addresses: Addresses, make: Callable[[Table, int, bytes], Iterable[Message]]) -> Iterator[Message]:
        for address in addresses:
            for table in (self._inet, self._arp) if address.version == 4 else (self._inet,):
                yield from make(table, address.version, address.packed)


def other(slot: str) -> str:
    """The other slot."""
    return SLOTS[1 - SLOTS.index(slot)]


def _add(table: Table, name: str, key: bytes) -> Message:
    return table.add_element(name, key, times_out=False)


def _delete(table: Table, name: str, key: bytes) -> tuple[Message, Message]:
    """Delete an element. Succeeds where the element does not exist."""
    return _add(table, name, key), table.delete_element(name, key)
