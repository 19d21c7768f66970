"""The fence of kernels without nf_tables (ports.Fence)."""

from collections.abc import Collection

from govipd.adapters.kernel.fence_rules import IPAddress
from govipd.core.events import Address
from govipd.runtime.ports import Addresses


class AddressFence:
    """The addresses' own lifetime as the fence: `Addresses.add`, which follows `open`, sets it.

    Weaker than nftables: lifetimes are whole seconds, and the kernel removes an address late (see
    `govipd.adapters.kernel.addresses.KernelAddresses`).
    """

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    async def open(self, until: float) -> None:
        """Nothing to open: an address answers as soon, and for as long, as it is there."""

    async def prepare(self, until: float) -> None:  # noqa: ARG002  # the port's
        """Nothing but to be closed: an address that is there answers."""
        await self.close()

    async def replace(self, addresses: tuple[Address, ...]) -> None:
        """See Addresses.replace."""
        await self._addresses.replace(addresses)

    async def guard(self, addresses: tuple[Address, ...]) -> None:
        """Nothing to guard: an address answers as soon as it is there."""

    async def remove(self, present: Collection[IPAddress] = ()) -> None:
        """There is no fence to take down."""

    async def close(self) -> None:
        """Remove the addresses: the kernel stops answering when they are gone."""
        await self._addresses.remove()
