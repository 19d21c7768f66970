"""One member in the queue of an election: it joins, proves that it is first, hands over, and leaves.

The shell's calls only set the wanted state. One task brings etcd to the wanted state.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace

from govipd.adapters.election.claimant import REREAD_S, UNORDERLY_S, Claimant
from govipd.adapters.election.claims import Claims, Standing
from govipd.adapters.election.handover import READY_S, HandoverReceiver, HandoverSender
from govipd.adapters.election.membership import Membership
from govipd.adapters.election.queue import KeyWatch, Place, Wake, ahead_of, sleep
from govipd.adapters.election.resignation import Resignation
from govipd.adapters.election.session import FIRST_PAUSE_S, LONGEST_PAUSE_S, EtcdSession
from govipd.adapters.election.successors import Successors
from govipd.adapters.election.troubles import Troubles
from govipd.adapters.etcd.api import Delete, Get, IfCreateRevision, KeyValue, Put
from govipd.core.actions import RestartState
from govipd.core.events import Deposed, Elected, Queued, SuccessorReady
from govipd.core.sanitize import sanitize_line
from govipd.errors import EtcdError, EtcdRefusedError, LeaseNotFoundError
from govipd.keys import GroupKeys
from govipd.runtime.ports import Clock, Sink, TemporaryUdpSocket
from govipd.runtime.step_timing import Operation, StepTimings

LEADER_PAUSE_S = 0.08  # the longest pause after an error while we lead; shorter than a successor's wait
ACTIVATE_S = 0.005  # this task sleeps so long, so that the activation gets the processor at once


class Contender:
    """One member's place in one queue.

    Args:
        session: the process's lease.
        troubles: where troubles with etcd are reported.
        sink: where events go.
        clock: CLOCK_BOOTTIME.
        keys: where the group's keys are.
        member: this member's name, the value of its key.
        claims: this member's claims on the group's addresses.
        membership: this member's record, and the other members' records.
        timings: where the steps of an operation are noted.
        udp_socket: makes a UDP socket for a handover.
        token: makes a secret of that many bytes.

    Attributes:
        wanted: the campaign for which we want to be in the queue; None: we want to be out of the queue.
        place: where we are.
        successor: the member that is to lead after us; "" is the next in the queue.
        changed: wakes the task.
    """

    def __init__(
        self,
        *,
        session: EtcdSession,
        troubles: Troubles,
        sink: Sink,
        clock: Clock,
        keys: GroupKeys,
        member: str,
        claims: Claims,
        membership: Membership,
        timings: StepTimings,
        udp_socket: Callable[[], TemporaryUdpSocket],
        token: Callable[[int], bytes],
    ) -> None:
        self.wanted: int | None = None
        self.place = Place()
        self.successor = ""
        self.changed = asyncio.Event()
        self.claimant = Claimant(session=session, clock=clock, keys=keys, member=member, claims=claims, timings=timings)
        self.sender = HandoverSender(store=session.store, udp_socket=udp_socket(), keys=keys, token=token)
        self.receiver = HandoverReceiver(udp_socket())
        self.successors = Successors(session.store, keys.queue, membership)
        self.resignation = Resignation(
            session=session, sink=sink, clock=clock, keys=keys, place=self.place, claims=claims,
            sender=self.sender, timings=timings,
        )  # fmt: skip
        self._session = session
        self._troubles = troubles
        self._rewinds = session.rewinds  # as last looked at
        self._sink = sink
        self._clock = clock
        self._keys = keys
        self._member = member
        self._claims = claims
        self._membership = membership
        self._timings = timings
        self._deposed = False  # a look showed that we do not lead, and the state machine has not resigned yet
        self._handing_over: int | None = None  # the campaign that a handover ends; None again once we resign
        self._handover_due = False
        self._quiet = False  # nothing has happened since the last look
        self._prepared = asyncio.Event()  # the addresses are behind a closed fence

    def campaign(self, campaign: int) -> None:
        """Set the wanted state: in the queue, for this campaign."""
        self.wanted, self._deposed = campaign, False
        self.changed.set()

    def adopt(self, campaign: int, holding: RestartState) -> None:
        """Adopt an earlier process's key. The next look has to prove its place."""
        place, key = self.place, self._keys.candidate(holding.lease_id)
        place.key = KeyValue(key, self._member.encode(), holding.create_revision, holding.lease_id)
        place.put_unanswered = True  # the earlier process may have had an unanswered put
        place.not_before = 0.0  # the VIP is ours already
        place.adopted = True
        self.claimant.adopt(holding.addresses)
        self.wanted = campaign

    def hand_over(self, campaign: int, successor: str) -> None:
        """Start a handover: the successor becomes first while our kernel still answers."""
        if self.wanted == campaign and self._handing_over != campaign:
            self._handing_over, self._handover_due = campaign, True
            self.successor = successor
            self.changed.set()

    def resign(self, campaign: int, successor: str, *, contested: bool) -> None:
        """Set the wanted state: out of the queue. Our kernel is silent by now."""
        if contested:
            self.place.not_before = None  # as if we had never been first: no marker is written
        self.sender.closed()
        self.receiver.forget()
        self._want_nothing()
        self.successor = successor
        self.changed.set()
        self.resignation.ask(campaign)

    def prepared(self, campaign: int) -> None:
        """Note that the addresses are behind a closed fence: the activation will be quick."""
        if self.wanted == campaign:
            self._prepared.set()

    def lost(self) -> None:
        """Forget the campaign: the lease is gone, and every key with it."""
        self.place.key, self.place.put_unanswered = None, False
        self._want_nothing()
        self.claimant.forget()
        self.forget_handovers()

    def proved(self, *, exists: bool) -> None:
        """Note whether a renewal's proof found our key. Where the key is gone, the task reads our place at once."""
        gone = self.place.key is not None and self._handing_over is None and not exists
        if gone or self._session.rewinds != self._rewinds:
            self.changed.set()

    def forget_handovers(self) -> None:
        """Forget every handover, offered or expected."""
        self.sender.forget()
        self.receiver.forget()

    def _want_nothing(self) -> None:
        self.wanted = self._handing_over = None
        self._deposed = False

    async def run(self, lease: int) -> None:
        """Keep our key in the queue, or out of it, as `wanted` says."""
        pause, watch = FIRST_PAUSE_S, KeyWatch(self._session.store)
        with closing(watch):
            while True:
                self.changed.clear()
                try:
                    if self._deposed:  # our kernel may answer until the state machine resigns
                        await self.changed.wait()
                    elif self.wanted is None:
                        await self._leave(lease)
                        self._troubles.of_candidacy("")
                        await sleep(self._session.until_next(REREAD_S), self.changed)
                        await self._look_for_remains(lease)
                    elif self._handing_over is not None:
                        await self._hand_over(self._handing_over)
                        await self.changed.wait()
                    else:
                        await self._stand(lease, self.wanted, watch)
                except EtcdError as e:
                    if isinstance(e, LeaseNotFoundError):
                        self._session.renew_now.set()  # the renewer decides whether the lease is lost
                    self._troubles.of_candidacy(str(e))
                    await sleep(pause, self.changed)
                    pause = min(2 * pause, LONGEST_PAUSE_S if self.place.not_before is None else LEADER_PAUSE_S)
                else:
                    pause = FIRST_PAUSE_S

    async def _look_for_remains(self, lease: int) -> None:
        """While we are out of the queue, find our key or claims that a restored etcd or a late call brought back."""
        if self.wanted is None and self.place.key is None:
            found = await self.claimant.find_remains(lease, lambda: self.wanted is None)
            if found is not None:
                self.place.key = found

    async def _stand(self, lease: int, campaign: int, watch: KeyWatch) -> None:
        """Read our place once, report the result, then wait for a change."""
        place, claimant = self.place, self.claimant
        key = place.key or await self._join(lease)
        if claimant.strays_due and (self._quiet or claimant.blocked):
            await claimant.find_strays(lease)
        await claimant.let_go_of_surplus(key)
        sent_at = self._clock.now()
        gets = (
            Get(self._keys.queue, prefix=True), Get(self._keys.release_marker), Get(self._keys.handovers, prefix=True),
            Get(self._keys.force(lease)),
        )  # fmt: skip
        reply, standing = await claimant.look(key, lease, gets, leading=place.not_before is not None)
        queue, marker, offers, pact = reply.gets[: len(gets)]
        own, ahead = [kv for kv in queue if kv.key == key.key], ahead_of(queue, key)
        if pact and place.adopted:  # if our key is gone, the successor has taken over by this pact
            ends = [Delete(part) for part in self._keys.pact(lease)]
            in_time = await self._session.txn((IfCreateRevision(key.key, key.create_revision),), ends)
            if not in_time.succeeded:
                return
        place.adopted = False
        self._troubles.of_candidacy("")
        if self.wanted != campaign:
            return
        if fault := self._disproved(key, own, ahead, standing):
            place.key = own[0] if own else None  # to be deleted
            self.wanted, self._deposed = None, True
            self._sink(Deposed(campaign, fault))
            return
        watched, wait = (ahead or own)[0].key, self._session.until_next(REREAD_S)
        if ahead:
            place.ahead, place.not_before = ahead[0].create_revision, None
            self._timings.end()  # not our turn yet
            self._sink(Queued(campaign, sanitize_line(ahead[0].value.decode(errors="replace"))))
            await claimant.let_go(key, tuple(standing.ours), lambda _: False)  # else both might wait
        elif standing.others and place.not_before is None:
            watched = self._claimed_by_others(standing)
            claimant.blocked = claimant.strays_due = True
            self._sink(Queued(campaign, "", str(standing)))
        elif claimant.due:
            return  # look again, and claim
        else:
            elected = self._first(Elected(campaign, lease, sent_at, key.create_revision), marker, standing)
            self.successors.take_in(queue, key)  # before the first await: a later look must not be overwritten
            offer = self.receiver.offer(offers, place.ahead, key.create_revision)
            if offer is not None and claimant.settled and elected.not_before > self._clock.now():
                await self._until_prepared()
                if self.wanted == campaign:
                    await self.receiver.wait(offer, lambda: self._freed(elected))
                await asyncio.sleep(ACTIVATE_S)
                return  # and look again
            if self._clock.now() < elected.not_before + UNORDERLY_S:
                await asyncio.sleep(ACTIVATE_S)
            wait = elected.not_before - self._clock.now()
            if standing.others:
                watched = self._claimed_by_others(standing)
            wait = wait if wait > 0 else min(self._session.until_next(REREAD_S), claimant.next_grant_s())
        self._quiet = False
        wake = await watch.wait(watched, reply.revision, self.changed, wait)
        if wake is Wake.KEY and place.not_before is None:
            self._timings.begin(Operation.TAKE, "predecessor gone")
        self._quiet = wake is Wake.TIME and wait >= REREAD_S / 2

    def _disproved(self, key: KeyValue, own: Sequence[KeyValue], ahead: Sequence[KeyValue], standing: Standing) -> str:
        """Why we do not lead any more, or are not in the queue, as a text; "" where our place is as before."""
        went_back, self._rewinds = self._session.rewinds != self._rewinds, self._session.rewinds
        if not own or own[0].create_revision != key.create_revision or own[0].lease != key.lease:
            return "etcd does not have our key any more"
        if self.place.not_before is None:
            return ""
        if went_back or ahead:
            return "etcd went back to an earlier state of its data"
        return self.claimant.lost(standing)

    def _first(self, proven: Elected, marker: tuple[KeyValue, ...], standing: Standing) -> Elected:
        """Report that we are first, and from when on we may activate the VIP."""
        place = self.place
        orderly = bool(marker) and marker[0].value == str(place.ahead).encode() and self.claimant.settled
        if place.not_before is None:
            place.not_before = max(self._clock.now() + UNORDERLY_S, self._session.quiet_until)
            self.claimant.first()
        if orderly and proven.proved_at >= self._session.quiet_until:
            place.not_before = min(place.not_before, proven.proved_at)
        addresses = self.claimant.grant(standing)
        elected = replace(proven, not_before=place.not_before, addresses=addresses, pending=str(standing))
        self._sink(elected)
        return elected

    async def _until_prepared(self) -> None:
        """Wait for prepared(), but READY_S at most: without it, the activation takes a little longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                await self._prepared.wait()

    def _claimed_by_others(self, standing: Standing) -> str:
        """The key of a claim that another member has to let go before we may activate."""
        return self._keys.claim(next(iter(standing.others)).ip)

    def _freed(self, elected: Elected) -> None:
        """Report that we may activate now: our predecessor's fence is closed."""
        known = elected.proved_at >= self._session.quiet_until
        if self.wanted == elected.campaign and self.place.key is not None and known:
            self._timings.mark("predecessor's fence closed")
            self.place.not_before = elected.proved_at
            self._sink(replace(elected, not_before=elected.proved_at))

    async def _join(self, lease: int) -> KeyValue:
        """Put our key, or find the key that an earlier put without an answer has created."""
        place = self.place
        # Before the first await: a resignation from here on must undo the put.
        before, place.put_unanswered = place.put_unanswered, True
        put, asked = Put(self._keys.candidate(lease), self._member.encode(), lease), False
        try:
            await self._session.end_earlier(lease)
            asked = True
            reply = await self._session.txn((IfCreateRevision(put.key, 0),), (put, Get(put.key)), (Get(put.key),))
        except EtcdError as e:  # only a put without an answer may take effect later
            place.put_unanswered = before or (asked and not isinstance(e, EtcdRefusedError))
            raise
        place.put_unanswered = before  # our put was answered; only an earlier one can still be pending
        place.key = reply.gets[0][0]
        place.ahead = place.not_before = None
        place.adopted = not reply.succeeded  # the key may be an earlier process's, and so may a pact
        self._rewinds, self._quiet = self._session.rewinds, False
        self._prepared.clear()
        self.claimant.joined()
        return place.key

    # Leaving the queue

    async def _hand_over(self, campaign: int) -> None:
        """Let the successor become first. Report when the successor waits only for our fence, or when there is none."""
        if not self._handover_due:
            return
        self._handover_due = False
        place = self.place
        try:
            if not self.successor:  # with a named target, Group.handover() has refreshed the list already
                await self.successors.look(place.key)
            passed_over, successor = self.successors.until(self.successor)
            if successor is not None and place.key is not None and self._handing_over == campaign:
                self._timings.mark("handover asked")
                await self.sender.hand_over((place.key, *passed_over), successor, self._claims)
        finally:
            self._sink(SuccessorReady(campaign))

    async def _leave(self, lease: int) -> None:
        """Leave the queue: see Resignation.leave()."""
        not_before, now = self.place.not_before, self._clock.now()
        free = not_before is not None and now >= not_before
        passed_over, successor = self.successors.until(self.successor)
        in_order = self.claimant.held_in_order
        known = self.place.key is not None or bool(self._claims.held) or self.place.put_unanswered
        await self.resignation.leave(
            lease, passed_over, successor, free=free, in_order=lambda address: free and in_order(address)
        )
        self.claimant.strays_due |= known
