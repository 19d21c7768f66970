"""`make soak MINUTES=30 SEED=1`: random faults for a given time, the observers running throughout.

Each round leaves the machines alone for a while, breaks something on the holder (sometimes on another machine as well,
at the same time), waits, heals, and demands that the VIP is served again. The seed gives the same sequence of faults.
With a pact (PACT=0.2) and processes that use every processor (LOAD=2) it tells how often the VIP moved for no reason.
With GROUPS=8 the machines have two networks and so many groups, each with both families on both networks; no file is
edited then.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tests.lab.edges import EDGES
from tests.lab.faults import FAULTS
from tests.lab.host import LabError
from tests.lab.lab import Lab, Watching
from tests.lab.machine import Machine
from tests.lab.play import Outcome, Scenario
from tests.lab.scenarios import SCENARIOS
from tests.lab.two_networks import OF_TWO, configure_groups, wait_all_served, watched

# Twenty restarts in a row, half a minute of silence: one round of these would be most of a short soak.
TOO_LONG = frozenset({"govipd-killed", "govipd-restarted", "govipd-frozen-30s", "etcd-in-turn"})
UNSERVED = frozenset({Outcome.RETURNS, Outcome.UNSEEN, Outcome.SERVED})
SECOND_FAULT = 0.25  # how often another machine has a fault of its own
HEALED_S = 30.0
QUIET_S = 5.0  # nothing is broken meanwhile


@dataclass(frozen=True, slots=True)
class Round:
    """What was broken, and when."""

    kinds: tuple[str, ...]
    whole_at: float
    broken_at: float
    healed_at: float
    served_again: bool
    unserved: bool  # for a part of it, no machine was able to serve


def rounds(
    lab: Lab, watching: Watching, ends: float, seed: int, groups: int, say: Callable[[str], None]
) -> list[Round]:
    """Break and heal until the time is over."""
    choice = random.Random(seed)
    more = EDGES if groups == 1 else OF_TWO
    kinds = [s for s in (*SCENARIOS, *FAULTS, *more) if s.name not in TOO_LONG]
    done: list[Round] = []
    while time.monotonic() < ends:
        lab.make_whole()
        lab.wait_serving()
        wait_all_served(lab, groups if lab.network.two else 0)
        whole_at = time.monotonic()
        time.sleep(QUIET_S)
        holder = lab.wait_serving()
        faults = [(choice.choice(kinds), holder)]
        if choice.random() < SECOND_FAULT:
            other = choice.choice([n for n in lab.nodes if n is not holder])
            faults.append((choice.choice([k for k in kinds if k.outcome is Outcome.MOVES]), other))
        broken_at = time.monotonic()
        _break_and_undo(lab, faults, choice.uniform(0.0, 5.0))
        try:
            lab.make_whole()
            served = lab.wait_serving(timeout=HEALED_S) is not None
            wait_all_served(lab, groups if lab.network.two else 0)
        except LabError as e:
            say(str(e))
            served = False
        names = tuple(f"{s.name}@{n.name}" if i else s.name for i, (s, n) in enumerate(faults))
        blind = any(s.outcome in UNSERVED for s, _ in faults) or len(faults) > 1
        done.append(Round(names, whole_at, broken_at, time.monotonic(), served, blind))
        say(f"{len(done):4}  {' + '.join(names)}: healed after {done[-1].healed_at - broken_at:.1f} s")
    watching.end()
    return done


def _break_and_undo(lab: Lab, faults: list[tuple[Scenario, Machine]], pause: float) -> None:
    """Play two faults at once. An act that the other fault prevents is left out."""
    for scenario, node in faults:
        with suppress(LabError, AssertionError):
            scenario.act(lab, node)
    time.sleep(pause)
    for scenario, node in reversed(faults):
        with suppress(LabError):
            if not node.running:
                node.boot()
            node.thaw()
            lab.heal(node)
            scenario.undo(lab, node)


@contextmanager
def load(processes: int, seconds: float) -> Iterator[None]:
    """Keep processors busy. Each process has its own session, as the scheduler shares time among sessions."""
    burn = ["setpriv", "--pdeathsig", "KILL", "--", "timeout", f"{seconds:.0f}", "sh", "-c", "while :; do :; done"]
    burners = [subprocess.Popen(burn, start_new_session=True) for _ in range(processes)]
    try:
        yield
    finally:
        for burner in burners:
            burner.terminate()  # timeout(1) passes it on
            burner.wait()


def main() -> int:
    """Soak. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pact", type=float, default=0.0, metavar="S", help="pact.timeout in seconds (no pact)")
    parser.add_argument("--load", type=int, default=0, metavar="N", help="processes that do nothing but run (none)")
    parser.add_argument("--groups", type=int, default=1, metavar="N", help="on two networks, if there are several (1)")
    args = parser.parse_args()
    with Lab(two_networks=args.groups > 1) as lab:
        if args.groups > 1:
            configure_groups(lab, args.groups)
        if args.pact:
            lab.configure(f"\n[pact]\ntimeout = {args.pact}\n")
        lab.start_daemons()
        lab.make_whole()
        vips, inner = watched(args.groups)
        with load(args.load, 60 * args.minutes + 600), lab.observe(vips=vips, inner=inner) as watching:
            ended = time.monotonic() + 60 * args.minutes
            done = rounds(lab, watching, ended, args.seed, args.groups, lambda text: print(text, flush=True))
    report = watching.report
    gaps: dict[str, list[float]] = defaultdict(list)
    unserved = 0.0
    for r in done:
        gap = report.between(r.broken_at, r.healed_at).gap
        gaps[" + ".join(k.partition("@")[0] for k in r.kinds)].append(gap)
        if not r.unserved:
            unserved += gap
    print("\n| fault | rounds | median gap | worst gap |\n|---|---|---|---|")
    for kind, seen in sorted(gaps.items()):
        print(f"| {kind} | {len(seen)} | {1000 * statistics.median(seen):.0f} ms | {1000 * max(seen):.0f} ms |")
    two = 1000 * report.two_answering
    for r in done:
        for overlap in report.between(r.broken_at, r.healed_at).overlaps:
            print(f"TWO ANSWERED in {' + '.join(r.kinds)}, {r.broken_at:.4f} to {r.healed_at:.4f}: {overlap}")
    unhealed = sum(not r.served_again for r in done)
    worst = 1000 * max(report.between(r.broken_at, r.healed_at).gap for r in done)
    quiet = [report.between(r.whole_at, r.broken_at) for r in done]
    print(f"\n{sum(part.moves for part in quiet)} moves in {sum(part.ended - part.began for part in quiet):.0f} s "
          f"without a fault, load {os.getloadavg()[0]:.1f} in the end")  # fmt: skip
    print(f"nobody answered although one was able: {unserved:.1f} s in all (the gaps of the rounds with one fault)")
    print(f"the machines were not asked for {report.unasked:.1f} s in all, where this host was too busy")
    print(f"soak: minutes={args.minutes:g} seed={args.seed} pact_s={args.pact:g} load={args.load} groups={args.groups} "
          f"faults={sum(len(r.kinds) for r in done)} false_takeovers={sum(part.moves for part in quiet)} "
          f"two_answering_ms={two:.0f} unserved_after_heal={unhealed} worst_gap_ms={worst:.0f}")  # fmt: skip
    return 0 if two == 0 and unhealed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
