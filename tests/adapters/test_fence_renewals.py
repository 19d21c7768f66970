"""Renewals of the fence: how many transactions they take, and when what they leave in the kernel ends."""

import asyncio
import json
import socket
from collections.abc import Iterable, Iterator
from ipaddress import ip_interface

import pytest

from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.fence_rules import lacking
from govipd.adapters.kernel.fence_tables import FenceTables
from govipd.adapters.kernel.joint_commits import JointCommits
from govipd.adapters.kernel.nft_table import NFPROTO_ARP, Message, Table
from govipd.adapters.kernel.nftables import NfTables
from govipd.errors import KernelError
from tests.adapters.conftest import LeapingClock, Wire
from tests.adapters.fencing import TABLE, V4, V6, Asker, own_tables, slot_in_use
from tests.adapters.namespaces import Namespace

pytestmark = pytest.mark.root

PAUSE_S = 0.5


class Counting(NfTables):
    """Remembers how many messages each transaction that was asked for had."""

    def __init__(self) -> None:
        super().__init__(owns=False)
        self.sizes: list[int] = []

    def commit(self, messages: Iterable[Message], *, undisturbed: bool = False) -> None:
        messages = tuple(messages)
        self.sizes.append(len(messages))
        super().commit(messages, undisturbed=undisturbed)


@pytest.fixture
def kernel(net: Wire) -> Iterator[Counting]:
    counting = Counting()
    yield counting
    counting.close()


def ends_in(host: Namespace) -> float:
    """Seconds until the element that counts times out."""
    (slot,) = slot_in_use(host)
    listing = json.loads(host.run("nft", "--json", "list", "set", "inet", TABLE, f"open4{slot}"))
    (element,) = next(entry["set"]["elem"] for entry in listing["nftables"] if "set" in entry)
    return float(element["elem"]["expires"])


async def steady(fence: NftFence, until: float) -> float:
    """Some renewals, each of PAUSE_S more; the last one's end."""
    for _ in range(4):
        await fence.open(until)
        until += PAUSE_S
    return until - PAUSE_S


async def test_a_renewal_is_one_transaction_of_elements(
    machines: Wire, kernel: Counting, vip: Asker, clock: LeapingClock
) -> None:
    """As soon as it is known how often there are renewals: every question is answered, for as long as it should be."""
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", kernel))
    until = await steady(fence, clock.now() + 60)
    whole, before, asked = kernel.sizes[0], kernel.commits, vip.asked
    kernel.sizes.clear()
    for renewal in range(1, 51):
        vip.ask()
        await fence.open(until + renewal * PAUSE_S)
        await asyncio.sleep(0)
        vip.listen(clock.now())
    assert kernel.commits == before + 50
    assert max(kernel.sizes) < whole / 2
    left = until + 50 * PAUSE_S - clock.now()
    assert left - 2 < ends_in(machines.host) <= left  # nft tells whole seconds
    await asyncio.sleep(0.2)
    assert vip.listen(clock.now()) == vip.asked - asked
    await fence.remove()


@pytest.mark.parametrize(("more", "transactions"), [(-0.006, 2), (-0.004, 1), (0.0, 1), (0.014, 1), (0.017, 2), (5, 2)])
async def test_what_was_put_there_for_a_renewal_is_taken_when_it_fits(
    kernel: Counting, clock: LeapingClock, more: float, transactions: int
) -> None:
    """The elements end 5 ms before the expected deadline: at most 20 ms before the wanted one, and not after it."""
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", kernel))
    until = await steady(fence, clock.now() + 60)
    before = kernel.commits
    await fence.open(until + PAUSE_S + more)
    assert kernel.commits == before + transactions
    await fence.remove()


async def test_elements_for_the_next_renewal_that_came_late_are_not_taken(
    machines: Wire, kernel: Counting, clock: LeapingClock
) -> None:
    """The process is stopped between the clock and the transaction: they end later than they should."""
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", kernel))
    until = await steady(fence, clock.now() + 60)
    clock.leaps = [0.0, 20.0]  # the renewal is taken from the slot that is ready; its own preparation is late
    await fence.open(until + PAUSE_S)
    before = kernel.commits
    until += 2 * PAUSE_S
    await fence.open(until)
    assert kernel.commits == before + 2
    assert ends_in(machines.host) <= until - clock.now()
    await fence.remove()


async def test_a_closed_fence_forgets_what_was_ready(kernel: Counting, vip: Asker, clock: LeapingClock) -> None:
    """Nothing opens it but open()."""
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", kernel))
    until = await steady(fence, clock.now() + 60)
    await fence.close()
    assert not await vip.answered(clock)
    before = kernel.commits
    await fence.open(until + PAUSE_S)
    assert kernel.commits == before + 2
    assert await vip.answered(clock)
    await fence.remove()


async def test_what_others_change_elsewhere_costs_the_next_renewal_its_rules_and_nothing_more(
    machines: Wire, kernel: Counting, clock: LeapingClock
) -> None:
    """The fence cannot know which table changed. The renewal after the next has elements only again."""
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", kernel))
    until = await steady(fence, clock.now() + 60)
    few, whole = kernel.sizes[-1], kernel.sizes[0]
    machines.host.run("nft", "add table inet others")
    kernel.sizes.clear()
    for renewal in range(1, 4):
        await fence.open(until + renewal * PAUSE_S)
    assert max(kernel.sizes) >= whole / 2
    assert kernel.sizes[-1] == few
    await fence.remove()


async def test_fences_of_one_process_do_not_disturb_each_other(kernel: Counting, clock: LeapingClock) -> None:
    """Their transactions go through one socket, which knows them from a stranger's."""
    tables = FenceTables("eth0", kernel)
    fences = [NftFence(addresses=(a,), clock=clock, tables=tables) for a in (V4, V6)]
    until = clock.now() + 60
    for renewal in range(4):
        for fence in fences:
            await fence.open(until + renewal * PAUSE_S)
    before, epoch = kernel.commits, kernel.epoch
    for renewal in range(4, 8):
        for fence in fences:
            await fence.open(until + renewal * PAUSE_S)
    assert kernel.commits == before + 8
    assert kernel.epoch == epoch
    for fence in fences:
        await fence.remove()


async def test_a_fence_notices_what_another_fence_of_its_process_has_read(
    machines: Wire, kernel: Counting, vip: Asker, clock: LeapingClock
) -> None:
    """A stranger flushes both; the first one's repair does not hide it from the second."""
    tables = FenceTables("eth0", kernel)
    other = NftFence(addresses=(ip_interface("192.0.2.200/32"),), clock=clock, tables=tables)
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=tables)
    for each in (other, fence):
        await steady(each, clock.now() + 60)
    rules = machines.host.run("nft", "--stateless", "list", "ruleset").count("drop")
    machines.host.run("nft", "flush chain", "inet", TABLE, "input")
    await other.open(clock.now() + 60)
    await fence.close()
    assert machines.host.run("nft", "--stateless", "list", "ruleset").count("drop") == rules
    assert not await vip.answered(clock)
    for each in (other, fence):
        await each.remove()


class Narrow(NfTables):
    """A socket with room for one answer or two."""

    def _open(self) -> socket.socket:
        netlink = super()._open()
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        return netlink


async def test_fences_that_are_renewed_together_take_one_transaction(
    machines: Wire, kernel: Counting, clock: LeapingClock
) -> None:
    """As those of a process's groups, whose lease is renewed for all of them at once."""
    tables = FenceTables("eth0", kernel)
    fences = [NftFence(addresses=(a,), clock=clock, tables=tables) for a in (V4, V6)]
    askers = [Asker(machines.host, machines.peer, address) for address in (V4, V6)]
    until = clock.now() + 60
    for _ in range(4):
        await asyncio.gather(*(fence.open(until) for fence in fences))
        until += PAUSE_S
    before = len(kernel.sizes)
    await asyncio.gather(*(fence.open(until) for fence in fences))
    assert len(kernel.sizes) == before + 1
    assert [await asker.answered(clock) for asker in askers] == [True, True]
    await asyncio.gather(*(fence.open(until + 5) for fence in fences))  # not what was expected
    assert len(kernel.sizes) == before + 3
    assert [await asker.answered(clock) for asker in askers] == [True, True]
    await fences[0].close()
    assert [await asker.answered(clock) for asker in askers] == [False, True]
    for fence in fences:
        await fence.remove()
    for asker in askers:
        asker.close()


async def test_what_the_kernel_refuses_of_one_fence_is_done_for_the_others(
    machines: Wire, kernel: Counting, clock: LeapingClock
) -> None:
    """One transaction is all or nothing, so each part is tried again alone."""
    table = kernel.table(1, "parts")
    kernel.commit((table.add(), table.add_set("a", 4, times_out=False)))
    good = table.add_element("a", bytes(4), times_out=False)
    bad = table.delete_element("a", bytes([1, 2, 3, 4]))
    joint = JointCommits(kernel)
    ended = await asyncio.gather(
        *(joint.commit(lambda m=m: (m,), clock.now) for m in (good, bad)),  # type: ignore[misc]
        return_exceptions=True,
    )
    assert isinstance(ended[0], float)
    assert isinstance(ended[1], KernelError)
    assert kernel.elements(1, "parts", "a") == {bytes(4)}
    machines.host.run("nft", "delete table inet parts")


async def test_what_a_cancelled_task_asked_for_is_not_committed(
    machines: Wire, kernel: Counting, clock: LeapingClock
) -> None:
    """After a fault the tasks are cancelled first, then each fence is closed: nothing may open it afterwards."""
    kernel.commit((kernel.table(1, "parts").add(),))
    before = len(kernel.sizes)
    asked = asyncio.ensure_future(JointCommits(kernel).commit(lambda: (kernel.table(1, "late").add(),), clock.now))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.sleep(0.05)
    assert len(kernel.sizes) == before
    machines.host.run("nft", "delete table inet parts")


async def test_sixteen_addresses_are_set_up_again_with_any_socket_buffer(
    machines: Wire, vip: Asker, clock: LeapingClock
) -> None:
    """One message is acknowledged for all; refusals that overrun the socket are known by the first ones."""
    more = [ip_interface(text) for n in range(1, 8) for text in (f"198.51.100.{n}/32", f"2001:db8::{n}/128")]
    fence = NftFence(addresses=(V4, V6, *more), clock=clock, tables=FenceTables("eth0", Narrow(owns=False)))
    await fence.open(clock.now() + 60)
    assert await vip.answered(clock)
    machines.host.run("nft", "flush ruleset")
    await fence.open(clock.now() + 60)
    assert await vip.answered(clock)
    await fence.close()
    assert not await vip.answered(clock)
    await fence.remove()
    fence._tables.kernel.close()


async def test_closing_replaces_a_table_of_another_making(machines: Wire, vip: Asker, clock: LeapingClock) -> None:
    """As a saved rule set of an earlier version, loaded at boot."""
    machines.host.run("nft", f"add table inet {TABLE}; add set inet {TABLE} open4a {{ type inet_service; }}; "
                      f"add chain inet {TABLE} input {{ type filter hook input priority 7; }}")  # fmt: skip
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=own_tables())
    await fence.close()
    assert not await vip.answered(clock)
    await fence.open(clock.now() + 60)
    assert await vip.answered(clock)
    await fence.remove()


async def test_a_fence_stays_closed_where_its_address_stays(
    machines: Wire, fence: NftFence, vip: Asker, clock: LeapingClock
) -> None:
    """As when an operator has put it on another interface of the machine."""
    await fence.open(clock.now() + 60)
    await fence.remove(present={V4.ip, V6.ip})
    assert not await vip.answered(clock)
    await fence.remove(present={ip_interface("192.0.2.77/32").ip})
    assert machines.host.run("nft", "list", "tables") == ""


async def test_guarding_more_leaves_what_is_open_open(machines: Wire, clock: LeapingClock) -> None:
    """A new address is closed before it is on the interface. A removed address is not guarded any more."""
    fence = NftFence(addresses=(V4,), clock=clock, tables=own_tables())
    askers = [Asker(machines.host, machines.peer, V4), Asker(machines.host, machines.peer, V6)]
    await fence.open(clock.now() + 60)
    await fence.guard((V4, V6))
    assert [await asker.answered(clock) for asker in askers] == [True, False]
    assert fence._tables.guarded() == {V4.ip, V6.ip}
    await fence.replace((V4,))
    assert [await asker.answered(clock) for asker in askers] == [True, True]
    await fence.replace((ip_interface(f"{V4.ip}/24"),))  # another prefix is the same address
    assert fence._tables.guarded() == {V4.ip}
    for asker in askers:
        asker.close()
    await fence.remove()


class Lacking(NfTables):
    """A kernel without the family arp."""

    def commit(self, messages: Iterable[Message], *, undisturbed: bool = False) -> None:
        raise AssertionError("nothing is to be done")

    def table(self, family: int, name: str) -> Table:
        return Table(98 if family == NFPROTO_ARP else family, name)


def test_what_a_fence_needs_is_tried_once_and_leaves_nothing(machines: Wire) -> None:
    """A kernel that lacks a part of nf_tables is found before the fence relies on that part."""
    assert lacking(NfTables()) == ""
    assert "not supported" in lacking(Lacking(owns=False))
    assert machines.host.run("nft", "list", "tables") == ""


def test_what_the_kernel_would_refuse_is_reported_and_not_done(machines: Wire, kernel: Counting) -> None:
    """Nothing is left of the trial, whichever way it ends."""
    table = kernel.table(1, "trial")
    assert kernel.would_refuse((table.add(), table.add_set("a", 4, times_out=True))) is None
    refused = kernel.would_refuse((table.add(), table.add_element("missing", bytes(4), times_out=True)))
    assert isinstance(refused, KernelError)
    assert machines.host.run("nft", "list", "tables") == ""
