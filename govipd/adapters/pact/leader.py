"""The leader's side of the pact: the offer, the datagrams, and the pact's keys. The rules are in core.pact."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from govipd.adapters.datagrams import Datagram, Endpoint, Kind
from govipd.adapters.etcd.api import Delete, Get, IfCreateRevision, KeyValue, Put, Store
from govipd.adapters.pact.records import Offer, udp_endpoint
from govipd.core.events import PactAnswered, PactEnded
from govipd.core.pact import SENDS_PER_TIMEOUT
from govipd.keys import GroupKeys
from govipd.runtime.ports import Clock, Datagrams, Sink

ANSWERS_FIRST = 3  # acknowledgements that must have come before the fence depends on them
FIRST_ANSWER_S = 2.0  # wait for the first acknowledgement, in addition to T
REST_S = 2.0  # pause after a pact that did not come about; each further one doubles the pause, up to
REST_MAX_S = 60.0
_SENT_MAX = 64  # datagrams that may wait for their acknowledgement


@dataclass(slots=True)
class _Leading:
    """One pact that this member has offered."""

    pact: bytes
    secret: bytes
    own: KeyValue
    to: Endpoint
    sequence: int = 0
    answers: int = 0
    revision: int = 0  # of `force`, once etcd has confirmed it
    enforce: bool = False
    end: bool = False
    sent: dict[int, float] = field(default_factory=dict)


class PactLeader:
    """The leader's side of a member's pacts, one pact at a time.

    Args:
        store: the etcd client.
        sink: where events go.
        clock: CLOCK_BOOTTIME.
        datagrams: the UDP port.
        timeout: T in seconds, of the pacts that this member offers.
        keys: where the group's keys are.
        own_key: this member's key in the queue, as last confirmed.
        deposed: called when this member's key is gone: the successor has taken over.
        changed: called when there is something to negotiate with etcd.
        token: makes a secret of that many bytes.
    """

    def __init__(
        self,
        *,
        store: Store,
        sink: Sink,
        clock: Clock,
        datagrams: Datagrams,
        timeout: float,
        keys: GroupKeys,
        own_key: Callable[[], KeyValue | None],
        deposed: Callable[[], None],
        changed: Callable[[], None],
        token: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._sink = sink
        self._clock = clock
        self._datagrams = datagrams
        self._timeout = timeout
        self._keys = keys
        self._own_key = own_key
        self._deposed = deposed
        self._changed = changed
        self._token = token
        self._leads = False  # as the state machine has decided
        self._leading: _Leading | None = None
        self._offered = asyncio.Event()  # wakes speak()
        self._rest_until = 0.0
        self._rest = REST_S

    def lead(self) -> None:
        """See ports.Pact."""
        self._leads = True
        self._changed()

    def stop(self) -> None:
        """See ports.Pact."""
        self._leads = False
        self._leading = None

    def enforce(self, pact: str) -> None:
        """See ports.Pact."""
        if self._leading is not None and self._leading.pact.hex() == pact:
            self._leading.enforce = True
            self._changed()

    def end(self, pact: str) -> None:
        """See ports.Pact."""
        if self._leading is not None and self._leading.pact.hex() == pact:
            self._leading.end = True
            self._changed()

    # etcd

    @property
    def offers(self) -> bool:
        """Whether this member leads and may offer a pact now."""
        return self._leads and self._clock.now() >= self._rest_until

    async def negotiate_once(self) -> bool:
        """Take the next step that the pact needs from etcd. Returns False where there is no pact.

        Raises:
            EtcdError: not confirmed.
        """
        leading = self._leading
        if leading is None:
            return False
        if leading.end:
            await self._end(leading)
        elif leading.enforce and not leading.revision:
            await self._enforce(leading)
        elif not leading.enforce and self._clock.now() >= self._rest_until:
            leading.end = True  # no acknowledgement came, or the fence did not become short in time
            self._changed()
        return True

    async def offer(self, own: KeyValue, successor: KeyValue, records: tuple[KeyValue, ...]) -> None:
        """Offer a pact to the first member behind us.

        Raises:
            EtcdError: not confirmed.
        """
        to = udp_endpoint(records, successor)
        if to is None or self._own_key() != own or not self._leads:
            return
        leading = _Leading(self._token(8), self._token(16), own, to)
        offer = Offer(own.create_revision, successor.create_revision, self._timeout, leading.pact, leading.secret)
        reply = await self._store.txn(
            (
                IfCreateRevision(own.key, own.create_revision),
                IfCreateRevision(successor.key, successor.create_revision),
            ),
            (Delete(self._keys.force(own.lease)), Put(self._keys.offer(own.lease), offer.packed(), own.lease)),
        )
        if reply.succeeded and self._leads:
            self._leading = leading
            self._rest_until = self._clock.now() + FIRST_ANSWER_S + self._timeout
            self._offered.set()

    async def _enforce(self, leading: _Leading) -> None:
        """Record in etcd that the pact is in force: the fence is short by now. Without a confirmation, end the pact."""
        force = self._keys.force(leading.own.lease)
        compare = (IfCreateRevision(leading.own.key, leading.own.create_revision), IfCreateRevision(force, 0))
        leading.end = True  # unless it succeeds
        reply = await self._store.txn(compare, (Put(force, leading.pact, leading.own.lease), Get(force)))
        if reply.succeeded:
            leading.revision = reply.gets[0][0].create_revision
            leading.end = False
        self._changed()

    async def _end(self, leading: _Leading) -> None:
        """Delete the pact's keys. Sends PactEnded only if our own key still exists: else the successor took over."""
        compare = (IfCreateRevision(leading.own.key, leading.own.create_revision),)
        reply = await self._store.txn(compare, [Delete(key) for key in self._keys.pact(leading.own.lease)])
        if self._leading is not leading:
            return
        if not reply.succeeded:
            self._leading = None
            self._deposed()
            return
        self._send(leading, Kind.OVER)
        self._leading = None
        self._sink(PactEnded(leading.pact.hex()))
        self._rest = REST_S if leading.answers > REST_MAX_S / self._timeout else min(2 * self._rest, REST_MAX_S)
        self._rest_until = self._clock.now() + self._rest
        self._changed()

    # Datagrams

    async def speak(self) -> None:
        """Send a datagram every fifth of T, for as long as there is a pact."""
        while True:
            leading = self._leading
            if leading is None:
                self._offered.clear()
                await self._offered.wait()
                continue
            self._send(leading, Kind.LIVES)
            await asyncio.sleep(self._timeout / SENDS_PER_TIMEOUT)

    def secret_of(self, pact: bytes | None) -> bytes | None:
        """The secret of this pact's datagrams; None where the pact is not ours."""
        return self._leading.secret if self._leading is not None and self._leading.pact == pact else None

    def received(self, datagram: Datagram) -> None:
        """Take an authenticated datagram of the pact."""
        leading = self._leading
        if leading is not None and datagram.kind is Kind.HEARD:
            self._answered(leading, datagram.sequence)

    def _send(self, leading: _Leading, kind: Kind) -> None:
        leading.sequence += 1
        leading.sent[leading.sequence] = self._clock.now()  # before it is sent (rule 4)
        if len(leading.sent) > _SENT_MAX:
            del leading.sent[min(leading.sent)]
        datagram = Datagram(kind, leading.pact, leading.sequence, leading.revision)
        self._datagrams.send(datagram.packed(leading.secret), leading.to)

    def _answered(self, leading: _Leading, sequence: int) -> None:
        sent_at = leading.sent.pop(sequence, None)
        if sent_at is None:
            return
        leading.answers += 1
        if leading.answers >= ANSWERS_FIRST:
            self._sink(PactAnswered(leading.pact.hex(), self._timeout, sent_at))
