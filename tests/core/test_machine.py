"""One supervisor in a model of its world, an arbitrary life long: a kernel, an etcd, gates, a clock and a person.

The model does what the ports promise and no more: the kernel worker does one action after the other and answers each,
etcd answers only what it was asked, a lease in etcd lives from the sending of its renewal at the least. Whether, when
and in which order all of this happens is Hypothesis's choice.
"""

from collections import deque
from dataclasses import replace
from ipaddress import IPv4Interface

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from govipd.core import actions as ac
from govipd.core import events as ev
from govipd.core.lease import HANDOVER_S
from govipd.core.settings import Settings
from govipd.core.state import ABSENT, HOLDING, State
from govipd.core.state_machine import VipStateMachine
from govipd.runtime.kernel_worker import queued
from tests.core.driver import FAILED, PASSED, RUNNING, UP
from tests.fuzz.strategies import fuzz

VIP = IPv4Interface("192.0.2.100/32")
DEAD = ev.UnitState("failed", "x")
TTL = 3.0
MARGIN = 0.5  # the smallest that any of these settings has
SETTINGS = Settings(margin=MARGIN, flap_window=10.0, flap_wait=0.5, flap_wait_max=2.0)
RELOADED = (
    SETTINGS,
    Settings(margin=1.0, rise=1, fall=3, flap_wait_max=2.0),
    Settings(margin=0.75, unknown_limit=1.0, link_debounce=1.0, probe_gate=False, flap_wait_max=1.0),
)
QUIET_S = 20.0  # within which a friendly world brings everything to its end: repeats, damping and deadlines included
ROUND_S = 0.25
MIDLIFE = 110.0  # a life begins at 100: who is stopped too early has seen nothing

spans = st.sampled_from((0.0, 0.01, 0.1, 0.2, 0.5, 1.0, 2.5, 3.0, 6.0))
delays = st.sampled_from((0.0, 0.01, 0.3, 1.0, 2.4, 2.6, 4.0))  # of an answer: up to longer than the lease lives
outcomes = st.sampled_from(("done", "done", "refused", "done, but nobody knows"))
ANSWERS: tuple[tuple[ev.WireAnswer, ...], ...] = (
    (), (), (ev.WireAnswer(VIP.ip, "02:00:00:00:00:02", "node2"),), (ev.WireAnswer(VIP.ip, "02:00:00:00:00:09", ""),),
)  # fmt: skip
observations = st.sampled_from((
    PASSED, FAILED, RUNNING, DEAD, ev.UnitState("reloading", "x"), ev.UnitState(None, "x"),
    UP, replace(UP, carrier=False), replace(UP, mac="02:00:00:00:00:02"), replace(UP, present=False, mac=""),
    ev.EtcdState(usable=False, detail="x"), ev.ClusterFault(refused="taken"), ev.ClusterFault(warning="x"),
    ev.Stalled(1.0), *map(ev.Reconfigured, RELOADED), ev.Drain(wanted=True), ev.Handover(""), ev.Handover("node2"),
))  # fmt: skip


class Kernel:
    """The fence with its own deadline, the address, and the worker before them (govipd.runtime.group)."""

    def __init__(self) -> None:
        self.fence_until = 0.0
        self.present = True  # an address of an earlier process
        self.pending: deque[ac.KernelAction] = deque()
        self.answer: ev.Done | ev.Failed | None = None  # of the action before; the next begins when it was heard

    def queue(self, action: ac.KernelAction) -> None:
        self.pending = queued(self.pending, action)  # as the real worker

    def work(self, outcome: str, now: float) -> None:
        action = self.pending.popleft()
        if outcome == "refused" or (isinstance(action, ac.Hold) and now >= action.until):
            self.answer = ev.Failed(action, "refused")
            return
        match action:
            case ac.Prepare():
                self.present = True
            case ac.Hold():
                self.fence_until, self.present = action.until, True
            case ac.CloseFence():
                self.fence_until = 0.0
            case ac.RemoveAddresses():
                self.present = False
        self.answer = ev.Done(action) if outcome == "done" else ev.Failed(action, "no answer")


class Etcd:
    """A lease, a key, and what the election was asked for (govipd.adapters.election)."""

    def __init__(self) -> None:
        self.lease = 7
        self.expires = 0.0  # at the earliest
        self.sent_at = 0.0  # of the newest renewal: renewals are confirmed in order
        self.lost = True  # and this member knows it
        self.revision = 4
        self.key = False
        self.free_at: float | None = None  # once first in the queue: when the predecessor's fence is closed
        self.wanted: int | None = None
        self.passing: int | None = None
        self.resigning: int | None = None

    def renew(self, now: float, delay: float) -> ev.LeaseRenewed | ev.LeaseLost:
        """What is learned of the lease by a call that was sent `delay` ago."""
        if not self.lost and now >= self.expires:
            return self.lose()
        if self.lost:
            self.lease, self.lost = self.lease + 1, False
        self.sent_at = max(self.sent_at, now - delay)
        self.expires = self.sent_at + TTL
        return ev.LeaseRenewed(self.lease, self.sent_at, TTL)

    def lose(self) -> ev.LeaseLost:
        self.lost, self.key, self.wanted = True, False, None
        return ev.LeaseLost(self.lease, "not found")

    def read(self, now: float, ahead: str, wait: float) -> ev.Event | None:
        """What the election says of the place in the queue, if anything."""
        if self.passing is not None:
            campaign, self.passing = self.passing, None
            return ev.SuccessorReady(campaign)
        if self.resigning is not None:
            campaign, self.resigning, self.key = self.resigning, None, False
            return ev.Resigned(campaign)
        if self.wanted is None or self.lost or now >= self.expires:
            return None
        if not self.key:
            self.key, self.revision, self.free_at = True, self.revision + 1, None
        if ahead and self.free_at is None:
            return ev.Queued(self.wanted, ahead)
        self.free_at = now + wait if self.free_at is None else self.free_at
        return ev.Elected(self.wanted, self.lease, now, self.revision, self.free_at)


class Life(RuleBasedStateMachine):
    """The supervisor, its world, and the contract between them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.kernel = Kernel()
        self.etcd = Etcd()
        self.state_machine = VipStateMachine(SETTINGS, self.now)
        self.memory: ac.RestartState | None = None
        self.campaign = self.over = 0  # the newest that was asked for, and the newest that was resigned
        self.stopping = False
        self.asked: float | None = None  # the wire
        self.answered = False  # a member, to the newest question

    def tell(self, event: ev.Event) -> None:
        self.do(self.state_machine.step(event, self.now))

    def do(self, actions: list[ac.Action]) -> None:
        for action in actions:
            match action:
                case ac.Prepare() | ac.Hold() | ac.CloseFence() | ac.RemoveAddresses():
                    if isinstance(action, ac.Hold):
                        assert not (self.answered and self.state_machine.state is State.ACTIVATING), "a member answers"
                        assert self.now >= (self.etcd.free_at or 0.0)
                        assert self.etcd.passing is None, "opened again by who has passed the VIP on"
                    self.kernel.queue(action)
                case ac.AskWire():
                    assert self.state_machine.state is State.ACTIVATING
                    self.asked = action.until
                case ac.Campaign() | ac.Adopt():
                    assert action.campaign > self.over
                    if action.campaign > self.campaign:
                        self.answered = False
                    self.campaign = self.etcd.wanted = action.campaign
                case ac.HandOver():
                    assert self.kernel.fence_until <= self.now + HANDOVER_S, "passed on by who may answer for long"
                    self.etcd.wanted, self.etcd.key, self.etcd.passing = None, False, action.campaign
                case ac.Resign():
                    assert self.now >= self.kernel.fence_until, "resigned while the kernel answers"
                    self.etcd.wanted, self.etcd.resigning, self.over = None, action.campaign, action.campaign
                case ac.Announce():
                    assert self.state_machine.state in HOLDING
                case ac.SaveRestartState():
                    self.memory = action.holding
                case ac.DropRestartState():
                    self.memory = None
                case _:
                    pass

    @initialize(left=st.booleans(), key=st.booleans(), settled=st.sampled_from((True, True, False)))
    def begins(self, *, left: bool, key: bool, settled: bool) -> None:
        """With what an earlier process left: nothing, or a VIP that it held, whose key may be gone meanwhile."""
        if left:
            self.etcd.sent_at, self.etcd.expires = self.now, self.now + TTL
            self.etcd.lost, self.etcd.key, self.etcd.free_at = False, key, 0.0
            self.kernel.fence_until = self.now + TTL - MARGIN
            self.memory = ac.RestartState(self.etcd.lease, self.etcd.revision, self.kernel.fence_until)
        self.do(self.state_machine.start(self.memory, self.now))
        if settled:
            self.a_friendly_world_brings_everything_to_its_end(healthy=True)

    @rule(seconds=spans)
    def time_passes(self, seconds: float) -> None:
        """As the shell does it: a Tick at each instant that the supervisor names."""
        end, spins = self.now + seconds, 0
        while (due := self.state_machine.next_deadline(self.now)) is not None and due <= end:
            spins = spins + 1 if due == self.now else 0
            assert spins <= 2, "the timer spins"
            self.now = due
            self.tell(ev.Tick())
        self.now = end

    @rule(seconds=spans)
    def the_process_stalls(self, seconds: float) -> None:
        """No Tick comes at its time, and what comes first afterwards need not be the news of the stall."""
        self.now += seconds

    @rule(event=observations)
    def something_is_observed(self, event: ev.Event) -> None:
        self.tell(event)

    @rule(unit=st.sampled_from((RUNNING, RUNNING, DEAD)))
    def all_gates_speak(self, unit: ev.UnitState) -> None:
        events: tuple[ev.Event, ...] = (UP, unit, *[PASSED] * SETTINGS.rise, ev.ClusterFault(), ev.Drain(wanted=False))
        for event in events:
            self.tell(event)

    @precondition(lambda self: self.kernel.pending and self.kernel.answer is None)
    @rule(outcome=outcomes)
    def the_kernel_works(self, outcome: str) -> None:
        self.kernel.work(outcome, self.now)

    @precondition(lambda self: self.kernel.answer is not None)
    @rule()
    def the_kernel_answers(self) -> None:
        answer, self.kernel.answer = self.kernel.answer, None
        assert answer is not None
        self.tell(answer)

    @rule(added=st.booleans())
    def somebody_changes_the_address(self, *, added: bool) -> None:
        self.kernel.present = added
        self.tell(ev.AddressFound(VIP) if added else ev.AddressLost(VIP))

    @rule(delay=delays)
    def the_lease_is_renewed_or_found_lost(self, delay: float) -> None:
        self.tell(self.etcd.renew(self.now, delay))

    @precondition(lambda self: not self.etcd.lost)
    @rule()
    def the_lease_is_revoked(self) -> None:
        self.tell(self.etcd.lose())

    @rule(ahead=st.sampled_from(("", "", "node2")), wait=st.sampled_from((0.0, 0.1)))
    def the_election_answers(self, ahead: str, wait: float) -> None:
        event = self.etcd.read(self.now, ahead, wait)
        if event is not None:
            self.tell(event)

    @precondition(lambda self: self.asked is not None)
    @rule(answers=st.sampled_from(ANSWERS))
    def the_wire_answers(self, answers: tuple[ev.WireAnswer, ...]) -> None:
        asked, self.asked = self.asked, None
        assert asked is not None
        self.now = max(self.now, asked)
        self.answered = any(answer.member for answer in answers)
        self.tell(ev.WireHeard(asked, answers))

    @precondition(lambda self: self.etcd.key and self.etcd.wanted is not None)
    @rule()
    def somebody_deletes_the_key(self) -> None:
        campaign, self.etcd.wanted, self.etcd.key = self.etcd.wanted, None, False
        assert campaign is not None
        self.tell(ev.Deposed(campaign, "gone"))

    @precondition(lambda self: self.campaign > 0)
    @rule(back=st.integers(1, 3), kind=st.integers(0, 3))
    def an_answer_to_an_old_campaign_comes(self, back: int, kind: int) -> None:
        """It says nothing any more, whatever it says."""
        old, lease = self.campaign - back, self.etcd.lease
        stale = (ev.Queued(old, "x"), ev.Elected(old, lease, self.now), ev.Deposed(old, "x"), ev.Resigned(old))
        self.tell(ev.Tick())  # what is due anyway
        before = self.state_machine.state
        self.tell(stale[kind])
        assert self.state_machine.state is before

    @precondition(lambda self: self.now > MIDLIFE)
    @rule(patience=spans)
    def the_daemon_is_stopped(self, patience: float) -> None:
        self.stopping = True
        self.tell(ev.Stop(self.now + patience))

    # Where it ends when the world is friendly for a while

    @precondition(lambda self: self.state_machine.state is not State.STOPPED)
    @rule(healthy=st.sampled_from((True, False)))
    def a_friendly_world_brings_everything_to_its_end(self, *, healthy: bool) -> None:
        """Everybody does what he was asked for, monitors read again: who is healthy leads, who is not is silent."""
        goal = State.STOPPED if self.stopping else State.LEADER if healthy else State.INELIGIBLE
        for _ in range(round(QUIET_S / ROUND_S)):
            self.all_gates_speak(RUNNING if healthy else DEAD)
            self.tell(self.etcd.renew(self.now, 0.0))
            self.the_election_answers("", 0.0)
            if self.asked is not None:
                self.the_wire_answers(())
            while self.kernel.pending or self.kernel.answer:
                if self.kernel.answer is None:
                    self.kernel.work("done", self.now)
                self.the_kernel_answers()
            if self.kernel.present:
                self.tell(ev.AddressFound(VIP))
            # An end that was in a hurry may leave the address, behind a closed fence.
            silent, there = self.now >= self.kernel.fence_until, self.kernel.present
            reached = {
                State.LEADER: there and not silent,
                State.INELIGIBLE: silent and not there,
                State.STOPPED: silent,
            }
            if self.state_machine.state is goal and reached[goal]:
                return
            self.time_passes(ROUND_S)
        raise AssertionError(f"still {self.state_machine.state}, not {goal}, after {QUIET_S} s")

    # What holds always

    @invariant()
    def the_fence_is_never_open_beyond_the_lease(self) -> None:
        assert self.kernel.fence_until <= max(self.etcd.sent_at + TTL - MARGIN, 0.0)

    @invariant()
    def nothing_is_opened_where_the_vip_must_be_absent(self) -> None:
        if self.state_machine.state in ABSENT | {State.STOPPED}:
            assert self.now >= self.kernel.fence_until
            assert not any(isinstance(action, ac.Hold) for action in self.kernel.pending)
        assert self.memory is None or self.state_machine.state not in ABSENT

    @invariant()
    def what_is_remembered_covers_what_the_kernel_does(self) -> None:
        """While the VIP is adoptable and the fence is open, the restart state covers the fence's deadline."""
        if self.state_machine.adoptable and self.now < self.kernel.fence_until:
            assert self.memory is not None
            assert self.memory.until >= self.kernel.fence_until


TestLife = Life.TestCase
TestLife.settings = settings(fuzz(400), stateful_step_count=60)
