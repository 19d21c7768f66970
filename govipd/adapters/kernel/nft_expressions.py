"""Encodes the expressions of nf_tables rules (linux/netfilter/nf_tables.h). One takes microseconds."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

_NESTED = 0x8000
_EQUAL, _UNEQUAL = 0, 1
_IIFNAME, _OIFNAME, _NFPROTO, _L4PROTO = 6, 7, 15, 16  # enum nft_meta_keys
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2  # enum nft_payload_bases
_IFNAMSIZ = 16


@dataclass(frozen=True, slots=True)
class Expression:
    """One step of a rule. `looks_in`: the set of a lookup, or ""; `wants`: whether the set must have the element."""

    encoded: bytes
    looks_in: str = ""
    wants: bool = False


def attribute(kind: int, value: bytes) -> bytes:
    """A netlink attribute (struct nlattr)."""
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def nested(kind: int, values: Iterable[bytes]) -> bytes:
    """A netlink attribute that contains others (NLA_F_NESTED)."""
    return attribute(kind | _NESTED, b"".join(values))


def attributes(data: bytes) -> list[tuple[int, bytes]]:
    """The attributes in `data`, as type and value. A truncated attribute is left out."""
    found = []
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found.append((kind & 0x3FFF, data[4:length]))
        data = data[(length + 3) & ~3 :]
    return found


def link_source() -> Expression:
    """Load the frame's source address. A packet of this machine has no frame yet, and goes to the next rule."""
    return _payload(_LINK, 6, 6)


def link_destination() -> Expression:
    """Load the frame's destination address. A packet without a frame goes to the next rule."""
    return _payload(_LINK, 0, 6)


def load_network(offset: int, length: int) -> Expression:
    """Load bytes of the network header (of the ARP header in an arp table)."""
    return _payload(_NETWORK, offset, length)


def load_transport(offset: int, length: int) -> Expression:
    """Load bytes of the transport header."""
    return _payload(_TRANSPORT, offset, length)


def load_nfproto() -> Expression:
    """Load the packet's family (one byte: 2 IPv4, 10 IPv6)."""
    return _meta(_NFPROTO)


def load_l4proto() -> Expression:
    """Load the transport protocol's number (one byte)."""
    return _meta(_L4PROTO)


def came_by(interface: str) -> tuple[Expression, ...]:
    """Go on if the packet came in by the interface; "": by no interface, or (after routing) by a bridge port."""
    return _meta(_IIFNAME), _compare(_EQUAL, _padded(interface))


def leaves_by(interface: str) -> tuple[Expression, ...]:
    """Go on if the packet leaves by the interface."""
    return _meta(_OIFNAME), _compare(_EQUAL, _padded(interface))


def is_local() -> tuple[Expression, ...]:
    """Go on if the packet is addressed to this machine (RTN_LOCAL), wherever it came in."""
    fib = _expression("fib", _be32(1, 1), _be32(2, 3), _be32(3, 2))  # register 1, the type, of the destination
    return fib, _compare(_EQUAL, struct.pack("=L", 2))


def equal(value: bytes) -> Expression:
    """Go on if the bytes that were loaded last equal `value`."""
    return _compare(_EQUAL, value)


def unequal(value: bytes) -> Expression:
    """Go on if the bytes that were loaded last differ from `value`."""
    return _compare(_UNEQUAL, value)


def is_in(name: str) -> Expression:
    """Go on if the bytes that were loaded last are an element of the set."""
    return _lookup(name, inverted=False)


def not_in(name: str) -> Expression:
    """Go on if the bytes that were loaded last are not an element of the set."""
    return _lookup(name, inverted=True)


def drop() -> Expression:
    """Drop the packet."""
    return _expression("immediate", _be32(1, 0), nested(2, [nested(2, [_be32(1, 0)])]))


def accept() -> Expression:
    """Accept the packet: no further rule of this chain applies."""
    return _expression("immediate", _be32(1, 0), nested(2, [nested(2, [_be32(1, 1)])]))


def _padded(interface: str) -> bytes:
    return interface.encode().ljust(_IFNAMSIZ, b"\0")


def _payload(base: int, offset: int, length: int) -> Expression:
    return _expression("payload", _be32(1, 1), _be32(2, base), _be32(3, offset), _be32(4, length))


def _meta(key: int) -> Expression:
    return _expression("meta", _be32(1, 1), _be32(2, key))


def _compare(operation: int, value: bytes) -> Expression:
    return _expression("cmp", _be32(1, 1), _be32(2, operation), nested(3, [attribute(1, value)]))


def _lookup(name: str, *, inverted: bool) -> Expression:
    found = _expression("lookup", attribute(1, name.encode() + b"\0"), _be32(2, 1), _be32(5, int(inverted)))
    return Expression(found.encoded, looks_in=name, wants=not inverted)


def _be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">L", value))


def _expression(name: str, *data: bytes) -> Expression:
    return Expression(nested(1, [attribute(1, name.encode() + b"\0"), nested(2, data)]))
