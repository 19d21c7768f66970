"""The pact's datagrams: UDP, 45 bytes, each with a message authentication code.

    magic "gvp1" | kind | pact id (8) | sequence (8) | revision (8) | HMAC-SHA-256 of all before, first 16 bytes

Numbers are big-endian and unsigned. The key of the code is known only through etcd.
"""

import asyncio
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

Endpoint = tuple[str, int]
"""An IP address and a port of UDP."""

REBIND_S = 2.0

_HEAD = struct.Struct(">4sB8sQQ")
_MAGIC = b"gvp1"
_CODE_BYTES = 16
SIZE = _HEAD.size + _CODE_BYTES


class Kind(IntEnum):
    """Who says what."""

    LIVES = 1  # the leader: I lead; with the revision of the key that says the pact is in force, or 0
    HEARD = 2  # the successor: I have heard the datagram of that sequence
    OVER = 3  # the leader: the pact is over, in order


_KINDS = {int(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Datagram:
    """One of them."""

    kind: Kind
    pact: bytes  # 8 bytes
    sequence: int
    revision: int = 0

    def packed(self, secret: bytes) -> bytes:
        """As it is sent."""
        head = _HEAD.pack(_MAGIC, self.kind, self.pact, self.sequence, self.revision)
        return head + hmac.digest(secret, head, "sha256")[:_CODE_BYTES]


def pact_of(data: bytes) -> bytes | None:
    """The id of the pact that a datagram claims to belong to; None where it is none of ours."""
    if len(data) != SIZE or not data.startswith(_MAGIC):
        return None
    return data[5:13]


def unpacked(data: bytes, secret: bytes) -> Datagram | None:
    """A datagram of that pact; None where its code is wrong."""
    head, code = data[: _HEAD.size], data[_HEAD.size :]
    if not hmac.compare_digest(hmac.digest(secret, head, "sha256")[:_CODE_BYTES], code):
        return None
    _, kind, pact, sequence, revision = _HEAD.unpack(head)
    return Datagram(_KINDS[kind], pact, sequence, revision) if kind in _KINDS else None


class UdpPort(asyncio.DatagramProtocol):
    """One UDP socket (implements ports.Datagrams). What the kernel refuses to send is lost, as on the way.

    Args:
        endpoint: where to listen; port 0 lets the kernel choose.
        refused: is told once why that is not possible; it is tried again for ever.
    """

    def __init__(self, endpoint: Endpoint, refused: Callable[[str], None] = lambda _: None) -> None:
        self.endpoint = endpoint
        self._refused = refused
        self._told = ""
        self._transport: asyncio.DatagramTransport | None = None
        self._receive: Callable[[bytes, Endpoint], None] = lambda _data, _source: None
        self._lost = asyncio.Event()

    async def run(self, receive: Callable[[bytes, Endpoint], None]) -> None:
        """Listen for ever; where the address is not there (yet), try again."""
        self._receive = receive
        loop = asyncio.get_running_loop()
        while True:
            self._lost.clear()
            try:
                self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=self.endpoint)
            except OSError as e:
                if str(e) != self._told:
                    self._told = str(e)
                    self._refused(f"UDP on {self.endpoint[0]}, port {self.endpoint[1]}: {e}")
            else:
                self._told = ""
                try:
                    await self._lost.wait()
                finally:
                    self._transport.close()
                    self._transport = None
            await asyncio.sleep(REBIND_S)

    def send(self, data: bytes, to: Endpoint) -> None:
        """Send, or lose it."""
        if self._transport is not None:
            self._transport.sendto(data, to)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        """See asyncio.DatagramProtocol."""
        self._receive(data, (str(addr[0]), int(addr[1])))

    def error_received(self, _exc: Exception) -> None:
        """A refused datagram is a lost one."""

    def connection_lost(self, _exc: Exception | None) -> None:
        """The socket is gone: another one."""
        self._lost.set()
