"""`make bench`: govipd, keepalived and vip-manager in one lab, in turns. The last line is the verdict."""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Collection
from operator import itemgetter
from pathlib import Path

from bench import plan
from bench.events import EVENTS
from bench.field import PACKAGES, Field, versions
from bench.idle import idle, ready_times
from bench.measure import Measured, measure
from bench.records import Context, Record, summarize, write
from bench.report import report
from bench.timeline import steps
from bench.tools import GOVIPD, TOOLS
from bench.verdict import verdict
from tests.lab.lab import Lab

OUT = Path(__file__).resolve().parents[1] / "docs/benchmarks"


def arguments() -> argparse.Namespace:
    """The command line's arguments."""
    events = [*EVENTS, plan.IDLE]
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--tools", type=_some(TOOLS), default=list(TOOLS), help=",".join(TOOLS))
    parser.add_argument("--events", type=_some(events), default=events, help=",".join(events))
    parser.add_argument("--runs", type=int, help="of every event with every tool")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="fewer runs, shorter watching: less than ten minutes")
    return parser.parse_args()


def _some(allowed: Collection[str]) -> Callable[[str], list[str]]:
    def some(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(allowed)}")
        return names

    return some


def machine() -> dict[str, str]:
    """The host on which the run was measured."""
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024 / 1024
    return {
        "processors": f"{os.cpu_count()} x {cpu.partition(': ')[2]}",
        "memory": f"{memory:.0f} GB",
        "kernel": f"Linux {platform.release().partition('-')[0]}",
    }


def told(measured: Measured) -> str:
    """A run in one line."""
    r = measured.record
    return (
        f"{r.event:9} {r.tool:17} {r.run}  gap {r.gap_ms:7.1f} ms{'+' if r.censored else ' '}  two answering "
        f"{r.two_answering_ms:6.1f} ms  moves {r.moves}  {measured.holder} -> {measured.taker or 'nobody'}"
    )


def main() -> int:
    """Measure and write. Returns the exit status."""
    args = arguments()
    records: list[Record] = []
    timelines = []
    began = time.monotonic()
    with Lab(extra=PACKAGES) as lab:
        field = Field(lab)
        context = Context(time.strftime("%Y-%m-%d"), machine(), versions(lab), args.quick)
        for run, event, tool in plan.turns(args.tools, args.events, args.runs, quick=args.quick):
            measured = measure(field, tool, event, run, quick=args.quick)
            print(f"{time.monotonic() - began:5.0f} s  {told(measured)}", flush=True)
            records.append(measured.record)
            if (tool.name, event.name) == (GOVIPD, "A"):
                timelines.append((measured.record.gap_ms, steps(measured)))
        if plan.IDLE in args.events:
            for tool in plan.at_rest(args.tools, quick=args.quick):
                context.idle.extend(idle(field, tool, quick=args.quick))
            if GOVIPD in args.tools:
                context.ready_s.extend(ready_times(field, TOOLS[GOVIPD], quick=args.quick))
    if timelines:  # the one of the median gap
        context.timeline.extend(sorted(timelines, key=itemgetter(0))[len(timelines) // 2][1])
    write(args.out, records, context)
    report(args.out, records, context)
    line, good = verdict(summarize(records), context)
    print(line)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
