"""The deadline. This module owns it: nothing else computes until when this node may answer for a VIP."""

from dataclasses import dataclass

from govipd.core.events import LeaseRenewed

# How far the rate of a sound machine's clock may be off while its time is corrected: chrony slews CLOCK_MONOTONIC, and
# with it CLOCK_BOOTTIME, by up to 83333 ppm (maxslewrate in chrony.conf(5), the default). ntpd and systemd-timesyncd
# leave that to the kernel: 500 ppm.
SLEW = 1 / 12
# What to take off a time that a slow clock measures, as a share of it, so that it is over before a fast clock has
# measured the whole of it: (1 - share) / (1 - SLEW) = 1 / (1 + SLEW). That is 2/13.
CLOCKS_SHARE = 2 * SLEW / (1 + SLEW)
# How long a kernel of 100 Hz may answer after the instant that was ordered: its timer is up to two jiffies late, and
# the fence asks for half of that less (adapters.fence). Kernels of 250 Hz are never late.
KERNEL_S = 0.01

# How long a leader goes on answering while its successor becomes first (state HANDING_OVER). A member that finds
# itself first, and does not know that fence to be closed, waits longer (election.claimant.UNORDERLY_S), also where
# both clocks are slewed, in opposite directions.
HANDOVER_S = 0.07


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
