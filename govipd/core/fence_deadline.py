"""Until when this kernel may answer for a VIP: the earliest deadline of the lease, the pact and the handover."""

from dataclasses import replace

from govipd.core import events as ev
from govipd.core.lease import HANDOVER_S, Lease
from govipd.core.pact import LeaderHalf

# Seconds for which the state machine waits for the answer to CloseFence before it relies on the fence's own deadline.
# It waits even if that deadline has passed: while a machine is suspended, the fence's time-out stands still.
PATIENCE_S = 0.2


class FenceDeadline:
    """The deadline of one VIP group's fence. All instants are seconds of CLOCK_BOOTTIME.

    Attributes:
        margin: seconds from the fence's deadline to the lease's end.
        lease: the lease, as last confirmed; None without one.
        pact: the pact with the successor; a pact without an id sets no limit.
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
        """Until when the kernel may answer. `adopting`: an earlier process's request counts, not the lease."""
        deadline = self.by_lease_and_pact()
        return min(self.requested if adopting or deadline is None else deadline, self.handover)

    def closed_by_itself(self, since: float) -> float:
        """The instant from which the fence is closed even if the CloseFence sent at `since` stays unanswered."""
        return max(self.requested, since) + PATIENCE_S

    def request(self, until: float) -> None:
        """Note the instant until which a Hold opens the fence."""
        self.requested = max(self.requested, until)

    def begin_handover(self, now: float) -> float:
        """Limit the fence to HANDOVER_S from now, for a handover. Returns the instant at which the fence ends."""
        self.handover = min(now + HANDOVER_S, self.answers_until(adopting=False))
        return self.handover

    def end(self) -> None:
        """Forget the pact and the handover, because the fence is being closed."""
        self.pact = LeaderHalf()
        self.handover = float("inf")

    def proven(self, won: ev.Elected | None, now: float) -> bool:
        """Whether this member leads for certain: renewal and proof are both newer than the lease's TTL less margin."""
        if self.lease is None or won is None or won.lease_id != self.lease.id:
            return False
        proof = replace(self.lease, sent_at=min(self.lease.sent_at, won.proved_at))
        return now < proof.deadline(self.margin)
