"""results.md and the pictures, from the records."""

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.charts import gap_chart, time_line
from bench.events import EVENTS
from bench.records import Context, Record, Summary, read, summarize
from bench.tools import TOOLS
from bench.verdict import Summaries, best_keepalived, judge


def report(directory: Path, records: Sequence[Record], context: Context) -> None:
    """Write the report."""
    summaries = summarize(records)
    (directory / "results.md").write_text("\n".join(_page(summaries, context)) + "\n")
    (directory / "gaps.svg").write_text(gap_chart(summaries))
    if context.timeline:
        (directory / "take-over.svg").write_text(time_line(context.timeline))


def _page(summaries: Summaries, context: Context) -> Iterator[str]:
    v = context.versions
    yield "# Results\n"
    yield "Written by `make bench`; [README.md](README.md) tells how it measures.\n"
    yield (
        f"{context.date}, {'quick, ' if context.quick else ''}{', '.join(context.machine.values())}. "
        f"govipd {v['govipd']} ({v['commit']}), keepalived {v['keepalived']}, vip-manager {v['vip-manager']}, "
        f"etcd {v['etcd-server']}, haproxy {v['haproxy']}, systemd {v['systemd']}.\n"
    )
    yield "![every gap](gaps.svg)\n"
    yield "## Gap\n\nMilliseconds: median (least to longest), number of runs.\n"
    yield from _table(summaries, _gap)
    yield "\n## Two machines answering\n\nMilliseconds, the longest of all runs.\n"
    yield from _table(summaries, lambda s: f"{max(s.two_answering):.0f}")
    yield "\n## Moves\n\nOf the VIP, as clients saw it, least to most.\n"
    yield from _table(summaries, lambda s: _range(min(s.moves), max(s.moves)))
    yield "\n## Ratio to the best keepalived\n"
    yield "To the shortest gap of its settings, medians, where the VIP has to move.\n"
    yield from _ratios(summaries)
    if context.idle:
        yield "\n## At rest\n\n| tool | machine | processor, % of one | resident, MB |\n|---|---|---|---|"
        for i in context.idle:
            where = "holds the VIP" if i.holds else "another"
            yield f"| {i.tool} | {where} | {i.cpu_percent:.2f} | {i.resident_mb:.1f} |"
        yield f"\nOver {context.idle[0].seconds:.0f} s."
    if context.ready_s:
        yield f"govipd is ready {statistics.median(context.ready_s):.2f} s after its start."
    if context.timeline:
        yield "\n## A take-over\n\n![the steps of a take-over](take-over.svg)"
    yield "\n## What must hold\n\n| | figure | at most | |\n|---|---|---|---|"
    for j in judge(summaries, context):
        yield f"| {j.name} | {j.value:.3g} | {j.bound:g} | {'ok' if j.good else '**missed**'} |"


def _table(summaries: Summaries, cell: Callable[[Summary], str]) -> Iterator[str]:
    tools = [tool for tool in TOOLS if any(tool == t for _, t in summaries)]
    yield f"| event | {' | '.join(tools)} |"
    yield f"|---|{'---|' * len(tools)}"
    for event in EVENTS.values():
        cells = [cell(s) if (s := summaries.get((event.name, tool))) else "" for tool in tools]
        if any(cells):
            yield f"| {event.name}: {event.title} | {' | '.join(cells)} |"


def _gap(s: Summary) -> str:
    over = "> " if s.censored else ""
    return f"{over}{s.median:.1f} ({min(s.gaps):.1f} to {max(s.gaps):.1f}), {len(s.gaps)}"


def _range(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"


def _ratios(summaries: Summaries) -> Iterator[str]:
    ours = [tool for tool in TOOLS if tool.startswith("govipd") and any(tool == t for _, t in summaries)]
    yield f"| event | {' | '.join(ours)} |"
    yield f"|---|{'---|' * len(ours)}"
    for event in EVENTS.values():
        best = best_keepalived(summaries, event.name)
        if best and event.ends_when_moved:
            cells = [f"{s.median / best:.2f}" if (s := summaries.get((event.name, t))) else "" for t in ours]
            yield f"| {event.name}: {event.title} | {' | '.join(cells)} |"


if __name__ == "__main__":
    report(Path(sys.argv[1]), *read(Path(sys.argv[1])))
