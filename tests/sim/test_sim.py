"""A sample of what `make sim` does at length."""

import secrets

import pytest

from tests.sim.__main__ import hunt
from tests.sim.mutations import MUTATIONS, Mutation, source_with
from tests.sim.run import simulate
from tests.sim.schedule import make

SCHEDULES = 500
QUICK = 300  # schedules, at most, to find what make test hunts; make sim hunts every mutation
FIRST = secrets.randbelow(1 << 40)  # each run has seeds of its own


def test_nothing_is_violated_under_fresh_hostile_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    """Replay one with: python -m tests.sim --replay SEED --shrink."""
    with capsys.disabled():
        print(f"\nsim: seeds {FIRST} to {FIRST + SCHEDULES - 1}")
    broken = [(seed, v) for seed in range(FIRST, FIRST + SCHEDULES) if (v := simulate(make(seed)).violation)]
    assert not broken


@pytest.mark.parametrize("mutation", [m for m in MUTATIONS if m.within <= QUICK], ids=lambda mutation: mutation.name)
def test_a_broken_rule_is_found(mutation: Mutation) -> None:
    assert hunt(mutation, FIRST)["found"]


def test_a_seed_gives_the_same_transcript_twice() -> None:
    assert simulate(make(7)).digest() == simulate(make(7)).digest()


def test_every_mutation_still_applies() -> None:
    for mutation in MUTATIONS:
        assert source_with(mutation)
