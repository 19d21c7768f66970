"""The fence, after somebody else has changed it: `nft flush ruleset`, `systemctl restart nftables`."""

import asyncio
from collections.abc import Iterable
from ipaddress import ip_interface

import pytest

from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.fence_tables import FenceTables
from govipd.adapters.kernel.nft_table import NFPROTO_INET, Message
from govipd.adapters.kernel.nftables import NfTables
from tests.adapters.conftest import LeapingClock, Wire
from tests.adapters.fencing import TABLE, V4, V6, Asker, Asking, KilledError, Killing

pytestmark = pytest.mark.root


@pytest.mark.parametrize("damage", ["flush ruleset", f"flush table inet {TABLE}", f"delete chain inet {TABLE} input"])
async def test_damage_is_repaired_by_the_next_operation(
    machines: Wire, fence: NftFence, clock: LeapingClock, damage: str
) -> None:
    """Whatever an operator does to the tables."""
    await fence.open(clock.now() + 60)
    whole = machines.host.run("nft", "--stateless", "list", "ruleset").count("drop")
    if damage.startswith("delete"):
        machines.host.run("nft", f"flush chain inet {TABLE} input")
    machines.host.run("nft", damage)
    await fence.open(clock.now() + 60)
    assert machines.host.run("nft", "--stateless", "list", "ruleset").count("drop") == whole
    machines.host.run("nft", "flush ruleset")
    await fence.close()
    assert machines.host.run("nft", "--stateless", "list", "ruleset").count("drop") == whole


async def test_a_deleted_fence_is_there_again_after_the_first_transaction(
    machines: Wire, fence: NftFence, vip: Asker, clock: LeapingClock
) -> None:
    """Whatever becomes of the process then: closed after a moment, unless the second one opens it."""
    await fence.open(clock.now() + 60)
    machines.host.run("nft", "flush", "ruleset")
    assert await vip.answered(clock)
    killing = Killing(owns=False)
    with pytest.raises(KilledError):
        await NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", killing)).open(clock.now() + 60)
    killing.close()
    await asyncio.sleep(0.03)  # the bridge is 10 ms long
    assert not await vip.answered(clock)
    await fence.open(clock.now() + 60)
    assert await vip.answered(clock)


@pytest.mark.parametrize("damage", ["flush ruleset", f"flush table inet {TABLE}"])
async def test_setting_up_a_deleted_fence_again_loses_no_packet(
    machines: Wire, vip: Asker, clock: LeapingClock, damage: str
) -> None:
    """As `systemctl restart nftables` on the holder: open before, open after, and open in between."""
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", Asking(vip)))
    await fence.close()
    await fence.open(clock.now() + 60)
    unanswered = vip.asked - 1  # the second transaction has opened it
    machines.host.run("nft", damage)
    await fence.open(clock.now() + 60)
    await asyncio.sleep(0.2)
    assert vip.listen(clock.now()) == vip.asked - unanswered
    await fence.remove()
    fence._tables.kernel.close()


@pytest.mark.parametrize("part", ["inet", "arp"])
async def test_only_a_fence_that_is_gone_as_a_whole_is_open_between_the_transactions(
    machines: Wire, vip: Asker, clock: LeapingClock, part: str
) -> None:
    """The rest of a closed fence stays closed until the second transaction."""
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", Asking(vip)))
    await fence.close()
    machines.host.run("nft", f"delete table {part} {TABLE}")
    await fence.open(clock.now() + 60)
    await asyncio.sleep(0.2)
    assert vip.asked > 2
    assert vip.listen(clock.now()) == 1
    await fence.remove()
    fence._tables.kernel.close()


async def test_preparing_opens_nothing_where_the_fence_is_deleted(
    machines: Wire, vip: Asker, clock: LeapingClock
) -> None:
    """Between its transactions, too."""

    class Flushed(NfTables):
        def commit(self, messages: Iterable[Message], *, undisturbed: bool = False) -> None:
            super().commit(messages, undisturbed=undisturbed)
            if not transactions:
                machines.host.run("nft", "flush ruleset")
            else:
                vip.ask()
            transactions.append(1)

    transactions: list[int] = []
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", Flushed(owns=False)))
    await fence.prepare(clock.now() + 60)
    await asyncio.sleep(0.2)
    assert len(transactions) >= 2
    assert not vip.listen(clock.now())
    await fence.remove()
    fence._tables.kernel.close()


async def test_one_group_repairs_the_fences_of_all(machines: Wire, clock: LeapingClock) -> None:
    """Another program deletes the tables. No operation of one group opens or closes the other group."""
    kernel = NfTables(owns=False)
    tables = FenceTables("eth0", kernel)
    one, two = (NftFence(addresses=(address,), clock=clock, tables=tables) for address in (V4, V6))
    askers = [Asker(machines.host, machines.peer, address) for address in (V4, V6)]
    await one.close()
    more = (ip_interface(f"192.0.2.{n}/32") for n in range(177, 190))
    for operation in (one.close, lambda: one.open(clock.now() + 60), lambda: one.guard((V4, next(more)))):
        for other_is_open in (True, False):
            await (two.open(clock.now() + 60) if other_is_open else two.close())
            machines.host.run("nft", "flush", "ruleset")
            await operation()
            await asyncio.sleep(0.05)  # longer than the bridge
            assert await askers[1].answered(clock) is other_is_open
    await one.open(clock.now() + 60)
    assert await askers[0].answered(clock)
    for fence in (one, two):
        await fence.remove()
    assert machines.host.run("nft", "list", "tables") == ""
    for asker in askers:
        asker.close()
    kernel.close()


async def test_a_fence_whose_deadline_has_passed_is_not_opened_again(machines: Wire, clock: LeapingClock) -> None:
    """etcd was away, so every lease has ended; another program deletes the tables, too."""
    kernel = NfTables(owns=False)
    tables = FenceTables("eth0", kernel)
    one, two = (NftFence(addresses=(address,), clock=clock, tables=tables) for address in (V4, V6))
    asker = Asker(machines.host, machines.peer, V6)
    await two.open(clock.now() + 0.2)
    await asyncio.sleep(0.3)
    machines.host.run("nft", "flush", "ruleset")
    await one.close()
    assert not await asker.answered(clock)
    for fence in (one, two):
        await fence.remove()
    asker.close()
    kernel.close()


async def test_tables_deleted_between_the_two_transactions_come_back_with_the_fence_open(
    machines: Wire, vip: Asker, clock: LeapingClock
) -> None:
    """The operation that found it opens its own fence, too."""

    class Flushed(NfTables):
        at = 0

        def commit(self, messages: Iterable[Message], *, undisturbed: bool = False) -> None:
            super().commit(messages, undisturbed=undisturbed)
            self.at -= 1
            if self.at == 0:
                machines.host.run("nft", "flush ruleset")

    kernel = Flushed(owns=False)
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", kernel))
    await fence.close()
    kernel.at = 1
    await fence.open(clock.now() + 60)
    await asyncio.sleep(0.05)  # longer than the bridge
    assert await vip.answered(clock)
    await fence.open(clock.now() + 60)
    assert await vip.answered(clock)
    await fence.remove()
    kernel.close()


async def test_an_address_that_is_let_go_is_not_opened_again(machines: Wire, clock: LeapingClock) -> None:
    """Another program deletes the tables, and the next operation takes an address out of an open fence."""
    kernel = NfTables(owns=False)
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", kernel))
    await fence.open(clock.now() + 60)
    machines.host.run("nft", "flush", "ruleset")
    await fence.replace((V6,))
    for name in ("used4a", "used4b"):
        assert kernel.elements(NFPROTO_INET, TABLE, name) == frozenset()
    asker = Asker(machines.host, machines.peer, V6)
    assert await asker.answered(clock)
    await fence.remove()
    asker.close()
    kernel.close()


async def test_what_was_prepared_before_the_tables_were_deleted_does_not_count(
    machines: Wire, clock: LeapingClock
) -> None:
    """Another group has set the tables up again meanwhile, without these elements."""
    kernel = NfTables(owns=False)
    tables = FenceTables("eth0", kernel)
    one, two = (NftFence(addresses=(address,), clock=clock, tables=tables) for address in (V4, V6))
    asker = Asker(machines.host, machines.peer, V6)
    until = clock.now() + 60
    await two.prepare(until)
    machines.host.run("nft", "flush", "ruleset")
    await one.open(until)
    await two.open(until)
    assert await asker.answered(clock)
    for fence in (one, two):
        await fence.remove()
    asker.close()
    kernel.close()


async def test_a_group_that_ends_opens_the_others_again(machines: Wire, clock: LeapingClock) -> None:
    """Its removal is what found the tables deleted."""
    kernel = NfTables(owns=False)
    tables = FenceTables("eth0", kernel)
    one, two = (NftFence(addresses=(address,), clock=clock, tables=tables) for address in (V4, V6))
    asker = Asker(machines.host, machines.peer, V6)
    await one.close()
    await two.open(clock.now() + 60)
    machines.host.run("nft", "flush", "ruleset")
    await one.remove()
    await asyncio.sleep(0.05)  # longer than the bridge
    assert await asker.answered(clock)
    await two.remove()
    asker.close()
    kernel.close()
