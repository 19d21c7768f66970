"""The fences, against the kernel: a peer asks, by ARP, neighbour solicitation and echo request, who answers."""

import asyncio
import json
from collections.abc import Iterable
from ipaddress import ip_interface

import pytest

from govipd.adapters.kernel.address_fence import AddressFence
from govipd.adapters.kernel.addresses import KernelAddresses, PresentAddresses
from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.fence_tables import FenceTables
from govipd.adapters.kernel.nft_table import Message
from govipd.adapters.kernel.nftables import NfTables
from govipd.adapters.kernel.rtnetlink import RouteSocket
from govipd.core.events import Address
from govipd.core.placement import Placement
from govipd.errors import KernelError
from tests.adapters.conftest import LeapingClock, Wire
from tests.adapters.fencing import OWN4, OWN6, TABLE, V4, V6, Asker, Asking, KilledError, Killing, slot_in_use

pytestmark = pytest.mark.root

OTHER: Address = ip_interface("192.0.2.177/32")


async def test_closed_fence_holds_the_vip_back_and_nothing_else(
    machines: Wire, fence: NftFence, vip: Asker, clock: LeapingClock
) -> None:
    """The host's other addresses answer."""
    assert await vip.answered(clock)
    await fence.close()
    assert not await vip.answered(clock)
    for own in (OWN4, OWN6):
        machines.peer.run("ping", "-c", "1", "-w", "5", str(own.ip))


@pytest.mark.parametrize("address", [V4, V6])
async def test_closed_fence_answers_no_neighbour(
    machines: Wire, fence: NftFence, clock: LeapingClock, address: Address
) -> None:
    """Neither ARP nor neighbour solicitation finds the VIP; opened, they do."""
    await fence.close()
    machines.peer.run("ping", "-c", "1", "-W", "1", str(address.ip), check=False)
    assert "lladdr" not in machines.peer.ip(f"neigh show {address.ip}")
    machines.peer.ip("neigh flush dev eth0")
    await fence.open(clock.now() + 60)
    machines.peer.run("ping", "-c", "1", "-w", "5", str(address.ip))
    assert "lladdr" in machines.peer.ip(f"neigh show {address.ip}")


async def test_open_fence_closes_by_itself(fence: NftFence, vip: Asker, clock: LeapingClock) -> None:
    """The last answer comes at the instant it was opened for, no process helping."""
    until = clock.now() + 0.5
    await fence.open(until)
    while clock.now() < until + 0.5:
        vip.ask()
        await asyncio.sleep(0.002)
        vip.listen(clock.now())
    assert until - 0.2 < vip.answers[-1] < until + 0.1


async def test_renewal_moves_the_instant_and_loses_nothing(fence: NftFence, vip: Asker, clock: LeapingClock) -> None:
    """In both directions; every question during 300 renewals is answered."""
    await fence.open(clock.now() + 60)
    for _ in range(300):
        vip.ask()
        await fence.open(clock.now() + 60)
        vip.ask()
        await asyncio.sleep(0)
        vip.listen(clock.now())
    await asyncio.sleep(0.2)
    assert vip.listen(clock.now()) == vip.asked
    await fence.open(clock.now() + 0.1)
    await asyncio.sleep(0.3)
    assert not await vip.answered(clock)


async def test_close_is_immediate_and_idempotent(fence: NftFence, vip: Asker, clock: LeapingClock) -> None:
    """When close() returns, nobody is answered."""
    await fence.open(clock.now() + 60)
    assert await vip.answered(clock)
    await fence.close()
    await fence.close()
    assert not await vip.answered(clock)


def test_a_missing_nf_tables_differs_from_other_trouble() -> None:
    """The kernel's answer where there is none (here: for a netlink protocol that nobody serves)."""
    assert not NfTables().missing()
    assert NfTables(protocol=31).missing()


async def test_passed_instant_is_refused_and_closes(fence: NftFence, vip: Asker, clock: LeapingClock) -> None:
    """Whether it had passed before, or passes while the fence is being opened."""
    await fence.open(clock.now() + 60)
    with pytest.raises(KernelError, match="run out"):
        await fence.open(clock.now() - 1)
    assert not await vip.answered(clock)
    clock.leaps = [0.0, 61.0]  # the process is stopped after it computed the remainder
    with pytest.raises(KernelError, match="run out"):
        await fence.open(clock.now() + 60)
    assert not await vip.answered(clock)


async def test_time_lost_while_opening_is_taken_off(machines: Wire, fence: NftFence, clock: LeapingClock) -> None:
    """Time-outs are relative: a process that did not run after it computed one would hold for longer than it may."""
    until = clock.now() + 60
    clock.leaps = [0.0, 20.0]  # nothing before the remainder is computed, 20 s before it is in the kernel
    await fence.open(until)
    listing = json.loads(machines.host.run("nft", "--json", "list", "table", "inet", TABLE))
    (elements,) = [o["set"]["elem"] for o in listing["nftables"] if o.get("set", {}).get("name") == "open4a"]
    assert 38 <= elements[0]["elem"]["expires"] <= 40


async def test_a_process_that_gets_no_time_does_not_hold(fence: NftFence, vip: Asker, clock: LeapingClock) -> None:
    """Late at each try: closed, and refused."""
    await fence.close()
    until = clock.now() + 60
    clock.leaps = [0.0, 1.0] * 3
    with pytest.raises(KernelError, match="not given the time"):
        await fence.open(until)
    assert not await vip.answered(clock)


async def test_open_fence_outlives_its_process(fence: NftFence, vip: Asker, clock: LeapingClock) -> None:
    """The next one takes it over without a gap, and can close it."""
    await fence.open(clock.now() + 60)
    successor = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", NfTables(owns=False)))
    assert await vip.answered(clock)
    await successor.open(clock.now() + 60)
    assert await vip.answered(clock)
    await successor.close()
    assert not await vip.answered(clock)
    await successor.remove()
    successor._tables.kernel.close()


async def test_a_process_that_is_killed_before_it_knows_when_its_elements_end_has_prolonged_nothing(
    machines: Wire, fence: NftFence, clock: LeapingClock
) -> None:
    """The slot counts that counted, and the next process writes into the other."""
    await fence.open(clock.now() + 60)
    before = slot_in_use(machines.host)
    killing = Killing(owns=False)
    killed = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", killing))
    with pytest.raises(KilledError):
        await killed.open(clock.now() + 90)
    killing.close()
    assert slot_in_use(machines.host) == before
    successor = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", NfTables(owns=False)))
    await successor.open(clock.now() + 60)
    assert not slot_in_use(machines.host) & before
    await successor.remove()
    successor._tables.kernel.close()


class Silent(NfTables):
    """Does what it is asked for; of one transaction, `lost` ones from now, the answer is lost."""

    lost = 0

    def commit(self, messages: Iterable[Message], *, undisturbed: bool = False) -> None:
        super().commit(messages, undisturbed=undisturbed)
        self.lost -= 1
        if self.lost == 0:
            raise KernelError("no answer")


async def test_what_the_kernel_did_without_an_answer_is_found_out(machines: Wire, clock: LeapingClock) -> None:
    """The other slot counts already: the next renewal must not write there before it knows when that ends."""
    kernel = Silent(owns=False)
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", kernel))
    await fence.open(clock.now() + 60)
    before = slot_in_use(machines.host)
    kernel.lost = 2
    with pytest.raises(KernelError, match="no answer"):
        await fence.open(clock.now() + 60)
    unknown = slot_in_use(machines.host)
    assert not unknown & before
    await fence.open(clock.now() + 60)
    assert not slot_in_use(machines.host) & unknown
    await fence.remove()
    kernel.close()


async def test_a_prepared_fence_is_closed_and_opens_by_one_transaction(vip: Asker, clock: LeapingClock) -> None:
    """For the instant that it was prepared for; for any other, and when it was closed since, as always."""
    until, kernel = clock.now() + 60, Asking(vip)
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", kernel))
    transactions = {}
    for name, close, opened in (("prepared", False, until), ("other", False, until + 1), ("closed", True, until)):
        await fence.prepare(until)
        assert not await vip.answered(clock)
        if close:
            await fence.close()
        before = vip.asked
        await fence.open(opened)
        transactions[name] = vip.asked - before
        assert await vip.answered(clock)
    assert transactions == {"prepared": 1, "other": 2, "closed": 2}
    await fence.remove()
    kernel.close()


async def test_replaced_addresses_are_let_go(machines: Wire, fence: NftFence, clock: LeapingClock) -> None:
    """An open address that stays is not disturbed. A new address is closed until the next open()."""
    askers = [Asker(machines.host, machines.peer, V4), Asker(machines.host, machines.peer, V6)]
    await fence.replace((V4,))
    await fence.open(clock.now() + 60)
    await fence.replace((V4, V6))
    assert [await asker.answered(clock) for asker in askers] == [True, False]
    await fence.replace((V6,))
    await fence.open(clock.now() + 60)
    assert [await asker.answered(clock) for asker in askers] == [True, True]
    await fence.close()
    assert [await asker.answered(clock) for asker in askers] == [True, False]
    for asker in askers:
        asker.close()


async def test_removed_fence_leaves_other_tables_alone(machines: Wire, fence: NftFence) -> None:
    """A second removal succeeds, too."""
    machines.host.run("nft", "add table inet others")
    await fence.close()
    await fence.remove()
    await fence.remove()
    assert machines.host.run("nft", "list", "tables").split() == ["table", "inet", "others"]


async def test_address_fence_is_the_address(machines: Wire, vip: Asker, clock: LeapingClock) -> None:
    """Closing it removes the addresses; opening it is left to adding them."""
    route = RouteSocket()
    addresses = KernelAddresses(
        placement=Placement("eth0"), addresses=(V4, V6), clock=clock, route=route, present=PresentAddresses()
    )
    fence = AddressFence(addresses)
    await fence.open(clock.now() + 60)
    await addresses.add(clock.now() + 60)
    assert await vip.answered(clock)
    await fence.close()
    assert not await vip.answered(clock)
    route.close()


async def test_an_address_that_two_groups_guard_is_the_one_that_opens_it(
    machines: Wire, vip: Asker, clock: LeapingClock
) -> None:
    """A reload gives an address to another group: what the earlier group does then neither closes it nor lets it go."""
    kernel = NfTables(owns=False)
    tables = FenceTables("eth0", kernel)
    earlier, later = (NftFence(addresses=(V4, V6), clock=clock, tables=tables) for _ in range(2))
    await earlier.open(clock.now() + 60)
    await earlier.close()
    assert not await vip.answered(clock)
    await later.open(clock.now() + 60)
    await earlier.close()
    assert await vip.answered(clock)
    await earlier.replace((OTHER,))
    assert await vip.answered(clock)
    await later.close()
    assert not await vip.answered(clock)
    await earlier.replace((V4, V6))
    await later.open(clock.now() + 60)
    await earlier.remove()
    assert await vip.answered(clock)
    await later.close()
    assert not await vip.answered(clock)
    await later.remove()
    assert await vip.answered(clock)
    assert machines.host.run("nft", "list", "tables") == ""
    kernel.close()


async def test_a_group_that_a_reload_adds_is_guarded_by_its_first_closing(
    machines: Wire, vip: Asker, clock: LeapingClock
) -> None:
    """Also one whose addresses are the first of their IP version. The other group's answers go on."""
    kernel = NfTables(owns=False)
    tables = FenceTables("eth0", kernel)
    first = NftFence(addresses=(OTHER,), clock=clock, tables=tables)
    await first.open(clock.now() + 60)
    assert await vip.answered(clock)
    added = NftFence(addresses=(V4, V6), clock=clock, tables=tables)
    await added.close()
    assert not await vip.answered(clock)
    await added.open(clock.now() + 60)
    assert await vip.answered(clock)
    await first.remove()
    assert await vip.answered(clock)
    await added.close()
    assert not await vip.answered(clock)
    await added.remove()
    kernel.close()


async def test_a_fence_without_addresses_has_nothing_to_do(machines: Wire, clock: LeapingClock) -> None:
    """A reload has changed every address of a group that leads: for a moment it may hold none."""
    kernel = NfTables(owns=False)
    fence = NftFence(addresses=(V4,), clock=clock, tables=FenceTables("eth0", kernel))
    until = clock.now() + 60
    for addresses in ((), (V4,)):
        await fence.replace(addresses)
        for _ in range(4):
            until += 0.5
            await fence.open(until)
    asker = Asker(machines.host, machines.peer, V4)
    assert await asker.answered(clock)
    await fence.replace(())
    await fence.close()
    await fence.remove()
    asker.close()
    kernel.close()


async def test_the_last_group_leaves_what_an_earlier_process_has_closed(
    machines: Wire, vip: Asker, clock: LeapingClock
) -> None:
    """An orphan's address that is still on the machine stays closed."""
    kernel = NfTables(owns=False)
    await NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", kernel)).close()
    other = NftFence(addresses=(OTHER,), clock=clock, tables=FenceTables("eth0", kernel))
    await other.open(clock.now() + 60)
    await other.remove()
    assert not await vip.answered(clock)
    assert other._tables.guarded() == {V4.ip, V6.ip}
    machines.host.run("nft", "flush ruleset")
    kernel.close()
