"""The question on the wire: does another kernel still answer for what this node is about to answer for?

Asked while a predecessor that left without a mark may not know yet that it has left: its lease was revoked, its key
deleted, etcd's data lost, or it is a member of another etcd. It closes its fence as soon as it learns of it, but a
process that does not run learns nothing, and its kernel answers until the fence ends by itself.

What it does not guarantee: that nobody answers. A question or its answer may get lost, the machine may be on another
link, and a fence that has lapsed may be opened again. G1 stands on etcd; this is for the day on which etcd's promise is
broken.
"""

from dataclasses import dataclass

from govipd.core.actions import Alarm, Conflict
from govipd.core.events import Claim, WireHeard

AGAIN_S = 0.05  # from one question to the next while somebody answers, at first
AGAIN_MAX_S = 0.5  # it grows with a tenth of the time that was waited
UNHEARD_S = 0.5  # an answer that is later than this does not come any more: ask again


@dataclass(slots=True)
class Question:
    """Asked once for each time that this node is first after a predecessor without a mark.

    Attributes:
        not_before: the instant that the election named; before it nothing is opened anyway.
        until: when the newest question ends.
    """

    not_before: float
    until: float
    silent: bool = False
    stranger_waits: bool = False
    claims: tuple[Claim, ...] = ()  # of the newest answer
    pending: bool = True

    def awaits(self, event: WireHeard) -> bool:
        """Whether this answers the newest question."""
        return self.pending and event.until == self.until

    def heard(self, event: WireHeard, *, stranger_waits: bool) -> list[Alarm]:
        """Take an answer in. What is to be told of it: each machine once."""
        before, self.claims = self.claims, event.claims
        self.pending, self.stranger_waits = False, stranger_waits
        self.silent = not any(claim.member or stranger_waits for claim in event.claims)
        return [self._alarm(claim) for claim in event.claims if claim not in before]

    def again(self, now: float) -> float | None:
        """Until when to ask anew, if it is time to."""
        if self.silent or (self.pending and now < self.until + UNHEARD_S):
            return None
        self.until = now + min(max(AGAIN_S, (now - self.not_before) / 10), AGAIN_MAX_S)
        self.pending = True
        return self.until

    def next_deadline(self) -> float | None:
        """When again() has something to say, though nothing was heard."""
        return None if self.silent else self.until + UNHEARD_S

    @property
    def trouble(self) -> str:
        """Who answers, and what follows, in words; "" when nobody does."""
        return "; ".join(self._alarm(claim).text for claim in self.claims)

    def _alarm(self, claim: Claim) -> Alarm:
        if claim.member:
            text = (
                f"{claim.member}'s kernel still answers for {claim.address} ({claim.mac}), though etcd says that it "
                "has left; next: take it as soon as it is silent"
            )
            return Alarm(text, Conflict.MEMBER_ANSWERS)
        follows = "take it when it is silent (election.stranger)" if self.stranger_waits else "take it all the same"
        text = f"a machine that is no member answers for {claim.address} ({claim.mac}); next: {follows}"
        return Alarm(text, Conflict.STRANGER_ANSWERS)
