"""Asks a link's neighbours who has an address, without a word that would change what they believe."""

import asyncio
import ctypes
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from govipd.adapters import frames
from govipd.adapters.rtnetlink import RouteSocket
from govipd.errors import KernelError

IpAddress = IPv4Address | IPv6Address

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_ETH_P_ALL = 3
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


@dataclass(frozen=True, slots=True)
class Wire:
    """One of this host's interfaces: its hardware address, and an IPv6 address to ask from (None: there is none).

    `own` are the hardware addresses of all of this host's interfaces.
    """

    interface: str
    mac: bytes
    source6: IPv6Address | None
    own: frozenset[bytes]


async def wire(interface: str, avoid: Collection[IpAddress]) -> Wire:
    """Look the interface up; no address of `avoid` is asked from.

    Raises:
        KernelError: it does not exist, is down, has no Ethernet address, or the kernel did not answer.
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
    """By address: the hardware addresses of the neighbours that claim it, this host's own left out.

    Asked twice within `listen_s` seconds: a first question may be lost while a switch learns.

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
