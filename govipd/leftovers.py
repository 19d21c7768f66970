"""Cleans up after an earlier process on this machine: fences, addresses, files."""

import asyncio
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.fence_rules import fence_table
from govipd.adapters.kernel.instance import instance_adapters
from govipd.adapters.kernel.nftables import NfTables
from govipd.adapters.kernel.orphan_fences import clear_orphans
from govipd.adapters.kernel.rtnetlink import RouteSocket
from govipd.core import texts
from govipd.errors import InterfaceMissingError, KernelError
from govipd.host import BootClock, first_address, local_addresses
from govipd.plan import refused_vips
from govipd.runtime.parts import Plan

ORPHAN_TRIES = 10
ORPHAN_PAUSE_S = 0.03


async def orphan_fences(interface: str, plan: Plan, kernel: NfTables, route: RouteSocket) -> Sequence[str]:
    """Remove orphan fences: this machine would never answer again for an address behind one (docs/adr/0022).

    See clear_orphans().

    Raises:
        KernelError: the kernel refused ORPHAN_TRIES times.
    """

    async def remove(
        addresses: Collection[IPv4Address | IPv6Address], alone: Collection[IPv4Address | IPv6Address]
    ) -> Collection[IPv4Address | IPv6Address]:
        for index, address in route.lent(alone):  # a group may have had it on any interface
            route.delete(index, address)
        with suppress(InterfaceMissingError):
            ours = route.link(interface).index
            for index, address in route.where(addresses):
                if index == ours:
                    route.delete(index, address)
        return {address.ip for _, address in route.where(addresses)}

    owned = {a.ip for group in plan.groups.values() if group.settings.fenced for a in group.addresses}
    try:
        for left in range(ORPHAN_TRIES - 1, -1, -1):
            try:
                return () if kernel.missing() else await clear_orphans(kernel, fence_table(interface), owned, remove)
            except KernelError:
                if not left:
                    raise
                await asyncio.sleep(ORPHAN_PAUSE_S)
        return ()
    finally:
        kernel.close()
        route.close()


def forget_orphans(directory: Path | None, plan: Plan) -> None:
    """Delete the restart state of groups that are not configured. A reload that brings one back must not adopt it."""
    for path in directory.glob("*.json") if directory else ():
        if path.name.removesuffix(".json") not in plan.groups:
            path.unlink(missing_ok=True)


async def clean_up(plan: Plan) -> int:
    """Remove addresses and fences, for a daemon that was killed. Returns the exit status: 1 after an error."""
    status, session = 0, plan.session.make()
    # All of them before the first fence is removed: the last one takes the tables with it.
    made = [(group, group.make(lambda _: None, session)) for group in plan.groups.values()]
    for group, parts in made:
        try:
            await parts.fence.close()
            await parts.addresses.remove()
            if left := await parts.addresses.anywhere():
                print(f"{group.name}: {texts.left_behind(left)}", file=sys.stderr)
            else:
                await parts.fence.remove()
        except KernelError as e:
            print(f"{group.name}: {e}", file=sys.stderr)
            status = 1
        parts.restart_state.forget()
    return status


async def stay_silent(path: Path, interface: str) -> None:
    """Close the fence of each VIP that is an address of this host, because of which the configuration was refused.

    Otherwise this host would answer for the VIP beside the leader. The fence is not closed where the VIP is the address
    at which others reach this host: that would cut the operator off. The fences of other VIPs stay as an earlier
    process left them, and close at their deadlines.
    """
    config, vips = refused_vips(path, interface)
    own, reachable = local_addresses(), first_address(interface)
    clock = BootClock()
    tables = instance_adapters(interface, clock).tables
    for vip in vips:
        present = [address.ip for address in vip.addresses if address.ip in own]
        answers = ", ".join(map(str, present))
        text = f"{vip.name}: this machine does not answer for {answers} any more: the fence is closed"
        if not present:
            continue
        if reachable in present:
            text = f"{vip.name}: this machine answers for {answers}, and is reached by it: so the fence is not closed"
        elif config is None or config.election.fence != "nftables" or NfTables().missing():
            text = f"{vip.name}: this machine answers for {answers}: without nf_tables there is no fence to close"
        else:
            try:
                await NftFence(
                    addresses=vip.addresses, clock=clock, tables=tables, placement=vip.placement
                ).close()  # fmt: skip
            except KernelError as e:
                text = f"{vip.name}: this machine answers for {answers}: {e}"
        print(text, file=sys.stderr)
