"""The fences, against the kernel: a peer asks, by ARP, neighbour solicitation and echo request, who answers."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from ipaddress import ip_interface

import pytest

from govipd.adapters.fence import AddressFence, NftFence
from govipd.adapters.netlink import KernelAddresses
from govipd.adapters.nftables import Message, NfTables
from govipd.core.events import Address
from govipd.errors import KernelError
from tests.adapters.conftest import BootClock, LeapingClock, Wire

pytestmark = pytest.mark.root

V4: Address = ip_interface("192.0.2.100/32")
V6: Address = ip_interface("2001:db8::100/128")
OWN4: Address = ip_interface("192.0.2.10/24")
OWN6: Address = ip_interface("2001:db8::10/64")
TABLE = "govipd_eth0"


class Asker:
    """Sends echo requests from the peer and notes when answers come. The VIP's neighbour entry is fixed."""

    def __init__(self, net: Wire, address: Address) -> None:
        self.answers: list[float] = []
        self.asked = 0
        self._net = net
        self._to = (str(address.ip), 0)
        self._v6 = address.version == 6
        family, protocol = (
            (socket.AF_INET6, socket.IPPROTO_ICMPV6) if self._v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
        )
        with net.peer.inside():
            self._socket = socket.socket(family, socket.SOCK_DGRAM, protocol)  # icmp(7): the kernel adds id and sum
        self._socket.setblocking(False)
        (link,) = json.loads(net.host.ip("-json link show dev eth0"))
        net.peer.ip(f"neigh replace {address.ip} lladdr {link['address']} dev eth0 nud permanent")

    def ask(self) -> None:
        self._socket.sendto((b"\x80" if self._v6 else b"\x08") + bytes(7), self._to)
        self.asked += 1

    def listen(self, now: float) -> int:
        while True:
            try:
                self._socket.recv(1000)
            except BlockingIOError:
                return len(self.answers)
            self.answers.append(now)

    async def answered(self, clock: BootClock) -> bool:
        """Ask until there is an answer, or twenty questions found none."""
        before = self.listen(clock.now())
        for _ in range(20):
            self.ask()
            await asyncio.sleep(0.01)
            if self.listen(clock.now()) > before:
                return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def machines(net: Wire) -> Wire:
    """The host has its own addresses and the VIP's; the peer is in the same networks."""
    for address in (OWN4, V4):
        net.host.ip(f"address add {address} dev eth0")
    for address in (OWN6, V6):
        net.host.ip(f"address add {address} dev eth0 nodad")
    net.peer.ip("address add 192.0.2.1/24 dev eth0")
    net.peer.ip("address add 2001:db8::1/64 dev eth0 nodad")
    net.peer.run("sysctl", "-q", "net.ipv4.ping_group_range=0 0")
    return net


@pytest.fixture(params=[V4, V6], ids=["IPv4", "IPv6"])
def vip(machines: Wire, request: pytest.FixtureRequest) -> Iterator[Asker]:
    asker = Asker(machines, request.param)
    yield asker
    asker.close()


@pytest.fixture
async def fence(net: Wire, clock: LeapingClock) -> AsyncIterator[NftFence]:
    fence = NftFence(addresses=(V4, V6), clock=clock, table=TABLE)
    yield fence
    await fence.remove()


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


def test_a_missing_nf_tables_is_told_from_other_trouble() -> None:
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
    until = clock.now() + 60
    clock.leaps = [0.0, 1.0] * 3
    with pytest.raises(KernelError, match="not given the time"):
        await fence.open(until)
    assert not await vip.answered(clock)


async def test_open_fence_outlives_its_process(fence: NftFence, vip: Asker, clock: LeapingClock) -> None:
    """The next one takes it over without a gap, and can close it."""
    await fence.open(clock.now() + 60)
    successor = NftFence(addresses=(V4, V6), clock=clock, table=TABLE)
    assert await vip.answered(clock)
    await successor.open(clock.now() + 60)
    assert await vip.answered(clock)
    await successor.close()
    assert not await vip.answered(clock)
    await successor.remove()


class KilledError(Exception):
    """The process ends here."""


class Killing(NfTables):
    """A process that is killed after its first transaction."""

    def commit(self, messages: Iterable[Message]) -> None:
        super().commit(messages)
        raise KilledError


async def test_a_process_that_is_killed_before_it_knows_when_its_elements_end_has_prolonged_nothing(
    machines: Wire, fence: NftFence, clock: LeapingClock
) -> None:
    """The rules look where they looked, and the next process writes where they do not."""

    def looks_at() -> set[str]:
        return set(re.findall(r"@(open\w+)", machines.host.run("nft", "list", "table", "inet", TABLE)))

    await fence.open(clock.now() + 60)
    before = looks_at()
    killing = Killing()
    killed = NftFence(addresses=(V4, V6), clock=clock, table=TABLE, kernel=killing)
    with pytest.raises(KilledError):
        await killed.open(clock.now() + 90)
    killing.close()
    assert looks_at() == before
    successor = NftFence(addresses=(V4, V6), clock=clock, table=TABLE)
    await successor.open(clock.now() + 60)
    assert not looks_at() & before
    await successor.remove()


class Silent(NfTables):
    """Does what it is asked for; of one transaction, `lost` ones from now, the answer is lost."""

    lost = 0

    def commit(self, messages: Iterable[Message]) -> None:
        super().commit(messages)
        self.lost -= 1
        if self.lost == 0:
            raise KernelError("no answer")


async def test_what_the_kernel_did_without_an_answer_is_found_out(machines: Wire, clock: LeapingClock) -> None:
    """The rules look elsewhere already: the next renewal must not write there before it knows when that ends."""
    kernel = Silent()
    fence = NftFence(addresses=(V4, V6), clock=clock, table=TABLE, kernel=kernel)

    def looks_at() -> set[str]:
        return set(re.findall(r"@(open\w+)", machines.host.run("nft", "list", "table", "inet", TABLE)))

    await fence.open(clock.now() + 60)
    before = looks_at()
    kernel.lost = 2
    with pytest.raises(KernelError, match="no answer"):
        await fence.open(clock.now() + 60)
    unknown = looks_at()
    assert not unknown & before
    await fence.open(clock.now() + 60)
    assert not looks_at() & unknown
    await fence.remove()


async def test_a_fence_that_somebody_took_away_stands_again_after_the_first_transaction(
    machines: Wire, fence: NftFence, vip: Asker, clock: LeapingClock
) -> None:
    """Whatever becomes of the process then: closed after a moment, unless the second one opens it."""
    await fence.open(clock.now() + 60)
    machines.host.run("nft", "flush", "ruleset")
    assert await vip.answered(clock)
    killing = Killing()
    with pytest.raises(KilledError):
        await NftFence(addresses=(V4, V6), clock=clock, table=TABLE, kernel=killing).open(clock.now() + 60)
    killing.close()
    assert not await vip.answered(clock)
    await fence.open(clock.now() + 60)
    assert await vip.answered(clock)


class Asking(NfTables):
    """Asks for the VIP after each transaction."""

    def __init__(self, vip: Asker) -> None:
        super().__init__()
        self._vip = vip

    def commit(self, messages: Iterable[Message]) -> None:
        super().commit(messages)
        self._vip.ask()


@pytest.mark.parametrize("damage", ["flush ruleset", f"flush table inet {TABLE}"])
async def test_setting_up_anew_what_somebody_took_away_loses_nothing(
    machines: Wire, vip: Asker, clock: LeapingClock, damage: str
) -> None:
    """As `systemctl restart nftables` on the holder: open before, open after, and open in between."""
    fence = NftFence(addresses=(V4, V6), clock=clock, table=TABLE, kernel=Asking(vip))
    await fence.close()
    await fence.open(clock.now() + 60)
    unanswered = vip.asked - 1  # the second transaction has opened it
    machines.host.run("nft", damage)
    await fence.open(clock.now() + 60)
    await asyncio.sleep(0.2)
    assert vip.listen(clock.now()) == vip.asked - unanswered
    await fence.remove()


async def test_a_prepared_fence_is_closed_and_opens_by_one_transaction(vip: Asker, clock: LeapingClock) -> None:
    """For the instant that it was prepared for; for any other, and when it was closed since, as always."""
    until, kernel = clock.now() + 60, Asking(vip)
    fence = NftFence(addresses=(V4, V6), clock=clock, table=TABLE, kernel=kernel)
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


async def test_preparing_opens_nothing_where_somebody_takes_the_fence_away(
    machines: Wire, vip: Asker, clock: LeapingClock
) -> None:
    """Between its transactions, too."""

    class Flushed(NfTables):
        def commit(self, messages: Iterable[Message]) -> None:
            super().commit(messages)
            if not transactions:
                machines.host.run("nft", "flush ruleset")
            else:
                vip.ask()
            transactions.append(1)

    transactions: list[int] = []
    fence = NftFence(addresses=(V4, V6), clock=clock, table=TABLE, kernel=Flushed())
    await fence.prepare(clock.now() + 60)
    await asyncio.sleep(0.2)
    assert len(transactions) >= 2
    assert not vip.listen(clock.now())
    await fence.remove()


async def test_replaced_addresses_are_let_go(machines: Wire, fence: NftFence, clock: LeapingClock) -> None:
    """An open one that stays is not disturbed; a new one is closed until the fence is opened."""
    askers = [Asker(machines, V4), Asker(machines, V6)]
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
    """Taking down what is not there succeeds."""
    machines.host.run("nft", "add table inet others")
    await fence.close()
    await fence.remove()
    await fence.remove()
    assert machines.host.run("nft", "list", "tables").split() == ["table", "inet", "others"]


async def test_address_fence_is_the_address(machines: Wire, vip: Asker, clock: LeapingClock) -> None:
    """Closing it removes the addresses; opening it is left to adding them."""
    addresses = KernelAddresses(interface="eth0", addresses=(V4, V6), clock=clock)
    fence = AddressFence(addresses)
    await fence.open(clock.now() + 60)
    await addresses.add(clock.now() + 60)
    assert await vip.answered(clock)
    await fence.close()
    assert not await vip.answered(clock)
    addresses.close()
