"""Removes orphan fences: an earlier process left them, and no group owns the addresses that they guard any more.

The group was renamed, moved to another interface or removed since, or has another kind of fence now.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence

from govipd.adapters.kernel import fence_rules
from govipd.adapters.kernel.fence_elements import FenceElements
from govipd.adapters.kernel.fence_rules import FENCES, IPAddress
from govipd.adapters.kernel.nft_table import NFPROTO_ARP, NFPROTO_INET
from govipd.adapters.kernel.nftables import NfTables


async def clear_orphans(
    kernel: NfTables,
    name: str,
    owned: Collection[IPAddress],
    remove: Callable[[Collection[IPAddress], Collection[IPAddress]], Awaitable[Collection[IPAddress]]],
) -> Sequence[str]:
    """Close the fence of each address that no group owns, remove the address, then the fence.

    Args:
        kernel: commits the transactions.
        name: the name of the interface's tables.
        owned: the groups' addresses.
        remove: removes addresses from the interface, with any prefix length. Its second argument has those that no
            other instance's fence guards: where govipd has added these to another interface, they are removed there,
            too. Returns those that are still on this machine. They stay guarded and closed, unless another instance's
            fence guards them.

    Returns:
        One line for each address that no group owns.

    Raises:
        KernelError: not confirmed. Fences that were not removed yet are as they were, or closed.
    """
    if name not in (every := kernel.tables(FENCES)):
        return ()
    inet, arp = kernel.table(NFPROTO_INET, name), kernel.table(NFPROTO_ARP, name)
    elements, guarded = FenceElements(inet, arp), fence_rules.every(kernel, name)
    orphans = guarded - set(owned)
    left = set[IPAddress]()
    if orphans:
        sets = (*fence_rules.sets(inet, (4, 6)), *fence_rules.sets(arp, (4,)))
        kernel.commit((*sets, *elements.closes(orphans)))
        others = (fence_rules.every(kernel, other) for other in every - {name})
        alone = orphans - frozenset[IPAddress]().union(*others)
        left = set(await remove(orphans, alone)) & alone
    if owned or left:
        if orphans - left:
            kernel.commit(elements.forgets(orphans - left))
    else:
        kernel.commit(m for table in (inet, arp) for m in (table.add(), table.delete()))
    stays = "it is still on this machine, so the fence stays, closed"
    return [
        f"{address} was guarded for a group that is not configured any more: {stays if address in left else 'removed'}"
        for address in sorted(orphans, key=str)
    ]
