"""The decision for one VIP group on one node: step(event, now) -> actions.

The state machine is level-triggered: an event only updates the facts, then the facts decide. A step checks the
deadline before the event. So after a stall, no event that waited can make an expired holder keep the VIP.

The state machine does not guarantee that the kernel is silent at the deadline. The fence guarantees it, for the
instant that Hold carries.
"""

from govipd.core import actions as ac
from govipd.core import events as ev
from govipd.core.health import GateStatus
from govipd.core.lease import Lease
from govipd.core.pact import LeaderHalf
from govipd.core.settings import Settings
from govipd.core.state import ABSENT, ANSWERING, HOLDING, IN_QUEUE, State, Trigger
from govipd.core.transitions import Transitions
from govipd.core.wire_question import Question

RETRY_S = 0.2  # between tries of a kernel action that failed
TAKE_TRIES = 5
LOSSES_MAX = 5  # addresses that another program may remove within LOSSES_WINDOW_S before this node releases the VIP


class VipStateMachine(Transitions):
    """The state machine of one VIP group: step() takes one event and returns actions."""

    # What the shell calls

    def start(self, left: ac.RestartState | None, now: float) -> list[ac.Action]:
        """The first actions.

        `left`: the restart state of an earlier process, or None. Before its deadline the state machine tries to adopt;
        otherwise it closes the fence and removes the addresses.
        """
        if left is None or now >= left.until:
            return [ac.CloseFence()]
        self.state = State.ADOPTING
        self.trigger = Trigger.ADOPTED
        self._campaign = 1
        self.fence.lease = Lease(left.lease_id, sent_at=now, ttl=0.0)  # known, not yet confirmed to this process
        self.fence.requested = left.until
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
        """When to call step(Tick()) if no event comes before; None: no need."""
        instants = [self.facts.health.next_deadline(now), self._retry_at]
        if self.state in ANSWERING:
            instants.append(self._answers_until())
            instants.append(self.fence.pact.next_deadline())
        if self.state is State.DEACTIVATING:
            instants.append(self.fence.closed_by_itself(self.since))
        if self.state is State.INELIGIBLE:
            instants.append(self._campaign_at(now))
        if self.state in (State.CANDIDATE, State.RESIGNING):
            instants.append(self._repeat_at)
        if self.state is State.ACTIVATING and self.question is not None:
            instants.append(self.question.next_deadline())
        if self.state in (State.STARTING, State.RESIGNING, State.INELIGIBLE):
            instants.append(self.facts.stop_by)
        return min((max(t, now) for t in instants if t is not None), default=None)

    @property
    def adoptable(self) -> bool:
        """Whether the next process can adopt the lease and the key."""
        taking_again = self.state is State.ACTIVATING and self.trigger is Trigger.ADOPTED
        return taking_again or self.state in (State.ADOPTING, State.LEADER)

    def blockers(self, now: float) -> tuple[str, ...]:
        """What keeps this node out of the queue, as texts; empty when nothing does."""
        return (*self._faults(now), *self.facts.foreign_addresses(), *self.facts.withdrawals())

    def wait(self, now: float) -> float:
        """Seconds until damping lets this healthy node campaign; 0 where there is no wait."""
        at = self._campaign_at(now)
        return 0.0 if at is None else max(0.0, at - now)

    # Updating what is known

    def _expire(self, now: float) -> None:
        if self.state in ANSWERING and now >= self._answers_until():
            if now >= self.fence.handover:
                self._fire(Trigger.SUCCESSOR_READY, "the successor was not ready in time", now)
                return
            late = "the pact was not answered, and its end not confirmed in time" if self.fence.pact.id else ""
            self._fire(Trigger.EXPIRED, late or f"lease not confirmed in time: {self.facts.etcd.detail}", now)

    def _note(self, event: ev.Event, now: float) -> None:
        self.facts.note(event, now)
        match event:
            case ev.LinkState():
                self._note_link(event)
            case ev.LeaseRenewed():
                self.fence.lease = Lease.of(event)
                self._hold_due = True
            case ev.LeaseLost():
                self._note_lost(event, now)
            case ev.Queued(campaign=self._campaign):
                self.facts.ahead, self.facts.claimed = event.ahead, event.claimed
            case ev.Elected(campaign=self._campaign):
                self._won, self.facts.claimed = event, event.pending
                self._hold_due = self._hold_due or self._waits
            case ev.Deposed(campaign=self._campaign) if self.state in IN_QUEUE:
                self._fire(Trigger.LOST, event.detail, now)
            case ev.Resigned(campaign=self._campaign) if self.state is State.RESIGNING:
                self._fire(Trigger.RESIGNED, "", now)
            case ev.SuccessorReady(campaign=self._campaign) if self.state is State.HANDING_OVER:
                self._fire(Trigger.SUCCESSOR_READY, "", now)
            case ev.PactAnswered() if self.state is State.LEADER:
                self._note_pact(event, now)
            case ev.PactEnded() if event.pact == self.fence.pact.id:
                self.fence.pact = LeaderHalf()
                self._hold_due = True
            case ev.Done():
                self._note_done(event, now)
            case ev.Failed():
                self._note_failed(event, now)
            case ev.AddressLost():
                self._note_address_lost(event, now)
            case ev.AddressFound() if self.state in ABSENT and not self.present:
                self.present = True  # until the removal below is confirmed
                holder = (
                    f"{self.facts.ahead} is ahead of us in the election" if self.facts.ahead else "we do not hold it"
                )
                text = f"another program added {event.address} here, while {holder}; it is removed"
                self._actions.append(ac.Alarm(text))
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
            case ev.Handover() if self.state is State.LEADER:
                self._successor = event.to
                self._fire(Trigger.HANDOVER, f"to {event.to}" if event.to else "to the next in the queue", now)
            case _:
                pass  # a fact, an answer to a campaign that is over, or a tick
        self.facts.health.tick(now)

    def _reconfigure(self, settings: Settings) -> None:
        self._settings = settings
        self.fence.margin = settings.margin
        self.facts.health.reconfigure(settings)
        self._damping.reconfigure(settings)
        self._announce_due = True
        self._hold_due = True

    def _note_link(self, event: ev.LinkState) -> None:
        if event.mac not in ("", self.facts.mac):  # a bond failed over: the neighbours know the old MAC
            self.facts.mac = event.mac
            self._announce_due = True
            self._hold_due = True

    def _note_elsewhere(self, event: ev.AddressesElsewhere) -> None:
        for where in event.found:
            if where not in self.facts.elsewhere and self.state is not State.STOPPED:
                text = f"{where}: this machine is ineligible while it is there, unless it leads"
                follows = f"type: ip address delete {where.address} dev {where.interface}"
                self._actions.append(ac.Alarm(f"{text}; {follows}", ac.Conflict.ADDRESS_ELSEWHERE))
        self.facts.elsewhere = event.found
        if event.found and self.state is State.INELIGIBLE:
            self._actions.append(ac.CloseFence())  # nothing else restores a fence that was deleted

    def _note_lost(self, event: ev.LeaseLost, now: float) -> None:
        if self.fence.lease is None or self.fence.lease.id != event.lease_id:
            return
        self.fence.lease = None
        if self.state in IN_QUEUE:
            self._fire(Trigger.LOST, event.detail, now)

    def _note_pact(self, event: ev.PactAnswered, now: float) -> None:
        if not self.fence.pact.id:
            self.fence.pact = LeaderHalf(event.pact, event.timeout)
        if self.fence.pact.id == event.pact:
            self.fence.pact.acknowledged(event.sent_at, now)
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
                    self._save_restart_state()
                if self.fence.pact.enforce(event.action.until):
                    self._actions.append(ac.EnforcePact(self.fence.pact.id))
            case ac.Prepare() if self.state is State.ACTIVATING:
                self._actions.append(ac.Prepared(self._campaign))
            case ac.Hold(until=self.fence.handover) if self.state is State.HANDING_OVER:
                self._actions.append(ac.HandOver(self._campaign, self._successor))
            case ac.CloseFence() if self.state is State.DEACTIVATING:
                self._fire(Trigger.CLOSED, "", now)
            case ac.CloseFence() if self.state is State.STARTING:
                self._actions += [ac.RemoveAddresses(), ac.DropRestartState()]
            case ac.RemoveAddresses():
                self._retry_at = None
                # A Hold that came after this removal adds the addresses again.
                self.present = self.state in HOLDING or self.state is State.DEACTIVATING
                if self.state is State.STARTING:
                    self._fire(Trigger.CLEANED, "", now)
            case _:
                pass  # acknowledges an action of a state that we have left; later actions superseded it

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

    # Deciding by what is known

    def _decide(self, now: float) -> None:
        if self.state in ANSWERING:
            self._decide_whether_to_go_on(now)
        if self.state is State.ADOPTING and self.fence.proven(self._won, now):
            self._fire(Trigger.ADOPTED, "", now)
        if self.fence.pact.doubt(now):
            self._actions.append(ac.EndPact(self.fence.pact.id))
        if self.state is State.DEACTIVATING and now >= self.fence.closed_by_itself(self.since):
            # The kernel has closed the fence by itself, even if our order to close it failed.
            self._fire(Trigger.CLOSED, "by its own deadline", now)
        out_of_time = self.facts.stop_by is not None and now >= self.facts.stop_by
        if self.state in (State.STARTING, State.RESIGNING) and out_of_time:
            self._fire(Trigger.STOP, "before everything was confirmed", now)
        if self.state is State.CANDIDATE:
            blockers = self.blockers(now)
            if blockers:
                self._fire(Trigger.INELIGIBLE, "; ".join(blockers), now)
            elif self.fence.proven(self._won, now):
                self._fire(Trigger.WON, "", now)
        if self.state is State.INELIGIBLE:
            campaign_at = self._campaign_at(now)
            if self.facts.stop_by is not None and (out_of_time or not self.present):
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
        faults, withdrawals = self._faults(now), self.facts.withdrawals()
        if faults:
            self._fire(Trigger.INELIGIBLE, "; ".join((*faults, *withdrawals)), now)
        elif withdrawals and self.state is State.LEADER:
            self._fire(Trigger.WITHDRAWN, "; ".join(withdrawals), now)
        elif withdrawals and self.state is not State.HANDING_OVER:
            self._fire(Trigger.INELIGIBLE, "; ".join(withdrawals), now)

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

    def _note_heard(self, question: Question, event: ev.WireHeard, now: float) -> None:
        self._actions += question.heard(event, now, stranger_waits=self._settings.stranger_waits)
        if question.silent and self._won is not None:
            self._hold_due = self._hold_due or self._won.proved_at >= self._won.not_before

    def _faults(self, now: float) -> tuple[str, ...]:
        return self.facts.faults(self._gates_against(now))

    def _gates_against(self, now: float) -> tuple[GateStatus, ...]:
        if self.state in ANSWERING:
            return self.facts.health.against_holding(now)
        return self.facts.health.against_campaigning()

    def _campaign_at(self, now: float) -> float | None:
        fit_since = self.facts.health.fit_since()
        if fit_since is None or self.blockers(now):
            return None
        return max(fit_since, self._left_at) + self._damping.wait(now)
