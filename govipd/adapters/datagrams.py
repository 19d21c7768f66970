"""Datagrams between members: UDP, 45 bytes, each with a message authentication code.

    magic "gvp1" | kind | id (8) | sequence (8) | revision (8) | HMAC-SHA-256 of all before, first 16 bytes

The id is that of a pact (adapters.pact) or of a handover (election.handover). A handover has no sequence and revision.

Numbers are big-endian and unsigned. Members learn the secret of the authentication code only through etcd.
"""

import asyncio
import hmac
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

Endpoint = tuple[str, int]
"""An IP address and a UDP port."""

REBIND_S = 2.0

_HEAD = struct.Struct(">4sB8sQQ")
_MAGIC = b"gvp1"
_CODE_BYTES = 16
SIZE = _HEAD.size + _CODE_BYTES


class Kind(IntEnum):
    """The kinds of datagrams: who sends each, and what it says."""

    LIVES = 1  # the leader: I lead; with the revision of the key that says the pact is in force, or 0
    HEARD = 2  # the successor: I have heard the datagram of that sequence
    OVER = 3  # the leader: the pact is over, in order
    READY = 4  # the new first member: I wait only for your fence to close
    CLOSED = 5  # the old leader: my kernel does not answer any more


_KINDS = {int(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Datagram:
    """One datagram between two members."""

    kind: Kind
    id: bytes  # 8 bytes
    sequence: int = 0
    revision: int = 0

    def packed(self, secret: bytes) -> bytes:
        """The datagram's bytes."""
        head = _HEAD.pack(_MAGIC, self.kind, self.id, self.sequence, self.revision)
        return head + hmac.digest(secret, head, "sha256")[:_CODE_BYTES]


def id_of(data: bytes) -> bytes | None:
    """The id of the pact or handover that a datagram names; None where it is no datagram of ours."""
    if len(data) != SIZE or not data.startswith(_MAGIC):
        return None
    return data[5:13]


def unpacked(data: bytes, secret: bytes) -> Datagram | None:
    """Decode a datagram of the pact or handover with that secret; None where its authentication code is wrong."""
    head, code = data[: _HEAD.size], data[_HEAD.size :]
    if not hmac.compare_digest(hmac.digest(secret, head, "sha256")[:_CODE_BYTES], code):
        return None
    _, kind, name, sequence, revision = _HEAD.unpack(head)
    return Datagram(_KINDS[kind], name, sequence, revision) if kind in _KINDS else None


class UdpPort(asyncio.DatagramProtocol):
    """One UDP socket (implements ports.Datagrams). A datagram that the kernel refuses to send is lost.

    Args:
        endpoint: where to listen; port 0 lets the kernel choose.
        refused: called once with the reason why listening fails. The port then tries again.
    """

    def __init__(self, endpoint: Endpoint, refused: Callable[[str], None] = lambda _: None) -> None:
        self.endpoint = endpoint
        self._refused = refused
        self._reported = ""
        self._transport: asyncio.DatagramTransport | None = None
        self._receive: Callable[[bytes, Endpoint], None] = lambda _data, _source: None
        self._lost = asyncio.Event()

    async def run(self, receive: Callable[[bytes, Endpoint], None]) -> None:
        """Listen until cancelled. Where the address does not exist (yet), try again every REBIND_S seconds."""
        self._receive = receive
        loop = asyncio.get_running_loop()
        while True:
            self._lost.clear()
            try:
                self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=self.endpoint)
            except OSError as e:
                if str(e) != self._reported:
                    self._reported = str(e)
                    self._refused(f"UDP on {self.endpoint[0]}, port {self.endpoint[1]}: {e}")
            else:
                self._reported = ""
                try:
                    await self._lost.wait()
                finally:
                    self._transport.close()
                    self._transport = None
            await asyncio.sleep(REBIND_S)

    def send(self, data: bytes, to: Endpoint) -> None:
        """Send a datagram. It is lost where the socket is not open, or the kernel refuses."""
        if self._transport is not None:
            self._transport.sendto(data, to)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        """See asyncio.DatagramProtocol."""
        self._receive(data, (str(addr[0]), int(addr[1])))

    def error_received(self, _exc: Exception) -> None:
        """See asyncio.DatagramProtocol. Does nothing: the datagram is lost."""

    def connection_lost(self, _exc: Exception | None) -> None:
        """The socket is gone: run() opens another one."""
        self._lost.set()


class UdpSocket:
    """A short-lived UDP socket, on a port that the kernel chooses (implements ports.TemporaryUdpSocket).

    Args:
        address: this machine's own address; None: it has none, and the socket receives nothing.
    """

    def __init__(self, address: IPv4Address | IPv6Address | None) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def open(self, receive: Callable[[bytes, Endpoint], None]) -> Endpoint | None:
        """See ports.TemporaryUdpSocket."""
        self.close()
        if self._address is None:
            return None
        family = socket.AF_INET if self._address.version == 4 else socket.AF_INET6
        opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            opened.bind((str(self._address), 0))
        except OSError:  # the address is gone
            opened.close()
            return None
        self._socket = opened
        asyncio.get_running_loop().add_reader(opened, self._readable, opened, receive)
        host, port = opened.getsockname()[:2]
        return host, port

    @staticmethod
    def _readable(opened: socket.socket, receive: Callable[[bytes, Endpoint], None]) -> None:
        try:
            data, source = opened.recvfrom(SIZE + 1)
        except OSError:  # an earlier datagram was refused, or the other side is gone
            return
        receive(data, (source[0], source[1]))

    def send(self, data: bytes, to: Endpoint) -> None:
        """See ports.TemporaryUdpSocket."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendto(data, to)

    def close(self) -> None:
        """See ports.TemporaryUdpSocket."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
