"""The frames byte by byte, and when they leave, captured at the other end of the wire."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_interface
from itertools import chain, repeat

import pytest

from govipd.adapters.kernel.announce import FrameAnnouncer, PacketSocket
from govipd.adapters.kernel.frames import arp_announcement, arp_reply, neighbor_advertisement
from govipd.adapters.kernel.rtnetlink import RouteSocket
from govipd.core.events import Address
from govipd.core.placement import Placement
from tests.adapters.conftest import BootClock, LeapingClock, Wire

MAC = bytes.fromhex("020000000001")
V4: Address = ip_interface("192.0.2.100/32")
V6: Address = ip_interface("2001:db8::100/128")
ROUND = [
    arp_announcement(MAC, IPv4Address(V4.ip)),
    arp_reply(MAC, IPv4Address(V4.ip)),
    neighbor_advertisement(MAC, IPv6Address(V6.ip), router=False),
]


def test_arp_announcement() -> None:
    """RFC 5227: operation 1, sender and target are the VIP, target hardware address zero."""
    assert arp_announcement(MAC, IPv4Address("192.0.2.100")).hex(" ", 2) == (
        "ffff ffff ffff 0200 0000 0001 0806 "  # to everybody, from us, ARP
        "0001 0800 0604 0001 "  # Ethernet, IPv4, 6 and 4 bytes, request
        "0200 0000 0001 c000 0264 "  # sender
        "0000 0000 0000 c000 0264"  # target
    )


def test_arp_reply() -> None:
    """RFC 5944: operation 2, sender and target are the VIP at our hardware address."""
    assert arp_reply(MAC, IPv4Address("192.0.2.100")).hex(" ", 2) == (
        "ffff ffff ffff 0200 0000 0001 0806 0001 0800 0604 0002 0200 0000 0001 c000 0264 0200 0000 0001 c000 0264"
    )


def test_neighbor_advertisement() -> None:
    """RFC 4861: to all nodes, hop limit 255, Override only, target and its link-layer address."""
    assert neighbor_advertisement(MAC, IPv6Address("2001:db8::100"), router=False).hex(" ", 2) == (
        "3333 0000 0001 0200 0000 0001 86dd "
        "6000 0000 0020 3aff "  # 32 bytes of ICMPv6, hop limit 255
        "2001 0db8 0000 0000 0000 0000 0000 0100 "
        "ff02 0000 0000 0000 0000 0000 0000 0001 "
        "8800 f72c 2000 0000 "  # type 136, code 0, checksum, O
        "2001 0db8 0000 0000 0000 0000 0000 0100 "
        "0201 0200 0000 0001"
    )


def test_a_router_says_so() -> None:
    """RFC 4861: R and O, and nothing else differs but the checksum."""
    flags = slice(14 + 40 + 4, 14 + 40 + 8)
    router = neighbor_advertisement(MAC, IPv6Address("2001:db8::100"), router=True)
    host = neighbor_advertisement(MAC, IPv6Address("2001:db8::100"), router=False)
    assert router[flags].hex() == "a0000000"
    checksum = slice(14 + 40 + 2, 14 + 40 + 4)
    assert int.from_bytes(host[checksum]) - int.from_bytes(router[checksum]) == 0x8000
    assert router[flags.stop :] == host[flags.stop :]


class Capture:
    """What arrives at the peer from MAC."""

    def __init__(self, packet: socket.socket) -> None:
        self._packet = packet
        self.seen: list[bytes] = []

    def drain(self) -> int:
        while True:
            try:
                frame = self._packet.recv(2000)
            except BlockingIOError:
                return len(self.seen)
            if frame[6:12] == MAC:
                self.seen.append(frame)

    async def until(self, count: int, seconds: float = 15.0) -> None:
        async with asyncio.timeout(seconds):
            while self.drain() < count:
                await asyncio.sleep(0.005)


@pytest.fixture
def capture(net: Wire) -> Iterator[Capture]:
    net.host.run("sysctl", "-q", "net.ipv6.conf.eth0.disable_ipv6=1")  # no frames but the announcer's
    with net.peer.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as packet:
        packet.bind(("eth0", 3))
        packet.setblocking(False)
        with net.host.inside():
            yield Capture(packet)


@asynccontextmanager
async def announcing(
    clock: BootClock,
    repeats_s: tuple[float, ...] = (),
    refresh_s: float = 60.0,
    macs: Iterator[bytes] | None = None,
    sent: Callable[[int], None] = lambda _: None,
) -> AsyncIterator[FrameAnnouncer]:
    def mac(_: str) -> bytes | None:
        return MAC if macs is None else next(macs)

    packets, route = PacketSocket(), RouteSocket()
    announcer = FrameAnnouncer(
        placement=Placement("eth0"),
        addresses=(V4, V6),
        mac=mac,
        clock=clock,
        burst=2,
        repeats_s=repeats_s,
        refresh_s=refresh_s,
        transmit=packets.send,
        router=route.forwards_ipv6,
        sent=sent,
    )
    announcer.hold(clock.now() + 60)
    task = asyncio.create_task(announcer.run())
    await asyncio.sleep(0)  # it has begun
    try:
        yield announcer
    finally:
        task.cancel()
        await asyncio.wait([task])
        packets.close()
        route.close()


@pytest.mark.root
async def test_burst_leaves_at_once_and_repeats_follow(capture: Capture, clock: BootClock) -> None:
    """Two rounds at once, one per repeat, then the refresh; each round has every form, and is counted."""
    sent: list[int] = []
    async with announcing(clock, repeats_s=(0.05, 0.1), refresh_s=0.1, sent=sent.append) as announcer:
        announcer.start()
        await capture.until(2 * len(ROUND))
        await capture.until(7 * len(ROUND))
    assert capture.seen[: 7 * len(ROUND)] == ROUND * 7
    assert sent[:3] == [2 * len(ROUND), len(ROUND), len(ROUND)]


@pytest.mark.root
async def test_the_prepared_round_leaves_once_without_a_question(capture: Capture, clock: BootClock) -> None:
    """The interface is looked at beforehand; again after stop(), other addresses, or a round that was sent."""
    asked: list[int] = []

    def macs() -> Iterator[bytes]:
        while True:
            asked.append(1)
            yield MAC

    async with announcing(clock, macs=macs()) as announcer:
        announcer.prepare()
        asked.clear()
        announcer.first_round()
        assert not asked
        announcer.first_round()
        announcer.prepare()
        announcer.stop()
        asked.clear()
        announcer.first_round()
        announcer.prepare()
        announcer.replace((V4, V6))
        announcer.first_round()
        assert len(asked) == 3
        await capture.until(4 * len(ROUND))
    assert capture.seen == 4 * ROUND


@pytest.mark.root
async def test_nothing_leaves_before_start_or_after_stop(capture: Capture, clock: BootClock) -> None:
    """Silent until started; silent the moment it is stopped, though repeats are due."""
    async with announcing(clock, refresh_s=0.01) as announcer:
        await asyncio.sleep(0.1)
        assert capture.drain() == 0
        announcer.start()
        await capture.until(1)
        announcer.stop()
        seen = capture.drain()
        await asyncio.sleep(0.2)
        assert capture.drain() == seen


@pytest.mark.root
async def test_start_begins_anew(capture: Capture, clock: BootClock) -> None:
    """A second start sends a second burst."""
    async with announcing(clock) as announcer:
        announcer.start()
        await capture.until(2 * len(ROUND))
        announcer.start()
        await capture.until(4 * len(ROUND))


@pytest.mark.root
async def test_mac_is_read_before_each_round(capture: Capture, clock: BootClock) -> None:
    """A round without a hardware address is left out; the next one has the new address."""
    async with announcing(clock, refresh_s=0.05, macs=chain([b""], repeat(MAC))) as announcer:
        announcer.start()
        await capture.until(len(ROUND))
    assert capture.seen == ROUND


@pytest.mark.root
async def test_missing_interface_is_waited_for(net: Wire, capture: Capture, clock: BootClock) -> None:
    """A failure to send is not fatal: the next round is tried."""
    net.host.ip("link set eth0 down")
    async with announcing(clock, refresh_s=0.05) as announcer:
        announcer.start()
        await asyncio.sleep(0.2)
        assert capture.drain() == 0
        net.host.ip("link set eth0 up")
        await capture.until(len(ROUND))


@pytest.mark.root
async def test_round_that_a_stopped_process_missed_is_left_out(capture: Capture, clock: LeapingClock) -> None:
    """The lease may be another's by then: the shell comes first, the next round after it."""
    seen = []

    def macs() -> Iterator[bytes]:
        while True:
            seen.append(capture.drain())
            if len(seen) == 2:
                clock.ahead += 65  # as if the process had been stopped before this round
            if len(seen) == 3:
                announcer.hold(clock.now() + 60)  # the shell has found that the lease goes on
            yield MAC

    async with announcing(clock, refresh_s=0.1, macs=macs()) as announcer:
        announcer.start()
        await capture.until(3 * len(ROUND))
    assert seen[:3] == [0, 2 * len(ROUND), 2 * len(ROUND)]


@pytest.mark.root
async def test_the_router_flag_follows_the_kernels_forwarding(net: Wire, capture: Capture, clock: BootClock) -> None:
    """Hosts that use the VIP as their router would give it up; an interface that is not there forwards nothing."""
    async with announcing(clock) as announcer:
        for forwards in (False, True):
            net.host.run("sysctl", "-q", f"net.ipv6.conf.eth0.forwarding={int(forwards)}")
            before = capture.drain()
            announcer.start()
            await capture.until(before + 6)
            assert capture.seen[before + 2] == neighbor_advertisement(MAC, IPv6Address(V6.ip), router=forwards)
    route = RouteSocket()
    assert not route.forwards_ipv6("none")
    route.close()
