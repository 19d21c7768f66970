"""A sample of what `make sim` does at length."""

import secrets

from tests.sim.mutations import MUTATIONS, source_with
from tests.sim.run import simulate
from tests.sim.schedule import make

SCHEDULES = 300


def test_nothing_is_violated_under_fresh_hostile_schedules() -> None:
    """Each run has seeds of its own; a failure names its seed: python -m tests.sim --replay SEED --shrink."""
    first = secrets.randbelow(1 << 40)
    broken = [(seed, v) for seed in range(first, first + SCHEDULES) if (v := simulate(make(seed)).violation)]
    assert not broken


def test_a_seed_gives_the_same_transcript_twice() -> None:
    assert simulate(make(7)).digest() == simulate(make(7)).digest()


def test_every_mutation_still_applies() -> None:
    for mutation in MUTATIONS:
        assert source_with(mutation)
