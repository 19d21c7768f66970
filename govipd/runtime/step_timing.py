"""Times the steps of a move, that is, of a take-over or a release of a VIP. The times are kept until the move ends.

Between moves nothing is timed: a node that holds its VIP, or waits in the queue, spends no time on it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from govipd.core.actions import Action, Report
from govipd.core.state import State
from govipd.runtime.ports import Clock

STEPS_MAX = 100  # different steps of one move: a move that never ends must not use more and more memory


class Operation(Enum):
    """The kind of a move."""

    TAKE = "take-over"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class OperationTimings:
    """One move: its begin, in seconds of CLOCK_BOOTTIME, and the time of each step, in ms since the begin.

    A repeated step has two entries: the first time, and the last time with the number of repetitions.
    """

    move: Operation
    began: float
    steps: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        """For people."""
        return f"{self.move.value} in {self.steps[-1][1]:.1f} ms: " + ", ".join(f"{s} {ms:.1f}" for s, ms in self.steps)


@dataclass(slots=True)
class _Step:
    """How often a step was marked; for its first and its last mark, the number among all marks, and the instant."""

    times: int = 0
    first: tuple[int, float] = (0, 0.0)
    last: tuple[int, float] = (0, 0.0)

    def marks(self, number: int, now: float) -> None:
        self.times += 1
        self.last = (number, now)
        if self.times == 1:
            self.first = self.last

    def entries(self, name: str) -> Iterator[tuple[int, float, str]]:
        yield *self.first, name
        if self.times > 1:
            yield *self.last, f"{name} ({self.times} times)"


class StepTimings:
    """Times the move of one VIP group that is under way."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._move: Operation | None = None
        self._marks = 0
        self._steps: dict[str, _Step] = {}

    def begin(self, move: Operation, step: str) -> None:
        """Begin a move with this step. If a move of the same kind is under way, only mark the step."""
        if self._move is not move:
            self._move = move
            self._steps = {}
            self._marks = 0
        self.mark(step)

    def follow(self, actions: Iterable[Action]) -> None:
        """Begin a move, or mark a step, as the state machine's reports say."""
        for action in actions:
            match action:
                case Report(state=State.ACTIVATING):
                    self.begin(Operation.TAKE, "won")
                case Report(state=State.HANDING_OVER):
                    self.begin(Operation.RELEASE, "handing over")
                case Report(state=State.DEACTIVATING):
                    self.begin(Operation.RELEASE, "decided")
                case Report():
                    self.mark(action.state.value)

    def mark(self, step: str) -> None:
        """Note the time of a step. Does nothing where no move is under way."""
        if self._move is not None and (step in self._steps or len(self._steps) < STEPS_MAX):
            self._marks += 1
            self._steps.setdefault(step, _Step()).marks(self._marks, self._clock.now())

    def end(self) -> OperationTimings | None:
        """End the move. Returns its timings; None where no move was under way."""
        move, self._move = self._move, None
        if move is None:
            return None
        entries = sorted(entry for name, step in self._steps.items() for entry in step.entries(name))
        began = entries[0][1]
        return OperationTimings(move, began, tuple((step, 1000 * (at - began)) for _, at, step in entries))
