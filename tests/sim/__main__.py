"""`python -m tests.sim`: run thousands of hostile schedules, and hunt every mutation.

The last line says what was run and found; exit status 0 when nothing was violated and every mutation was found.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.sim.mutate import apply
from tests.sim.mutations import MUTATIONS, NOT_FOUND_YET, Mutation

if TYPE_CHECKING:
    from tests.sim.run import Outcome

CHUNK = 100  # schedules that a worker runs before it reports
SHOWN = 5  # violations that are shrunk and printed


@dataclass(slots=True)
class Tally:
    """The results of some schedules."""

    schedules: int = 0
    seconds: float = 0.0
    slowest: float = 0.0  # seconds until all was well again
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[int] = field(default_factory=list)  # their seeds

    def add(self, other: "Tally") -> None:
        """Add another tally to this one."""
        self.schedules += other.schedules
        self.seconds += other.seconds
        self.slowest = max(self.slowest, other.slowest)
        self.faults += other.faults
        self.violations += other.violations


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    args = _arguments().parse_args(argv)
    if args.mutant:
        mutation = next(m for m in (*MUTATIONS, *NOT_FOUND_YET) if m.name == args.mutant)
        return _hunt(mutation, args.first, shrunk=args.shrink)
    if args.witness:
        return _detected(args.witness)
    if args.golden:
        return _write_golden(args.jobs, args.first or 1)
    if args.replay is not None:
        return _replay(args.replay, shrunk=args.shrink)
    first = secrets.randbelow(1 << 40) if args.first is None else args.first
    print(f"seeds {first} to {first + args.seeds - 1}; replay one with: python -m tests.sim --replay SEED", flush=True)
    began = time.monotonic()
    tally = search(first, args.seeds, args.jobs)
    for kind, count in sorted(tally.faults.items(), key=lambda item: -item[1]):
        print(f"{count:9} {kind}")
    took = time.monotonic() - began
    print(f"{tally.schedules} schedules in {took:.0f} s; longest until all was well again: {tally.slowest:.2f} s")
    same = _same_twice(first)
    for seed in tally.violations[:SHOWN]:
        _replay(seed, shrunk=True)
    found = _hunt_all(args.jobs, first) if args.mutations else []
    hours = tally.seconds / 3600
    print(
        f"sim: schedules={tally.schedules} virtual_hours={hours:.1f} violations={len(tally.violations)} "
        f"mutations_found={sum(found)}/{len(found)}"
    )
    return 0 if same and not tally.violations and all(found) else 1


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Hostile schedules in virtual time.")
    parser.add_argument("--seeds", type=int, default=3000, metavar="N", help="how many schedules (%(default)s)")
    parser.add_argument("--first", type=int, metavar="SEED", help="the first seed; by default one of chance")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (%(default)s)")
    parser.add_argument("--mutations", action=argparse.BooleanOptionalAction, default=True, help="hunt them too")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one schedule and print its transcript")
    parser.add_argument("--shrink", action="store_true", help="with --replay: leave out what does not matter")
    parser.add_argument("--golden", action="store_true", help="write the golden transcripts anew")
    # What the hunt starts for each mutation, and the test of the golden transcripts.
    parser.add_argument("--mutant", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--witness", metavar="FILE", type=Path, help=argparse.SUPPRESS)
    return parser


def search(first: int, seeds: int, jobs: int) -> Tally:
    """Run fresh schedules in several processes. Prints the seed of each violation."""
    tally = Tally()
    ranges = [(start, min(start + CHUNK, first + seeds)) for start in range(first, first + seeds, CHUNK)]
    with ProcessPoolExecutor(jobs) as pool:
        for part in pool.map(_run, ranges):
            for seed in part.violations:
                print(f"violation: seed {seed}", flush=True)
            tally.add(part)
    return tally


def _run(seeds: tuple[int, int]) -> Tally:
    from tests.sim.run import simulate  # noqa: PLC0415  # a mutant's modules are put in place before
    from tests.sim.schedule import make  # noqa: PLC0415

    tally = Tally()
    for seed in range(*seeds):
        outcome = simulate(make(seed))
        tally.schedules += 1
        tally.seconds += outcome.seconds
        tally.slowest = max(tally.slowest, outcome.healed)
        tally.faults += outcome.faults
        if outcome.violation is not None:
            tally.violations.append(seed)
    return tally


def _replay(seed: int, *, shrunk: bool) -> int:
    from tests.sim.run import simulate  # noqa: PLC0415  # see _run
    from tests.sim.schedule import make  # noqa: PLC0415

    outcome = simulate(make(seed))
    if outcome.violation is not None and shrunk:
        outcome = _shrunk(outcome)
    print(outcome.transcript())
    print(f"{outcome.violation or 'no violation'}; transcript {outcome.digest()[:16]}")
    return 0 if outcome.violation is None else 1


def _shrunk(outcome: "Outcome") -> "Outcome":
    """The outcome of the smallest schedule that still breaks the same promise."""
    from tests.sim.run import simulate  # noqa: PLC0415  # see _run
    from tests.sim.schedule import Schedule, shrink  # noqa: PLC0415

    broken = outcome.violation
    assert broken is not None

    def fails(schedule: Schedule) -> bool:
        other = simulate(schedule).violation
        return other is not None and other.promise == broken.promise

    return simulate(shrink(outcome.schedule, fails))


def _same_twice(seed: int) -> bool:
    """Whether a few seeds give the same transcripts here and in a process with another hash seed."""
    from tests.sim.run import simulate  # noqa: PLC0415  # see _run
    from tests.sim.schedule import make  # noqa: PLC0415

    ours = [simulate(make(s)).digest() for s in range(seed, seed + 5)]
    theirs = [
        subprocess.run(
            [sys.executable, "-m", "tests.sim", "--replay", str(s)],
            env={**os.environ, "PYTHONHASHSEED": str(s % 1000 + 1)}, capture_output=True, text=True, check=False,
        ).stdout.rpartition("transcript ")[2].strip()
        for s in range(seed, seed + 5)
    ]  # fmt: skip
    same = [digest[:16] for digest in ours] == theirs
    print(f"seeds {seed} to {seed + 4} twice: transcripts {'are the same' if same else 'DIFFER'}: {' '.join(theirs)}")
    return same


# Mutations


def _hunt_all(jobs: int, first: int) -> list[bool]:
    """Hunt every mutation, each in a process of its own. Returns which were found."""
    found = []
    print(f"{'mutation':66} schedules until found")
    with ThreadPoolExecutor(jobs) as pool:
        for hunted in as_completed([pool.submit(hunt, mutation, first) for mutation in MUTATIONS]):
            result = hunted.result()
            found.append(bool(result["found"]))
            words = f"{result['schedules']:7}  {result['promise']}" if result["found"] else "NOT FOUND"
            print(f"{result['name']:66} {words} (at most {result['within']})", flush=True)
    return found


def hunt(mutation: Mutation, first: int, *options: str) -> dict[str, Any]:
    """Hunt a mutation from the seed `first` on. Returns whether, after how many schedules, and by which promise."""
    return _alone("--first", str(first), "--mutant", mutation.name, *options)


def detects(golden: Path) -> bool:
    """Whether a golden transcript's schedule still finds its mutation."""
    return bool(_alone("--witness", str(golden))["found"])


def _alone(*arguments: str) -> dict[str, Any]:
    """Run this module in a process of its own, which may change modules. Returns the JSON of its last line."""
    command = [sys.executable, "-m", "tests.sim", *arguments]
    output = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def _hunt(mutation: Mutation, first: int, *, shrunk: bool) -> int:
    apply(mutation.edits)
    from tests.sim.run import simulate  # noqa: PLC0415  # see _run
    from tests.sim.schedule import make  # noqa: PLC0415

    result: dict[str, object] = {"name": mutation.name, "found": False, "within": mutation.within}
    for count in range(mutation.within):
        outcome = simulate(make(first + count, plan=mutation.plan))
        if outcome.violation is not None and outcome.detected:
            result.update(found=True, schedules=count + 1, promise=outcome.violation.promise)
            if shrunk:
                from tests.sim.golden import fields_of  # noqa: PLC0415  # see _run

                schedule = _shrunk(outcome).schedule
                result["schedule"] = {**asdict(schedule), "faults": [*map(fields_of, schedule.faults)]}
            break
    print(json.dumps(result))
    return 0


# Golden transcripts


def _detected(path: Path) -> int:
    name = tomllib.loads(path.read_text(encoding="utf-8").partition("----\n")[0])["mutation"]
    apply(next(m for m in MUTATIONS if m.name == name).edits)
    from tests.sim.golden import stored  # noqa: PLC0415  # see _run
    from tests.sim.run import simulate  # noqa: PLC0415

    golden = next(g for g in stored() if g.path.name == path.name)
    print(json.dumps({"found": simulate(golden.schedule).detected}))
    return 0


def _write_golden(jobs: int, first: int) -> int:
    """Write the scenarios again, and hunt the mutations that their kept schedules do not find any more."""
    from tests.sim.golden import SCENARIOS, Golden, schedule_of, stored  # noqa: PLC0415  # see _run
    from tests.sim.run import simulate  # noqa: PLC0415

    kept = {g.mutation: g for g in stored() if g.mutation and detects(g.path)}
    missing = [m for m in MUTATIONS if m.name not in kept]
    schedules = [(name, "", schedule) for name, schedule in SCENARIOS.items()]
    schedules += [(g.name, g.mutation, g.schedule) for g in kept.values()]
    with ThreadPoolExecutor(jobs) as pool:
        for mutation, result in zip(missing, pool.map(lambda m: hunt(m, first, "--shrink"), missing), strict=True):
            print(f"{mutation.name}: {'found' if result['found'] else 'NOT FOUND'}", flush=True)
            if result["found"]:
                schedules.append((mutation.name, mutation.name, schedule_of(result["schedule"])))
    violations = 0
    for name, mutation_name, schedule in schedules:
        outcome = simulate(schedule)
        violations += outcome.violation is not None
        Golden(name, mutation_name, schedule, outcome.events()).write()
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
