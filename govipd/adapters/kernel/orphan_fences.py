"""Removes orphan fences: an earlier process left them, and no group owns them any more.

The group was renamed, moved to another interface or removed since, or has another kind of fence now.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from govipd.adapters.kernel import fence_rules
from govipd.adapters.kernel.fence_rules import IPAddress
from govipd.adapters.kernel.nft_table import NFPROTO_ARP, NFPROTO_INET, Message, Table
from govipd.adapters.kernel.nftables import NfTables

FENCES = "govipd_"  # the prefix of all fences' table names
_FAMILIES = {NFPROTO_INET: (4, 6), NFPROTO_ARP: (4,)}


async def clear_orphans(
    kernel: NfTables,
    prefix: str,
    owned: Mapping[str, Collection[IPAddress]],
    remove: Callable[[Collection[IPAddress]], Awaitable[Collection[IPAddress]]],
) -> Sequence[str]:
    """Close each fence that no group owns, remove its addresses from the interface, then remove the fence.

    Args:
        kernel: commits the transactions.
        prefix: the prefix of the interface's table names.
        owned: the groups' tables, and the addresses of each. Any other address that such a table guards is an orphan,
            too.
        remove: removes addresses from the interface, with any prefix length. Returns those that are still on this
            machine. They stay guarded and closed, unless the fence of another interface guards them.

    Returns:
        One line for each table that was changed.

    Raises:
        KernelError: not confirmed. Fences that were not removed yet are as they were, or closed.
    """
    reports = []
    ours, every = kernel.tables(prefix), kernel.tables(FENCES)
    elsewhere = frozenset[IPAddress]().union(*(fence_rules.every(kernel, name) for name in every - ours))
    for name in sorted(ours):
        orphans = fence_rules.every(kernel, name) - set(owned.get(name, ()))
        if not orphans and name in owned:
            continue
        tables = [kernel.table(family, name) for family in _FAMILIES]
        kernel.commit(m for table in tables for m in _closed(table, orphans))
        left = set(await remove(orphans)) & orphans - elsewhere if orphans else set[IPAddress]()
        if name in owned or left:
            kernel.commit(m for table in tables for m in _let_go(table, orphans - left))
        else:
            kernel.commit(m for table in tables for m in (table.add(), table.delete()))
        words = ", ".join(sorted(map(str, orphans))) or "no address"
        stays = f"; {', '.join(sorted(map(str, left)))} is still on this machine, and stays closed" if left else ""
        reports.append(f"{name} guarded {words} for a group that is not configured any more: removed{stays}")
    return reports


def _closed(table: Table, addresses: Collection[IPAddress]) -> list[Message]:
    """The messages that create the table's sets and close these addresses."""
    messages = list(fence_rules.sets(table, _FAMILIES[table.family]))
    for address, name in _in_sets(
        table, addresses, *(lambda v, s=slot: fence_rules.used(v, s) for slot in fence_rules.SLOTS)
    ):
        messages += _delete(table, address, name)
    return messages


def _let_go(table: Table, addresses: Collection[IPAddress]) -> list[Message]:
    messages = [table.add()]
    for address, name in _in_sets(table, addresses, fence_rules.guarded):
        messages += _delete(table, address, name)
    return messages


def _in_sets(
    table: Table, addresses: Collection[IPAddress], *names: Callable[[int], str]
) -> list[tuple[IPAddress, str]]:
    versions = _FAMILIES[table.family]
    return [(a, name(a.version)) for a in addresses if a.version in versions for name in names]


def _delete(table: Table, address: IPAddress, name: str) -> tuple[Message, Message]:
    """Delete an element. Succeeds where the element does not exist."""
    return table.add_element(name, address.packed, times_out=False), table.delete_element(name, address.packed)
