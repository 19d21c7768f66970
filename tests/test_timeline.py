"""Where the time of a move goes."""

from govipd.runtime.step_timing import STEPS_MAX, Move, Timeline


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at


def test_each_step_has_its_time_in_order() -> None:
    """From the first step on, also where two fall on one instant; nothing without a move."""
    clock = Clock()
    timeline = Timeline(clock)
    timeline.mark("stray")
    assert timeline.end() is None
    timeline.begin(Move.TAKE, "won")
    timeline.mark("fence open")
    clock.at += 0.002
    timeline.begin(Move.TAKE, "addresses there")
    assert str(timeline.end()) == "take-over in 2.0 ms: won 0.0, fence open 0.0, addresses there 2.0"


def test_a_step_that_is_tried_again_and_again_is_there_twice_with_its_number() -> None:
    """However long etcd refuses: the first time, and the last."""
    clock = Clock()
    timeline = Timeline(clock)
    timeline.begin(Move.RELEASE, "decided")
    for i in range(65):
        clock.at = 100.0 + i
        timeline.mark("deletion asked")
        if i == 1:
            timeline.mark("addresses gone")
    clock.at = 164.5
    timeline.mark("deletion confirmed")
    story = timeline.end()
    assert str(story) == (
        "release in 64500.0 ms: decided 0.0, deletion asked 0.0, addresses gone 1000.0, "
        "deletion asked (65 times) 64000.0, deletion confirmed 64500.0"
    )


def test_a_move_that_never_ends_does_not_grow() -> None:
    """Neither by steps of one kind nor by many kinds."""
    timeline = Timeline(Clock())
    timeline.begin(Move.RELEASE, "decided")
    for i in range(10 * STEPS_MAX):
        timeline.mark("again")
        timeline.mark(f"step {i}")
    story = timeline.end()
    assert story
    assert len(story.steps) == STEPS_MAX + 1  # and the last time of the one
