"""Announces the VIP to its neighbours: gratuitous ARP and unsolicited neighbour advertisements."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, repeat

from govipd.adapters.kernel import frames
from govipd.core.events import Address
from govipd.core.placement import Placement
from govipd.runtime.ports import Clock

_Round = Sequence[tuple[str, Sequence[bytes]]]
"""Frames by interface."""


class FrameAnnouncer:
    """Sends frames by `transmit`, which takes the interface and the frames (ports.Announcer).

    start() itself sends `burst` rounds. One more round follows after each of the pauses `repeats_s`, and then one every
    `refresh_s` seconds. A round has both forms of gratuitous ARP for each IPv4 address (some equipment learns from
    replies only), and a neighbour advertisement for each IPv6 address.

    first_round() sends one more round at once, which prepare() may have made before: by then clients wait for nothing
    else.

    `mac` returns an interface's hardware address, and is called before each round, because a bond may have failed over.
    `router` says whether this machine forwards IPv6 packets there, as the kernel's own advertisements say. Packet
    sockets bypass nf_tables, so no fence drops these frames. A round that fails (no interface, link down) is not
    repeated. `sent` is called with the number of frames sent.
    """

    def __init__(
        self,
        *,
        placement: Placement,
        addresses: tuple[Address, ...],
        mac: Callable[[str], bytes | None],
        clock: Clock,
        burst: int = 3,
        repeats_s: tuple[float, ...] = (0.1, 0.3, 1.0, 2.0, 5.0),
        refresh_s: float = 15.0,
        transmit: Callable[[str, Iterable[bytes]], None],
        router: Callable[[str], bool],
        sent: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._placement = placement
        self._addresses = addresses
        self._mac = mac
        self._clock = clock
        self._burst = burst
        self._repeats_s = repeats_s
        self._refresh_s = refresh_s
        self._transmit = transmit
        self._router = router
        self._sent = sent
        self._until = float("-inf")  # a suspended process must not announce a VIP that another member holds by now
        self._started = False
        self._changed = asyncio.Event()
        self._prepared: _Round = ()

    def replace(self, addresses: tuple[Address, ...]) -> None:
        """Announce these addresses from the next round on."""
        self._addresses, self._prepared = addresses, ()

    def prepare(self) -> None:
        """Make the frames of first_round() now."""
        self._prepared = tuple(self._round())

    def first_round(self) -> None:
        """Send one round: the one that prepare() has made, or a new one."""
        prepared, self._prepared = self._prepared, ()
        self._send(prepared or tuple(self._round()))

    def start(self) -> None:
        """Announce at once, then repeat, then refresh, until stop(). A second call begins anew."""
        self._started = True
        self._send(tuple(self._round()), self._burst)
        self._changed.set()

    def hold(self, until: float) -> None:
        """Send no frame at `until` (CLOCK_BOOTTIME) or later."""
        self._until = until

    def stop(self) -> None:
        """Stop announcing: no frame is sent after this call has returned."""
        self._started, self._prepared = False, ()
        self._changed.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._started:
                await self._announce()

    async def _announce(self) -> None:
        """Send the rounds after the burst of start(), until the next start() or stop()."""
        for gap in chain(self._repeats_s, repeat(self._refresh_s)):
            with suppress(TimeoutError):
                async with asyncio.timeout(gap):
                    await self._changed.wait()
                    return
            if not self._started:  # stop() and the end of the pause in one turn of the event loop
                return
            self._send(tuple(self._round()))

    def _round(self) -> Iterator[tuple[str, Sequence[bytes]]]:
        for interface, addresses in self._placement.by_interface(self._addresses).items():
            mac = self._mac(interface) if addresses else None
            if mac is not None and len(mac) == 6:
                yield interface, tuple(self._frames(interface, mac, addresses))

    def _send(self, frames_on: _Round, times: int = 1) -> None:
        """Send rounds at once. Nothing awaits here, so no stop() and no deadline can come between two frames."""
        count = 0
        for interface, out in frames_on:
            if self._clock.now() >= self._until:
                break
            self._transmit(interface, [*out] * times)
            count += times * len(out)
        if count:
            self._sent(count)

    def _frames(self, interface: str, mac: bytes, addresses: Sequence[Address]) -> Iterator[bytes]:
        router = any(address.version == 6 for address in addresses) and self._router(interface)
        for address in addresses:
            if address.version == 4:
                yield frames.arp_announcement(mac, address.ip)
                yield frames.arp_reply(mac, address.ip)
            else:
                yield frames.neighbor_advertisement(mac, address.ip, router=router)


class PacketSocket:
    """A socket for frames, opened when first needed. It stays open: closing it takes the kernel 10 ms."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def send(self, interface: str, frames: Iterable[bytes]) -> None:
        """Send frames without waiting. After an error, the remaining frames are not sent."""
        with suppress(OSError):
            packet = self._socket = self._socket or socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            for frame in frames:
                packet.sendto(frame, socket.MSG_DONTWAIT, (interface, 0))

    def close(self) -> None:
        """Close the socket; the next frame opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
