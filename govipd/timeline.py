"""Where the time goes when a VIP is taken or released: each step with its instant, in memory while it lasts.

Nothing is noted between moves, so that a node that holds its VIP, or stands in the queue, pays nothing.
"""

from dataclasses import dataclass
from enum import Enum

from govipd.ports import Clock

STEPS_MAX = 100  # of one move; one that never ends must not grow


class Move(Enum):
    """What is under way."""

    TAKE = "take-over"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Story:
    """One move: when it began, in seconds of CLOCK_BOOTTIME, and each step in ms since then."""

    move: Move
    began: float
    steps: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        """For people."""
        return f"{self.move.value} in {self.steps[-1][1]:.1f} ms: " + ", ".join(f"{s} {ms:.1f}" for s, ms in self.steps)


class Timeline:
    """One VIP group's move under way."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._move: Move | None = None
        self._steps: list[tuple[str, float]] = []

    def begin(self, move: Move, step: str) -> None:
        """The first step of a move; only a further one where that move is under way."""
        if self._move is not move:
            self._move = move
            self._steps = []
        self.mark(step)

    def mark(self, step: str) -> None:
        """A step of the move under way; nothing where there is none."""
        if self._move is not None and len(self._steps) < STEPS_MAX:
            self._steps.append((step, self._clock.now()))

    def end(self) -> Story | None:
        """The move is over: what it was; None where there was none."""
        move, self._move = self._move, None
        if move is None:
            return None
        began = self._steps[0][1]
        return Story(move, began, tuple((step, 1000 * (at - began)) for step, at in self._steps))
