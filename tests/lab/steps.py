"""`python -m tests.lab.steps --times 10`: the time of each step of a move.

Plays events on the holder, again and again, while a client asks every 4 ms. For each kind of event: the service gap as
the client saw it, and, from govipd's own time lines on both machines, when each step was done, in ms from the instant
at which the holder's fence was closed.
"""

import argparse
import json
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.lab import host
from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.observe import Report

CLOSED = "fence closed"
Act = Callable[[Machine, Callable[[], None]], None]


@dataclass(slots=True)
class Seen:
    """The results for one kind of event. Times are in ms."""

    gaps: list[float] = field(default_factory=list)
    steps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    two_answering: float = 0.0
    moves: int = 0

    def __str__(self) -> str:
        gaps = sorted(self.gaps)
        summary = (
            f"n={len(gaps)} gap_ms min={gaps[0]:.1f} median={statistics.median(gaps):.1f} max={gaps[-1]:.1f} "
            f"moves={self.moves} two_answering_ms={self.two_answering:.1f}"
        )
        medians = sorted((statistics.median(at), step, len(at)) for step, at in self.steps.items())
        return "\n".join([summary, *(f"{at:8.1f}  {step} ({n})" for at, step, n in medians)])


def _killed(unit: str) -> Act:
    """The instant is that of the signals, not that of the search for the processes."""

    def act(holder: Machine, now: Callable[[], None]) -> None:
        pids = holder.unit_pids(unit)
        now()
        for pid in pids:
            host.kill(pid, signal.SIGKILL)

    return act


def _typed(command: str) -> Act:
    def act(holder: Machine, now: Callable[[], None]) -> None:
        now()
        holder.run(command)

    return act


EVENTS: Mapping[str, Act] = {
    "A": _killed("haproxy.service"),
    "C": _typed(f"systemctl stop {DAEMON}"),
    "D": _killed(f"{DAEMON}.service"),
    "handover": _typed("govipctl handover"),
}


def play(lab: Lab, event: str, seen: Seen) -> None:
    """Play the event once."""
    lab.make_whole()
    time.sleep(0.5)  # what came of that is over
    holder = lab.wait_serving()
    since = time.clock_gettime(time.CLOCK_BOOTTIME)
    with lab.observe() as watching:
        EVENTS[event](holder, lambda: watching.mark("event"))
        time.sleep(0.3)  # the observers need the processors, too
        after = lab.wait_serving(by=holder) if event == "D" else lab.wait_serving(but=holder)
        time.sleep(0.3)
    report = watching.report
    seen.gaps.append(1000 * report.since("event").gap)
    seen.two_answering += 1000 * report.two_answering
    seen.moves += report.moves
    if event != "D":
        _note(seen, report, since, holder, after)


def _note(seen: Seen, report: Report, since: float, holder: Machine, successor: Machine) -> None:
    released, taken = steps_of(holder, "release", since), steps_of(successor, "take-over", since)
    zero = released.get(CLOSED, 0.0)
    event = report.marks["event"] + time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    at = {"event": event}
    at |= {f"holder: {step}": t for step, t in released.items()} | {
        f"successor: {step}": t for step, t in taken.items()
    }
    for step, instant in at.items():
        seen.steps[step].append(1000 * (instant - zero))


def steps_of(machine: Machine, move: str, since: float) -> Mapping[str, float]:
    """The instant of each step of a move, in seconds of CLOCK_BOOTTIME, which is the host's."""
    lines = machine.run(f"journalctl -q -o json -n 20 GOVIP_MOVE={move}").stdout.splitlines()
    at: dict[str, float] = {}
    for fields in map(json.loads, lines):
        began = float(fields["GOVIP_BEGAN"])
        if began >= since:
            at |= {step: began + ms / 1000 for step, ms in json.loads(fields["GOVIP_STEPS"])}
    return at


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="steps")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--events", nargs="+", choices=EVENTS, default=list(EVENTS))
    args = parser.parse_args()
    seen = {event: Seen() for event in args.events}
    with Lab() as lab:
        lab.start_daemons()
        for _ in range(args.times):
            for event in args.events:
                play(lab, event, seen[event])
    for event, what in seen.items():
        print(event, what)
    return 0 if all(what.two_answering == 0 for what in seen.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
