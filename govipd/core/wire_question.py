"""The wire question: does another kernel still answer for the VIP that this node is about to activate?

A predecessor without a marker may not know yet that it has lost its place: its lease was revoked, its key was deleted,
etcd lost its data, or the predecessor uses another etcd. A predecessor that learns of the loss closes its fence at
once. But a process that does not run learns nothing, and its kernel answers until the fence ends by itself.

A member that has answered may fall silent without having learned of the loss: its link goes down, or its fence ends
and a process that gets little CPU time opens the fence again later. Such a member's last proof lapses a lease's life
after its key was gone (`expired_at`). So once a member has answered, silence counts only from `expired_at` on.

Silence does not guarantee that no kernel answers: a question or an answer may get lost, and the other machine may be on
another link. G1 rests on etcd. The wire question is for the case that etcd breaks its promise.
"""

from dataclasses import dataclass

from govipd.core.actions import Alarm, Conflict
from govipd.core.events import WireAnswer, WireHeard

AGAIN_S = 0.05  # seconds from one question to the next while a machine answers; the shortest pause
AGAIN_MAX_S = 0.5  # the longest pause: a pause is a tenth of the time that was waited so far
UNHEARD_S = 0.5  # an answer that is later than this does not come any more: then ask again


@dataclass(slots=True)
class Question:
    """The wire question of one campaign in which this node follows a predecessor without a marker.

    Attributes:
        not_before: Elected.not_before: the fence stays closed until then in any case.
        until: when the newest question ends.
        expired_at: the instant by which every fence has ended that was opened under a lost lease.
        silent: the activation need not wait for any machine.
    """

    not_before: float
    until: float
    expired_at: float
    silent: bool = False
    member_answered: bool = False
    stranger_waits: bool = False
    answers: tuple[WireAnswer, ...] = ()  # the newest that were heard; empty once silence counts
    pending: bool = True

    def awaits(self, event: WireHeard) -> bool:
        """Whether `event` is the result of the newest question."""
        return self.pending and event.until == self.until

    def heard(self, event: WireHeard, now: float, *, stranger_waits: bool) -> list[Alarm]:
        """Note who answered. Returns an alarm for each machine that did not answer before."""
        self.pending, self.stranger_waits = False, stranger_waits
        self.member_answered |= any(answer.member for answer in event.answers)
        counts = not self.member_answered or now >= self.expired_at
        self.silent = counts and not any(answer.member or stranger_waits for answer in event.answers)
        before = self.answers
        if event.answers or self.silent:
            self.answers = event.answers
        return [self._alarm(answer) for answer in event.answers if answer not in before]

    def again(self, now: float) -> float | None:
        """The `until` of a new question that is due now; None where none is due."""
        if self.silent or (self.pending and now < self.until + UNHEARD_S):
            return None
        self.until = now + min(max(AGAIN_S, (now - self.not_before) / 10), AGAIN_MAX_S)
        if now < self.expired_at < self.until:
            self.until = max(self.expired_at, now + AGAIN_S)
        self.pending = True
        return self.until

    def next_deadline(self) -> float | None:
        """When to call again() if no report comes; None where no question is needed any more."""
        return None if self.silent else self.until + UNHEARD_S

    @property
    def trouble(self) -> str:
        """Which machines answer, and what this node does next, as a text; "" when no machine answers."""
        return "; ".join(self._alarm(answer).text for answer in self.answers)

    def _alarm(self, answer: WireAnswer) -> Alarm:
        if answer.member:
            text = (
                f"{answer.member}'s kernel still answers for {answer.address} ({answer.mac}), though etcd says that it "
                "has left; next: take it when it is silent and its lease would have ended"
            )
            return Alarm(text, Conflict.MEMBER_ANSWERS)
        follows = "take it when it is silent (election.stranger)" if self.stranger_waits else "take it all the same"
        text = f"a machine that is no member answers for {answer.address} ({answer.mac}); next: {follows}"
        return Alarm(text, Conflict.STRANGER_ANSWERS)
