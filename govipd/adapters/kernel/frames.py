"""Ethernet frames that announce to neighbours where an address is. Pure functions."""

import struct
from ipaddress import IPv4Address, IPv6Address

_BROADCAST = b"\xff" * 6
_ALL_NODES = IPv6Address("ff02::1")
_SOLICITED_NODE = IPv6Address("ff02::1:ff00:0")  # plus the last three bytes of the address: RFC 4291 section 2.7.1
_ALL_NODES_MAC = bytes.fromhex("333300000001")  # RFC 2464 section 7

_ETHERTYPE_ARP = 0x0806
_ETHERTYPE_IPV6 = 0x86DD
_ICMPV6 = 58


def arp_announcement(mac: bytes, address: IPv4Address) -> bytes:
    """Gratuitous ARP in the request form: the "ARP Announcement" of RFC 5227 section 2.3.

    Sender and target protocol address are `address`; the target hardware address means nothing in a request
    and is zero. Broadcast.
    """
    return _arp(1, mac, address, target_mac=bytes(6))


def arp_probe(mac: bytes, address: IPv4Address, to: bytes = _BROADCAST) -> bytes:
    """The "ARP Probe" of RFC 5227 section 1.1: asks who has `address`. Its sender address 0 changes no cache.

    `to`: broadcast, or the hardware address of the only machine to ask.
    """
    return to + _arp(1, mac, address, target_mac=bytes(6), sender=IPv4Address(0))[6:]


def arp_reply(mac: bytes, address: IPv4Address) -> bytes:
    """Gratuitous ARP in the reply form, for equipment that learns from replies only.

    The target hardware address repeats the sender's (RFC 5944 section 4.6). Broadcast.
    """
    return _arp(2, mac, address, target_mac=mac)


def neighbor_advertisement(mac: bytes, address: IPv6Address, *, router: bool) -> bytes:
    """Unsolicited Neighbor Advertisement to all nodes (RFC 4861 sections 4.4 and 7.2.6).

    The source is `address`. The Override flag makes neighbours replace their cache entry. The target link-layer address
    option names `mac`. The hop limit is 255, or receivers discard the frame (section 7.1.2). `router`: this machine
    forwards packets; without the Router flag, hosts that use the address as their router give it up (section 7.2.5).
    """
    flags = 0x20000000 | (0x80000000 if router else 0)
    target_link_layer_address = struct.pack("!BB6s", 2, 1, mac)  # RFC 4861 section 4.6.1
    body = struct.pack("!L16s", flags, address.packed) + target_link_layer_address
    return _icmpv6(136, mac, address, _ALL_NODES_MAC, _ALL_NODES, body)


def neighbor_solicitation(mac: bytes, source: IPv6Address, address: IPv6Address) -> bytes:
    """Asks who has `address` (RFC 4861 section 4.3). The answer comes only to `source`, an address of ours."""
    last = address.packed[-3:]
    group = IPv6Address(_SOLICITED_NODE.packed[:13] + last)
    source_link_layer_address = struct.pack("!BB6s", 1, 1, mac)
    body = struct.pack("!L16s", 0, address.packed) + source_link_layer_address
    return _icmpv6(135, mac, source, b"\x33\x33\xff" + last, group, body)


def address_probe(mac: bytes, address: IPv6Address) -> bytes:
    """Asks who has `address`, like duplicate address detection (RFC 4862 section 5.4.2). Changes no cache.

    The source is the unspecified address, without the source link-layer address option. The answer goes to all nodes.
    """
    last = address.packed[-3:]
    group = IPv6Address(_SOLICITED_NODE.packed[:13] + last)
    body = struct.pack("!L16s", 0, address.packed)
    return _icmpv6(135, mac, IPv6Address(0), b"\x33\x33\xff" + last, group, body)


def _icmpv6(kind: int, mac: bytes, source: IPv6Address, to_mac: bytes, to: IPv6Address, body: bytes) -> bytes:
    length = 4 + len(body)
    # RFC 8200 section 8.1: the checksum covers this pseudo-header too.
    pseudo_header = source.packed + to.packed + struct.pack("!LL", length, _ICMPV6)
    checksum = _checksum(pseudo_header + struct.pack("!BBH", kind, 0, 0) + body)
    ipv6 = struct.pack("!LHBB16s16s", 6 << 28, length, _ICMPV6, 255, source.packed, to.packed)
    ethernet = to_mac + mac + struct.pack("!H", _ETHERTYPE_IPV6)
    return ethernet + ipv6 + struct.pack("!BBH", kind, 0, checksum) + body


def _arp(
    operation: int, mac: bytes, address: IPv4Address, *, target_mac: bytes, sender: IPv4Address | None = None
) -> bytes:
    """An ARP frame (RFC 826). Without `sender`, the sender's protocol address is `address`, like the target's."""
    ethernet = _BROADCAST + mac + struct.pack("!H", _ETHERTYPE_ARP)
    source = address if sender is None else sender
    return ethernet + struct.pack(
        "!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, mac, source.packed, target_mac, address.packed
    )


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
