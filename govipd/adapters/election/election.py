"""The election: what Go's clientv3/concurrency does, key for key, plus a proof before anybody is told.

A member's key is `<name>/<lease id in hex>`, its value the member's name, attached to the member's lease.
The lowest create revision leads; each candidate waits for the deletion of the key just before it. A watch
is only a hint: the place is read anew, linearizably, at every wake-up, every lost watch and every few seconds.

A member that resigns has closed its fence before; it says so, in the same transaction, in a mark beside the
election: the create revision of the key it deleted. When a predecessor's key vanishes without that mark (a lease
that expired, was revoked, or a key that somebody deleted), the successor waits a moment before it takes: the
predecessor learns of it at the same instant, and closing its fence is quick, but not quicker than light.
A leader that leaves in health lets the next one become first while its own fence is still open (adapters.passing).

The lease is the session's (adapters.session). When etcd says that it is lost, a new session begins with a new lease.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from govipd.adapters.election.claims import Claims, Standing
from govipd.adapters.election.handover import Heir, Leaver
from govipd.adapters.election.membership import Membership
from govipd.adapters.election.resignation import Departure
from govipd.adapters.election.session import FIRST_PAUSE_S, LONGEST_PAUSE_S, Session, sleep
from govipd.adapters.election.successors import Followers
from govipd.adapters.etcd.api import Compare, Created, Delete, Get, KeyValue, Oldest, Put, Store, TxnResult
from govipd.core.actions import Address, Holding
from govipd.core.events import Deposed, Elected, LeaseLost, Passed, Queued, Resigned
from govipd.core.sanitize import line
from govipd.errors import EtcdError, EtcdRefusedError, EtcdWriteRefusedError, LeaseNotFoundError
from govipd.keys import GroupKeys
from govipd.runtime.ports import Clock, Postbox, Sink
from govipd.runtime.step_timing import Move, Timeline

REREAD_S = 2.0  # between two readings of one's place when nothing happens
UNORDERLY_S = 0.1  # to wait for the fence of a predecessor that left without a mark; longer than core.lease.PASS_S
LEADER_PAUSE_S = 0.08  # at most while we lead: shorter than a successor waits
LEAVE_S = 1.0  # after which a member that etcd does not let go stops renewing its lease
TURNS = 6  # of the event loop, that others need for what they do at once when they hear that we are first


class EtcdElection:
    """One member's place in one election (implements `ports.Election`).

    Args:
        store: the etcd client.
        sink: where events go.
        clock: CLOCK_BOOTTIME.
        keys: where the group's keys stand.
        member: this member's name, the value of its key.
        claims: this member's claims to the group's addresses.
        ttl: seconds to ask for; etcd counts in whole seconds and may grant more.
        membership: what is published beside the election.
        timeline: where the steps of a move are noted.
        postbox: makes a UDP port by which the VIP is passed on (adapters.passing).
        token: secret bytes, that many.
    """

    def __init__(
        self,
        *,
        store: Store,
        sink: Sink,
        clock: Clock,
        keys: GroupKeys,
        member: str,
        claims: Claims,
        ttl: float,
        membership: Membership,
        timeline: Timeline,
        postbox: Callable[[], Postbox],
        token: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._sink = sink
        self._clock = clock
        self._keys = keys
        self._member = member
        self._claims = claims
        self._claim_due = False  # we may be first: the next look claims
        self._settled = True  # the holders before us let go of every address in order
        self._unwanted_due = False  # a predecessor may have attached claims to our lease that we do not want
        self._quiet = False  # nothing has happened since the last look
        self._blocked = False  # by another group's claims, though we are first
        self._grant_at: dict[Address, float] = {}  # when an address that we claimed while leading may be held
        self._surplus: dict[Address, bool] = {}  # claims to be let go; True: our kernel closed its fence before
        self._refused_until = 0.0  # etcd takes no writes: no claim is tried before
        self._unclaimed = False  # so the addresses are held without claims, by the last look
        self._session = Session(store=store, sink=sink, clock=clock, ttl=ttl)
        self._departure = Departure(self._session, keys, claims, timeline)
        self._membership = membership
        self._leaver = Leaver(store=store, postbox=postbox(), keys=keys, token=token)
        self._as_heir = Heir(postbox())
        self._timeline = timeline
        self._wanted: int | None = None  # the campaign to be in the queue for
        self._resigning: int | None = None  # the campaign whose end must be confirmed
        self._deposed = False  # a look showed that we do not lead, and the supervisor has not resigned yet
        self._passing: int | None = None  # the campaign that ends while we lead, from the order until we resign
        self._pass_due = False
        self._heir = ""  # the member that is to be first after us; "" is whoever is next
        self._followers = Followers(store, keys.queue, membership)
        self._key: KeyValue | None = None  # our key, as etcd confirmed it
        self._ahead: int | None = None  # the create revision of the last key seen ahead of ours
        self._not_before: float | None = None  # when we may take, once we are first
        self._inherited = False  # the key is an earlier process's, and so may be a pact, which must end first
        self._stray = False  # a put of our key has no answer: as long as the lease lives, it may take effect yet
        self._leaving_since: float | None = None
        self._granted: frozenset[Address] = frozenset()  # that we hold, and claim
        self._may_hold: frozenset[Address] = frozenset()  # as last told, or as an earlier process did under this lease
        self._changed = asyncio.Event()  # wakes the contender

    # What the shell calls

    def campaign(self, campaign: int) -> None:
        """See ports.Election."""
        self._wanted, self._deposed = campaign, False
        self._changed.set()

    def pass_on(self, campaign: int, heir: str = "") -> None:
        """See ports.Election."""
        if self._wanted == campaign and self._passing != campaign:
            self._passing, self._pass_due = campaign, True
            self._heir = heir
            self._changed.set()

    def adopt(self, campaign: int, holding: Holding) -> None:
        """See ports.Election. Nothing of it is believed before etcd has confirmed it."""
        self._session.lease = holding.lease_id
        key = self._keys.candidate(holding.lease_id)
        self._key = KeyValue(key, self._member.encode(), holding.create_revision, holding.lease_id)
        self._stray = True  # who knows what the earlier process gave up
        self._not_before = 0.0  # it is ours already
        self._may_hold = frozenset(holding.addresses or self._claims.wanted)
        self._claims.keep(holding.addresses)
        self._unwanted_due = True
        self._inherited = True
        self._wanted = campaign
        self._session.renew_now.set()

    def resign(self, campaign: int, heir: str = "", *, contested: bool = False) -> None:
        """See ports.Election. Where no key can exist, the confirmation is immediate."""
        if contested:
            self._not_before = None  # not free to take: no mark
        self._leaver.closed()
        self._as_heir.forget()
        self._wanted = self._passing = None
        self._deposed = False
        self._heir = heir
        self._changed.set()
        if self._key is not None or self._stray or self._claims.held:
            self._resigning = campaign
        else:
            self._sink(Resigned(campaign))

    async def heirs(self) -> Sequence[str]:
        """See ports.Election."""
        await self._followers.look(self._key)
        return self._followers.names()

    def place(self) -> KeyValue | None:
        """Our key in the queue, as last confirmed, while we want to be there."""
        return self._key if self._wanted is not None else None

    def claim(self, addresses: Sequence[Address]) -> None:
        """See ports.Election."""
        never_held = [a for a in self._claims.wanted if a not in addresses and a not in self._may_hold]
        self._claims.want(addresses)
        self._claims.give_up(never_held)
        self._surplus |= dict.fromkeys(never_held, False)
        self._claim_due = True
        self._changed.set()

    def unclaim(self, addresses: Sequence[Address]) -> None:
        """See ports.Election."""
        self._claims.give_up(addresses)
        self._surplus |= dict.fromkeys(addresses, True)
        self._changed.set()

    async def check_writes(self) -> None:
        """See ports.Election."""
        if self._session.lease is not None:
            await self._membership.write(self._session.lease)

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
        if self._session.lease is not None:
            with suppress(EtcdError):  # then it ends with its TTL
                await self._membership.give_back(self._session.lease)

    async def run(self) -> None:
        """Sessions for ever, each with a lease of its own."""
        while True:
            lease = self._session.lease or await self._session.grant()
            key = self._keys.candidate(lease)
            async with asyncio.TaskGroup() as tasks:
                part = tasks.create_task(self._take_part(lease))
                detail = await self._session.renew(lease, key, lambda found: self._proved(exists=found), self._stuck)
                self._lost(lease, detail)
                part.cancel()

    async def _take_part(self, lease: int) -> None:
        """First a name of one's own, then the queue and the record beside it, until cancelled."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                if await self._membership.register(lease):
                    break
                pause = LONGEST_PAUSE_S  # another machine has the name: it may go
                self._session.report("election", "")
            except EtcdError as e:
                self._session.report("election", str(e))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._contend(lease))
            tasks.create_task(self._membership.run(lease))

    def _lost(self, lease: int, detail: str) -> None:
        """The lease is gone and every key with it, so this campaign is over and any resignation is confirmed.

        All of it at once, before anybody can answer: a campaign that is asked for from here on is the next session's.
        """
        self._key, self._stray = None, False
        self._wanted = self._passing = self._leaving_since = None
        self._deposed = False
        self._claims.forget()
        self._surplus.clear()
        self._leaver.forget()
        self._as_heir.forget()
        self._session.forget_trouble("election")
        self._sink(LeaseLost(lease, detail))
        self._confirm_resigned()

    def _proved(self, *, exists: bool) -> None:
        """The proof of a renewal has looked for our key. The contender looks at once where it is gone."""
        if self._session.went_back or (self._key is not None and self._passing is None and not exists):
            self._changed.set()

    def _stuck(self) -> bool:
        """Whether etcd does not let us leave. Then the lease must end by itself."""
        return self._leaving_since is not None and self._clock.now() >= self._leaving_since + LEAVE_S

    # The queue

    async def _contend(self, lease: int) -> None:
        """See that the key is where it is wanted, in the queue or not, for ever."""
        pause = FIRST_PAUSE_S
        while True:
            self._changed.clear()
            try:
                if self._deposed:  # our kernel may answer until the supervisor resigns
                    await self._changed.wait()
                elif self._wanted is None:
                    await self._leave(lease)
                    self._session.report("election", "")
                    await sleep(REREAD_S, self._changed)
                    await self._look_for_remains(lease)
                elif self._passing is not None:
                    await self._pass(self._passing)
                    await self._changed.wait()
                else:
                    await self._stand(lease, self._wanted)
            except EtcdError as e:
                if isinstance(e, LeaseNotFoundError):
                    self._session.renew_now.set()  # the renewer decides whether the lease is lost
                self._session.report("election", str(e))
                await sleep(pause, self._changed)
                longest = LONGEST_PAUSE_S if self._not_before is None else LEADER_PAUSE_S
                pause = min(2 * pause, longest)
            else:
                pause = FIRST_PAUSE_S

    async def _look_for_remains(self, lease: int) -> None:
        """Find a key or claims of ours while we stand aside: a restored etcd or a given-up call makes them."""
        if self._wanted is None and self._key is None:
            wanted = self._claims.wanted
            every = (self._claims.every(),) if self._unwanted_due else ()
            gets = (Get(self._keys.candidate(lease)), *every, *self._claims.reads(wanted))
            key, *claims = (await self._session.txn((), gets)).gets
            if self._wanted is None and wanted is self._claims.wanted:
                self._key = next(iter(key), None)
                self._claims.look(wanted, claims[len(every) :], lease)
                for found in claims[: len(every)]:
                    self._claims.held = {**self._claims.held, **self._claims.unwanted(found, lease)}
                    self._unwanted_due = False

    async def _stand(self, lease: int, campaign: int) -> None:
        """One look at our place, what follows from it, and the wait for the next."""
        key = self._key or await self._join(lease)
        if self._unwanted_due and (self._quiet or self._blocked):
            found = (await self._session.txn((), (self._claims.every(),))).gets[0]
            self._surplus |= dict.fromkeys(self._claims.unwanted(found, lease), False)
            self._unwanted_due = False
        if self._surplus:
            await self._let_go_of_surplus(key)
        sent_at = self._clock.now()
        reply, standing = await self._look(key, lease)
        queue, mark, noted, pact = reply.gets[:4]
        own, ahead = [kv for kv in queue if kv.key == key.key], _ahead(queue, key)
        if pact and self._inherited:  # without the key, the successor has taken over by it
            ends = [Delete(part) for part in self._keys.pact(lease)]
            in_time = await self._session.txn((Created(key.key, key.create_revision),), ends)
            if not in_time.succeeded:
                return
        self._inherited = False
        self._session.report("election", "")
        if self._wanted != campaign:
            return
        if fault := self._disproved(key, own, ahead, standing):
            self._key = own[0] if own else None  # to be deleted
            self._wanted, self._deposed = None, True
            self._sink(Deposed(campaign, fault))
            return
        watched, wait = (ahead or own)[0].key, REREAD_S
        if ahead:
            self._ahead, self._not_before = ahead[0].create_revision, None
            self._timeline.end()  # not our turn yet
            self._sink(Queued(campaign, line(ahead[0].value.decode(errors="replace"))))
            await self._let_go(key, tuple(standing.ours), lambda _: False)  # else each would wait for the other
        elif standing.others and self._not_before is None:
            watched = self._claimed_by_others(standing)
            self._blocked = self._unwanted_due = True
            self._sink(Queued(campaign, "", str(standing)))
        elif self._claim_due:
            return  # look again, and claim
        else:
            elected = self._first(Elected(campaign, lease, sent_at, key.create_revision), mark, standing)
            wait = elected.not_before - self._clock.now()
            await _turns()
            note = self._as_heir.note(noted, self._ahead, key.create_revision)
            if note is not None and wait > 0 and self._settled and self._wanted == campaign:
                await self._as_heir.wait(note, lambda: self._freed(elected))
                await _turns()
                return  # and look again
            if standing.others:
                watched = self._claimed_by_others(standing)
            self._followers.take_in(queue, key)
            wait = wait if wait > 0 else min(REREAD_S, self._until_granted())
        self._quiet = False
        self._quiet = not await self._watch(watched, reply.revision + 1, wait) and wait >= REREAD_S

    async def _look(self, key: KeyValue, lease: int) -> tuple[TxnResult, Standing]:
        """Read our place and our claims; where we may be first, claim in the same transaction what we miss."""
        wanted, now = self._claims.wanted, self._clock.now()
        gets = (
            Get(self._keys.queue, prefix=True), Get(self._keys.mark), Get(self._keys.notes, prefix=True),
            Get(self._keys.force(lease)), *self._claims.reads(wanted),
        )  # fmt: skip
        leading = self._not_before is not None
        compare, puts = self._claims.take(lease, self._member, partly=leading) if self._claim_due else ({}, ())
        self._timeline.mark("proof asked")
        if puts:
            self._unwanted_due = True  # without an answer it may take effect when the addresses are not wanted any more
            place = (Created(key.key, key.create_revision), Oldest(self._keys.queue, key.create_revision))
            try:
                reply = await self._session.txn((*place, *compare.values()), (*puts, *gets), gets)
            except EtcdWriteRefusedError:  # it answers, and the election stands
                self._refused_until = now + REREAD_S
                reply = await self._session.txn((), gets)
        else:
            reply = await self._session.txn((), gets)
        self._timeline.mark("proof answered")
        standing = self._claims.look(wanted, reply.gets[4:], lease)
        if puts and reply.succeeded:
            unsettled = {a for a, c in compare.items() if isinstance(c, Created)} - self._may_hold
            self._settled = not unsettled
            self._grant_at |= dict.fromkeys(unsettled, self._clock.now() + UNORDERLY_S)
        self._unclaimed = refused = self._clock.now() < self._refused_until
        self._settled = self._settled and not refused
        claimable = standing.free | standing.absent
        first = not _ahead(reply.gets[0], key)
        self._claim_due = bool(claimable) and not refused and first and (leading or not standing.others)
        return reply, standing

    def _disproved(self, key: KeyValue, own: Sequence[KeyValue], ahead: Sequence[KeyValue], standing: Standing) -> str:
        """Why we do not lead any more, or do not stand in the queue; "" where nothing speaks against it."""
        went_back, self._session.went_back = self._session.went_back, False
        if not own or own[0].create_revision != key.create_revision or own[0].lease != key.lease:
            return "etcd does not have our key any more"
        if self._not_before is None:
            return ""
        if went_back or ahead:
            return "etcd went back to an earlier state of its data"
        lost = [a for a in self._granted if a not in standing.ours and a in self._claims.wanted]
        if lost and not self._unclaimed:
            return f"our claim of {lost[0].ip} is gone"
        return ""

    def _first(self, proven: Elected, mark: tuple[KeyValue, ...], standing: Standing) -> Elected:
        """We are first. Tell it, and when we may take."""
        orderly = bool(mark) and mark[0].value == str(self._ahead).encode() and self._settled
        if self._not_before is None:
            self._not_before = max(self._clock.now() + UNORDERLY_S, self._session.quiet_until)
            self._grant_at.clear()  # the whole group waits
            self._unwanted_due = True
        if orderly and proven.proved_at >= self._session.quiet_until:
            self._not_before = min(self._not_before, proven.proved_at)
        now = self._clock.now()
        addresses = tuple(
            a for a in self._claims.wanted
            if (a in standing.ours and now >= self._grant_at.get(a, 0.0))
            or (self._unclaimed and a not in standing.others)
        )  # fmt: skip
        self._granted = frozenset(a for a in addresses if a in standing.ours)
        self._may_hold = frozenset(addresses)
        elected = replace(proven, not_before=self._not_before, addresses=addresses, pending=str(standing))
        self._sink(elected)
        return elected

    def _until_granted(self) -> float:
        """Seconds until an address that we claimed while leading may be held."""
        now = self._clock.now()
        return min((at - now for at in self._grant_at.values() if at > now), default=REREAD_S)

    def _claimed_by_others(self, standing: Standing) -> str:
        """The key of a claim that another member has to let go first."""
        return self._keys.claim(next(iter(standing.others)).ip)

    def _freed(self, elected: Elected) -> None:
        """Our predecessor's fence is closed."""
        known = elected.proved_at >= self._session.quiet_until
        if self._wanted == elected.campaign and self._key is not None and known:
            self._timeline.mark("predecessor's fence closed")
            self._not_before = elected.proved_at
            self._sink(replace(elected, not_before=self._not_before))

    async def _join(self, lease: int) -> KeyValue:
        """Put our key, or find it where an earlier try, whose answer was lost, has put it."""
        stray, self._stray = self._stray, True  # before the first await: a resignation from here on must undo it
        if not await self._membership.end_earlier(lease):
            self._session.wait_out_the_forgotten()
        name = self._keys.candidate(lease)
        reply = await self._session.txn(
            (Created(name, 0),), (Put(name, self._member.encode(), lease), Get(name)), (Get(name),)
        )
        self._stray = stray  # this one was answered
        self._key = reply.gets[0][0]
        self._ahead = self._not_before = None
        self._settled = self._claim_due = True
        self._session.went_back = False
        self._blocked = self._quiet = False
        self._grant_at.clear()
        self._granted = self._may_hold = frozenset()
        return self._key

    async def _let_go_of_surplus(self, key: KeyValue) -> None:
        """Let go of claims to addresses that are not the group's any more."""
        surplus = tuple(sorted(self._surplus.keys() - set(self._claims.wanted)))
        reply = await self._session.txn((), self._claims.reads(surplus))
        self._claims.look(surplus, reply.gets, key.lease)
        ours = tuple(address for address in surplus if address in self._claims.held)
        if await self._let_go(key, ours, self._surplus.__getitem__):
            self._surplus.clear()

    async def _let_go(self, key: KeyValue, ours: Sequence[Address], in_order: Callable[[Address], bool]) -> bool:
        """Let go of claims that we hold. False where etcd takes no writes: they end with the lease, at the latest."""
        compare: list[Compare] = [Created(key.key, key.create_revision), *self._claims.unchanged(ours)]
        try:
            if ours and (await self._session.txn(compare, self._claims.let_go(ours, in_order))).succeeded:
                self._claims.held = {a: value for a, value in self._claims.held.items() if a not in ours}
        except EtcdWriteRefusedError:
            return False
        return True

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
                await self._leaver.pass_on((self._key, *passed), heir, self._claims)
        finally:
            self._sink(Passed(campaign))

    async def _leave(self, lease: int) -> None:
        """Delete our key, with the mark and the claims, and confirm it to whoever waits.

        What a given-up call does may come at any time later (a proposal that etcd commits after all, a request that
        TCP repeats). Hence: the deletion names the very key, so that it cannot hit a later one; and where a put was
        given up, the lease is given back, without which that put is refused. The renewer then finds the lease gone.

        Leaving needs no write: where etcd takes none, the key is deleted without a mark, or goes with the lease. A
        lease that etcd does not take back ends by itself, since the renewer stops renewing it.
        """
        if self._key is None and not self._claims.held and not self._stray:
            self._confirm_resigned()
            return
        if self._leaving_since is None:
            self._leaving_since = self._clock.now()
        give_back = self._stray
        try:
            await self._release(lease)
        except EtcdRefusedError:
            give_back = True
        if give_back:
            await self._membership.give_back(lease)
            self._session.renew_now.set()
            return
        self._key, self._leaving_since = None, None
        self._unwanted_due = True
        self._confirm_resigned()

    async def _release(self, lease: int) -> None:
        """Delete what we have in etcd, but for the lease."""
        key, now = self._key, self._clock.now()
        if key is not None and await self._leaver.finish(key.lease):
            self._key = key = None
            if not self._claims.held:
                return
        free = self._not_before is not None and now >= self._not_before
        passed_over, heir = self._followers.until(self._heir)
        await self._departure.leave(
            lease,
            () if key is None else (key, *passed_over),
            None if key is None else heir,
            marks=free,
            in_order=lambda address: free and now >= self._grant_at.get(address, 0.0),
        )

    def _confirm_resigned(self) -> None:
        if self._resigning is not None:
            campaign, self._resigning = self._resigning, None
            self._sink(Resigned(campaign))

    async def _watch(self, key: str, revision: int, seconds: float) -> bool:
        """Until the key is deleted, something else is wanted, or these seconds have passed: False.

        The watch starts one after the revision just read: one that starts at it is "unsynced" for etcd, and
        is served by a loop that runs every 100 ms (etcd, server/storage/mvcc/watchable_store.go).
        """
        watch: asyncio.Future[object] = asyncio.ensure_future(self._store.changed(key, revision))
        changed: asyncio.Future[object] = asyncio.ensure_future(self._changed.wait())
        try:
            done, _ = await asyncio.wait({watch, changed}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                if self._not_before is None:
                    self._timeline.begin(Move.TAKE, "predecessor gone")
                watch.result()  # a lost watch is an EtcdError like any other: a pause, then a new look
        finally:  # without waiting for their ends: what is wanted now may be a resignation
            for waiting in (watch, changed):
                waiting.add_done_callback(_seen)
                waiting.cancel()
        return bool(done)


def _ahead(queue: Sequence[KeyValue], key: KeyValue) -> Sequence[KeyValue]:
    """The key just before this one; none where this one is first."""
    before = (kv for kv in queue if kv.create_revision < key.create_revision)
    return sorted(before, key=lambda kv: kv.create_revision)[-1:]


async def _turns() -> None:
    """Let others act before what can wait."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


def _seen(done: asyncio.Future[object]) -> None:
    """Whatever a watch ends with that nobody waits for any more."""
    if not done.cancelled():
        done.exception()
