"""The decision for one VIP group on one node: step(event, now) -> actions.

Level-triggered: an event only updates what is known, then what is known decides. Within a step the
deadline comes first, whatever the event says: after a stall, nothing that waited in the queue can make an
expired holder go on holding.

What it does not guarantee: that the kernel is silent at the deadline. That is the fence's promise, made
with the very instant that Hold carries.
"""

from dataclasses import replace

from govipd.core import actions as ac
from govipd.core import events as ev
from govipd.core.health import Damping, GateStatus, Health, SlidingWindowCounter
from govipd.core.lease import PASS_S, Lease
from govipd.core.pact import LeaderHalf
from govipd.core.settings import Settings
from govipd.core.state import ABSENT, ANSWERING, HOLDING, IN_QUEUE, State, Trigger, next_state
from govipd.core.wire_question import AGAIN_S, Question

REPEAT_S = 5.0  # what the election was asked for is asked again this often: no request or answer is trusted to arrive
RETRY_S = 0.2  # between tries of a kernel action that failed
# How long an order to close the fence may stay without an answer before its deadline counts instead. The
# order comes first even when the deadline has passed: a machine that was suspended kept the fence's rest.
PATIENCE_S = 0.2
TAKE_TRIES = 5
LOSSES_MAX = 5  # addresses removed by somebody else within LOSSES_WINDOW_S before this node gives way
LOSSES_WINDOW_S = 10.0


class VipStateMachine:
    """One VIP group's state and everything that decides its next step."""

    def __init__(self, settings: Settings, now: float) -> None:
        self.state = State.STARTING
        self.since = now
        self.trigger = Trigger.CLEANED
        self.detail = ""
        self.health = Health(settings, now)
        self.etcd = ev.EtcdState(usable=True, detail="")
        self.fault = ev.ClusterFault()
        self.ahead = ""  # the member before us in the queue
        self.claimed = ""  # addresses of this group that another group has claimed, and by whom, in words
        self.present = True  # an address of ours may be on the interface
        self.elsewhere: tuple[ev.Elsewhere, ...] = ()  # and these are on others of this machine
        self.mac = ""  # the interface's
        self.question: Question | None = None  # to the link's other machines, in this campaign
        self.drained = False  # the operator wants this node out
        self._successor = ""  # whom the operator gives the VIP to; "" is whoever is next
        self._settings = settings
        self._damping = Damping(settings)
        self._campaign = 0  # number of the newest campaign; replies to older ones are stale
        self._lease: Lease | None = None
        self._won: ev.Elected | None = None  # the newest proof that this campaign is won
        self._waits = False  # in TAKING: the predecessor's fence may still be open
        self.pact = LeaderHalf()  # with the next in the queue; none, to begin with
        self._fence_requested_until = now  # the latest instant any Hold has named: the kernel may answer until then
        self._pass_until = float("inf")  # while the VIP is passed on
        self._unwritten: list[ac.SaveRestartState] = []  # of the newest Hold
        self._hold_due = False
        self._announce_due = False
        self._retry_at: float | None = None  # of the kernel action that the state wants and that failed
        self._repeat_at = now
        self._take_failures = 0
        self._losses = SlidingWindowCounter(LOSSES_WINDOW_S)
        self._left_at = now
        self._stop_by: float | None = None
        self._actions: list[ac.Action] = []  # of the step under way
        self._reports: list[ac.Report] = []  # of the step under way; telling comes after doing

    # What it is asked

    def start(self, left: ac.RestartState | None, now: float) -> list[ac.Action]:
        """The first actions.

        What an earlier process held is kept while it may be ours, which is until its own deadline. Anything
        else it left goes: not leader means absent.
        """
        if left is None or now >= left.until:
            return [ac.CloseFence()]
        self.state = State.ADOPTING
        self.trigger = Trigger.ADOPTED
        self._campaign = 1
        self._lease = Lease(left.lease_id, sent_at=now, ttl=0.0)  # known, not yet confirmed to this process
        self._fence_requested_until = left.until
        return [ac.Adopt(self._campaign, left)]

    def step(self, event: ev.Event, now: float) -> list[ac.Action]:
        """Take one event in and decide.

        Args:
            event: what happened.
            now: seconds of CLOCK_BOOTTIME, never decreasing from call to call.

        Returns:
            The actions to start, in this order.

        Raises:
            IllegalTransitionError: a fault of ours; the caller releases the VIP and ends the process.
        """
        self._actions, self._reports = [], []
        self._expire(now)
        self._note(event, now)
        self._decide(now)
        if self._hold_due:
            self._hold(now)
        return [*self._actions, *self._reports]

    def next_deadline(self, now: float) -> float | None:
        """When to call step(Tick()) if nothing else happens before."""
        instants = [self.health.next_deadline(now), self._retry_at]
        if self.state in ANSWERING:
            instants.append(self._answers_until())
            instants.append(self.pact.next_deadline())
        if self.state is State.DEACTIVATING:
            instants.append(self._closed_at())
        if self.state is State.INELIGIBLE:
            instants.append(self._campaign_at(now))
        if self.state in (State.CANDIDATE, State.RESIGNING):
            instants.append(self._repeat_at)
        if self.state is State.ACTIVATING and self.question is not None:
            instants.append(self.question.next_deadline())
        if self.state in (State.STARTING, State.RESIGNING, State.INELIGIBLE):
            instants.append(self._stop_by)
        return min((max(t, now) for t in instants if t is not None), default=None)

    def lease_deadline(self) -> float | None:
        """Until when this node may answer as far as the lease says; None without a confirmed one."""
        return None if self._lease is None else self._lease.deadline(self._settings.margin)

    def deadline(self) -> float | None:
        """Until when this node may answer; None without a confirmed lease."""
        lease = self.lease_deadline()
        return None if lease is None else min(lease, self.pact.limit())

    def _answers_until(self) -> float:
        """Until when the kernel may answer, in a state in which it may."""
        deadline = self.deadline()
        until = self._fence_requested_until if self.state is State.ADOPTING or deadline is None else deadline
        return min(until, self._pass_until)

    @property
    def adoptable(self) -> bool:
        """Whether the next process finds what it needs to go on."""
        taking_again = self.state is State.ACTIVATING and self.trigger is Trigger.ADOPTED
        return taking_again or self.state in (State.ADOPTING, State.LEADER)

    def blockers(self, now: float) -> tuple[str, ...]:
        """What keeps this node from the queue, in words; empty when nothing does."""
        return (*self._unfit(now), *self._strewn(), *self._retired())

    def _strewn(self) -> tuple[str, ...]:
        """What other interfaces have. This kernel answers for it without being asked, as soon as the fence is gone."""
        return tuple(
            f"{where}, which is not govipd's to remove; type: ip address delete {where.address} dev {where.interface}"
            for where in self.elsewhere
        )

    def _unfit(self, now: float) -> tuple[str, ...]:
        """What is wrong here."""
        gates = tuple(map(str, self._gates_against(now)))
        return (*gates, self.fault.refused) if self.fault.refused else gates

    def _retired(self) -> tuple[str, ...]:
        """Who wants this node out, though nothing is wrong."""
        drained = ("drained by the operator",) if self.drained else ()
        return (*drained, "the daemon was told to stop") if self._stop_by is not None else drained

    def wait(self, now: float) -> float:
        """Seconds until damping lets this healthy node campaign; 0 when it does."""
        at = self._campaign_at(now)
        return 0.0 if at is None else max(0.0, at - now)

    # What is known

    def _expire(self, now: float) -> None:
        if self.state in ANSWERING and now >= self._answers_until():
            if now >= self._pass_until:
                self._fire(Trigger.SUCCESSOR_READY, "nobody was ready in time", now)
                return
            late = "the pact was not answered, and its end not confirmed in time" if self.pact.id else ""
            self._fire(Trigger.EXPIRED, late or f"lease not confirmed in time: {self.etcd.detail}", now)

    def _note(self, event: ev.Event, now: float) -> None:
        match event:
            case ev.ProbeResult() | ev.UnitState():
                self.health.note(event, now)
            case ev.LinkState():
                self._note_link(event, now)
            case ev.LeaseRenewed():
                self._lease = Lease.of(event)
                self._hold_due = True
            case ev.LeaseLost():
                self._note_lost(event, now)
            case ev.Queued(campaign=self._campaign):
                self.ahead, self.claimed = event.ahead, event.claimed
            case ev.Elected(campaign=self._campaign):
                self._won, self.claimed = event, event.pending
                self._hold_due = self._hold_due or self._waits
            case ev.Deposed(campaign=self._campaign) if self.state in IN_QUEUE:
                self._fire(Trigger.LOST, event.detail, now)
            case ev.Resigned(campaign=self._campaign) if self.state is State.RESIGNING:
                self._fire(Trigger.RESIGNED, "", now)
            case ev.SuccessorReady(campaign=self._campaign) if self.state is State.HANDING_OVER:
                self._fire(Trigger.SUCCESSOR_READY, "", now)
            case ev.PactAnswered() if self.state is State.LEADER:
                self._note_pact(event, now)
            case ev.PactEnded() if event.pact == self.pact.id:
                self.pact = LeaderHalf()
                self._hold_due = True
            case ev.EtcdState():
                self.etcd = event
            case ev.ClusterFault():
                self.fault = event
            case ev.Done():
                self._note_done(event, now)
            case ev.Failed():
                self._note_failed(event, now)
            case ev.AddressLost():
                self._note_address_lost(event, now)
            case ev.AddressFound() if self.state in ABSENT and not self.present:
                self.present = True  # reconciled: not leader means absent, whoever added it
                holder = f"{self.ahead} is ahead of us in the election" if self.ahead else "we do not hold it"
                self._actions.append(ac.Alarm(f"somebody added {event.address} here, while {holder}; it is removed"))
                self._actions.append(ac.RemoveAddresses())
            case ev.AddressesElsewhere():
                self._note_elsewhere(event)
            case ev.WireHeard() if self.state is State.ACTIVATING and self.question is not None:
                if self.question.awaits(event):
                    self._note_heard(self.question, event, now)
            case ev.Stalled():
                self._announce_due = True
                if self.state in HOLDING:
                    self._actions.append(ac.Verify())
                self._hold_due = True
            case ev.Reconfigured():
                self._reconfigure(event.settings)
            case ev.Drain():
                self.drained = event.wanted
            case ev.Handover() if self.state is State.LEADER:
                self._successor = event.to
                self._fire(Trigger.HANDOVER, f"to {event.to}" if event.to else "to the next in the queue", now)
            case ev.Stop():
                self._stop_by = event.by
            case _:
                pass  # an answer to a campaign that is over, or nothing but time
        self.health.tick(now)

    def _reconfigure(self, settings: Settings) -> None:
        self._settings = settings
        self.health.reconfigure(settings)
        self._damping.reconfigure(settings)
        self._announce_due = True
        self._hold_due = True

    def _note_link(self, event: ev.LinkState, now: float) -> None:
        self.health.note(event, now)
        if event.mac not in ("", self.mac):  # a bond that failed over: the neighbours know the old one
            self.mac = event.mac
            self._announce_due = True
            self._hold_due = True

    def _note_elsewhere(self, event: ev.AddressesElsewhere) -> None:
        for where in event.found:
            if where not in self.elsewhere and self.state is not State.STOPPED:
                text = f"{where}: this machine is ineligible while it is there, unless it leads"
                follows = f"type: ip address delete {where.address} dev {where.interface}"
                self._actions.append(ac.Alarm(f"{text}; {follows}", ac.Conflict.ADDRESS_ELSEWHERE))
        self.elsewhere = event.found
        if event.found and self.state is State.INELIGIBLE:
            self._actions.append(ac.CloseFence())  # nobody else sets it up again where it was taken away

    def _note_lost(self, event: ev.LeaseLost, now: float) -> None:
        if self._lease is None or self._lease.id != event.lease_id:
            return
        self._lease = None
        if self.state in IN_QUEUE:
            self._fire(Trigger.LOST, event.detail, now)

    def _note_pact(self, event: ev.PactAnswered, now: float) -> None:
        if not self.pact.id:
            self.pact = LeaderHalf(event.pact, event.timeout)
        if self.pact.id == event.pact:
            self.pact.acknowledged(event.sent_at, now)
            self._hold_due = True

    def _note_done(self, event: ev.Done, now: float) -> None:
        match event.action:
            case ac.Hold() if self.state in HOLDING:
                self._retry_at = None
                self._take_failures = 0
                if self._announce_due:
                    self._announce_due = False
                    self._actions.append(ac.Announce())
                if self.state is State.ACTIVATING:
                    self._fire(Trigger.ACTIVATED, "", now)
                    self._remember()
                if self.pact.enforce(event.action.until):
                    self._actions.append(ac.EnforcePact(self.pact.id))
            case ac.Hold(until=self._pass_until) if self.state is State.HANDING_OVER:
                self._actions.append(ac.HandOver(self._campaign, self._successor))
            case ac.CloseFence() if self.state is State.DEACTIVATING:
                self._fire(Trigger.CLOSED, "", now)
            case ac.CloseFence() if self.state is State.STARTING:
                self._actions += [ac.RemoveAddresses(), ac.DropRestartState()]
            case ac.RemoveAddresses():
                self._retry_at = None
                # Where a Hold was asked for since, this removal is not the last word.
                self.present = self.state in HOLDING or self.state is State.DEACTIVATING
                if self.state is State.STARTING:
                    self._fire(Trigger.CLEANED, "", now)
            case _:
                pass  # asked for by a state that is left: its end was noted by the actions after it

    def _note_failed(self, event: ev.Failed, now: float) -> None:
        self._retry_at = now + RETRY_S
        if isinstance(event.action, ac.Hold) and self.state in HOLDING:
            self._take_failures += 1
            if self._take_failures >= TAKE_TRIES:
                self._fire(Trigger.KERNEL_FAILED, event.detail, now)
        elif isinstance(event.action, ac.Hold) and self.state is State.HANDING_OVER:
            self._fire(Trigger.KERNEL_FAILED, event.detail, now)

    def _note_address_lost(self, event: ev.AddressLost, now: float) -> None:
        if self.state is not State.LEADER:
            return
        self._losses.note(now)
        if self._losses.count(now) > LOSSES_MAX:
            self._fire(Trigger.KERNEL_FAILED, f"something keeps removing {event.address}", now)
            return
        self._announce_due = True
        self._hold_due = True

    # What follows from it

    def _decide(self, now: float) -> None:
        if self.state in ANSWERING:
            self._decide_whether_to_go_on(now)
        if self.state is State.ADOPTING and self._proven(now):
            self._fire(Trigger.ADOPTED, "", now)
        if self.pact.doubt(now):
            self._actions.append(ac.EndPact(self.pact.id))
        if self.state is State.DEACTIVATING and now >= self._closed_at():
            # The kernel has closed the fence by itself, whatever became of our order to close it.
            self._fire(Trigger.CLOSED, "by its own deadline", now)
        out_of_time = self._stop_by is not None and now >= self._stop_by
        if self.state in (State.STARTING, State.RESIGNING) and out_of_time:
            self._fire(Trigger.STOP, "before everything was confirmed", now)
        if self.state is State.CANDIDATE:
            blockers = self.blockers(now)
            if blockers:
                self._fire(Trigger.INELIGIBLE, "; ".join(blockers), now)
            elif self._proven(now):
                self._fire(Trigger.WON, "", now)
        if self.state is State.INELIGIBLE:
            campaign_at = self._campaign_at(now)
            if self._stop_by is not None and (out_of_time or not self.present):
                self._fire(Trigger.STOP, "", now)
            elif campaign_at is not None and now >= campaign_at:
                self._fire(Trigger.ELIGIBLE, "", now)
        self._retry(now)
        if self.state is State.ACTIVATING and self.question is not None:
            until = self.question.again(now)
            self._actions += [] if until is None else [ac.AskWire(until)]
        if self.state in (State.CANDIDATE, State.RESIGNING) and now >= self._repeat_at:
            self._ask_election(now)

    def _decide_whether_to_go_on(self, now: float) -> None:
        unfit, retired = self._unfit(now), self._retired()
        if unfit:
            self._fire(Trigger.INELIGIBLE, "; ".join((*unfit, *retired)), now)
        elif retired and self.state is State.LEADER:
            self._fire(Trigger.WITHDRAWN, "; ".join(retired), now)
        elif retired and self.state is not State.HANDING_OVER:
            self._fire(Trigger.INELIGIBLE, "; ".join(retired), now)

    def _ask_election(self, now: float) -> None:
        self._repeat_at = now + REPEAT_S
        leaving = self.state is State.RESIGNING
        contested = self.question is not None and not self.question.silent
        resign = ac.Resign(self._campaign, self._successor, contested)
        self._actions.append(resign if leaving else ac.Campaign(self._campaign))

    def _proven(self, now: float) -> bool:
        """Whether I lead, by a lease that still runs and a proof that is not older than a lease."""
        if self._lease is None or self._won is None or self._won.lease_id != self._lease.id:
            return False
        proof = replace(self._lease, sent_at=min(self._lease.sent_at, self._won.proved_at))
        return now < proof.deadline(self._settings.margin)

    def _retry(self, now: float) -> None:
        if self._retry_at is None or now < self._retry_at:
            return
        self._retry_at = None
        if self.state in HOLDING:
            self._hold_due = True
        elif self.state in (State.STARTING, State.DEACTIVATING):
            self._actions.append(ac.CloseFence())
        elif self.state in ABSENT and self.present:
            self._actions.append(ac.RemoveAddresses())

    def _fire(self, trigger: Trigger, detail: str, now: float) -> None:
        before = self.state
        self.state = next_state(before, trigger)
        self.since, self.trigger, self.detail = now, trigger, detail
        self._reports.append(ac.Report(self.state, trigger, detail, now))
        match self.state:
            case State.CANDIDATE:
                self._campaign += 1
                self._won = self.question = None
                self._successor = ""
                self.ahead = self.claimed = ""
                self._ask_election(now)
            case State.ACTIVATING:
                self._waits = False
                self._announce_due = True
                self._take_failures = 0
                self._losses = SlidingWindowCounter(LOSSES_WINDOW_S)
                self._hold_due = True
            case State.HANDING_OVER:
                self._pass(now)
            case State.DEACTIVATING:
                self._pass_until = float("inf")
                self.pact = LeaderHalf()
                self._retry_at = None
                self._actions.append(ac.CloseFence())
            case State.RESIGNING:
                self._left_at = now
                self.present = True  # until this removal is confirmed
                self._ask_election(now)
                self._actions.append(ac.RemoveAddresses())
                self._actions.append(ac.DropRestartState())
            case _:
                pass  # nothing to do but to be there
        if trigger is Trigger.KERNEL_FAILED or (trigger is Trigger.INELIGIBLE and self.health.unhealthy()):
            self._damping.fell(now)

    def _pass(self, now: float) -> None:
        """First the fence ends soon, whatever happens; then etcd is told."""
        if self._settings.fenced:
            self._pass_until = min(now + PASS_S, self._answers_until())
            self._actions.append(ac.Hold(self._pass_until))
        else:
            self._fire(Trigger.SUCCESSOR_READY, "without nf_tables", now)

    def _hold(self, now: float) -> None:
        self._hold_due = False
        if self.state not in HOLDING or self._lease is None or self._won is None:
            return
        deadline = self.deadline()
        if deadline is None or now >= deadline:
            return
        self.present = True
        self._waits = self._awaits_silence(self._won, now + self._lease.ttl, now)
        if self._waits:
            if self._settings.fenced:
                self._actions.append(ac.Prepare(deadline))
            return
        self._fence_requested_until = max(self._fence_requested_until, deadline)
        self._actions.append(ac.Hold(deadline))
        self._unwritten = [
            ac.SaveRestartState(ac.RestartState(self._lease.id, self._won.create_revision, self._fence_requested_until))
        ]
        if self.state is State.LEADER:
            self._remember()

    def _awaits_silence(self, won: ev.Elected, expired_at: float, now: float) -> bool:
        """Whether a predecessor's kernel may answer yet, by the proof that is there and by what the wire says.

        `expired_at`: when a lease that ended before this instant would have run out.
        """
        early = won.proved_at < won.not_before
        if early and self.question is None:
            self.question = Question(won.not_before, max(won.not_before, now + AGAIN_S), expired_at)
            self._actions.append(ac.AskWire(self.question.until))
        if self.question is not None and won.not_before < self.question.not_before:
            self.question = None  # the predecessor's fence is known to be closed
        return early or (self.question is not None and not self.question.silent)

    def _note_heard(self, question: Question, event: ev.WireHeard, now: float) -> None:
        self._actions += question.heard(event, now, stranger_waits=self._settings.stranger_waits)
        if question.silent and self._won is not None:
            self._hold_due = self._hold_due or self._won.proved_at >= self._won.not_before

    def _remember(self) -> None:
        """The next process may go on; when this one has begun to serve, so that it need not wait for the file."""
        self._actions += self._unwritten
        self._unwritten.clear()

    def _closed_at(self) -> float:
        """When, in CLOSING, the kernel has closed the fence by itself."""
        return max(self._fence_requested_until, self.since) + PATIENCE_S

    def _gates_against(self, now: float) -> tuple[GateStatus, ...]:
        if self.state in ANSWERING:
            return self.health.against_holding(now)
        return self.health.against_campaigning()

    def _campaign_at(self, now: float) -> float | None:
        fit_since = self.health.fit_since()
        if fit_since is None or self.blockers(now):
            return None
        return max(fit_since, self._left_at) + self._damping.wait(now)
