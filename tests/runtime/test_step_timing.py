"""Where the time of a move goes."""

from govipd.runtime.step_timing import STEPS_MAX, Operation, StepTimings


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at


def test_each_step_has_its_time_in_order() -> None:
    """From the first step on, also where two fall on one instant; nothing without a move."""
    clock = Clock()
    timings = StepTimings(clock)
    timings.mark("stray")
    assert timings.end() is None
    timings.begin(Operation.TAKE, "won")
    timings.mark("fence open")
    clock.at += 0.002
    timings.begin(Operation.TAKE, "addresses there")
    assert str(timings.end()) == "take-over in 2.0 ms: won 0.0, fence open 0.0, addresses there 2.0"


def test_a_step_that_is_tried_again_and_again_is_there_twice_with_its_number() -> None:
    """However long etcd refuses: the first time, and the last."""
    clock = Clock()
    timings = StepTimings(clock)
    timings.begin(Operation.RELEASE, "decided")
    for i in range(65):
        clock.at = 100.0 + i
        timings.mark("deletion asked")
        if i == 1:
            timings.mark("addresses gone")
    clock.at = 164.5
    timings.mark("deletion confirmed")
    story = timings.end()
    assert str(story) == (
        "release in 64500.0 ms: decided 0.0, deletion asked 0.0, addresses gone 1000.0, "
        "deletion asked (65 times) 64000.0, deletion confirmed 64500.0"
    )


def test_a_move_that_never_ends_does_not_grow() -> None:
    """Neither by steps of one kind nor by many kinds."""
    timings = StepTimings(Clock())
    timings.begin(Operation.RELEASE, "decided")
    for i in range(10 * STEPS_MAX):
        timings.mark("again")
        timings.mark(f"step {i}")
    story = timings.end()
    assert story
    assert len(story.steps) == STEPS_MAX + 1  # and the last time of the one
