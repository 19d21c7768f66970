"""Asks the machines on a link who has an address (the wire question), without changing their neighbour caches."""

import asyncio
import ctypes
import socket
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, Self

from govipd.adapters.kernel import frames
from govipd.adapters.kernel.rtnetlink import RouteSocket
from govipd.core.events import Address, WireAnswer, WireHeard
from govipd.core.placement import Placement
from govipd.errors import KernelError
from govipd.runtime.ports import Clock, Sink

IpAddress = IPv4Address | IPv6Address

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_ETH_P_ALL = 3
_ASKED_APART_MAX = 32  # hardware addresses of members that are asked by unicast; all machines are asked by broadcast

_HEARD_MAX = 1000  # frames that one call reads
# Classic BPF (linux/filter.h; code, true, false, value): lets ARP and neighbour advertisements pass, so that a busy
# link does not drown the answers.
_FILTER = (
    (0x28, 0, 0, 12),  # ldh [12]: the EtherType
    (0x15, 5, 0, 0x0806),  # ARP: accept
    (0x15, 0, 5, 0x86DD),  # no IPv6: reject
    (0x30, 0, 0, 20),  # ldb [20]: the next header
    (0x15, 0, 3, 58),  # no ICMPv6: reject
    (0x30, 0, 0, 54),  # ldb [54]: the ICMPv6 type
    (0x15, 0, 1, 136),  # no neighbour advertisement: reject
    (0x06, 0, 0, 0x40000),  # accept
    (0x06, 0, 0, 0),  # reject
)

# When the frames are sent, in seconds before the question's end (`until`). From the early frames, switches learn where
# answers go. Only answers to the last frames count. They are sent when the fence of a leader that hands over has ended
# (lease.HANDOVER_S), and twice, because a frame may get lost.
_EARLY_S = (0.075, 0.045)
_LAST_S = (0.018, 0.012)


@dataclass(frozen=True, slots=True)
class Wire:
    """One of this host's interfaces: its hardware address, and an IPv6 source address for questions (None: none).

    `own`: the hardware addresses of all of this host's interfaces.
    """

    interface: str
    mac: bytes
    source6: IPv6Address | None
    own: frozenset[bytes]


async def wire(interface: str, avoid: Collection[IpAddress]) -> Wire:
    """Look the interface up. No address of `avoid` becomes the source address of questions.

    Raises:
        KernelError: the interface is missing or down, has no Ethernet address, or the kernel did not answer.
    """
    route = RouteSocket()
    try:
        link = route.link(interface)
        if not (link.admin_up and link.carrier and len(link.mac) == 6):
            raise KernelError(f"interface {interface} is down, has no carrier, or no Ethernet address")
        present = route.addresses(link.index)
        own = frozenset(other.mac for other in route.links())
    finally:
        route.close()
    sources = [address.ip for address in present if isinstance(address.ip, IPv6Address) and address.ip not in avoid]
    sources.sort(key=lambda ip: not ip.is_link_local)
    return Wire(
        interface,
        link.mac,
        next(iter(sources), None),
        own,
    )


async def who_has(wire: Wire, targets: Collection[IpAddress], listen_s: float) -> dict[IpAddress, frozenset[bytes]]:
    """For each address, the hardware addresses of the other machines that claim it.

    Each question is sent twice within `listen_s` seconds: the first may be lost while a switch learns.

    Raises:
        PermissionError: packet sockets need CAP_NET_RAW.
        OSError: the interface went away, or is down.
    """
    found: dict[IpAddress, set[bytes]] = {target: set() for target in targets}
    questions = []
    for target in targets:
        if isinstance(target, IPv4Address):
            questions.append(frames.arp_probe(wire.mac, target))
        elif wire.source6 is not None:
            questions.append(frames.neighbor_solicitation(wire.mac, wire.source6, target))
    loop = asyncio.get_running_loop()
    with _packet_socket(wire.interface) as packet:
        for _ in range(2):
            for question in questions:
                packet.send(question)
            try:
                async with asyncio.timeout(listen_s / 2):
                    while True:
                        frame, address = await loop.sock_recvfrom(packet, 2048)
                        claim = _claim(frame)
                        if claim and claim[0] in found and address[2] != socket.PACKET_OUTGOING:
                            found[claim[0]].add(claim[1])
            except TimeoutError:
                continue
    return {target: frozenset(macs - wire.own) for target, macs in found.items()}


class Ear(Protocol):
    """Asks on one link and collects the answers, from __enter__ to __exit__."""

    def __enter__(self) -> Self:
        """Begin to collect answers.

        Raises:
            KernelError: the interface is missing or down, or has no Ethernet address.
            OSError: the packet socket cannot be opened.
        """

    def __exit__(self, *_: object) -> None:
        """Stop collecting answers."""

    def ask(self, targets: Collection[IpAddress], macs: Collection[bytes]) -> None:
        """Ask by broadcast, and ask each machine in `macs` by unicast. Never raises, never waits."""

    def heard(self) -> dict[IpAddress, set[bytes]]:
        """The claims (address, hardware addresses) of other machines since the last call. Never raises or waits."""


class PacketEar:
    """Asks on a packet(7) socket (Ear). Its frames change no neighbour cache."""

    def __init__(self, interface: str) -> None:
        self._interface = interface

    def __enter__(self) -> Self:
        """See Ear."""
        route = RouteSocket()
        try:
            link = route.link(self._interface)
            if not (link.admin_up and link.carrier and len(link.mac) == 6):
                raise KernelError(f"interface {self._interface} is down, has no carrier, or no Ethernet address")
            self._mac, self._own = link.mac, frozenset(other.mac for other in route.links())
        finally:
            route.close()
        self._packet = _packet_socket(self._interface)
        return self

    def __exit__(self, *_: object) -> None:
        """See Ear. Closing takes the kernel 10 ms, so another thread closes the socket."""
        asyncio.get_running_loop().run_in_executor(None, self._packet.close)

    def ask(self, targets: Collection[IpAddress], macs: Collection[bytes]) -> None:
        """See Ear."""
        with suppress(OSError):
            for target in targets:
                if isinstance(target, IPv4Address):
                    self._packet.send(frames.arp_probe(self._mac, target))
                    for mac in macs:
                        self._packet.send(frames.arp_probe(self._mac, target, to=mac))
                else:
                    self._packet.send(frames.address_probe(self._mac, target))

    def heard(self) -> dict[IpAddress, set[bytes]]:
        """See Ear."""
        claims: dict[IpAddress, set[bytes]] = {}
        with suppress(OSError):  # BlockingIOError: no more frames
            for _ in range(_HEARD_MAX):
                frame, address = self._packet.recvfrom(2048)
                claim = _claim(frame)
                if claim and address[2] != socket.PACKET_OUTGOING and claim[1] not in self._own:
                    claims.setdefault(claim[0], set()).add(claim[1])
        return claims


class LinkNeighbours:
    """Asks the machines on the VIP's links who answers for the VIP's addresses (ports.Neighbours).

    Each address is asked for on its own link. The sockets are open only while a question is pending. Where no question
    can be sent (no Ethernet, no carrier, no packet socket), the answer is empty.

    Args:
        members: returns the members' names, by hardware address as in LinkState.mac.
        ear: makes the Ear of an interface.
    """

    def __init__(
        self,
        *,
        placement: Placement,
        addresses: tuple[Address, ...],
        sink: Sink,
        clock: Clock,
        members: Callable[[], Mapping[str, str]],
        ear: Callable[[str], Ear],
    ) -> None:
        self._placement = placement
        self._addresses = addresses
        self._sink = sink
        self._clock = clock
        self._members = members
        self._ear = ear
        self._until: float | None = None
        self._changed = asyncio.Event()

    def replace(self, addresses: tuple[Address, ...]) -> None:
        """See ports.Neighbours."""
        self._addresses = addresses

    def ask(self, until: float) -> None:
        """See ports.Neighbours."""
        self._until = until
        self._changed.set()

    def stop(self) -> None:
        """See ports.Neighbours."""
        if self._until is not None:
            self._until = None
            self._changed.set()

    async def run(self) -> None:
        """Ask each wanted question, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if (until := self._until) is None:
                continue
            heard = await self._ask(until)
            if self._until == until and heard is not None:
                self._until = None
                self._sink(WireHeard(until, tuple(self._answers(heard))))

    async def _ask(self, until: float) -> Mapping[IpAddress, Collection[bytes]] | None:
        """Who answered the last frames; None where a newer order has replaced this question."""
        if await self._interrupted(until - _EARLY_S[0]):
            return None
        macs = {bytes.fromhex(mac.replace(":", "")) for mac in list(self._members())[:_ASKED_APART_MAX]}
        with ExitStack() as stack:
            ears = [*self._ears(stack)]
            for before in (*_EARLY_S, *_LAST_S):
                if await self._interrupted(until - before):
                    return None
                if before == _LAST_S[0]:
                    for ear, _ in ears:
                        ear.heard()  # drops the answers to the early frames
                if before in _LAST_S or self._clock.now() < until - _LAST_S[0]:
                    for ear, ips in ears:
                        ear.ask(ips, macs)
            # Counted from the last frame, which may be late: this process may have had to wait for the CPU.
            answered = max(until, self._clock.now() + _LAST_S[-1])
            if await self._interrupted(answered):
                return None
            return {ip: macs for ear, ips in ears for ip, macs in ear.heard().items() if ip in ips}

    def _ears(self, stack: ExitStack) -> Iterator[tuple[Ear, Collection[IpAddress]]]:
        """An Ear for each link on which a question can be sent, and the addresses that are asked for there."""
        for interface, addresses in self._placement.by_interface(self._addresses).items():
            with suppress(KernelError, OSError):
                if addresses:
                    yield stack.enter_context(self._ear(interface)), frozenset(address.ip for address in addresses)

    def _answers(self, heard: Mapping[IpAddress, Collection[bytes]]) -> list[WireAnswer]:
        members, ips = self._members(), [address.ip for address in self._addresses]
        named = ((ip, mac.hex(":")) for ip in ips for mac in sorted(heard.get(ip, ())))
        return [WireAnswer(ip, mac, members.get(mac, "")) for ip, mac in named]

    async def _interrupted(self, at: float) -> bool:
        """Wait until the instant `at`. Returns whether a new order came before."""
        try:
            async with asyncio.timeout(max(0.0, at - self._clock.now())):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True


def _packet_socket(interface: str) -> socket.socket:
    packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBL", *step) for step in _FILTER))
    try:
        packet.setblocking(False)
        attach = struct.pack("@HP", len(_FILTER), ctypes.addressof(program))  # struct sock_fprog
        packet.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attach)
        packet.bind((interface, _ETH_P_ALL))
    except OSError:
        packet.close()
        raise
    return packet


def _claim(frame: bytes) -> tuple[IpAddress, bytes] | None:
    """Which address an ARP packet or a neighbour advertisement claims, and for which hardware address."""
    ethertype = frame[12:14]
    if ethertype == b"\x08\x06" and len(frame) >= 42:
        return IPv4Address(frame[28:32]), frame[22:28]
    if ethertype == b"\x86\xdd" and len(frame) >= 78:
        # The target link-layer address option (RFC 4861 section 4.6.1), which answers to solicitations carry.
        has_option = frame[78:80] == b"\x02\x01" and len(frame) >= 86
        return IPv6Address(frame[62:78]), frame[80:86] if has_option else frame[6:12]
    return None
