"""The transitions of one VIP group: what changes with the state, and which actions a new state asks for."""

from govipd.core import actions as ac
from govipd.core import events as ev
from govipd.core.facts import Facts
from govipd.core.fence_deadline import FenceDeadline
from govipd.core.health import Damping, SlidingWindowCounter
from govipd.core.settings import Settings
from govipd.core.state import HOLDING, State, Trigger, next_state
from govipd.core.wire_question import AGAIN_S, Question

REPEAT_S = 5.0  # seconds after which a request to the election is repeated: it or its answer may be lost
LOSSES_WINDOW_S = 10.0  # the seconds over which lost addresses are counted


class Transitions:
    """One VIP group's state and everything that decides its next step.

    Attributes:
        state: what this node is doing about the VIP; `since`, `trigger` and `detail` say since when and why.
        facts: what is known about the surroundings.
        fence: until when the kernel may answer.
        present: an address of the group may be on the interface.
        question: the wire question of this campaign; None without one.
    """

    def __init__(self, settings: Settings, now: float) -> None:
        self.state = State.STARTING
        self.since = now
        self.trigger = Trigger.CLEANED
        self.detail = ""
        self.facts = Facts(settings, now)
        self.fence = FenceDeadline(settings.margin, now)
        self.present = True
        self.question: Question | None = None
        self._settings = settings
        self._damping = Damping(settings)
        self._campaign = 0  # number of the newest campaign; replies to older ones are stale
        self._won: ev.Elected | None = None  # the newest proof that this campaign is won
        self._waits = False  # in ACTIVATING: the predecessor's fence may still be open
        self._successor = ""  # the member that the operator gives the VIP to; "" is the next in the queue
        self._unwritten: list[ac.SaveRestartState] = []  # restart state for the newest Hold, not yet written
        self._hold_due = False  # a new Hold may be needed: step() decides that once, at its end
        self._announce_due = False
        self._retry_at: float | None = None  # when to repeat a kernel action that failed
        self._repeat_at = now
        self._take_failures = 0
        self._losses = SlidingWindowCounter(LOSSES_WINDOW_S)
        self._left_at = now
        self._actions: list[ac.Action] = []  # of the step under way
        self._reports: list[ac.Report] = []  # of the step under way; a report comes after the actions

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
                self.facts.ahead = self.facts.claimed = ""
                self._ask_election(now)
            case State.ACTIVATING:
                self._waits = False
                self._announce_due = True
                self._take_failures = 0
                self._losses = SlidingWindowCounter(LOSSES_WINDOW_S)
                self._hold_due = True
            case State.LEADER:
                self._actions.append(ac.SeekPact())
            case State.HANDING_OVER:
                self._hand_over(now)
            case State.DEACTIVATING:
                self.fence.end()
                self._retry_at = None
                self._actions.append(ac.CloseFence())
            case State.RESIGNING:
                self._left_at = now
                self.present = True  # until this removal is confirmed
                self._ask_election(now)
                self._actions.append(ac.RemoveAddresses())
                self._actions.append(ac.DropRestartState())
            case _:
                pass  # the other states start no action
        if trigger is Trigger.KERNEL_FAILED or (trigger is Trigger.INELIGIBLE and self.facts.health.unhealthy()):
            self._damping.fell(now)

    def _hand_over(self, now: float) -> None:
        """Shorten the fence. Only when the kernel has confirmed, HandOver lets the successor become first."""
        if self._settings.fenced:
            self._actions.append(ac.Hold(self.fence.begin_handover(now)))
        else:
            self._fire(Trigger.SUCCESSOR_READY, "without nf_tables", now)

    def _ask_election(self, now: float) -> None:
        self._repeat_at = now + REPEAT_S
        leaving = self.state is State.RESIGNING
        contested = self.question is not None and not self.question.silent
        resign = ac.Resign(self._campaign, self._successor, contested)
        self._actions.append(resign if leaving else ac.Campaign(self._campaign))

    # Holding

    def _hold(self, now: float) -> None:
        self._hold_due = False
        if self.state not in HOLDING or self.fence.lease is None or self._won is None:
            return
        deadline = self.fence.by_lease_and_pact()
        if deadline is None or now >= deadline:
            return
        self.present = True
        self._waits = self._awaits_silence(self._won, now + self.fence.lease.ttl, now)
        if self._waits:
            if self._settings.fenced:
                self._actions.append(ac.Prepare(deadline))
            return
        self.fence.request(deadline)
        self._actions.append(ac.Hold(deadline))
        self._unwritten = [
            ac.SaveRestartState(ac.RestartState(self.fence.lease.id, self._won.create_revision, self.fence.requested))
        ]
        if self.state is State.LEADER:
            self._save_restart_state()

    def _awaits_silence(self, won: ev.Elected, expired_at: float, now: float) -> bool:
        """Whether a predecessor's kernel may still answer, by the proof `won` and by the wire question.

        `expired_at`: the instant by which any lease that was lost before now would have run out by itself.
        """
        early = won.proved_at < won.not_before
        if early and self.question is None:
            self.question = Question(won.not_before, max(won.not_before, now + AGAIN_S), expired_at)
            self._actions.append(ac.AskWire(self.question.until))
        if self.question is not None and won.not_before < self.question.not_before:
            self.question = None  # the predecessor's fence is known to be closed
        return early or (self.question is not None and not self.question.silent)

    def _save_restart_state(self) -> None:
        """Write the restart state after the activation, so that the activation does not wait for the file."""
        self._actions += self._unwritten
        self._unwritten.clear()

    def _answers_until(self) -> float:
        return self.fence.answers_until(adopting=self.state is State.ADOPTING)
