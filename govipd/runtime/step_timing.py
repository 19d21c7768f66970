"""Where the time goes when a VIP is taken or released: each step with its instant, in memory while it lasts.

Nothing is noted between operations: a node that holds its VIP, or waits in the queue, pays nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from govipd.runtime.ports import Clock

STEPS_MAX = 100  # different steps of one operation; an operation that never ends must not grow


class Operation(Enum):
    """What is under way."""

    TAKE = "take-over"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class OperationTimings:
    """One move: when it began, in seconds of CLOCK_BOOTTIME, and each step in ms since then.

    A step that was tried again and again is there twice: its first time, and with their number its last.
    """

    move: Operation
    began: float
    steps: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        """For people."""
        return f"{self.move.value} in {self.steps[-1][1]:.1f} ms: " + ", ".join(f"{s} {ms:.1f}" for s, ms in self.steps)


@dataclass(slots=True)
class _Step:
    """How often it was marked; at which number of all marks, and when, for the first and the last time."""

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
    """One VIP group's move under way."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._move: Operation | None = None
        self._marks = 0
        self._steps: dict[str, _Step] = {}

    def begin(self, move: Operation, step: str) -> None:
        """The first step of a move; only a further one where that move is under way."""
        if self._move is not move:
            self._move = move
            self._steps = {}
            self._marks = 0
        self.mark(step)

    def mark(self, step: str) -> None:
        """A step of the move under way; nothing where there is none."""
        if self._move is not None and (step in self._steps or len(self._steps) < STEPS_MAX):
            self._marks += 1
            self._steps.setdefault(step, _Step()).marks(self._marks, self._clock.now())

    def end(self) -> OperationTimings | None:
        """The move is over: what it was; None where there was none."""
        move, self._move = self._move, None
        if move is None:
            return None
        entries = sorted(entry for name, step in self._steps.items() for entry in step.entries(name))
        began = entries[0][1]
        return OperationTimings(move, began, tuple((step, 1000 * (at - began)) for _, at, step in entries))
