"""Fences that an earlier process left and no group owns: renamed, moved, removed, or fenced otherwise since."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from govipd.adapters.kernel import fence_rules
from govipd.adapters.kernel.fence_rules import IPAddress
from govipd.adapters.kernel.nft_table import NFPROTO_ARP, NFPROTO_INET, Message, Table
from govipd.adapters.kernel.nftables import NfTables

FENCES = "govipd_"  # what the names of all fences begin with
_FAMILIES = {NFPROTO_INET: (4, 6), NFPROTO_ARP: (4,)}


async def clear_orphans(
    kernel: NfTables,
    prefix: str,
    owned: Mapping[str, Collection[IPAddress]],
    remove: Callable[[Collection[IPAddress]], Awaitable[Collection[IPAddress]]],
) -> Sequence[str]:
    """Close what no group owns, take its addresses off the interface, then let go of it.

    Args:
        kernel: where the tables are.
        prefix: that of the interface's tables.
        owned: the groups' tables, and the addresses of each. Others that such a table guards are let go of, too.
        remove: takes addresses off the interface, with any prefix; those that are still on this machine
            afterwards. They stay guarded, closed, unless the fence of another interface guards them.

    Returns:
        What was done, in a line for each table.

    Raises:
        KernelError: not confirmed; what was not done yet is as it was, or closed.
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
    """Close the table: its sets exist, and no address is open."""
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
    """Succeeds whether it is there or not."""
    return table.add_element(name, address.packed, times_out=False), table.delete_element(name, address.packed)
