"""Every state x every event x every moment: what always holds, computed without the implementation's help.

The combinations are generated from the types themselves: a state, an event or a kernel action that is new and has no
sample here fails the suite.
"""

from enum import Enum
from ipaddress import IPv4Interface
from typing import get_args

import pytest

from govipd.core import events as ev
from govipd.core.actions import (
    Action,
    Adopt,
    Campaign,
    CloseFence,
    Hold,
    KernelAction,
    Prepare,
    RemoveAddresses,
    Report,
    Resign,
    RestartState,
)
from govipd.core.fence_deadline import PATIENCE_S
from govipd.core.lease import HANDOVER_S
from govipd.core.settings import Settings
from govipd.core.state import ANSWERING, HOLDING, State, next_state
from tests.core.driver import FAILED, LEASE, PASSED, UP, Driver, left_at

VIP = IPv4Interface("192.0.2.100/32")
OTHER_LEASE = LEASE + 1
KINDS = get_args(ev.Event)
TICKS = 200
COUNTED = (ev.ProbeResult, ev.AddressLost, ev.Failed)  # their number in a row matters, so twice is not once
NEVER = float("-inf")


class Moment(Enum):
    """When the event comes, seen from the state's next deadline."""

    AT_ONCE = "at once"
    JUST_BEFORE = "just before the deadline"
    AT = "at the deadline"
    LONG_AFTER = "long after the deadline"


class Witness(Driver):
    """A driver that checks every step against the contract, from the events and actions alone."""

    def __init__(self, left: RestartState | None = None) -> None:
        super().__init__(left=left)
        self.left = left
        self.margin = self.settings.margin
        self.renewed: ev.LeaseRenewed | None = None  # the newest confirmation of a lease
        # Until when the kernel may answer as far as we know: the latest Hold, until the fence is known to be closed.
        self.open_until = left.until if left is not None else NEVER
        self.asked_until = NEVER  # by the newest Hold
        self.pass_until = float("inf")

    @property
    def newest_campaign(self) -> int:
        return max((a.campaign for a in self.everything if isinstance(a, Campaign | Adopt)), default=0)

    def deadline(self) -> float:
        """When this member, in a state in which it may answer, must begin to drop the VIP."""
        if self.state is State.ADOPTING:
            assert self.left is not None
            return self.left.until
        assert self.renewed is not None
        lease = self.renewed.sent_at + self.renewed.ttl - self.margin
        return min(lease, self.pass_until) if self.state is State.HANDING_OVER else lease

    def step(self, event: ev.Event, after: float = 0.0) -> list[Action]:
        before, deadline = self.state, self.deadline() if self.state in ANSWERING else None
        self.now += after
        match event:
            case ev.LeaseRenewed():
                self.renewed = event
            case ev.Reconfigured():
                self.margin = event.settings.margin
            case ev.Done(action=CloseFence()) if (
                before not in HOLDING | {State.HANDING_OVER} or self.now >= self.open_until
            ):
                self.open_until = NEVER  # otherwise it answers an order from before the fence was opened
            case ev.Done(action=Hold(until=until)) if before is State.HANDING_OVER and until == self.asked_until:
                self.open_until = until  # the kernel keeps the newest, and it is confirmed
            case _:
                pass
        actions = self.state_machine.step(event, self.now)  # IllegalTransitionError would end the test
        self._take(actions)
        if before is not State.HANDING_OVER:
            self.pass_until = self.now + HANDOVER_S
        self._check_transitions(before, actions)
        self._check_kernel(actions)
        if deadline is not None and self.now >= deadline:
            assert self.state not in ANSWERING, "held on when expired"
        due = self.state_machine.next_deadline(self.now)
        assert due is None or due >= self.now
        if self.state in ANSWERING:
            assert due is not None
            assert due <= max(self.now, self.deadline()), "nobody would wake up in time"
        return self.told

    def _check_transitions(self, before: State, actions: list[Action]) -> None:
        """Every reported transition is in the table, none is missing, and reports come after actions."""
        reports = [a for a in actions if isinstance(a, Report)]
        assert actions[len(actions) - len(reports) :] == reports
        state = before
        for report in reports:
            state = next_state(state, report.trigger)
            assert state is report.state
        assert state is self.state

    def _check_kernel(self, actions: list[Action]) -> None:
        """Nothing is opened beyond the lease, and the key is kept for as long as the kernel may answer."""
        for action in actions:
            match action:
                case Hold(until=until):
                    assert self.state in HOLDING | {State.HANDING_OVER}
                    assert self.state is not State.HANDING_OVER or until <= self.pass_until
                    assert self.renewed is not None
                    assert self.now < until <= self.renewed.sent_at + self.renewed.ttl - self.margin
                    self.open_until = max(self.open_until, until)
                    self.asked_until = until
                case Resign():
                    assert self.now >= self.open_until + PATIENCE_S, "resigned while the kernel may answer"
                case Prepare():
                    assert self.state is State.ACTIVATING
                case RemoveAddresses():
                    assert self.state not in HOLDING
                case _:
                    pass

    def settle(self) -> None:
        """Let time pass for as long as it alone has something to decide; a timer that does not advance is a spin."""
        spins = 0
        for _ in range(TICKS):
            due = self.state_machine.next_deadline(self.now)
            if due is None:
                return
            spins = spins + 1 if due == self.now else 0
            assert spins <= 3, f"the timer spins in {self.state}"
            self.step(ev.Tick(), due - self.now)


def reach(state: State) -> Witness:
    """A witnessed supervisor that went the straight way to the state."""
    d = Witness(left_at(100.0) if state is State.ADOPTING else None)
    if state is not State.ADOPTING:
        d.to(state)
    assert d.state is state
    return d


ANSWERS: tuple[tuple[ev.WireAnswer, ...], ...] = (
    (), (ev.WireAnswer(VIP.ip, "02:00:00:00:00:02", "x"),), (ev.WireAnswer(VIP.ip, "02:00:00:00:00:09", ""),),
)  # fmt: skip


def link(*, present: bool = True, carrier: bool = True, mac: str = UP.mac) -> ev.LinkState:
    return ev.LinkState(present=present, admin_up=present, carrier=carrier, mac=mac)


def kernel_actions(now: float) -> list[KernelAction]:
    return [Prepare(now + 1.0), Hold(now + 1.0), Hold(now - 1.0), CloseFence(), RemoveAddresses()]


def samples(campaign: int, now: float) -> list[ev.Event]:
    """Samples of every kind of event; `campaign` is the newest campaign."""
    campaigns = (campaign - 1, campaign, campaign + 1)
    return [
        PASSED, FAILED,
        *(ev.UnitState(active, "x") for active in ("active", "reloading", "failed", "", None)),
        UP, link(carrier=False), link(present=False, mac=""), link(mac="02:00:00:00:00:02"),
        ev.LeaseRenewed(LEASE, now, 3.0), ev.LeaseRenewed(LEASE, now - 2.5, 3.0), ev.LeaseRenewed(LEASE, now, 60.0),
        ev.LeaseRenewed(OTHER_LEASE, now, 3.0),
        ev.LeaseLost(LEASE, "x"), ev.LeaseLost(OTHER_LEASE, "x"),
        *(ev.Queued(c, "x") for c in campaigns),
        *(ev.Elected(c, lease, now) for c in campaigns for lease in (LEASE, OTHER_LEASE)),
        ev.Elected(campaign, LEASE, now - 60.0), ev.Elected(campaign, LEASE, now, 5, not_before=now + 0.1),
        *(ev.Deposed(c, "x") for c in campaigns),
        *(ev.Resigned(c) for c in campaigns),
        *(ev.SuccessorReady(c) for c in campaigns),
        ev.PactAnswered("p", 0.5, now), ev.PactAnswered("p", 0.5, now - 0.4), ev.PactAnswered("q", 0.1, now),
        ev.PactEnded("p"), ev.PactEnded("x"),
        ev.EtcdState(usable=True, detail=""), ev.EtcdState(usable=False, detail="x"),
        ev.EtcdFailed("http://192.0.2.11:2379", "timeout"), ev.Announced(frames=2),
        ev.ClusterFault(refused="x"), ev.ClusterFault(warning="x"), ev.ClusterFault(),
        *(ev.Done(action) for action in kernel_actions(now)),
        *(ev.Failed(action, "x") for action in kernel_actions(now)),
        ev.AddressLost(VIP), ev.AddressFound(VIP),
        ev.AddressesElsewhere((ev.Elsewhere(VIP, "lo"),)), ev.AddressesElsewhere(()),
        *(ev.WireHeard(until, answers) for until in (now, now + 0.1) for answers in ANSWERS),
        ev.Stalled(0.5), ev.Stalled(60.0),
        ev.Reconfigured(Settings()), ev.Reconfigured(Settings(margin=1.0)), ev.Reconfigured(Settings(margin=0.1)),
        ev.Reconfigured(Settings(unit_gate=False, probe_gate=False)),
        ev.Drain(wanted=True), ev.Drain(wanted=False), ev.Handover(""), ev.Handover("x"),
        ev.Stop(by=now), ev.Stop(by=now + 1.0),
        ev.Tick(),
    ]  # fmt: skip


def wait_for(d: Witness, moment: Moment) -> float:
    """How long to wait in this state until `moment`."""
    due = d.state_machine.next_deadline(d.now)
    left = 2.5 if due is None else due - d.now
    return {Moment.AT_ONCE: 0.0, Moment.JUST_BEFORE: left - 1e-6, Moment.AT: left, Moment.LONG_AFTER: left + 60.0}[
        moment
    ]


def cases(state: State, kind: type[ev.Event], moment: Moment) -> list[tuple[Witness, ev.Event, float]]:
    """For each sample of the kind: a supervisor of its own in that state, the event, and how long to wait for it."""
    d = reach(state)
    after = wait_for(d, moment)
    events = [e for e in samples(d.newest_campaign, d.now + after) if isinstance(e, kind)]
    return [(reach(state), event, after) for event in events]


def test_every_event_and_every_kernel_action_has_a_sample() -> None:
    """What is added to the protocol must be added here."""
    assert {type(event) for event in samples(1, 100.0)} == set(KINDS)
    kernel = set(get_args(KernelAction))
    assert {type(action) for action in kernel_actions(100.0)} == kernel
    assert {type(e.action) for e in samples(1, 100.0) if isinstance(e, ev.Done)} == kernel
    assert {type(e.action) for e in samples(1, 100.0) if isinstance(e, ev.Failed)} == kernel


@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", State)
def test_the_contract_holds(state: State, kind: type[ev.Event], moment: Moment) -> None:
    """In the step itself, and in all that time alone does afterwards."""
    for d, event, after in cases(state, kind, moment):
        d.step(event, after)
        d.settle()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in COUNTED])
@pytest.mark.parametrize("state", State)
def test_a_repeated_event_is_reported_once(state: State, kind: type[ev.Event]) -> None:
    """No sender has to know whether it was heard: it may repeat itself."""
    for moment in Moment:
        for d, event, after in cases(state, kind, moment):
            d.step(ev.Tick(), after)  # what time does is done before, so that the event alone is compared
            states = []
            for _ in range(2):
                d.step(event)
                d.step(ev.Tick())  # a confirmation that came too late to hold by ends the holding here
                states.append(d.state)
            assert states[0] is states[1], event


@pytest.mark.parametrize("state", State)
def test_what_is_not_about_this_campaign_and_lease_changes_nothing(state: State) -> None:
    """Answers to an older or a never asked campaign, the end of another lease, a win by another lease."""
    newest = reach(state).newest_campaign
    for event in samples(newest, 100.0):
        match event:
            case ev.Queued(c) | ev.Elected(c) | ev.Deposed(c) | ev.Resigned(c) | ev.SuccessorReady(c) if c != newest:
                pass
            case ev.Elected(lease_id=lease) | ev.LeaseLost(lease_id=lease) if lease == OTHER_LEASE:
                pass
            case _:
                continue
        d = reach(state)
        assert d.step(event) == []
        assert d.state is state


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", [state for state in State if state in ANSWERING])
def test_no_event_keeps_a_holder_beyond_its_deadline(state: State, kind: type[ev.Event]) -> None:
    """Not even the very event that would have kept it, had it come in time."""
    for moment in (Moment.AT, Moment.LONG_AFTER):
        for d, event, after in cases(state, kind, moment):
            d.step(event, after)
            assert d.state not in ANSWERING
            assert CloseFence() in d.told


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_wakes_the_stopped(kind: type[ev.Event]) -> None:
    """The end is the end."""
    for moment in Moment:
        for d, event, after in cases(State.STOPPED, kind, moment):
            assert d.step(event, after) == []
            assert d.state is State.STOPPED
