"""The fence of kernels without nf_tables (ports.Fence)."""

from collections.abc import Collection

from govipd.adapters.kernel.fence_rules import IPAddress
from govipd.core.events import Address
from govipd.runtime.ports import Addresses


class AddressFence:
    """The addresses' own lifetime serves as the fence. `Addresses.add`, which follows `open`, sets the lifetime.

    This fence is weaker than nf_tables: lifetimes are whole seconds, and the kernel removes an address late (see
    `govipd.adapters.kernel.addresses.KernelAddresses`).
    """

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    async def open(self, until: float) -> None:
        """Do nothing: the kernel answers for an address while it is present."""

    async def prepare(self, until: float) -> None:  # noqa: ARG002  # the port's
        """Only close the fence: the kernel answers for an address while it is present."""
        await self.close()

    async def replace(self, addresses: tuple[Address, ...]) -> None:
        """See Addresses.replace."""
        await self._addresses.replace(addresses)

    async def guard(self, addresses: tuple[Address, ...]) -> None:
        """Do nothing: this fence cannot hold back an address that is present."""

    async def remove(self, present: Collection[IPAddress] = ()) -> None:
        """Do nothing: there is no fence to remove."""

    async def close(self) -> None:
        """Remove the addresses: the kernel stops answering when they are gone."""
        await self._addresses.remove()
