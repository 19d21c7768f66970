"""Announces the VIP to its neighbours: gratuitous ARP and unsolicited neighbour advertisements."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, repeat

from govipd.adapters.kernel import frames
from govipd.core.events import Address
from govipd.runtime.ports import Clock


class FrameAnnouncer:
    """Sends frames on a packet(7) socket (ports.Announcer).

    start() itself sends `burst` rounds; one follows after each of the pauses `repeats_s`, and one every `refresh_s`
    from then on. A round is both forms of ARP for each IPv4 address (some equipment learns
    only) and a neighbour advertisement for each IPv6 address.

    `mac` is asked before each round: a bond may have failed over. Packet sockets bypass nftables, so no fence
    holds these frames back. A round that fails (no interface, link down) is left to the next. `sent` is called with the
    number of frames of a round.
    """

    def __init__(
        self,
        *,
        interface: str,
        addresses: tuple[Address, ...],
        mac: Callable[[], bytes | None],
        clock: Clock,
        burst: int = 3,
        repeats_s: tuple[float, ...] = (0.1, 0.3, 1.0, 2.0, 5.0),
        refresh_s: float = 15.0,
        transmit: Callable[[str, Iterable[bytes]], None] | None = None,
        sent: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._interface = interface
        self._addresses = addresses
        self._mac = mac
        self._clock = clock
        self._burst = burst
        self._repeats_s = repeats_s
        self._refresh_s = refresh_s
        self._packets = PacketSocket()
        self._transmit = transmit or self._packets.send
        self._sent = sent
        self._until = float("-inf")  # a process that was stopped must not announce what is another's by now
        self._started = False
        self._changed = asyncio.Event()

    def replace(self, addresses: tuple[Address, ...]) -> None:
        """Announce other addresses from the next round on."""
        self._addresses = addresses

    def start(self) -> None:
        """Announce at once, then repeat, then refresh, until stop(). A start while active begins again."""
        self._started = True
        self._send(self._burst)
        self._changed.set()

    def hold(self, until: float) -> None:
        """No frame leaves at `until` or later."""
        self._until = until

    def stop(self) -> None:
        """No frame leaves after this returns."""
        self._started = False
        self._changed.set()

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._started:
                    await self._announce()
        finally:
            self._packets.close()

    async def _announce(self) -> None:
        """What follows a start(), until the next start() or stop()."""
        for gap in chain(self._repeats_s, repeat(self._refresh_s)):
            with suppress(TimeoutError):
                async with asyncio.timeout(gap):
                    await self._changed.wait()
                    return
            self._send(1)

    def _send(self, rounds: int) -> None:
        """Nothing awaits here: what stop() or the clock says holds for every frame."""
        mac = self._mac()
        if mac is None or len(mac) != 6 or self._clock.now() >= self._until:
            return
        out = [*self._frames(mac)] * rounds
        self._transmit(self._interface, out)
        self._sent(len(out))

    def _frames(self, mac: bytes) -> Iterator[bytes]:
        for address in self._addresses:
            if address.version == 4:
                yield frames.arp_announcement(mac, address.ip)
                yield frames.arp_reply(mac, address.ip)
            else:
                yield frames.neighbor_advertisement(mac, address.ip)


class PacketSocket:
    """A socket for frames, opened when first needed. It stays open: closing it takes the kernel 10 ms."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def send(self, interface: str, frames: Iterable[bytes]) -> None:
        """Put frames on the wire, without waiting; what cannot be sent is left out."""
        with suppress(OSError):
            packet = self._socket = self._socket or socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            for frame in frames:
                packet.sendto(frame, socket.MSG_DONTWAIT, (interface, 0))

    def close(self) -> None:
        """Close the socket; the next frame opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
