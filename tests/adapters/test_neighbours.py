"""Asking the neighbours, on a real wire between two namespaces."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface

import pytest

from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.frames import address_probe, arp_probe, neighbor_solicitation
from govipd.adapters.kernel.neighbours import LinkNeighbours, PacketEar, who_has, wire
from govipd.core.events import WireAnswer, WireHeard
from govipd.core.placement import Placement
from govipd.errors import KernelError
from tests.adapters.conftest import BootClock, Events, Wire
from tests.adapters.fencing import own_tables

V4, V6 = ip_address("192.0.2.100"), ip_address("2001:db8::100")
MAC = bytes.fromhex("020000000001")


def mac_of(net: Wire) -> bytes:
    return bytes.fromhex(net.peer.ip("-br link show eth0").split()[2].replace(":", ""))


def test_arp_probe() -> None:
    """RFC 5227: a request whose sender address is 0."""
    assert arp_probe(MAC, IPv4Address("192.0.2.100")).hex(" ", 2) == (
        "ffff ffff ffff 0200 0000 0001 0806 0001 0800 0604 0001 0200 0000 0001 0000 0000 0000 0000 0000 c000 0264"
    )


def test_neighbor_solicitation() -> None:
    """RFC 4861: to the solicited-node group, hop limit 255, with the source link-layer address option."""
    frame = neighbor_solicitation(MAC, IPv6Address("2001:db8::1"), IPv6Address("2001:db8::100"))
    assert frame.hex(" ", 2) == (
        "3333 ff00 0100 0200 0000 0001 86dd "
        "6000 0000 0020 3aff "
        "2001 0db8 0000 0000 0000 0000 0000 0001 "
        "ff02 0000 0000 0000 0000 0001 ff00 0100 "
        "8700 1a2b 0000 0000 "
        "2001 0db8 0000 0000 0000 0000 0000 0100 "
        "0101 0200 0000 0001"
    )


def test_address_probe() -> None:
    """RFC 4862 section 5.4.2: from the unspecified address, without a link-layer address option."""
    frame = address_probe(MAC, IPv6Address("2001:db8::100"))
    assert frame.hex(" ", 2) == (
        "3333 ff00 0100 0200 0000 0001 86dd "
        "6000 0000 0018 3aff "
        "0000 0000 0000 0000 0000 0000 0000 0000 "
        "ff02 0000 0000 0000 0000 0001 ff00 0100 "
        "8700 4aef 0000 0000 "
        "2001 0db8 0000 0000 0000 0000 0000 0100"
    )


@pytest.mark.root
async def test_the_machine_that_has_the_address_is_found_by_its_hardware_address(net: Wire) -> None:
    """Both families. An address that no machine has gets no answer. This host's own answers do not count."""
    net.peer.ip("addr add 192.0.2.100/32 dev eth0")
    net.peer.ip("addr add 2001:db8::100/128 dev eth0 nodad")
    net.host.ip("addr add 192.0.2.1/24 dev eth0")
    free = ip_address("192.0.2.101")
    found = await who_has(await wire("eth0", avoid=()), {V4, V6, free}, listen_s=1.0)
    assert found == {V4: {mac_of(net)}, V6: {mac_of(net)}, free: set()}


@pytest.mark.root
async def test_asking_changes_no_cache(net: Wire) -> None:
    """The neighbour that answers has learnt nothing about an IPv4 address of ours; RFC 5227's probe has none."""
    net.host.ip("addr add 192.0.2.1/24 dev eth0")
    net.peer.ip("addr add 192.0.2.100/24 dev eth0")
    found = await who_has(await wire("eth0", avoid=()), {V4}, listen_s=0.5)
    assert found[V4]
    assert "192.0.2." not in net.peer.ip("neigh show")
    assert "192.0.2." not in net.host.ip("neigh show")


@pytest.mark.root
async def test_no_wire_no_question(net: Wire) -> None:
    """An interface that is down or missing is reported at once."""
    net.host.ip("link set eth0 down")
    began = time.monotonic()
    for interface in ("eth0", "nosuch"):
        with pytest.raises(KernelError, match=interface):
            await wire(interface, avoid=())
    assert time.monotonic() - began < 5


# Asked before a take-over


class Responder:
    """A machine on the peer's side of the wire that answers every ARP probe, as a proxy for everything does."""

    def __init__(self, net: Wire, mac: bytes) -> None:
        with net.peer.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
            self._socket.bind(("eth0", 0x0806))
        self._socket.setblocking(False)
        self._mac = mac
        asyncio.get_running_loop().add_reader(self._socket, self._answer)

    def _answer(self) -> None:
        frame = self._socket.recv(2048)
        if frame[20:22] == b"\0\1":
            self._socket.send(
                frame[6:12] + self._mac + frame[12:20] + b"\0\2" + self._mac + frame[38:42] + frame[22:32]
            )

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


@asynccontextmanager
async def neighbours(
    clock: BootClock, events: Events, members: Mapping[str, str] | None = None
) -> AsyncIterator[LinkNeighbours]:
    asked = LinkNeighbours(
        placement=Placement("eth0"),
        addresses=(ip_interface("192.0.2.100/32"), ip_interface("2001:db8::100/128")),
        sink=events,
        clock=clock,
        members=lambda: members or {},
        ear=PacketEar,
    )
    task = asyncio.create_task(asked.run())
    yield asked
    task.cancel()
    await asyncio.wait([task])


async def heard(asked: LinkNeighbours, clock: BootClock, events: Events, seconds: float = 0.1) -> WireHeard:
    events.clear()
    asked.ask(clock.now() + seconds)
    event = await events.first(lambda e: isinstance(e, WireHeard))
    assert isinstance(event, WireHeard)
    return event


@pytest.mark.root
async def test_a_kernel_that_answers_is_heard_in_both_families(net: Wire, clock: BootClock, events: Events) -> None:
    """By the member whose hardware address it is, and in the time that there is; this host's own does not count."""
    mac = mac_of(net).hex(":")
    for namespace in (net.peer, net.host):
        namespace.ip("addr add 192.0.2.100/32 dev eth0")
        namespace.ip("addr add 2001:db8::100/128 dev eth0 nodad")
    async with neighbours(clock, events, {mac: "node2"}) as asked:
        began = clock.now()
        event = await heard(asked, clock, events)
        assert 0.1 <= clock.now() - began < 0.13
        assert event.answers == (WireAnswer(V4, mac, "node2"), WireAnswer(V6, mac, "node2"))
        net.peer.ip("addr flush dev eth0")
        assert (await heard(asked, clock, events, seconds=0.05)).answers == ()


@pytest.mark.root
async def test_a_kernel_behind_a_closed_fence_is_silent(net: Wire, clock: BootClock, events: Events) -> None:
    """It is the answers that count, not the address."""
    net.peer.ip("addr add 192.0.2.100/32 dev eth0")
    net.peer.ip("addr add 2001:db8::100/128 dev eth0 nodad")
    with net.peer.inside():  # where its socket is made
        addresses = ip_interface(f"{V4}/32"), ip_interface(f"{V6}/128")
        fence = NftFence(addresses=addresses, clock=clock, tables=own_tables())
        await fence.close()
    async with neighbours(clock, events) as asked:
        assert (await heard(asked, clock, events)).answers == ()
        await fence.open(clock.now() + 10)
        assert len((await heard(asked, clock, events)).answers) == 2
        await fence.remove()


@pytest.mark.root
async def test_who_answers_for_everything_is_a_stranger(net: Wire, clock: BootClock, events: Events) -> None:
    """Proxy ARP: it is heard, and is no member's; the answer comes as soon as any other."""
    responder = Responder(net, bytes.fromhex("020000000099"))
    net.peer.run("sysctl", "-q", "net.ipv4.conf.eth0.proxy_arp=1")
    async with neighbours(clock, events, {"02:00:00:00:00:98": "node2"}) as asked:
        began = clock.now()
        event = await heard(asked, clock, events)
        assert clock.now() - began < 0.13
        assert event.answers == (WireAnswer(V4, "02:00:00:00:00:99", ""),)
    responder.close()


@pytest.mark.root
async def test_asking_before_a_take_over_changes_no_cache(net: Wire, clock: BootClock, events: Events) -> None:
    """Neither ours nor theirs, in both families."""
    net.host.ip("addr add 192.0.2.1/24 dev eth0")
    net.peer.ip("addr add 192.0.2.100/24 dev eth0")
    net.peer.ip("addr add 2001:db8::100/64 dev eth0 nodad")
    mine = net.host.ip("-br link show eth0").split()[2]
    async with neighbours(clock, events, {mac_of(net).hex(":"): "node2"}) as asked:
        assert len((await heard(asked, clock, events)).answers) == 2
    assert mine not in net.peer.ip("neigh show")
    assert "100" not in net.host.ip("neigh show")


@pytest.mark.root
async def test_a_link_that_cannot_be_asked_is_silent_at_once(net: Wire, clock: BootClock, events: Events) -> None:
    """Without carrier or interface; a question that is stopped, or followed by another, has no answer."""
    async with neighbours(clock, events) as asked:
        asked.ask(clock.now() + 0.1)
        asked.stop()
        net.host.ip("link set eth0 down")
        assert (await heard(asked, clock, events)).answers == ()
        net.host.ip("link delete eth0")
        until = clock.now() + 0.06
        asked.ask(clock.now() + 0.05)
        asked.ask(until)
        await events.until(lambda: WireHeard(until, ()) in events)
        assert len([e for e in events if isinstance(e, WireHeard)]) == 2
