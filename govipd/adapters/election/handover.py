"""A handover: the successor becomes first while the leader still answers. The gap is the time of one datagram.

A resignation closes the fence, then deletes the key. Clients then wait some 10 ms, until etcd has notified the
successor and has proven its place. A healthy leader that leaves lets both happen before its fence closes:

1. The leader makes its fence end in `core.lease.HANDOVER_S`, confirmed by the kernel. It never opens this fence again.
2. One transaction deletes its key, attaches its claims to the successor's lease, and puts an offer,
   `<prefix>handover/<vip>/<lease>`: to which member the VIP goes, a secret, the UDP endpoint for the answer.
3. The successor finds itself first, and finds no marker: it may activate after `election.claimant.UNORDERLY_S`, when
   the leader's fence has closed by itself. The successor finds the offer, and sends READY.
4. The leader closes its fence. When the kernel has confirmed, the leader sends CLOSED, writes its marker, and deletes
   the offer.
5. On CLOSED (or with the marker, or when the time has passed) the successor opens its own fence.

No datagram gives a right: etcd proves who is first, and the old holder's kernel ends its answers by itself. CLOSED only
says that the rest of the wait is not needed. CLOSED never becomes false, so late or duplicate delivery is harmless.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from govipd.adapters.datagrams import Datagram, Endpoint, Kind, id_of, unpacked
from govipd.adapters.election.claims import Claims
from govipd.adapters.election.successors import Successor
from govipd.adapters.etcd.api import Delete, IfCreateRevision, KeyValue, Put, Store
from govipd.keys import GroupKeys
from govipd.runtime.ports import TemporaryUdpSocket

READY_S = 0.02  # wait for the answer to READY; then the place is read again, and READY sent again
YIELD_S = 0.001  # from CLOSED to what we do next: the successor may wait for our processor
SETTLE_S = 0.01  # from CLOSED to the marker: the successor takes the VIP meanwhile


@dataclass(frozen=True, slots=True)
class HandoverOffer:
    """What the old leader puts into etcd for its successor.

    Attributes:
        left: create revision of the last deleted key, which the successor has seen just ahead of its own.
        successor: create revision of the successor's key.
        id: the handover's id, 8 bytes.
        secret: key of the datagrams' authentication codes.
        to: where READY is to be sent.
    """

    left: int
    successor: int
    id: bytes
    secret: bytes
    to: Endpoint

    def packed(self) -> bytes:
        """The value of the key, JSON."""
        fields = {
            "left": self.left, "successor": self.successor, "id": self.id.hex(), "secret": self.secret.hex(),
            "to": self.to,
        }  # fmt: skip
        return json.dumps(fields).encode()

    @classmethod
    def parsed(cls, value: bytes) -> "HandoverOffer | None":
        """Decode a member's offer; None where the value is not valid."""
        try:
            fields = json.loads(value)
            host, port = fields["to"]
            offer = cls(
                int(fields["left"]), int(fields["successor"]), bytes.fromhex(fields["id"]),
                bytes.fromhex(fields["secret"]), (str(host), int(port)),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return offer if len(offer.id) == 8 and offer.secret and 0 < offer.to[1] < 65536 else None


class HandoverSender:
    """The old leader's side of a handover.

    Args:
        store: the etcd client.
        udp_socket: receives READY.
        keys: where the group's keys are.
        token: makes a secret of that many bytes.
    """

    def __init__(
        self,
        *,
        store: Store,
        udp_socket: TemporaryUdpSocket,
        keys: GroupKeys,
        token: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._udp_socket = udp_socket
        self._keys = keys
        self._token = token
        self._offer: HandoverOffer | None = None
        self._confirmed = False  # etcd has confirmed the offer and the deletion of our key
        self._ready: Endpoint | None = None  # where READY came from
        self._closed = False
        self._over = asyncio.Event()  # there is nothing more to wait for

    async def hand_over(self, keys: Sequence[KeyValue], successor: Successor, claims: Claims) -> None:
        """Make the successor's key the first, with our claims. Returns when READY has come, or after closed().

        Args:
            keys: the keys to delete: ours, then those between ours and the successor's.
            successor: the member that is to be first.
            claims: our claims. Those that the successor wants move to its lease at once, though our kernel still
                answers for a moment. The others stay ours until we have left.

        Raises:
            EtcdError: it is not known whether the transaction has taken effect, or will.
        """
        to = self._udp_socket.open(self._received)
        if to is None:
            return
        self._over.clear()
        self._closed = False
        lease, held = keys[0].lease, tuple(claims.held)
        moved = [address for address in held if successor.wants(address)]
        offer = HandoverOffer(
            keys[-1].create_revision, successor.key.create_revision, self._token(8), self._token(16), to
        )
        self._offer = offer
        there = (IfCreateRevision(kv.key, kv.create_revision) for kv in (*keys, successor.key))
        reply = await self._store.txn(
            [*there, *claims.unchanged(held)],
            [
                *map(Delete, (*(kv.key for kv in keys), *self._keys.pact(lease))),
                *claims.puts(moved, successor.key.lease, successor.name),
                Put(self._keys.handover(lease), offer.packed(), lease),
            ],
        )
        self._confirmed = reply.succeeded
        if reply.succeeded:
            claims.held = {address: value for address, value in claims.held.items() if address not in moved}
            await self._over.wait()

    def closed(self) -> bool:
        """Note that our kernel is silent, and stays silent under this key. Sends CLOSED if READY has come.

        Returns whether it was sent.
        """
        self._closed = True
        self._over.set()
        return self._answer()

    async def finish(self, lease: int) -> bool:
        """After closed(): write the marker. Returns whether etcd has confirmed that our key was handed over.

        Raises:
            EtcdError: not confirmed; may be repeated.
        """
        if self._offer is not None and self._confirmed:
            if self._ready is not None:
                await asyncio.sleep(SETTLE_S)
            left = str(self._offer.left).encode()
            await self._store.txn((), (Put(self._keys.release_marker, left, 0), Delete(self._keys.handover(lease))))
        confirmed = self._confirmed
        self.forget()
        return confirmed

    def forget(self) -> None:
        """End the handover. A later READY gets no answer."""
        self._offer, self._ready = None, None
        self._confirmed = self._closed = False
        self._over.set()
        self._udp_socket.close()

    def _received(self, data: bytes, source: Endpoint) -> None:
        if self._offer is None or id_of(data) != self._offer.id:
            return
        datagram = unpacked(data, self._offer.secret)
        if datagram is not None and datagram.kind is Kind.READY:
            self._ready = source
            self._over.set()
            self._answer()

    def _answer(self) -> bool:
        if self._closed and self._ready is not None and self._offer is not None:
            self._udp_socket.send(Datagram(Kind.CLOSED, self._offer.id).packed(self._offer.secret), self._ready)
            return True
        return False


class HandoverReceiver:
    """The successor's side of a handover.

    Args:
        udp_socket: receives CLOSED.
    """

    def __init__(self, udp_socket: TemporaryUdpSocket) -> None:
        self._udp_socket = udp_socket
        self._offer: HandoverOffer | None = None
        self._closed: Callable[[], None] = lambda: None
        self._over = asyncio.Event()

    @staticmethod
    def offer(found: Iterable[KeyValue], left: int | None, own: int) -> HandoverOffer | None:
        """The offer to this member; None where there is none.

        Args:
            found: every member's offers.
            left: create revision of the last key that we saw ahead of ours.
            own: create revision of our key.
        """
        offers = (HandoverOffer.parsed(kv.value) for kv in found)
        return next((o for o in offers if o is not None and (o.left, o.successor) == (left, own)), None)

    async def wait(self, offer: HandoverOffer, closed: Callable[[], None]) -> None:
        """Send READY. Wait for CLOSED (which calls `closed`) or for forget(), but READY_S at most."""
        self._offer, self._closed = offer, closed
        self._over.clear()
        if self._udp_socket.open(self._received) is not None:
            self._udp_socket.send(Datagram(Kind.READY, offer.id).packed(offer.secret), offer.to)
        try:
            async with asyncio.timeout(READY_S):
                await self._over.wait()
        except TimeoutError:
            pass  # a datagram was lost or blocked, or the old leader is slow
        finally:
            self.forget()

    def forget(self) -> None:
        """Stop waiting for CLOSED."""
        self._offer = None
        self._over.set()
        self._udp_socket.close()

    def _received(self, data: bytes, _source: Endpoint) -> None:
        if self._offer is None or id_of(data) != self._offer.id:
            return
        datagram = unpacked(data, self._offer.secret)
        if datagram is not None and datagram.kind is Kind.CLOSED:
            self._closed()
            self.forget()
