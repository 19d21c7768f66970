"""A sample of `make sim`."""

import gc
import os
import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.sim.__main__ import detects, search
from tests.sim.golden import Golden, stored
from tests.sim.moments import Moment
from tests.sim.mutate import mutants
from tests.sim.mutations import MUTATIONS, NOT_FOUND_YET
from tests.sim.run import simulate
from tests.sim.schedule import make

SCHEDULES = 500
FIRST = secrets.randbelow(1 << 40)  # each run has seeds of its own


def test_nothing_is_violated_under_fresh_hostile_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    """Replay one with: python -m tests.sim --replay SEED --shrink."""
    with capsys.disabled():
        print(f"\nsim: seeds {FIRST} to {FIRST + SCHEDULES - 1}")
    tally = search(FIRST, SCHEDULES, os.cpu_count() or 1)
    assert tally.schedules == SCHEDULES
    assert tally.violations == []


@pytest.mark.parametrize("golden", stored(), ids=lambda golden: golden.path.stem)
def test_what_happens_is_what_is_written(golden: Golden) -> None:
    """After an intended change of behaviour: run python -m tests.sim --golden, and read the difference."""
    outcome = simulate(golden.schedule)
    assert outcome.violation is None
    assert outcome.events() == golden.events


def test_every_broken_rule_is_found() -> None:
    """Each mutation by its kept schedule. `make sim` hunts mutations in fresh schedules."""
    kept = {golden.mutation: golden.path for golden in stored() if golden.mutation}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(kept, pool.map(detects, kept.values()), strict=True))
    assert found == {mutation.name: True for mutation in MUTATIONS}


def test_every_moment_occurs() -> None:
    """A fault that waits for a moment which never comes would strike nothing."""
    missing = set(Moment)
    for seed in range(1, 500):
        events = [note.event for note in simulate(make(seed)).notes if note.event]
        missing = {moment for moment in missing if not any(map(moment.begins, events))}
        if not missing:
            break
    assert not missing


def test_a_seed_gives_the_same_transcript_twice() -> None:
    assert simulate(make(7)).digest() == simulate(make(7)).digest()


def test_every_mutation_still_applies() -> None:
    for mutation in (*MUTATIONS, *NOT_FOUND_YET):
        assert mutants(mutation.edits)


def test_a_schedule_leaves_nothing_in_memory() -> None:
    """A run of a hundred thousand schedules would need all of it."""

    def objects(seeds: range) -> int:
        for seed in seeds:
            simulate(make(seed))
        return len(gc.get_objects())

    before = objects(range(5))  # and the objects that are made once
    assert objects(range(5, 15)) < before + 1000
