"""Requests to rtnetlink(7): links and addresses.

Netlink to the kernel is a function call: when send() returns, the request has been carried out or refused, and the
answer is waiting. So nothing here waits, except for other users of rtnetlink, and taking a VIP takes what the kernel
takes; a client that decodes everything it is told takes several milliseconds more (docs/adr/0009).
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_interface

from govipd.core.events import Address
from govipd.errors import InterfaceMissingError, KernelError

# linux/netlink.h, linux/rtnetlink.h
_REQUEST, _ACK, _REPLACE, _DUMP, _CREATE = 0x1, 0x4, 0x100, 0x300, 0x400
_MULTI, _DUMP_INTERRUPTED = 0x2, 0x10
_ERROR, _DONE = 2, 3
_GETLINK, _NEWADDR, _DELADDR, _GETADDR = 18, 20, 21, 22
# linux/if.h, linux/if_link.h, linux/if_addr.h
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
_IFLA_ADDRESS, _IFLA_IFNAME = 1, 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
_IFA_F_NODAD = 0x02
IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x08, 0x40

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, number, port
_IFINFO = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_NO_LINK = _IFINFO.pack(0, 0, 0, 0, 0)
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_DUMPS_MAX = 3  # of one that a change has interrupted
_ANSWER_MAX = 1 << 17  # bytes; the kernel fills up to 32 KiB at once
_MAX_ERRNO = 4095  # linux/err.h


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel describes it."""

    index: int
    admin_up: bool
    carrier: bool
    mac: bytes  # empty when the interface has none (tun, wireguard)


class RouteSocket:
    """One socket for requests: opened when first needed, replaced after an error."""

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
        try:
            answers = self._request(what, _GETLINK, 0, _NO_LINK + _attribute(_IFLA_IFNAME, name.encode() + b"\0"))
        except KernelError as error:
            if error_number(error) == errno.ENODEV:
                raise InterfaceMissingError(f"interface {name} does not exist") from error.__cause__
            raise
        if not answers:
            raise KernelError(f"{what}: no answer from the kernel")
        return _link(answers[0])

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
        answers = self._request("reading addresses", _GETADDR, _DUMP, _IFADDR.pack(0, 0, 0, 0, 0))
        found = (_address(answer) for answer in answers)
        return {address: flags for at, address, flags in found if at == index and address is not None}

    def add(self, index: int, address: Address, valid_lft: int) -> None:
        """Add an address, or renew it, for whole seconds; preferred lifetime 0, no duplicate address detection.

        Raises:
            KernelError: refused, or not acknowledged.
        """
        lifetimes = _attribute(_IFA_CACHEINFO, struct.pack("=IIII", 0, valid_lft, 0, 0))
        flags = _attribute(_IFA_FLAGS, struct.pack("=I", _IFA_F_NODAD)) if address.version == 6 else b""
        body = _about(index, address) + lifetimes + flags
        self._request(f"adding {address}", _NEWADDR, _ACK | _REPLACE | _CREATE, body)

    def delete(self, index: int, address: Address) -> None:
        """Delete an address, exactly this one.

        Raises:
            KernelError: refused (error_number(): EADDRNOTAVAIL, ENODEV), or not acknowledged.
        """
        self._request(f"removing {address}", _DELADDR, _ACK, _about(index, address))

    def close(self) -> None:
        """Close the socket; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _request(self, what: str, kind: int, flags: int, body: bytes) -> list[bytes]:
        """Ask once; what the kernel told, without the headers.

        Raises:
            KernelError: refused, or no answer that makes sense.
        """
        for _ in range(_DUMPS_MAX):
            self._number += 1
            length = _HEADER.size + len(body)
            try:
                netlink = self._socket = self._socket or _open()
                netlink.send(_HEADER.pack(length, kind, _REQUEST | flags, self._number, 0) + body)
                whole, answers = _answers(netlink, self._number)
            except _RefusedError as error:  # the socket is as good as before
                raise KernelError(f"{what}: {error.strerror}") from error
            except OSError as error:
                self.close()
                raise KernelError(f"{what}: {error.strerror or 'no answer from the kernel'}") from error
            if whole:
                break
        return answers


class _RefusedError(OSError):
    """The kernel answered with an error."""


def error_number(error: KernelError) -> int | None:
    """What the kernel has refused with (errno.h); None where it has not answered."""
    return error.__cause__.errno if isinstance(error.__cause__, _RefusedError) else None


def _open() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


def _answers(netlink: socket.socket, number: int) -> tuple[bool, list[bytes]]:
    """What was told under this number, and whether no change came in between.

    Raises:
        _RefusedError: the kernel refused.
        OSError: there is no answer, or one that is none.
    """
    whole, told = True, list[bytes]()
    while True:
        data = netlink.recv(_ANSWER_MAX, socket.MSG_DONTWAIT)
        several = False
        while data:
            try:
                length, kind, flags, of, _ = _HEADER.unpack_from(data)
                code = -struct.unpack_from("=i", data, _HEADER.size)[0] if kind == _ERROR else 0
            except struct.error as error:
                raise OSError(errno.EBADMSG, "a truncated answer") from error
            if length < _HEADER.size or not 0 <= code <= _MAX_ERRNO:
                raise OSError(errno.EBADMSG, "an answer that is none")
            if of == number:
                if code:
                    raise _RefusedError(code, os.strerror(code))
                if kind in (_ERROR, _DONE):
                    return whole, told
                whole = whole and not flags & _DUMP_INTERRUPTED
                several = several or bool(flags & _MULTI)
                told.append(data[_HEADER.size : length])
            data = data[(length + 3) & ~3 :]
        if told and not several:
            return whole, told


def _attribute(kind: int, value: bytes) -> bytes:
    """A struct rtattr (linux/rtnetlink.h)."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind, data[4:length]
        data = data[(length + 3) & ~3 :]


def _about(index: int, address: Address) -> bytes:
    """The head of a message about an address."""
    packed = address.ip.packed
    head = _IFADDR.pack(_FAMILIES[address.version], address.network.prefixlen, 0, 0, index)
    return head + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)


def _link(message: bytes) -> Link:
    if len(message) < _IFINFO.size:
        raise KernelError("reading an interface: a truncated answer")
    _, _, index, flags, _ = _IFINFO.unpack_from(message)
    mac = dict(_attributes(message[_IFINFO.size :])).get(_IFLA_ADDRESS, b"")
    return Link(index, bool(flags & _IFF_UP), bool(flags & _IFF_LOWER_UP), mac)


def _address(message: bytes) -> tuple[int, Address | None, int]:
    """Interface index, address (None where it has none that makes sense), and flags."""
    if len(message) < _IFADDR.size:
        raise KernelError("reading addresses: a truncated answer")
    _, prefix, flags, _, index = _IFADDR.unpack_from(message)
    attributes = dict(_attributes(message[_IFADDR.size :]))
    if len(wide := attributes.get(_IFA_FLAGS, b"")) == 4:
        (flags,) = struct.unpack("=I", wide)
    # IFA_LOCAL is the interface's own; IFA_ADDRESS the peer's on point-to-point links (linux/if_addr.h).
    local = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    try:
        return index, ip_interface((local, prefix)) if local else None, flags
    except ValueError:
        return index, None, flags
