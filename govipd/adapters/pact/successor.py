"""The successor's side of the pact: the successor acknowledges datagrams, or takes over. Its rules: core.pact."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from govipd.adapters.datagrams import Datagram, Endpoint, Kind
from govipd.adapters.election.claims import Claims
from govipd.adapters.etcd.api import Delete, IfCreateRevision, IfValue, KeyValue, Put, Store
from govipd.adapters.pact.records import Offer
from govipd.core.pact import SuccessorHalf, SuccessorPhase
from govipd.errors import EtcdError, EtcdRefusedError
from govipd.keys import GroupKeys
from govipd.runtime.ports import Clock, Datagrams

PAUSE_S = 0.02  # seconds from a failed call to the next


@dataclass(slots=True)
class _Following:
    """One pact that the leader has offered to this member."""

    half: SuccessorHalf
    pact: bytes
    secret: bytes
    own: KeyValue
    leader: KeyValue
    claims: tuple[KeyValue, ...] = ()  # on our addresses, as last read


class PactSuccessor:
    """The successor's side of a member's pacts: this member is the first behind the leader.

    Args:
        store: the etcd client.
        clock: CLOCK_BOOTTIME.
        datagrams: the UDP port.
        keys: where the group's keys are.
        claims: this member's claims.
        own_key: this member's key in the queue, as last confirmed.
        taken: called when a take-over has succeeded or failed: the place in the queue may have changed.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        datagrams: Datagrams,
        keys: GroupKeys,
        claims: Claims,
        own_key: Callable[[], KeyValue | None],
        taken: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._datagrams = datagrams
        self._keys = keys
        self._claims = claims
        self._own_key = own_key
        self._taken = taken
        self._following: _Following | None = None
        self._offered = asyncio.Event()  # wakes guard()

    def stop(self) -> None:
        """Acknowledge nothing more, and take over from no one."""
        self._following = None

    def follow(
        self, own: KeyValue, leader: KeyValue, offers: tuple[KeyValue, ...], claims: tuple[KeyValue, ...]
    ) -> None:
        """Follow the leader's pact where it offers one to this member.

        Args:
            own: this member's key in the queue.
            leader: the leader's key in the queue.
            offers: the keys of all pacts of the group.
            claims: the claims on our addresses.
        """
        key = self._keys.offer(leader.lease)
        offer = next((Offer.parsed(kv.value) for kv in offers if kv.key == key), None)
        meant = offer is not None and (offer.leader, offer.successor) == (leader.create_revision, own.create_revision)
        if offer is not None and meant and (self._following is None or self._following.pact != offer.pact):
            half = SuccessorHalf(offer.pact.hex(), offer.timeout, self._clock.now())
            self._following = _Following(half, offer.pact, offer.secret, own, leader)
            self._offered.set()
        if self._following is not None:
            self._following.claims = claims

    # Datagrams

    def secret_of(self, pact: bytes | None) -> bytes | None:
        """The secret of this pact's datagrams; None where we do not follow the pact."""
        return self._following.secret if self._following is not None and self._following.pact == pact else None

    def received(self, datagram: Datagram, source: Endpoint) -> None:
        """Take an authenticated datagram of the pact."""
        following = self._following
        if following is None:
            return
        if datagram.kind is Kind.OVER:
            self._following = None
        elif (
            datagram.kind is Kind.LIVES
            and self._own_key() == following.own
            and following.half.hear(datagram.sequence, datagram.revision, self._clock.now())
        ):
            answer = Datagram(Kind.HEARD, following.pact, datagram.sequence)
            self._datagrams.send(answer.packed(following.secret), source)

    # Taking over

    async def guard(self) -> None:
        """Wait for the leader's silence, for as long as there is a pact; then take over."""
        while True:
            following = self._following
            if following is None or following.half.phase is not SuccessorPhase.FOLLOWS:
                self._offered.clear()
                await self._offered.wait()
                continue
            now = self._clock.now()
            if now < following.half.silent_at():
                await asyncio.sleep(following.half.silent_at() - now)
            elif self._own_key() == following.own and following.half.take(now):
                await self._take(following)
            else:
                following.half.give_up()

    async def _take(self, following: _Following) -> None:
        """Delete the leader's key and write the marker: the leader's fence has closed by itself (rules 4 and 5)."""
        half, leader, own = following.half, following.leader, following.own
        compare = (
            IfCreateRevision(self._keys.force(leader.lease), half.revision),
            IfCreateRevision(leader.key, leader.create_revision),
            IfCreateRevision(own.key, own.create_revision),
        )
        mark = Put(self._keys.release_marker, str(leader.create_revision).encode(), 0)
        ends = tuple(map(Delete, (leader.key, *self._keys.pact(leader.lease))))
        reads = self._claims.reads(self._claims.wanted)
        claimed, writes = following.claims, True
        while self._following is following and self._own_key() == own:
            theirs = {kv.key: kv for kv in claimed if self._claims.held_by(kv, leader.lease)}
            moved = [a for a in self._claims.wanted if writes and self._keys.claim(a.ip) in theirs]
            puts = self._claims.puts(moved, own.lease, own.value.decode(errors="replace"))
            moves = (mark, *puts) if writes else tuple(map(Delete, theirs))
            known = [IfValue(kv.key, kv.value) for kv in theirs.values()]
            try:
                reply = await self._store.txn((*compare, *known), (*ends, *moves), reads)
            except EtcdRefusedError:
                if not writes:
                    break  # the leader's lease has to end by itself
                writes = False  # without a marker, the election waits before it activates
            except EtcdError:  # the call may still take effect, and repeating it does no harm
                await asyncio.sleep(PAUSE_S)
            else:
                if reply.succeeded:
                    taken = {a: put.value for a, put in zip(moved, puts, strict=True)}
                    self._claims.held = {**self._claims.held, **taken}
                    break
                found = tuple(kv for answer in reply.gets for kv in answer)
                if found == claimed:
                    break
                claimed = found  # the claims have changed since they were read
        half.give_up()
        self._taken()
