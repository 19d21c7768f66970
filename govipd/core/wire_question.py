"""The question on the wire: does another kernel still answer for what this node is about to answer for?

Asked while a predecessor that left without a marker may not know yet that it has left: its lease was revoked, its key
deleted, etcd's data lost, or it is a member of another etcd. It closes its fence as soon as it learns of it, but a
process that does not run learns nothing, and its kernel answers until the fence ends by itself.

A member that has answered may fall silent without having learned of it: its link goes down, or its fence ends and a
process that gets little time opens it again. What it may have proven to itself ends a lease's life after its key was
gone. So once a member has answered, silence counts from then on.

What it does not guarantee: that no kernel answers. A question or its answer may get lost, and the machine may be on
another link. G1 stands on etcd; this is for the case that etcd breaks its promise.
"""

from dataclasses import dataclass

from govipd.core.actions import Alarm, Conflict
from govipd.core.events import Claim, WireHeard

AGAIN_S = 0.05  # from one question to the next while a machine answers, at first
AGAIN_MAX_S = 0.5  # it grows with a tenth of the time that was waited
UNHEARD_S = 0.5  # an answer that is later than this does not come any more: ask again


@dataclass(slots=True)
class Question:
    """Asked once for each time that this node is first after a predecessor without a marker.

    Attributes:
        not_before: the instant that the election named; before it nothing is opened anyway.
        until: when the newest question ends.
        expired_at: when every fence has ended that a member opened under the lease that is gone.
        silent: no machine has to be waited for.
    """

    not_before: float
    until: float
    expired_at: float
    silent: bool = False
    member_answered: bool = False
    stranger_waits: bool = False
    claims: tuple[Claim, ...] = ()  # the newest, and what is waited for
    pending: bool = True

    def awaits(self, event: WireHeard) -> bool:
        """Whether this answers the newest question."""
        return self.pending and event.until == self.until

    def heard(self, event: WireHeard, now: float, *, stranger_waits: bool) -> list[Alarm]:
        """Take an answer in. Returns the alarms: each machine once."""
        self.pending, self.stranger_waits = False, stranger_waits
        self.member_answered |= any(claim.member for claim in event.claims)
        counts = not self.member_answered or now >= self.expired_at
        self.silent = counts and not any(claim.member or stranger_waits for claim in event.claims)
        before = self.claims
        if event.claims or self.silent:
            self.claims = event.claims
        return [self._alarm(claim) for claim in event.claims if claim not in before]

    def again(self, now: float) -> float | None:
        """Until when to ask again, if it is time to."""
        if self.silent or (self.pending and now < self.until + UNHEARD_S):
            return None
        self.until = now + min(max(AGAIN_S, (now - self.not_before) / 10), AGAIN_MAX_S)
        if now < self.expired_at < self.until:
            self.until = max(self.expired_at, now + AGAIN_S)
        self.pending = True
        return self.until

    def next_deadline(self) -> float | None:
        """When again() has something to say, though nothing was heard."""
        return None if self.silent else self.until + UNHEARD_S

    @property
    def trouble(self) -> str:
        """Which machines answer, and what follows, as a text; "" when none does."""
        return "; ".join(self._alarm(claim).text for claim in self.claims)

    def _alarm(self, claim: Claim) -> Alarm:
        if claim.member:
            text = (
                f"{claim.member}'s kernel still answers for {claim.address} ({claim.mac}), though etcd says that it "
                "has left; next: take it when it is silent and its lease would have ended"
            )
            return Alarm(text, Conflict.MEMBER_ANSWERS)
        follows = "take it when it is silent (election.stranger)" if self.stranger_waits else "take it all the same"
        text = f"a machine that is no member answers for {claim.address} ({claim.mac}); next: {follows}"
        return Alarm(text, Conflict.STRANGER_ANSWERS)
