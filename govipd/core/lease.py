"""The deadline. This module owns it: nothing else computes until when this node may answer for a VIP."""

from dataclasses import dataclass

from govipd.core.events import LeaseRenewed

# How long a leader goes on answering while it lets the next in the queue become first (state PASSING). Whoever finds
# itself first, and does not know that fence to be closed, waits for longer (adapters.election.UNORDERLY_S).
PASS_S = 0.08


@dataclass(frozen=True, slots=True)
class Lease:
    """An etcd lease as last confirmed.

    etcd restarts a lease's life when it *handles* a renewal, which is after the renewal was sent. So the
    instant before sending, plus the granted TTL, is never later than the end of the lease in etcd; the time
    of the reply may be. The margin covers the difference of the two machines' clock rates over one TTL and
    the time from the deadline to the kernel's silence.
    """

    id: int
    sent_at: float
    ttl: float

    @classmethod
    def of(cls, event: LeaseRenewed) -> "Lease":
        """The lease that `event` confirms."""
        return cls(event.lease_id, event.sent_at, event.ttl)

    def deadline(self, margin: float) -> float:
        """Until when this node may answer (CLOCK_BOOTTIME, seconds)."""
        return self.sent_at + self.ttl - margin
