"""Requests about links and addresses over rtnetlink(7).

Netlink to the kernel is a function call: when send() returns, the kernel has carried out or refused the request, and
the answer can be read. So a request waits only for other users of rtnetlink. An activation takes no longer than the
kernel does; a client that decodes every attribute takes several milliseconds more (docs/adr/0009).
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface

from govipd.core.events import Address
from govipd.errors import InterfaceMissingError, KernelError

# linux/netlink.h, linux/rtnetlink.h
_REQUEST, _ACK, _REPLACE, _DUMP, _CREATE = 0x1, 0x4, 0x100, 0x300, 0x400
_MULTI, _DUMP_INTERRUPTED = 0x2, 0x10
_ERROR, _DONE = 2, 3
NEWLINK, DELLINK, _GETLINK = 16, 17, 18
NEWADDR, DELADDR, _GETADDR = 20, 21, 22
_GETNETCONF, _NETCONFA_IFINDEX, _NETCONFA_FORWARDING = 82, 1, 2  # linux/rtnetlink.h, linux/netconf.h
_SOL_NETLINK, _GET_STRICT_CHK = 270, 12  # the kernel applies the interface of a request for addresses
# linux/if.h, linux/if_link.h, linux/if_addr.h
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
_IFLA_ADDRESS, IFLA_IFNAME, _IFLA_EXT_MASK = 1, 3, 29
_RTEXT_FILTER_SKIP_STATS = 8  # statistics cost time: the kernel adds them up over all processors
IFA_ADDRESS, IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
_IFA_F_DEPRECATED = 0x20
_IFA_F_PERMANENT = 0x80
_IFA_F_NODAD = 0x02
IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x08, 0x40

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, number, port
_LENGTH_KIND = struct.Struct("=IH")
IFINFO = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
IFADDR = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_NO_LINK = IFINFO.pack(0, 0, 0, 0, 0)
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_DUMPS_MAX = 3  # tries of a dump that a change interrupts
ANSWER_MAX = 1 << 17  # bytes; the kernel fills up to 32 KiB at once
_MAX_ERRNO = 4095  # linux/err.h


def _attribute(kind: int, value: bytes) -> bytes:
    """A struct rtattr (linux/rtnetlink.h)."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


_WITHOUT_STATISTICS = _attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS))


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel describes it."""

    index: int
    admin_up: bool
    carrier: bool
    mac: bytes  # empty when the interface has none (tun, wireguard)


class RouteSocket:
    """A socket for requests to rtnetlink. It is opened when first needed, and replaced after an error."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._number = 0

    def link(self, name: str) -> Link:
        """Look the interface up.

        Raises:
            InterfaceMissingError: there is no interface of that name.
            KernelError: the kernel did not answer.
        """
        what = f"reading interface {name}"
        body = _NO_LINK + _attribute(IFLA_IFNAME, name.encode() + b"\0") + _WITHOUT_STATISTICS
        try:
            answers = self._request(what, _GETLINK, 0, body)
        except KernelError as error:
            if error.number == errno.ENODEV:
                raise InterfaceMissingError(f"interface {name} does not exist") from error.__cause__
            raise
        if not answers:
            raise KernelError(f"{what}: no answer from the kernel")
        return _link(answers[0])

    def mac(self, name: str) -> bytes | None:
        """The interface's hardware address now; None without one."""
        try:
            return self.link(name).mac or None
        except KernelError:
            return None

    def forwards_ipv6(self, name: str) -> bool:
        """Whether the kernel advertises itself as a router on the interface (net/ipv6/ndisc.c, ndisc_send_na)."""
        try:
            interface = _attribute(_NETCONFA_IFINDEX, struct.pack("=i", self.link(name).index))
            body = struct.pack("=B3x", socket.AF_INET6) + interface
            (answer, *_) = self._request(f"reading the settings of {name}", _GETNETCONF, 0, body)
        except (KernelError, ValueError):
            return False  # no such interface, or no IPv6 there
        return any(dict(attributes(answer[4:])).get(_NETCONFA_FORWARDING, b""))

    def links(self) -> list[Link]:
        """Every interface.

        Raises:
            KernelError: the kernel did not answer.
        """
        return [_link(answer) for answer in self._request("reading interfaces", _GETLINK, _DUMP, _NO_LINK)]

    def addresses(self, index: int) -> dict[Address, int]:
        """Every address on the interface of that index, with its flags (IFA_F_...).

        Raises:
            KernelError: the kernel did not answer.
        """
        answers = self._request("reading addresses", _GETADDR, _DUMP, IFADDR.pack(0, 0, 0, 0, index))
        found = (_address(answer) for answer in answers)
        return {address: flags for at, address, flags in found if at == index and address is not None}

    def where(self, ips: Collection[IPv4Address | IPv6Address]) -> list[tuple[int, Address]]:
        """Where these addresses are: the interface's index, and the address with the prefix length it has there.

        Kubernetes hosts have thousands of addresses. So only answers that contain a wanted address are decoded.

        Raises:
            KernelError: the kernel did not answer.
        """
        return [(index, address) for index, address, _ in self._find(ips)]

    def lent(self, ips: Collection[IPv4Address | IPv6Address]) -> list[tuple[int, Address]]:
        """As where(), but only addresses that add() has added: a limited lifetime, and none of it preferred.

        Raises:
            KernelError: the kernel did not answer.
        """
        kind, unlike = _IFA_F_DEPRECATED, _IFA_F_PERMANENT
        return [(index, address) for index, address, flags in self._find(ips) if flags & kind and not flags & unlike]

    def _find(self, ips: Collection[IPv4Address | IPv6Address]) -> Iterator[tuple[int, Address, int]]:
        wanted = tuple(ip.packed for ip in ips)
        answers = self._request("reading addresses", _GETADDR, _DUMP, IFADDR.pack(0, 0, 0, 0, 0), wanted)
        for index, address, flags in (_address(a) for a in answers if any(each in a for each in wanted)):
            if address is not None and address.ip in ips:
                yield index, address, flags

    def name(self, index: int) -> str:
        """The name of the interface with that index; a text with the index where the interface has just gone."""
        try:
            return socket.if_indextoname(index)
        except OSError:
            return f"interface {index}"

    def add(self, index: int, address: Address, valid_lft: int) -> None:
        """Add an address, or renew it, for `valid_lft` seconds. Preferred lifetime 0, no duplicate address detection.

        Raises:
            KernelError: refused, or not acknowledged.
        """
        lifetimes = _attribute(_IFA_CACHEINFO, struct.pack("=IIII", 0, valid_lft, 0, 0))
        flags = _attribute(_IFA_FLAGS, struct.pack("=I", _IFA_F_NODAD)) if address.version == 6 else b""
        body = _about(index, address) + lifetimes + flags
        self._request(f"adding {address}", NEWADDR, _ACK | _REPLACE | _CREATE, body)

    def delete(self, index: int, address: Address) -> None:
        """Delete an address with exactly this prefix length.

        Raises:
            KernelError: refused (EADDRNOTAVAIL, ENODEV), or not acknowledged.
        """
        self._request(f"removing {address}", DELADDR, _ACK, _about(index, address))

    def close(self) -> None:
        """Close the socket; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _request(self, what: str, kind: int, flags: int, body: bytes, wanted: tuple[bytes, ...] = ()) -> list[bytes]:
        """Send a request. Returns the answers without headers. Answers without any of `wanted` may be left out.

        Raises:
            KernelError: refused, or no valid answer.
        """
        for _ in range(_DUMPS_MAX):
            self._number += 1
            length = _HEADER.size + len(body)
            try:
                netlink = self._socket = self._socket or open_socket()
                netlink.send(_HEADER.pack(length, kind, _REQUEST | flags, self._number, 0) + body)
                whole, answers = _answers(netlink, self._number, wanted)
            except _RtnetlinkRefusedError as error:  # the socket is still usable
                raise KernelError(f"{what}: {error.strerror}", error.errno) from error
            except OSError as error:
                self.close()
                raise KernelError(f"{what}: {error.strerror or 'no answer from the kernel'}") from error
            if whole:
                break
        return answers


class _RtnetlinkRefusedError(OSError):
    """The kernel answered with an error."""


def open_socket(flags: int = 0) -> socket.socket:
    """Open a socket; `flags` are socket(2)'s."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | flags, socket.NETLINK_ROUTE)
    with suppress(OSError):  # Linux before 4.20 answers for every interface
        netlink.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
    return netlink


def _answers(netlink: socket.socket, number: int, wanted: tuple[bytes, ...]) -> tuple[bool, list[bytes]]:
    """The answers to request `number`; before them, whether they are complete: no change interrupted the dump.

    Raises:
        _RtnetlinkRefusedError: the kernel refused.
        OSError: no answer, or not a valid one.
    """
    whole, bodies = True, list[bytes]()
    while True:
        several = False
        data = netlink.recv(ANSWER_MAX, socket.MSG_DONTWAIT)
        if wanted and _last_kind(data) not in (_ERROR, _DONE) and not any(each in data for each in wanted):
            continue
        for kind, flags, of, body in messages(data):
            code = _code(body) if kind == _ERROR else 0
            if of == number:
                if code:
                    raise _RtnetlinkRefusedError(code, os.strerror(code))
                if kind in (_ERROR, _DONE):
                    return whole, bodies
                whole = whole and not flags & _DUMP_INTERRUPTED
                several = several or bool(flags & _MULTI)
                bodies.append(body)
        if bodies and not several:
            return whole, bodies


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, number and body of each message in `data`.

    Raises:
        OSError: `data` is no valid sequence of messages.
    """
    while data:
        if len(data) < _HEADER.size:
            raise OSError(errno.EBADMSG, "a truncated answer")
        length, kind, flags, number, _ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            raise OSError(errno.EBADMSG, "an answer that is none")
        yield kind, flags, number, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _last_kind(data: bytes) -> int:
    """The type of the last message."""
    at = kind = 0
    while at + _HEADER.size <= len(data):
        length, kind = _LENGTH_KIND.unpack_from(data, at)
        at += max(_HEADER.size, (length + 3) & ~3)
    return kind


def _code(body: bytes) -> int:
    """The errno of an NLMSG_ERROR; 0 is an acknowledgement.

    Raises:
        OSError: the message has no valid errno.
    """
    code = -int.from_bytes(body[:4], sys.byteorder, signed=True)
    if len(body) < 4 or not 0 <= code <= _MAX_ERRNO:
        raise OSError(errno.EBADMSG, "an answer that is none")
    return code


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute; ends at one that is not valid."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind, data[4:length]
        data = data[(length + 3) & ~3 :]


def _about(index: int, address: Address) -> bytes:
    """The head of a message about an address."""
    packed = address.ip.packed
    head = IFADDR.pack(_FAMILIES[address.version], address.network.prefixlen, 0, 0, index)
    return head + _attribute(IFA_LOCAL, packed) + _attribute(IFA_ADDRESS, packed)


def _link(message: bytes) -> Link:
    if len(message) < IFINFO.size:
        raise KernelError("reading an interface: a truncated answer")
    _, _, index, flags, _ = IFINFO.unpack_from(message)
    mac = next((value for kind, value in attributes(message[IFINFO.size :]) if kind == _IFLA_ADDRESS), b"")
    return Link(index, bool(flags & _IFF_UP), bool(flags & _IFF_LOWER_UP), mac)


def _address(message: bytes) -> tuple[int, Address | None, int]:
    """Interface index, address (None where the message has no valid one), and flags (IFA_F_...)."""
    if len(message) < IFADDR.size:
        raise KernelError("reading addresses: a truncated answer")
    _, prefix, flags, _, index = IFADDR.unpack_from(message)
    found = dict(attributes(message[IFADDR.size :]))
    if len(wide := found.get(_IFA_FLAGS, b"")) == 4:
        (flags,) = struct.unpack("=I", wide)
    # IFA_LOCAL is the interface's own; IFA_ADDRESS the peer's on point-to-point links (linux/if_addr.h).
    local = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
    try:
        return index, ip_interface((local, prefix)) if local else None, flags
    except ValueError:
        return index, None, flags
