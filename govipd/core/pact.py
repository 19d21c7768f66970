"""The pact: the leader keeps its fence short, and in exchange its successor may take over early.

An etcd lease cannot be shorter than 2 s. A pact lets the successor notice a dead leader sooner: the leader sends a
datagram to the successor every fifth of the pact's time-out T. etcd still decides: a key beside the election says that
the pact is in force, and the take-over is a transaction that requires this key. This module holds both sides as pure
functions. Five rules make the pact safe (a model without any one of them had two holders):

1. The successor acknowledges nothing from the moment it asks etcd for the take-over.
2. After a take-over that failed, or whose outcome is not known, the successor acknowledges nothing of that pact again.
3. The leader goes back to the lease's deadline only when etcd has confirmed that the pact is gone.
4. The leader counts its time-out from the instant at which the acknowledged datagram was *sent*.
5. The leader's time-out is the shorter one, by a margin for the difference of clock rates and the kernel's precision.
"""

from enum import Enum

from govipd.core.lease import CLOCKS_SHARE, KERNEL_S

SENDS_PER_TIMEOUT = 5
_DOUBT_SHARE = 0.5  # of T: after that long without an acknowledgement, the leader asks etcd to end the pact


class LeaderHalf:
    """The leader's obligations in a pact.

    Args:
        pact: the pact's id; "" means no pact, which never binds.
        timeout: T in seconds.
    """

    def __init__(self, pact: str = "", timeout: float = 0.0) -> None:
        self.id = pact
        self.timeout = timeout
        self._margin = CLOCKS_SHARE * timeout + KERNEL_S
        self._acknowledged_at = float("-inf")
        self._bound = False  # the pact limits the fence; until etcd confirms the pact's end
        self._enforced = False
        self._doubted = False

    def acknowledged(self, sent_at: float, now: float) -> None:
        """Note the acknowledgement of the datagram sent at `sent_at` (rule 4). If fresh, it binds the leader."""
        self._acknowledged_at = max(self._acknowledged_at, sent_at)
        self._bound = self._bound or now < self.doubt_at()

    def limit(self) -> float:
        """Until when the pact lets the leader answer (rule 5); infinite while the pact does not bind."""
        return self._acknowledged_at + self.timeout - self._margin if self._bound else float("inf")

    def enforce(self, held_until: float) -> bool:
        """Whether to record the pact in etcd now; True once. `held_until`: when the kernel stops answering."""
        due = self._bound and not self._enforced and held_until <= self.limit()
        self._enforced = self._enforced or due
        return due

    def doubt_at(self) -> float:
        """The instant at which to ask for the pact's end, if no acknowledgement comes before."""
        return self._acknowledged_at + _DOUBT_SHARE * self.timeout

    def doubt(self, now: float) -> bool:
        """Whether to ask for the pact's end now; True once. The pact binds until etcd confirms its end (rule 3)."""
        due = self._bound and not self._doubted and now >= self.doubt_at()
        self._doubted = self._doubted or due
        return due

    def next_deadline(self) -> float | None:
        """The next instant at which time alone changes an answer of doubt(); None without one."""
        return self.doubt_at() if self._bound and not self._doubted else None


class SuccessorPhase(Enum):
    """What the successor is doing."""

    FOLLOWS = "follows"
    TAKES_OVER = "takes over"  # etcd has been asked, and has not answered
    GAVE_UP = "gave up"  # refused, or the outcome is not known: no take-over by this pact


class SuccessorHalf:
    """The successor's obligations in a pact.

    Args:
        pact: the pact's id.
        timeout: T in seconds.
        now: when the successor learned of the pact.
    """

    def __init__(self, pact: str, timeout: float, now: float) -> None:
        self.pact = pact
        self.phase = SuccessorPhase.FOLLOWS
        self.revision = 0  # of the key that says the pact is in force; 0: no such key is known
        self._timeout = timeout
        self._heard_at = now
        self._newest = 0

    def hear(self, sequence: int, revision: int, now: float) -> bool:
        """Note a datagram of the leader. Returns whether to acknowledge the datagram (rules 1 and 2)."""
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
        """Whether to ask etcd for the take-over now. If so, hear() acknowledges nothing any more (rule 1)."""
        if self.phase is not SuccessorPhase.FOLLOWS or now < self.silent_at():
            return False
        self.phase = SuccessorPhase.TAKES_OVER if self.revision else SuccessorPhase.GAVE_UP
        return self.phase is SuccessorPhase.TAKES_OVER

    def give_up(self) -> None:
        """Stop acknowledging: the take-over was refused, its outcome is not known, or it is not wanted (rule 2)."""
        self.phase = SuccessorPhase.GAVE_UP
