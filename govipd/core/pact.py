"""The pact: the leader keeps its fence short, and in exchange its successor may take over early.

A lease of etcd's cannot be shorter than 2 s; a dead machine is noticed sooner by its successor in the queue, to which
the leader sends a datagram every fifth of the pact's time-out T. etcd still decides: a key beside the election says
that the pact is in force, and taking over is a transaction that needs it. Both halves are here, pure. Five rules carry
the safety (each was removed in a model, and each removal made two holders):

1. The successor acknowledges nothing from the moment it asks etcd to take over.
2. When that was refused, or its outcome is not known, it never acknowledges anything of that pact again.
3. The leader goes back to the lease's deadline only when etcd has confirmed that the pact is gone.
4. The leader counts from when the acknowledged datagram was *sent*.
5. The leader's time-out is the shorter one, by a margin for the difference of clock rates and the kernel's precision.
"""

from enum import Enum

from govipd.core.lease import CLOCKS_SHARE, KERNEL_S

SENDS_PER_TIMEOUT = 5
_DOUBT_SHARE = 0.5  # of T without an acknowledgement: the leader asks etcd to end the pact, while there is time


class LeaderHalf:
    """The leader's obligations in a pact.

    Args:
        pact: its id; "" is none, which never binds.
        timeout: T in seconds.
    """

    def __init__(self, pact: str = "", timeout: float = 0.0) -> None:
        self.id = pact
        self.timeout = timeout
        self._margin = CLOCKS_SHARE * timeout + KERNEL_S
        self._acknowledged_at = float("-inf")
        self._bound = False  # limits the fence from before the pact is recorded in etcd until its end is confirmed
        self._enforced = False
        self._doubted = False

    def acknowledged(self, sent_at: float, now: float) -> None:
        """The successor has heard what was sent at that instant (rule 4). A fresh answer binds."""
        self._acknowledged_at = max(self._acknowledged_at, sent_at)
        self._bound = self._bound or now < self.doubt_at()

    def limit(self) -> float:
        """Until when the leader may answer, as far as the pact says (rule 5)."""
        return self._acknowledged_at + self.timeout - self._margin if self._bound else float("inf")

    def enforce(self, held_until: float) -> bool:
        """Whether to enforce it, once: the kernel answers no longer than until `held_until`."""
        due = self._bound and not self._enforced and held_until <= self.limit()
        self._enforced = self._enforced or due
        return due

    def doubt_at(self) -> float:
        """When to ask for the pact's end, if no acknowledgement comes before."""
        return self._acknowledged_at + _DOUBT_SHARE * self.timeout

    def doubt(self, now: float) -> bool:
        """Whether to ask for the end, once. The bond lasts until it is confirmed (rule 3)."""
        due = self._bound and not self._doubted and now >= self.doubt_at()
        self._doubted = self._doubted or due
        return due

    def next_deadline(self) -> float | None:
        """The next instant at which time alone changes an answer of doubt()."""
        return self.doubt_at() if self._bound and not self._doubted else None


class SuccessorPhase(Enum):
    """What the successor is doing."""

    FOLLOWS = "follows"
    TAKES_OVER = "takes over"  # etcd has been asked, and has not answered
    GAVE_UP = "gave up"  # refused, or not known: this pact is over for it


class SuccessorHalf:
    """The successor's obligations in a pact.

    Args:
        pact: its id.
        timeout: T in seconds.
        now: when it learned of the pact.
    """

    def __init__(self, pact: str, timeout: float, now: float) -> None:
        self.pact = pact
        self.phase = SuccessorPhase.FOLLOWS
        self.revision = 0  # of the key that says the pact is in force; 0: it is not, as far as is known
        self._timeout = timeout
        self._heard_at = now
        self._newest = 0

    def hear(self, sequence: int, revision: int, now: float) -> bool:
        """A datagram came. Returns whether to acknowledge it (rules 1 and 2)."""
        if self.phase is not SuccessorPhase.FOLLOWS or sequence <= self._newest:
            return False
        self._newest = sequence
        self._heard_at = now
        self.revision = revision or self.revision
        return True

    def silent_at(self) -> float:
        """When the leader's silence has lasted for T."""
        return self._heard_at + self._timeout

    def take(self, now: float) -> bool:
        """Whether etcd is to be asked now; nothing is acknowledged from here on (rule 1)."""
        if self.phase is not SuccessorPhase.FOLLOWS or now < self.silent_at():
            return False
        self.phase = SuccessorPhase.TAKES_OVER if self.revision else SuccessorPhase.GAVE_UP
        return self.phase is SuccessorPhase.TAKES_OVER

    def give_up(self) -> None:
        """Stop acknowledging: the take-over was refused, is undecided, or no longer wanted (rule 2)."""
        self.phase = SuccessorPhase.GAVE_UP
