"""A group whose addresses are on two interfaces: each part of the kernel side on the real kernel."""

import asyncio
import json
import socket
from collections.abc import Iterator
from ipaddress import ip_interface
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from govipd.adapters.kernel.addresses import KernelAddresses, PresentAddresses
from govipd.adapters.kernel.announce import FrameAnnouncer, PacketSocket
from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.fence_rules import every
from govipd.adapters.kernel.fence_tables import FenceTables
from govipd.adapters.kernel.link_monitor import LinkMonitor
from govipd.adapters.kernel.neighbours import LinkNeighbours, PacketEar
from govipd.adapters.kernel.nftables import NfTables
from govipd.adapters.kernel.rtnetlink import RouteSocket
from govipd.core.events import Address, AddressesElsewhere, AddressFound, AddressLost, LinkState, WireHeard
from govipd.core.placement import Placement
from govipd.errors import InterfaceMissingError
from govipd.leftovers import orphan_fences
from tests.adapters.conftest import BootClock, Events, LeapingClock, Wire
from tests.adapters.fencing import own_tables
from tests.adapters.namespaces import Namespace

if TYPE_CHECKING:
    from govipd.runtime.parts import Plan

OUTER: Address = ip_interface("192.0.2.100/24")
INNER: Address = ip_interface("198.51.100.1/24")
INNER6: Address = ip_interface("2001:db8:1::1/64")
ALL = (OUTER, INNER, INNER6)
PLACEMENT = Placement("eth0", {INNER.ip: "eth1", INNER6.ip: "eth1"})


@pytest.fixture
def legs(net: Wire) -> Wire:
    """The host and the peer share a second wire, eth1 to eth1. The peer has an address on each."""
    net.host.ip(f"link add eth1 type veth peer name eth1 netns {net.peer.path}")
    for machine in (net.host, net.peer):
        machine.ip("link set eth1 up")
    net.peer.ip("address add 192.0.2.1/24 dev eth0")
    net.peer.ip("address add 198.51.100.9/24 dev eth1")
    net.peer.ip("address add 2001:db8:1::9/64 dev eth1 nodad")
    return net


@pytest.fixture
def route() -> Iterator[RouteSocket]:
    route = RouteSocket()
    yield route
    route.close()


@pytest.fixture
def addresses(legs: Wire, clock: LeapingClock, route: RouteSocket) -> KernelAddresses:
    return KernelAddresses(
        placement=PLACEMENT, addresses=ALL, clock=clock, fenced=True, route=route, present=PresentAddresses()
    )


def shown(host: Namespace, interface: str) -> set[str]:
    """The global addresses on an interface."""
    found = json.loads(host.ip(f"-json address show dev {interface} scope global"))
    return {f"{info['local']}/{info['prefixlen']}" for link in found for info in link.get("addr_info", ()) if info}


async def test_each_address_is_on_its_interface(legs: Wire, addresses: KernelAddresses, clock: LeapingClock) -> None:
    """Added, replaced and removed there, and nowhere else."""
    await addresses.add(clock.now() + 60)
    assert shown(legs.host, "eth0") == {str(OUTER)}
    assert shown(legs.host, "eth1") == {str(INNER), str(INNER6)}
    await addresses.replace((OUTER, INNER))
    assert shown(legs.host, "eth1") == {str(INNER)}
    await addresses.remove()
    assert not shown(legs.host, "eth0") | shown(legs.host, "eth1")


async def test_a_missing_interface_does_not_keep_the_others_addresses(
    legs: Wire, addresses: KernelAddresses, clock: LeapingClock
) -> None:
    """Adding fails as a whole. Removing removes what is on the other interface."""
    await addresses.add(clock.now() + 60)
    legs.host.ip("link delete eth0")
    with pytest.raises(InterfaceMissingError):
        await addresses.add(clock.now() + 60)
    await addresses.remove()
    assert not shown(legs.host, "eth1")


async def test_one_fence_opens_and_closes_both_legs(
    legs: Wire, addresses: KernelAddresses, clock: LeapingClock, route: RouteSocket
) -> None:
    """A neighbour on each wire reaches the address of its wire while the fence is open, and only then."""
    fence = NftFence(addresses=ALL, clock=clock, tables=own_tables("eth0", route.mac), placement=PLACEMENT)

    def reached() -> list[bool]:
        legs.peer.ip("neigh flush all")
        asks = (["ping", "-c", "1", "-W", "1", str(address.ip)] for address in ALL)
        return ["1 received" in legs.peer.run(*ask, check=False) for ask in asks]

    await fence.close()
    await addresses.add(clock.now() + 60)
    assert reached() == [False, False, False]
    await fence.open(clock.now() + 60)
    assert reached() == [True, True, True]
    await fence.close()
    assert reached() == [False, False, False]
    await fence.remove()


async def test_packets_that_come_by_the_second_interface_pass_no_nat(
    legs: Wire, addresses: KernelAddresses, clock: LeapingClock, route: RouteSocket
) -> None:
    """A DNAT rule on the VIP of eth1 answers for it before the input hook: the fence is before that, on eth1 too."""
    legs.host.ip("address add 198.51.100.5/24 dev eth1")
    legs.host.run("nft", "add table ip other; add chain ip other pre { type nat hook prerouting priority dstnat; };"
                  " add rule ip other pre ip daddr 198.51.100.1 dnat to 198.51.100.5")  # fmt: skip
    (link,) = json.loads(legs.host.ip("-json link show dev eth1"))
    legs.peer.ip(f"neigh replace {INNER.ip} lladdr {link['address']} dev eth1 nud permanent")
    fence = NftFence(addresses=ALL, clock=clock, tables=own_tables("eth0", route.mac), placement=PLACEMENT)

    def answered() -> bool:
        return "1 received" in legs.peer.run("ping", "-c", "1", "-W", "1", str(INNER.ip), check=False)

    assert answered()  # by NAT alone: no interface has the address
    await fence.close()
    assert not answered()
    await fence.open(clock.now() + 60)
    assert answered()
    await fence.remove()


async def test_each_leg_hears_of_its_own_addresses(legs: Wire, clock: LeapingClock, route: RouteSocket) -> None:
    """From the hardware address of that leg."""
    sent: list[tuple[str, list[bytes]]] = []
    announcer = FrameAnnouncer(
        placement=PLACEMENT,
        addresses=ALL,
        mac=route.mac,
        clock=clock,
        burst=1,
        transmit=lambda interface, frames: sent.append((interface, [*frames])),
        router=route.forwards_ipv6,
    )
    announcer.hold(clock.now() + 60)
    announcer.start()
    assert [(interface, len(frames)) for interface, frames in sent] == [("eth0", 2), ("eth1", 3)]
    for interface, frames in sent:
        assert {frame[6:12] for frame in frames} == {route.mac(interface)}
    legs.host.ip("link delete eth0")
    sent.clear()
    announcer.start()
    assert [interface for interface, _ in sent] == ["eth1"]


async def test_the_link_is_as_good_as_the_worst_leg(legs: Wire, clock: BootClock, events: Events) -> None:
    """Carrier, state and existence of each; the names tell which; the hardware addresses are of all."""
    monitor = LinkMonitor(clock=clock, poll_s=60.0)
    monitor.watch(PLACEMENT, ALL, events)
    task = asyncio.create_task(monitor.run())

    async def link(*wanted: object) -> LinkState:
        def last() -> LinkState:
            return [e for e in events if isinstance(e, LinkState)][-1]

        await events.until(lambda: bool(events))
        await events.until(lambda: (last().present, last().admin_up, last().carrier, last().interface) == wanted)
        return last()

    try:
        up = await link(True, True, True, "")
        assert len(up.mac.split()) == 2
        for leg in ("eth1", "eth0"):
            legs.peer.ip(f"link set {leg} down")
            await link(True, True, False, leg)
            legs.peer.ip(f"link set {leg} up")
            await link(True, True, True, "")
        legs.host.ip("link set eth1 down")
        await link(True, False, False, "eth1")
        legs.host.ip("link set eth1 name eth7")
        await link(False, False, False, "eth1")
        legs.host.ip("link set eth7 name eth1")
        legs.host.ip("link set eth1 up")
        await link(True, True, True, "")
        legs.host.ip("link delete eth1")
        await link(False, False, False, "eth1")
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_an_address_on_the_wrong_leg_is_elsewhere(
    legs: Wire, addresses: KernelAddresses, clock: LeapingClock, events: Events
) -> None:
    """Also where that is another interface of the group."""
    monitor = LinkMonitor(clock=clock, poll_s=60.0)
    monitor.watch(PLACEMENT, ALL, events)
    task = asyncio.create_task(monitor.run())
    try:
        await addresses.add(clock.now() + 60)
        for address in ALL:
            await events.first(lambda e, a=address: e == AddressFound(a))  # type: ignore[misc]
        legs.host.ip(f"address del {INNER} dev eth1")
        await events.first(lambda e: e == AddressLost(INNER))
        since = len(events)
        legs.host.ip(f"address add {INNER} dev eth0")
        found = await events.first(lambda e: isinstance(e, AddressesElsewhere), since)
        assert isinstance(found, AddressesElsewhere)
        assert [(where.address, where.interface) for where in found.found] == [(INNER, "eth0")]
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_the_wire_question_goes_to_each_leg(legs: Wire, clock: BootClock, events: Events) -> None:
    """An answer counts on the wire where the address belongs; a wire that is down is silent."""
    legs.peer.ip(f"address add {INNER.ip}/32 dev eth1")
    (link,) = json.loads(legs.peer.ip("-json link show dev eth1"))
    asked = LinkNeighbours(
        placement=PLACEMENT, addresses=ALL, sink=events, clock=clock, members=dict[str, str], ear=PacketEar
    )
    task = asyncio.create_task(asked.run())

    async def heard() -> list[tuple[str, str]]:
        events.clear()
        asked.ask(clock.now() + 0.1)
        answer = await events.first(lambda e: isinstance(e, WireHeard))
        assert isinstance(answer, WireHeard)
        return [(str(each.address), each.mac) for each in answer.answers]

    try:
        legs.peer.run("sysctl", "-q", "net.ipv4.conf.all.arp_ignore=1")
        assert await heard() == [(str(INNER.ip), link["address"])]
        legs.host.ip("link set eth0 down")
        assert await heard() == [(str(INNER.ip), link["address"])]
        legs.host.ip("link set eth1 down")
        assert await heard() == []
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_a_packet_socket_sends_on_both(legs: Wire) -> None:
    """One socket of the process serves every interface."""
    packets = PacketSocket()
    frame = bytes.fromhex("ffffffffffff020000000001") + b"\x88\xb5" + bytes(46)
    with legs.peer.inside():
        ears = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) for _ in range(2)]
        for ear, interface in zip(ears, ("eth0", "eth1"), strict=True):
            ear.bind((interface, 0x88B5))
            ear.settimeout(5)
    for ear, interface in zip(ears, ("eth0", "eth1"), strict=True):
        packets.send(interface, [frame])
        assert ear.recv(100) == frame
        ear.close()
    packets.close()


async def left_behind(kernel: NfTables, addresses: KernelAddresses, clock: LeapingClock) -> None:
    """An open fence and its addresses, of a process that has ended. Its group is not in the file any more."""
    fence = NftFence(addresses=ALL, clock=clock, tables=FenceTables("eth0", kernel), placement=PLACEMENT)
    await fence.open(clock.now() + 60)
    await addresses.add(clock.now() + 60)


async def test_an_orphan_is_removed_wherever_its_group_had_it(
    legs: Wire, addresses: KernelAddresses, clock: LeapingClock
) -> None:
    """After the file has lost the group. An operator's address stays, behind the fence, which stays closed."""
    kernel = NfTables(owns=False)
    await left_behind(kernel, addresses, clock)
    legs.host.ip(f"address del {INNER6} dev eth1")
    legs.host.ip(f"address add {INNER6} dev eth1 nodad")
    nothing = cast("Plan", SimpleNamespace(groups={}))
    told = await orphan_fences("eth0", nothing, NfTables(owns=False), RouteSocket())
    assert [line.rpartition(": ")[2] for line in told] == [
        "removed",
        "removed",
        "it is still on this machine, so the fence stays, closed",
    ]
    assert not shown(legs.host, "eth0")
    assert shown(legs.host, "eth1") == {str(INNER6)}
    assert every(kernel, "govipd_eth0") == {INNER6.ip}
    kernel.close()


async def test_an_orphan_that_another_instance_guards_is_left_to_it(
    legs: Wire, addresses: KernelAddresses, clock: LeapingClock
) -> None:
    """The file gave it to a group of that instance, which holds it now."""
    kernel = NfTables(owns=False)
    await left_behind(kernel, addresses, clock)
    others = NftFence(addresses=(INNER,), clock=clock, tables=own_tables("eth1"))
    await others.open(clock.now() + 60)
    nothing = cast("Plan", SimpleNamespace(groups={}))
    await orphan_fences("eth0", nothing, NfTables(owns=False), RouteSocket())
    assert shown(legs.host, "eth1") == {str(INNER)}
    assert "1 received" in legs.peer.run("ping", "-c", "1", "-W", "1", str(INNER.ip))
    kernel.close()
