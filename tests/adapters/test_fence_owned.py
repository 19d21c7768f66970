"""Fences whose tables belong to the daemon's socket, on kernels that can do that; and fences without an owner."""

import subprocess
from collections.abc import AsyncIterator, Collection, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_interface

import pytest

from govipd.adapters.kernel import fence_rules
from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.fence_tables import FenceTables
from govipd.adapters.kernel.nft_table import NFPROTO_INET, OWNED
from govipd.adapters.kernel.nftables import NfTables
from govipd.adapters.kernel.orphan_fences import clear_orphans
from govipd.adapters.kernel.rtnetlink import RouteSocket
from tests.adapters.conftest import LeapingClock, Wire
from tests.adapters.fencing import TABLE, V4, V6, Asker

pytestmark = pytest.mark.root

IPAddress = IPv4Address | IPv6Address


@pytest.fixture
async def owner(machines: Wire) -> AsyncIterator[NfTables]:
    """As on Linux 6.9 and later."""
    kernel = NfTables()
    if kernel.table(NFPROTO_INET, TABLE).flags != OWNED:
        pytest.fail("this kernel's tables have no owners that outlive them: run this on Linux 6.9 or later")
    yield kernel
    kernel.close()


async def test_no_other_program_takes_an_owned_fence_away(
    machines: Wire, owner: NfTables, vip: Asker, clock: LeapingClock
) -> None:
    """`nft flush ruleset`, as `systemctl restart nftables` does it, leaves the fence, even if the daemon ends then."""
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", owner))
    await fence.open(clock.now() + 60)
    machines.host.run("nft", "flush ruleset")
    with pytest.raises(subprocess.CalledProcessError):
        machines.host.run("nft", "delete", "table", "inet", TABLE)
    await fence.close()
    machines.host.run("nft", "flush ruleset")
    assert not await vip.answered(clock)
    await fence.remove()


async def test_an_owned_fence_outlives_its_process_and_is_the_next_ones(
    machines: Wire, owner: NfTables, vip: Asker, clock: LeapingClock
) -> None:
    """Open without a gap; while it has no owner, it can be deleted like any other."""
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", owner))
    await fence.open(clock.now() + 60)
    owner.close()  # the process ends
    assert await vip.answered(clock)
    second = NfTables()
    successor = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", second))
    await successor.open(clock.now() + 60)
    assert await vip.answered(clock)
    machines.host.run("nft", "flush ruleset")
    await successor.close()
    assert not await vip.answered(clock)
    second.close()
    machines.host.run("nft", "flush ruleset")
    assert await vip.answered(clock)


async def test_an_owner_that_has_lost_its_socket_owns_again(
    machines: Wire, owner: NfTables, clock: LeapingClock
) -> None:
    """After an error the socket is replaced: the next operation states everything."""
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", owner))
    await fence.open(clock.now() + 60)
    owner.close()
    await fence.open(clock.now() + 60)
    with pytest.raises(subprocess.CalledProcessError):
        machines.host.run("nft", "delete", "table", "inet", TABLE)
    await fence.remove()
    assert machines.host.run("nft", "list", "tables") == ""


async def test_closing_owns_what_was_loaded_from_a_file(machines: Wire, owner: NfTables, clock: LeapingClock) -> None:
    """`nft list ruleset > /etc/nftables.conf` on the holder saves the fence, open; it is closed by the first step."""
    vip = Asker(machines.host, machines.peer, V4)
    fence = NftFence(addresses=(V4,), clock=clock, tables=FenceTables("eth0", owner))
    await fence.open(clock.now() + 60)
    saved = machines.host.run("nft", "list", "ruleset").replace("flags owner,persist", "").replace("flags owner", "")
    await fence.remove()
    owner.close()
    with machines.host.inside():
        subprocess.run(["nft", "-f", "-"], input=saved, text=True, check=True)
    assert await vip.answered(clock)  # for as long as was left: VIPs are not on the machine at boot
    await fence.close()
    assert not await vip.answered(clock)
    machines.host.run("nft", "flush ruleset")
    assert not await vip.answered(clock)
    await fence.remove()
    vip.close()


class Removing:
    """Takes addresses off eth0, as `govipd.leftovers` does."""

    def __init__(self) -> None:
        self.route = RouteSocket()

    async def __call__(self, addresses: Collection[IPAddress], alone: Collection[IPAddress]) -> Collection[IPAddress]:
        index = self.route.link("eth0").index
        for address in self.route.addresses(index):
            if address.ip in addresses:
                self.route.delete(index, address)
        return {address.ip for link in self.route.links() for address in self.route.addresses(link.index)}


@pytest.fixture
def removing(machines: Wire) -> Iterator[Removing]:
    made = Removing()
    yield made
    made.route.close()


async def left_behind(clock: LeapingClock, interface: str, *addresses: str) -> None:
    """A fence that was open when its process ended."""
    kernel = NfTables()
    vips = tuple(ip_interface(address) for address in addresses)
    await NftFence(addresses=vips, clock=clock, tables=FenceTables(interface, kernel)).open(clock.now() + 60)
    kernel.close()


async def test_a_fence_that_no_group_owns_is_removed_with_its_addresses(
    machines: Wire, removing: Removing, clock: LeapingClock
) -> None:
    """Other interfaces' fences stay."""
    await left_behind(clock, "eth0", str(V4), str(V6))
    await left_behind(clock, "eth0.5", "192.0.2.105/32")
    kernel = NfTables()
    told = await clear_orphans(kernel, "govipd_eth0", (), removing)
    assert [line.split()[0] for line in told] == ["192.0.2.100", "2001:db8::100"]
    assert kernel.tables("govipd_") == {"govipd_eth0_2e5"}
    addresses = machines.host.ip("address show dev eth0")
    assert "192.0.2.100" not in addresses
    assert "2001:db8::100" not in addresses
    assert await clear_orphans(kernel, "govipd_eth0", (), removing) == ()
    kernel.close()
    machines.host.run("nft", "flush ruleset")


async def test_an_address_that_was_taken_out_of_the_file_is_removed_and_let_go(
    machines: Wire, removing: Removing, clock: LeapingClock
) -> None:
    """The other addresses go on answering."""
    await left_behind(clock, "eth0", str(V4), str(V6))
    kernel = NfTables()
    (told,) = await clear_orphans(kernel, "govipd_eth0", {V4.ip}, removing)
    assert "2001:db8::100" in told
    assert fence_rules.every(kernel, "govipd_eth0") == {V4.ip}
    asker = Asker(machines.host, machines.peer, V4)
    assert await asker.answered(clock)
    asker.close()
    kernel.close()
    machines.host.run("nft", "flush ruleset")


async def test_an_orphans_address_that_is_elsewhere_on_the_machine_stays_closed(
    machines: Wire, removing: Removing, clock: LeapingClock
) -> None:
    """Unless the fence of the other interface guards it now: then it is that one's."""
    machines.host.ip(f"address add {V4} dev lo")
    await left_behind(clock, "eth0", str(V4))
    kernel = NfTables()
    asker = Asker(machines.host, machines.peer, V4)
    (told,) = await clear_orphans(kernel, "govipd_eth0", (), removing)
    assert "it is still on this machine, so the fence stays, closed" in told
    assert not await asker.answered(clock)
    await left_behind(clock, "lo", str(V4))
    await clear_orphans(kernel, "govipd_eth0", (), removing)
    assert await asker.answered(clock)
    asker.close()
    kernel.close()
    machines.host.run("nft", "flush ruleset")
