"""`make bench`: govipd against keepalived and vip-manager, in one lab, by turns. The last line is the verdict."""

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.events import EVENTS, Event
from bench.field import PACKAGES, Field, versions
from bench.idle import idle, ready_times
from bench.measure import WINDOW_S, measure
from bench.records import Context, Record, Step, summarize, write
from bench.report import report
from bench.timeline import steps
from bench.tools import FAST_100MS, GOVIPD, TOOLS, USUAL, VIP_MANAGER, Tool
from bench.verdict import verdict
from tests.lab.lab import Lab

OUT = Path(__file__).resolve().parents[1] / "docs/benchmarks"
RUNS = 5
# With QUICK=1: the judged events three times, the slow and the long ones once.
QUICK_RUNS = {"A": 3, "C": 3, "handover": 3}
QUICK_WINDOW_S = 5.0
ONLY = {FAST_100MS: ("F", "G")}  # of interest there only
QUICK_ONLY = {**ONLY, USUAL: ("A", "B", "D", "F"), VIP_MANAGER: ("A", "F")}
IDLE = "idle"


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    names = lambda allowed: lambda text: [_known(name, allowed) for name in text.split(",")]  # noqa: E731
    parser.add_argument("--tools", type=names(list(TOOLS)), default=list(TOOLS), help=",".join(TOOLS))
    parser.add_argument("--events", type=names([*EVENTS, IDLE]), default=[*EVENTS, IDLE], help=",".join([*EVENTS, IDLE]))
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="fewer runs, shorter windows: ten minutes")
    return parser.parse_args()


def _known(name: str, allowed: list[str]) -> str:
    if name not in allowed:
        raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(allowed)}")
    return name


def turns(args: argparse.Namespace) -> Iterator[tuple[int, Event, Tool]]:
    """Every run: in each round every event, for each event every tool, and another one first in each round."""
    only = QUICK_ONLY if args.quick else ONLY
    for run in range(1, args.runs + 1):
        first = run % len(args.tools)
        for event in (EVENTS[name] for name in args.events if name in EVENTS):
            if args.quick and run > QUICK_RUNS.get(event.name, 1):
                continue
            for name in args.tools[first:] + args.tools[:first]:
                if event.name in only.get(name, EVENTS) and (TOOLS[name].elects_in_etcd or event.leads_etcd is not True):
                    yield run, event, TOOLS[name]


def machine() -> dict[str, str]:
    """Where it was measured."""
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024 / 1024
    return {
        "processors": f"{os.cpu_count()} x {cpu.partition(': ')[2]}",
        "memory": f"{memory:.1f} GB",
        "kernel": platform.release(),
    }


def main() -> int:
    """Measure and write. Returns the exit status."""
    args = arguments()
    window = QUICK_WINDOW_S if args.quick else WINDOW_S
    records: list[Record] = []
    timelines: dict[float, list[Step]] = {}
    began = time.monotonic()
    with Lab(extra=PACKAGES) as lab:
        field = Field(lab)
        context = Context(time.strftime("%Y-%m-%d"), machine(), versions(lab), args.quick)
        for run, event, tool in turns(args):
            measured = measure(field, tool, event, run, window)
            record = measured.record
            records.append(record)
            print(f"{time.monotonic() - began:6.0f} s  {event.name:9} {tool.name:17} {run}  gap {record.gap_ms:7.1f} ms"
                  f"{'+' * record.censored}  two answering {record.two_answering_ms:6.1f} ms  moves {record.moves}"
                  f"  {measured.holder} -> {measured.taker}", flush=True)  # fmt: skip
            if (tool.name, event.name) == (GOVIPD, "A"):
                timelines[record.gap_ms] = steps(measured)
        if IDLE in args.events:
            for tool in (TOOLS[name] for name in args.tools if name not in ONLY):
                context.idle.extend(idle(field, tool, quick=args.quick))
            if GOVIPD in args.tools:
                context.ready_s.extend(ready_times(field, TOOLS[GOVIPD]))
    if timelines:
        context.timeline.extend(timelines[sorted(timelines)[len(timelines) // 2]])
    write(args.out, records, context)
    report(args.out, records, context)
    line, good = verdict(summarize(records), context)
    print(line)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
