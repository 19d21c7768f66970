"""The election: what Go's clientv3/concurrency does, key for key, plus a proof before anybody is told.

A member's key is `<name>/<lease id in hex>`, its value the member's name, attached to the member's lease.
The lowest create revision leads; each candidate waits for the deletion of the key just before it. A watch
is only a hint: the place is read anew, linearizably, at every wake-up, every lost watch and every few seconds.

A member that resigns has closed its fence before; it says so, in the same transaction, in a mark beside the
election: the create revision of the key it deleted. When a predecessor's key vanishes without that mark (a lease
that expired, was revoked, or a key that somebody deleted), the successor waits a moment before it takes: the
predecessor learns of it at the same instant, and closing its fence is quick, but not quicker than light.
A leader that leaves in health lets the next one become first while its own fence is still open (adapters.passing).

The lease is supervised apart from the campaign: it lives as long as the process and etcd want it, whether
the member is in the queue or not. When etcd says that it is lost, a new session begins with a new lease.
"""

import asyncio
import math
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from govipd.adapters.followers import Followers
from govipd.adapters.membership import Membership
from govipd.adapters.passing import Heir, Leaver
from govipd.adapters.store import Created, Delete, Get, KeyValue, Operation, Put, Store
from govipd.core.actions import Holding
from govipd.core.events import Deposed, Elected, EtcdState, LeaseLost, LeaseRenewed, Passed, Queued, Resigned
from govipd.core.text import line
from govipd.errors import EtcdError, EtcdUnavailableError, LeaseNotFoundError
from govipd.ports import Clock, Postbox, Sink
from govipd.timeline import Move, Timeline

REREAD_S = 2.0  # between two readings of one's place when nothing happens
RENEWALS_PER_TTL = 6  # an etcd leader's death costs 1 to 2 s: most of the TTL must be left when it comes
UNORDERLY_S = 0.1  # to wait for the fence of a predecessor that left without a mark; longer than core.lease.PASS_S
FIRST_PAUSE_S = 0.02  # after a failed call; doubles up to
LONGEST_PAUSE_S = 0.5
TURNS = 6  # of the event loop, that others need for what they do at once when they hear that we are first


class EtcdElection:
    """One member's place in one election (implements `ports.Election`).

    Args:
        store: the etcd client.
        sink: where events go.
        clock: CLOCK_BOOTTIME.
        name: the election's name, which is its key prefix without the closing slash.
        member: this member's name, the value of its key.
        mark: the key of the mark that a member leaves when it resigns.
        pacts: prefix of the pact's keys (adapters.pact), which end with this member's leadership.
        ttl: seconds to ask for; etcd counts in whole seconds and may grant more.
        membership: what is published beside the election.
        timeline: where the steps of a move are noted.
        notes: prefix of the notes by which the VIP is passed on (adapters.passing).
        postbox: makes a UDP port for that.
        token: secret bytes, that many.
    """

    def __init__(
        self,
        *,
        store: Store,
        sink: Sink,
        clock: Clock,
        name: str,
        member: str,
        mark: str,
        pacts: str,
        ttl: float,
        membership: Membership,
        timeline: Timeline,
        notes: str,
        postbox: Callable[[], Postbox],
        token: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._sink = sink
        self._clock = clock
        self._prefix = f"{name}/"
        self._member = member
        self._mark = mark
        self._pacts = pacts
        self._notes = notes
        self._ttl = math.ceil(ttl)
        self._membership = membership
        self._leaver = Leaver(store=store, postbox=postbox(), notes=notes, mark=mark, token=token)
        self._as_heir = Heir(postbox())
        self._timeline = timeline
        self._wanted: int | None = None  # the campaign to be in the queue for
        self._resigning: int | None = None  # the campaign whose end must be confirmed
        self._passing: int | None = None  # the campaign that ends while we lead, from the order until we resign
        self._pass_due = False
        self._heir = ""  # the member that is to be first after us; "" is whoever is next
        self._followers = Followers(store, self._prefix, membership.all_records())
        self._key: KeyValue | None = None  # our key, as etcd confirmed it
        self._ahead: int | None = None  # the create revision of the last key seen ahead of ours
        self._not_before: float | None = None  # when we may take, once we are first
        self._inherited = False  # the key is an earlier process's, and so may be a pact, which must end first
        self._stray = False  # a put of our key has no answer: as long as the lease lives, it may take effect yet
        self._lease: int | None = None
        self._changed = asyncio.Event()  # wakes the contender
        self._renew_now = asyncio.Event()  # wakes the renewer
        self._failures: Counter[str] = Counter()  # in a row, by part of this class
        self._troubles: dict[str, str] = {}
        self._told: EtcdState | None = None

    # What the shell calls

    def campaign(self, campaign: int) -> None:
        """See ports.Election."""
        self._wanted = campaign
        self._changed.set()

    def pass_on(self, campaign: int, heir: str = "") -> None:
        """See ports.Election."""
        if self._wanted == campaign and self._passing != campaign:
            self._passing, self._pass_due = campaign, True
            self._heir = heir
            self._changed.set()

    def adopt(self, campaign: int, holding: Holding) -> None:
        """See ports.Election. Nothing of it is believed before etcd has confirmed it."""
        self._lease = holding.lease_id
        key = f"{self._prefix}{holding.lease_id:x}"
        self._key = KeyValue(key, self._member.encode(), holding.create_revision, holding.lease_id)
        self._stray = True  # who knows what the earlier process gave up
        self._not_before = 0.0  # it is ours already
        self._inherited = True
        self._wanted = campaign
        self._renew_now.set()

    def resign(self, campaign: int, heir: str = "", *, contested: bool = False) -> None:
        """See ports.Election. Where no key can exist, the confirmation is immediate."""
        if contested:
            self._not_before = None  # not free to take: no mark
        self._leaver.closed()
        self._as_heir.forget()
        self._wanted = self._passing = None
        self._heir = heir
        if self._key is not None or self._stray:
            self._resigning = campaign
            self._changed.set()
        else:
            self._sink(Resigned(campaign))

    async def heirs(self) -> Sequence[str]:
        """See ports.Election."""
        await self._followers.look(self._key)
        return self._followers.names()

    def place(self) -> KeyValue | None:
        """Our key in the queue, as last confirmed, while we want to be there."""
        return self._key if self._wanted is not None else None

    def verify(self) -> None:
        """See ports.Election."""
        self._changed.set()

    def publish(self, record: Mapping[str, object]) -> None:
        """See ports.Election."""
        self._membership.publish(record)

    async def close(self) -> None:
        """See ports.Election: revoking the lease deletes whatever is attached to it."""
        self._leaver.forget()
        self._as_heir.forget()
        if self._lease is not None:
            try:
                await self._store.revoke(self._lease)
            except EtcdError:
                return  # it ends with its TTL

    async def run(self) -> None:
        """Sessions for ever, each with a lease of its own."""
        while True:
            lease = self._lease or await self._grant()
            async with asyncio.TaskGroup() as tasks:
                part = tasks.create_task(self._take_part(lease))
                await self._renew(lease)
                part.cancel()

    async def _take_part(self, lease: int) -> None:
        """First a name of one's own, then the queue and the record beside it, until cancelled."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                if await self._membership.register(lease):
                    break
                pause = LONGEST_PAUSE_S  # another machine has the name: it may go
                self._tell("election", "")
            except EtcdError as e:
                self._tell("election", str(e))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._contend(lease))
            tasks.create_task(self._membership.run(lease))

    def _lost(self, lease: int, detail: str) -> None:
        """The lease is gone and every key with it, so this campaign is over and any resignation is confirmed.

        All of it at once, before anybody can answer: a campaign that is asked for from here on is the next session's.
        """
        self._lease = None
        self._key, self._stray = None, False
        self._wanted = self._passing = None
        self._leaver.forget()
        self._as_heir.forget()
        self._troubles.pop("election", None)
        self._sink(LeaseLost(lease, detail))
        self._confirm_resigned()

    # The lease

    async def _grant(self) -> int:
        pause = FIRST_PAUSE_S
        while True:
            sent_at = self._clock.now()
            try:
                lease, ttl = await self._store.grant(self._ttl)
            except EtcdError as e:
                self._tell("lease", str(e))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                self._lease = lease
                self._sink(LeaseRenewed(lease, sent_at, ttl))
                self._tell("lease", "")
                return lease

    async def _renew(self, lease: int) -> None:
        """Renew until etcd says that the lease does not exist. A failed call says nothing about the lease."""
        interval = self._ttl / RENEWALS_PER_TTL
        wait, pause = interval, FIRST_PAUSE_S
        while True:
            await self._sleep(wait, self._renew_now)
            sent_at = self._clock.now()
            try:
                ttl = await self._renewed(lease)
            except LeaseNotFoundError as e:
                self._lost(lease, str(e))
                return
            except EtcdError as e:
                self._tell("lease", str(e))
                wait, pause = pause, min(2 * pause, LONGEST_PAUSE_S)
            else:
                self._sink(LeaseRenewed(lease, sent_at, ttl))
                self._tell("lease", "")
                wait, pause = interval, FIRST_PAUSE_S

    async def _renewed(self, lease: int) -> float:
        """Renew the lease, and see that whoever renewed it was etcd's leader (see store.Renewal); the granted TTL.

        Raises:
            LeaseNotFoundError: the lease does not exist.
            EtcdError: not renewed, or not known to be.
        """
        renewal = await self._store.renew(lease)
        proof = await self._store.txn((), (Get(self._mark),))
        if proof.term != renewal.term:
            raise EtcdUnavailableError("etcd changed its leader while the lease was renewed")
        return renewal.ttl

    # The queue

    async def _contend(self, lease: int) -> None:
        """See that the key is where it is wanted, in the queue or not, for ever."""
        pause = FIRST_PAUSE_S
        while True:
            self._changed.clear()
            try:
                if self._wanted is None:
                    await self._leave()
                    self._tell("election", "")
                    await self._changed.wait()
                elif self._passing is not None:
                    await self._pass(self._passing)
                    await self._changed.wait()
                else:
                    await self._stand(lease, self._wanted)
            except EtcdError as e:
                if isinstance(e, LeaseNotFoundError):
                    self._renew_now.set()  # the renewer decides whether the lease is lost
                self._tell("election", str(e))
                await self._sleep(pause, self._changed)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                pause = FIRST_PAUSE_S

    async def _stand(self, lease: int, campaign: int) -> None:
        """One look at our place, what follows from it, and the wait for the next."""
        key = self._key or await self._join(lease)
        sent_at = self._clock.now()
        before_us = Get(self._prefix, prefix=True, max_create_revision=key.create_revision - 1, newest=True)
        ended = self._ended_pact(key) if self._inherited else ()
        self._timeline.mark("proof asked")
        notes = Get(self._notes, prefix=True)
        reply = await self._store.txn((), (*ended, Get(key.key), before_us, Get(self._mark), notes))
        self._timeline.mark("proof answered")
        self._inherited = False
        own, ahead, mark, noted = reply.gets
        self._tell("election", "")
        if self._wanted != campaign:
            return
        if not own or own[0].create_revision != key.create_revision or own[0].lease != lease:
            self._key = own[0] if own else None  # to be deleted
            self._wanted = None
            self._sink(Deposed(campaign, "etcd does not have our key any more"))
            return
        wait = 0.0
        if ahead:
            self._ahead, self._not_before = ahead[0].create_revision, None
            self._timeline.end()  # not our turn yet
            self._sink(Queued(campaign, line(ahead[0].value.decode(errors="replace"))))
        else:
            elected = self._first(Elected(campaign, lease, sent_at, key.create_revision), mark)
            wait = elected.not_before - self._clock.now()
            await _turns()
            note = self._as_heir.note(noted, self._ahead, key.create_revision)
            if note is not None and wait > 0 and self._wanted == campaign:
                await self._as_heir.wait(note, lambda: self._freed(elected))
                await _turns()
                return  # and look anew
        await self._watch((ahead or own)[0].key, reply.revision + 1, wait if wait > 0 else REREAD_S)

    def _first(self, proven: Elected, mark: tuple[KeyValue, ...]) -> Elected:
        """We are first. Tell it, and when we may take."""
        orderly = bool(mark) and mark[0].value == str(self._ahead).encode()
        if self._not_before is None:
            self._not_before = self._clock.now() + UNORDERLY_S
        if orderly:
            self._not_before = min(self._not_before, proven.proved_at)
        elected = replace(proven, not_before=self._not_before)
        self._sink(elected)
        return elected

    def _freed(self, elected: Elected) -> None:
        """Our predecessor's fence is closed."""
        if self._wanted == elected.campaign and self._key is not None:
            self._timeline.mark("predecessor's fence closed")
            self._not_before = elected.proved_at
            self._sink(replace(elected, not_before=self._not_before))

    async def _join(self, lease: int) -> KeyValue:
        """Put our key, or find it where an earlier try, whose answer was lost, has put it."""
        stray, self._stray = self._stray, True  # before the first await: a resignation from here on must undo it
        await self._membership.end_predecessor()
        name = f"{self._prefix}{lease:x}"
        reply = await self._store.txn(
            (Created(name, 0),), (Put(name, self._member.encode(), lease), Get(name)), (Get(name),)
        )
        self._stray = stray  # this one was answered
        self._key = reply.gets[0][0]
        self._ahead = self._not_before = None
        return self._key

    async def _pass(self, campaign: int) -> None:
        """Let the next in the queue become first, and tell when it waits for nothing but our fence, or will not."""
        if not self._pass_due:
            return
        self._pass_due = False
        try:
            if not self._heir:  # else the operator's word has just been looked at
                await self._followers.look(self._key)
            passed, heir = self._followers.until(self._heir)
            if heir is not None and self._key is not None and self._passing == campaign:
                self._timeline.mark("passing asked")
                await self._leaver.pass_on((self._key, *passed), heir, self._ended_pact(self._key))
        finally:
            self._sink(Passed(campaign))

    async def _leave(self) -> None:
        """Delete our key, with the mark, and confirm it to whoever waits.

        What a given-up call does may come at any time later (a proposal that etcd commits after all, a request that
        TCP repeats). Hence: the deletion names the very key, so that it cannot hit a later one; and where a put was
        given up, the lease is given back, without which that put is refused. The renewer then finds the lease gone.
        """
        if self._key is not None and not await self._leaver.finish(self._key.lease):
            passed, _ = self._followers.until(self._heir)
            if not await self._delete(self._key, *passed) and passed:  # one of them has left meanwhile
                await self._delete(self._key)
        if self._stray and self._lease is not None:
            await self._store.revoke(self._lease)
            self._renew_now.set()
            return
        self._key = None
        self._confirm_resigned()

    async def _delete(self, *keys: KeyValue) -> bool:
        """Delete our key, and those passed over behind it, all or none; False where one was not there any more.

        The mark names the last of them, which is what the next one in the queue has seen ahead of it.
        """
        operations: list[Operation] = [*(Delete(kv.key) for kv in keys), *self._ended_pact(keys[0])]
        # No mark from a member that was not first, or not yet free to take: its own predecessor may still answer.
        if self._not_before is not None and self._clock.now() >= self._not_before:
            operations.append(Put(self._mark, str(keys[-1].create_revision).encode(), 0))
        self._timeline.mark("deletion asked")
        reply = await self._store.txn([Created(kv.key, kv.create_revision) for kv in keys], operations)
        self._timeline.mark("deletion confirmed")
        return reply.succeeded

    def _ended_pact(self, own: KeyValue) -> tuple[Delete, ...]:
        return Delete(f"{self._pacts}{own.lease:x}/force"), Delete(f"{self._pacts}{own.lease:x}/offer")

    def _confirm_resigned(self) -> None:
        if self._resigning is not None:
            campaign, self._resigning = self._resigning, None
            self._sink(Resigned(campaign))

    async def _watch(self, key: str, revision: int, seconds: float) -> None:
        """Until the key is deleted, something else is wanted, or these seconds have passed.

        The watch starts one after the revision just read: one that starts at it is "unsynced" for etcd, and
        is served by a loop that runs every 100 ms (etcd, server/storage/mvcc/watchable_store.go).
        """
        watch: asyncio.Future[object] = asyncio.ensure_future(self._store.deleted(key, revision))
        changed: asyncio.Future[object] = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({watch, changed}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                if self._not_before is None:
                    self._timeline.begin(Move.TAKE, "predecessor gone")
                watch.result()  # a lost watch is an EtcdError like any other: a pause, then a new look
        finally:  # without waiting for their ends: what is wanted now may be a resignation
            for waiting in (watch, changed):
                waiting.add_done_callback(_seen)
                waiting.cancel()

    # Small parts

    def _tell(self, part: str, trouble: str) -> None:
        """Report a change of whether etcd answers usefully, over all parts of this class.

        One failure is no trouble yet: the next call goes to the next endpoint.
        """
        if not trouble:
            self._failures[part] = 0
            self._troubles.pop(part, None)
        else:
            self._failures[part] += 1
            if self._failures[part] > 1:
                self._troubles[part] = trouble
        state = EtcdState(not self._troubles, "; ".join(dict.fromkeys(self._troubles.values())))
        if state != self._told:
            self._told = state
            self._sink(state)

    @staticmethod
    async def _sleep(seconds: float, or_event: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(seconds):
                await or_event.wait()
        except TimeoutError:
            pass
        or_event.clear()


async def _turns() -> None:
    """Let others act before what can wait."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


def _seen(done: asyncio.Future[object]) -> None:
    """Whatever a watch ends with that nobody waits for any more."""
    if not done.cancelled():
        done.exception()
