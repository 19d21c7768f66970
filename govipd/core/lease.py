"""The lease's deadline. Only this module computes until when a lease lets this node answer for a VIP."""

from dataclasses import dataclass

from govipd.core.events import LeaseRenewed

# The largest rate error of a sound machine's clock while its time is corrected: chrony slews CLOCK_MONOTONIC, and
# with it CLOCK_BOOTTIME, by up to 83333 ppm (maxslewrate in chrony.conf(5), the default). ntpd and systemd-timesyncd
# leave slewing to the kernel: 500 ppm.
SLEW = 1 / 12
# The share to take off a duration, so that a slow clock measures the shortened duration before a fast clock has
# measured the full one: (1 - share) / (1 - SLEW) = 1 / (1 + SLEW). The share is 2/13.
CLOCKS_SHARE = 2 * SLEW / (1 + SLEW)
# Seconds for which a kernel of 100 Hz may answer after the fence's deadline: its timer is up to two jiffies late, and
# the fence orders a time-out that is shorter by half of that (adapters.kernel.fence). A kernel of 250 Hz is never late.
KERNEL_S = 0.01

# Seconds for which a leader still answers while its successor becomes first (state HANDING_OVER). A member that becomes
# first without knowing that this fence is closed waits longer (election.claimant.UNORDERLY_S), even where the two
# clocks are slewed in opposite directions.
HANDOVER_S = 0.07


@dataclass(frozen=True, slots=True)
class Lease:
    """An etcd lease as last confirmed.

    etcd restarts a lease's life when it *handles* a renewal, which is after the renewal was sent. So the
    instant before sending, plus the granted TTL, is never later than the end of the lease in etcd. The instant
    of the reply, plus the TTL, may be later. The margin covers the difference of the two machines' clock rates over
    one TTL, and the time from the deadline to the kernel's silence.
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
