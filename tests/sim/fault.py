"""One fault of a schedule."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.sim.moments import Moment

End = Callable[[], object] | None
HOLDER = -1


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a schedule.

    Attributes:
        kind: a key of KINDS.
        node: the target, also an etcd member's number; HOLDER is the machine that holds the VIP then.
        seconds: for how long.
        place: in [0, 1): decides everything else that the kind has to choose.
        at: when; or, with `moment`, how long after it.
        moment: the fault waits until this happens for the `nth` time.
        nth: from 1.
    """

    kind: str
    node: int
    seconds: float
    place: float
    at: float
    moment: Moment | None = None
    nth: int = 1

    def __str__(self) -> str:
        when = f"{self.at:.4f} s after the {self.nth}. {self.moment.name}" if self.moment else f"at {self.at:.4f} s"
        who = "the holder" if self.node == HOLDER else f"node{self.node}"
        return f"{self.kind} of {who} {when}, for {self.seconds:.3f} s ({self.place:.3f})"
