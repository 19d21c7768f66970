"""The pact between the leader and the next in the queue (implements ports.Pact); its rules are core.pact's.

Beside the election, attached to the leader's lease:

- `<prefix><lease>/offer`, JSON: whom the leader offers a pact (both keys' create revisions), its id, secret and T;
- `<prefix><lease>/force`: the pact is in force. Its create revision is what taking over needs.

A pact begins with datagrams and answers; only when the leader's fence is short does `force` appear. Whoever is named
by an offer answers; taking over is one transaction that deletes the leader's key, if both keys are still the pact's.
"""

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from govipd.adapters.datagrams import Datagram, Endpoint, Kind, id_of, unpacked
from govipd.adapters.election.claims import Claims
from govipd.adapters.election.membership import RECORD_BYTES_MAX
from govipd.adapters.etcd.api import Created, Delete, Equals, Get, KeyValue, Put, Store
from govipd.core.events import PactAnswered, PactEnded
from govipd.core.pact import SENDS_PER_TIMEOUT, Follower, FollowerHalf
from govipd.errors import EtcdError, EtcdRefusedError
from govipd.keys import GroupKeys
from govipd.runtime.ports import Clock, Datagrams, Sink

LOOK_S = 1.0  # between two looks at the queue and at offers
PAUSE_S = 0.02  # after a failed call
ANSWERS_FIRST = 3  # that must have come before the fence is made to depend on them
REST_S = 2.0  # after a pact that came to nothing; doubles with each up to
REST_MAX_S = 60.0
_SENT_MAX = 64  # datagrams whose acknowledgement is waited for


@dataclass(slots=True)
class _Leading:
    """The leader's side of one pact."""

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


@dataclass(slots=True)
class _Following:
    """The successor's side of one pact."""

    half: FollowerHalf
    pact: bytes
    secret: bytes
    own: KeyValue
    leader: KeyValue
    claims: tuple[KeyValue, ...] = ()  # to our addresses, as last read


class EtcdPact:
    """One member's pacts in one election, as the leader or as the next in the queue.

    Args:
        store: the etcd client.
        sink: where events go.
        clock: CLOCK_BOOTTIME.
        datagrams: the UDP port.
        timeout: T in seconds, of the pacts that this member offers.
        keys: where the group's keys stand.
        claims: this member's (adapters.claims).
        place: this member's key in the queue, as last confirmed.
        taken: called when this member has taken over: the place has changed.
        token: secret bytes, that many.
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
        claims: Claims,
        place: Callable[[], KeyValue | None],
        taken: Callable[[], None],
        token: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._sink = sink
        self._clock = clock
        self._datagrams = datagrams
        self._timeout = timeout
        self._keys = keys
        self._claims = claims
        self._place = place
        self._taken = taken
        self._token = token
        self._leads = False  # the supervisor says so
        self._leading: _Leading | None = None
        self._following: _Following | None = None
        self._changed = asyncio.Event()  # wakes the negotiator
        self._speaks = asyncio.Event()  # wakes the speaker
        self._follows = asyncio.Event()  # wakes the guard
        self._rest_until = 0.0
        self._rest = REST_S

    # What the shell calls

    def lead(self) -> None:
        """See ports.Pact."""
        self._leads = True
        self._changed.set()

    def stop(self) -> None:
        """See ports.Pact. Without the leader's key, the pact's keys are worth nothing."""
        self._leads = False
        self._leading = self._following = None

    def enforce(self, pact: str) -> None:
        """See ports.Pact."""
        if self._leading is not None and self._leading.pact.hex() == pact:
            self._leading.enforce = True
            self._changed.set()

    def end(self, pact: str) -> None:
        """See ports.Pact."""
        if self._leading is not None and self._leading.pact.hex() == pact:
            self._leading.end = True
            self._changed.set()

    async def run(self) -> None:
        """See ports.Pact."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._datagrams.run(self._received))
            tasks.create_task(self._negotiate())
            tasks.create_task(self._speak())
            tasks.create_task(self._guard())

    # etcd

    async def _negotiate(self) -> None:
        """Whatever etcd has to be told or asked, one thing after the other, for ever."""
        while True:
            self._changed.clear()
            pause = LOOK_S
            try:
                await self._turn()
            except EtcdError:
                pause = PAUSE_S  # the election tells people of etcd's troubles
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _turn(self) -> None:
        leading = self._leading
        if leading is not None and leading.end:
            await self._end(leading)
        elif leading is not None and leading.enforce and not leading.revision:
            await self._enforce(leading)
        elif leading is not None and not leading.enforce and self._clock.now() >= self._rest_until:
            leading.end = True  # nobody answers the offer, or the kernel does not follow
            self._changed.set()
        elif leading is None:
            await self._look()

    async def _look(self) -> None:
        """Who leads, who is next, and what is offered."""
        own = self._place()
        if own is None:
            return
        keys = self._keys
        gets = (Get(keys.queue, prefix=True), Get(keys.records, prefix=True), Get(keys.pacts, prefix=True))
        claims = self._claims.reads(self._claims.wanted)
        queue, records, offers, *claimed = (await self._store.txn((), (*gets, *claims))).gets
        first, *others = sorted(queue, key=lambda kv: kv.create_revision)[:2] or (own,)
        if first.create_revision == own.create_revision and self._leads and others and self._rested():
            await self._offer(own, others[0], records)
        elif others and others[0].create_revision == own.create_revision:
            self._follow(own, first, offers)
            if self._following is not None:
                self._following.claims = tuple(kv for found in claimed for kv in found)

    def _rested(self) -> bool:
        return self._clock.now() >= self._rest_until

    async def _offer(self, own: KeyValue, heir: KeyValue, records: tuple[KeyValue, ...]) -> None:
        to = _endpoint(records, heir)
        if to is None or self._place() != own or not self._leads:
            return
        leading = _Leading(self._token(8), self._token(16), own, to)
        offer = {
            "leader": own.create_revision, "heir": heir.create_revision, "timeout": self._timeout,
            "pact": leading.pact.hex(), "secret": leading.secret.hex(),
        }  # fmt: skip
        reply = await self._store.txn(
            (Created(own.key, own.create_revision), Created(heir.key, heir.create_revision)),
            (
                Delete(self._keys.force(own.lease)),
                Put(self._keys.offer(own.lease), json.dumps(offer).encode(), own.lease),
            ),
        )
        if reply.succeeded and self._leads:
            self._leading = leading
            self._rest_until = self._clock.now() + 2 * LOOK_S + self._timeout  # for the first answer
            self._speaks.set()

    async def _enforce(self, leading: _Leading) -> None:
        """The fence is short: etcd may say so. Refused, or not known to be done: the pact is ended instead."""
        force = self._keys.force(leading.own.lease)
        compare = (Created(leading.own.key, leading.own.create_revision), Created(force, 0))
        leading.end = True  # unless it succeeds
        reply = await self._store.txn(compare, (Put(force, leading.pact, leading.own.lease), Get(force)))
        if reply.succeeded:
            leading.revision = reply.gets[0][0].create_revision
            leading.end = False
        self._changed.set()

    async def _end(self, leading: _Leading) -> None:
        """Confirmed only where our own key is still there: else somebody has taken over (rule 3)."""
        compare = (Created(leading.own.key, leading.own.create_revision),)
        reply = await self._store.txn(compare, [Delete(key) for key in self._keys.pact(leading.own.lease)])
        if self._leading is not leading:
            return
        if not reply.succeeded:
            self._leading = None
            self._taken()  # the election finds out by whom
            return
        self._say(leading, Kind.OVER)
        self._leading = None
        self._sink(PactEnded(leading.pact.hex()))
        self._rest = REST_S if leading.answers > REST_MAX_S / self._timeout else min(2 * self._rest, REST_MAX_S)
        self._rest_until = self._clock.now() + self._rest
        self._changed.set()

    def _follow(self, own: KeyValue, leader: KeyValue, offers: tuple[KeyValue, ...]) -> None:
        place = self._keys.offer(leader.lease)
        offer = next((_parsed(kv.value) for kv in offers if kv.key == place), None)
        if offer is None or (offer.leader, offer.heir) != (leader.create_revision, own.create_revision):
            return
        if self._following is None or self._following.pact != offer.pact:
            half = FollowerHalf(offer.pact.hex(), offer.timeout, self._clock.now())
            self._following = _Following(half, offer.pact, offer.secret, own, leader)
            self._follows.set()

    # Datagrams

    async def _speak(self) -> None:
        """The leader's datagrams, for as long as there is a pact."""
        while True:
            leading = self._leading
            if leading is None:
                self._speaks.clear()
                await self._speaks.wait()
                continue
            self._say(leading, Kind.LIVES)
            await asyncio.sleep(self._timeout / SENDS_PER_TIMEOUT)

    def _say(self, leading: _Leading, kind: Kind) -> None:
        leading.sequence += 1
        leading.sent[leading.sequence] = self._clock.now()  # before it is sent (rule 4)
        if len(leading.sent) > _SENT_MAX:
            del leading.sent[min(leading.sent)]
        datagram = Datagram(kind, leading.pact, leading.sequence, leading.revision)
        self._datagrams.send(datagram.packed(leading.secret), leading.to)

    def _received(self, data: bytes, source: Endpoint) -> None:
        pact = id_of(data)
        leading, following = self._leading, self._following
        if leading is not None and pact == leading.pact:
            datagram = unpacked(data, leading.secret)
            if datagram is not None and datagram.kind is Kind.HEARD:
                self._answered(leading, datagram.sequence)
        elif following is not None and pact == following.pact:
            datagram = unpacked(data, following.secret)
            if datagram is not None:
                self._heard(following, datagram, source)

    def _answered(self, leading: _Leading, sequence: int) -> None:
        sent_at = leading.sent.pop(sequence, None)
        if sent_at is None:
            return
        leading.answers += 1
        if leading.answers >= ANSWERS_FIRST:
            self._sink(PactAnswered(leading.pact.hex(), self._timeout, sent_at))

    def _heard(self, following: _Following, datagram: Datagram, source: Endpoint) -> None:
        if datagram.kind is Kind.OVER:
            self._following = None
        elif (
            datagram.kind is Kind.LIVES
            and self._place() == following.own
            and following.half.hear(datagram.sequence, datagram.revision, self._clock.now())
        ):
            answer = Datagram(Kind.HEARD, following.pact, datagram.sequence)
            self._datagrams.send(answer.packed(following.secret), source)

    # Taking over

    async def _guard(self) -> None:
        """The successor's watch over the leader's silence, for as long as there is a pact."""
        while True:
            following = self._following
            if following is None or following.half.state is not Follower.FOLLOWS:
                self._follows.clear()
                await self._follows.wait()
                continue
            now = self._clock.now()
            if now < following.half.silent_at():
                await asyncio.sleep(following.half.silent_at() - now)
            elif self._place() == following.own and following.half.take(now):
                await self._take(following)
            else:
                following.half.give_up()

    async def _take(self, following: _Following) -> None:
        """Delete the leader's key, in order: its fence has closed by itself (rules 4 and 5)."""
        half, leader, own = following.half, following.leader, following.own
        compare = (
            Created(self._keys.force(leader.lease), half.revision),
            Created(leader.key, leader.create_revision),
            Created(own.key, own.create_revision),
        )
        mark = Put(self._keys.mark, str(leader.create_revision).encode(), 0)
        ends = tuple(map(Delete, (leader.key, *self._keys.pact(leader.lease))))
        reads = self._claims.reads(self._claims.wanted)
        claimed, writes = following.claims, True
        while self._following is following and self._place() == own:
            theirs = {kv.key: kv for kv in claimed if kv.lease == leader.lease}
            moved = [a for a in self._claims.wanted if writes and self._keys.claim(a.ip) in theirs]
            puts = self._claims.puts(moved, own.lease, own.value.decode(errors="replace"))
            moves = (mark, *puts) if writes else tuple(map(Delete, theirs))
            known = [Equals(kv.key, kv.value) for kv in theirs.values()]
            try:
                reply = await self._store.txn((*compare, *known), (*ends, *moves), reads)
            except EtcdRefusedError:
                if not writes:
                    break  # the lease must end
                writes = False  # then the election waits, as behind a member without a mark
            except EtcdError:  # it may take effect yet; to ask the next endpoint too does no harm
                await asyncio.sleep(PAUSE_S)
            else:
                if reply.succeeded:
                    taken = {a: put.value for a, put in zip(moved, puts, strict=True)}
                    self._claims.held = {**self._claims.held, **taken}
                    break
                found = tuple(kv for answer in reply.gets for kv in answer)
                if found == claimed:
                    break
                claimed = found  # they have changed since
        half.give_up()
        self._taken()  # the election looks at the place itself, whatever came of it


class NoPact:
    """Pacts are off (implements ports.Pact)."""

    async def run(self) -> None:
        """Nothing to do, for ever."""
        await asyncio.Event().wait()

    def lead(self) -> None:
        """See ports.Pact."""

    def stop(self) -> None:
        """See ports.Pact."""

    def enforce(self, pact: str) -> None:
        """See ports.Pact."""

    def end(self, pact: str) -> None:
        """See ports.Pact."""


@dataclass(frozen=True, slots=True)
class _Offer:
    leader: int
    heir: int
    timeout: float
    pact: bytes
    secret: bytes


def _parsed(value: bytes) -> _Offer | None:
    """A member's offer; None where it is none that makes sense."""
    try:
        fields = json.loads(value)
        offer = _Offer(
            int(fields["leader"]), int(fields["heir"]), float(fields["timeout"]),
            bytes.fromhex(fields["pact"]), bytes.fromhex(fields["secret"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return offer if offer.timeout > 0 and len(offer.pact) == 8 and offer.secret else None


def _endpoint(records: tuple[KeyValue, ...], member: KeyValue) -> Endpoint | None:
    """A member's UDP port, of its record; None where it has none."""
    for kv in records:
        if kv.lease == member.lease and len(kv.value) <= RECORD_BYTES_MAX:
            try:
                host, _, port = json.loads(kv.value)["pact"].rpartition(":")
                return (host.strip("[]"), int(port)) if host and 0 < int(port) < 65536 else None
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                return None
    return None
