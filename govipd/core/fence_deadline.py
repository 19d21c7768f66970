"""Until when this kernel may answer for a VIP: the earliest of what lease, pact and handover allow."""

from dataclasses import replace

from govipd.core import events as ev
from govipd.core.lease import HANDOVER_S, Lease
from govipd.core.pact import LeaderHalf

# How long an order to close the fence may stay without an answer before its deadline counts instead. The
# order comes first even when the deadline has passed: a machine that was suspended kept the fence's rest.
PATIENCE_S = 0.2


class FenceDeadline:
    """The deadline of one VIP group's fence. All instants are seconds of CLOCK_BOOTTIME.

    Attributes:
        margin: seconds that are kept from the lease's end.
        lease: the lease, as last confirmed; None without one.
        pact: the pact with the successor; one without an id never limits.
        requested: the latest instant that any Hold has named: the kernel may answer until then.
        handover: when the fence ends for a handover; infinite without one.
    """

    def __init__(self, margin: float, now: float) -> None:
        self.margin = margin
        self.lease: Lease | None = None
        self.pact = LeaderHalf()
        self.requested = now
        self.handover = float("inf")

    def by_lease(self) -> float | None:
        """The deadline by the lease alone; None without a confirmed lease."""
        return None if self.lease is None else self.lease.deadline(self.margin)

    def by_lease_and_pact(self) -> float | None:
        """Until when a Hold may open the fence; None without a confirmed lease."""
        lease = self.by_lease()
        return None if lease is None else min(lease, self.pact.limit())

    def answers_until(self, *, adopting: bool) -> float:
        """Until when the kernel may answer, while it may. `adopting`: by what an earlier process requested."""
        deadline = self.by_lease_and_pact()
        return min(self.requested if adopting or deadline is None else deadline, self.handover)

    def closed_by_itself(self, since: float) -> float:
        """When the kernel has closed the fence by itself, after an order at `since` that may stay unanswered."""
        return max(self.requested, since) + PATIENCE_S

    def request(self, until: float) -> None:
        """A Hold names this instant."""
        self.requested = max(self.requested, until)

    def begin_handover(self, now: float) -> float:
        """From now on the fence ends within HANDOVER_S, and is not prolonged. Returns when."""
        self.handover = min(now + HANDOVER_S, self.answers_until(adopting=False))
        return self.handover

    def end(self) -> None:
        """The fence is being closed: no pact and no handover counts any more."""
        self.pact = LeaderHalf()
        self.handover = float("inf")

    def proven(self, won: ev.Elected | None, now: float) -> bool:
        """Whether we lead: by a lease that still runs, and a proof that is not older than a lease."""
        if self.lease is None or won is None or won.lease_id != self.lease.id:
            return False
        proof = replace(self.lease, sent_at=min(self.lease.sent_at, won.proved_at))
        return now < proof.deadline(self.margin)
