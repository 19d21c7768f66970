"""The runs of a benchmark, and their order."""

from collections.abc import Iterator, Mapping, Sequence

from bench.events import EVENTS, Event
from bench.tools import FAST, FAST_100MS, GOVIPD, TOOLS, TUNED, TUNED_10MS, USUAL, VIP_MANAGER, Tool
from bench.verdict import TO_BEST_KEEPALIVED

RUNS = 5
CLOSE_RUNS = 9  # where gaps are of about the client's own interval: they show whether one connection was lost
REFERENCE_RUNS = 2  # of what is shown, but not judged
IDLE = "idle"
_BEST_KEEPALIVED = frozenset({TUNED, TUNED_10MS})  # it is always one of them
JUDGED: Mapping[str, frozenset[str]] = {
    **{event: _BEST_KEEPALIVED | {tool} for event, tool, _ in TO_BEST_KEEPALIVED},
    "D": frozenset({GOVIPD}),
    "E": frozenset({GOVIPD}),
    "F": frozenset({FAST, TUNED}),
    "G": frozenset({FAST}),
}
_CLOSE_EVENTS = {"C", "handover"}
_CLOSE = {GOVIPD: CLOSE_RUNS, TUNED: CLOSE_RUNS, TUNED_10MS: CLOSE_RUNS}
# With QUICK=1: what is judged more often where chance has a large part in it, the rest once or not at all.
QUICK: Mapping[str, Mapping[str, int]] = {
    "A": {GOVIPD: 5, TUNED: 5, TUNED_10MS: 5, FAST: 1, USUAL: 1, VIP_MANAGER: 1},
    "B": {FAST: 5, TUNED: 5, TUNED_10MS: 5, GOVIPD: 1},
    "C": _CLOSE,
    "D": {GOVIPD: 1, FAST: 1, TUNED: 1},
    "E": {GOVIPD: 1, FAST: 1, TUNED: 1},
    "F": {FAST: 2, TUNED: 2, GOVIPD: 1, FAST_100MS: 1, TUNED_10MS: 1, USUAL: 1, VIP_MANAGER: 1},
    "G": {FAST: 2, GOVIPD: 1, FAST_100MS: 1, TUNED: 1},
    "handover": _CLOSE,
    IDLE: {GOVIPD: 1, TUNED: 1},
}


def runs(event: Event, tool: Tool, wanted: int | None, *, quick: bool) -> int:
    """The number of runs, where it differs from the wanted number; 0 for an event that shows nothing of this tool."""
    if event.leads_etcd and not tool.elects_in_etcd:
        return 0
    if tool.name == FAST_100MS and event.title not in {EVENTS["F"].title, EVENTS["G"].title}:
        return 0  # only the pact's time-out differs
    if quick:
        return QUICK.get(event.name, {}).get(tool.name, 0)
    if wanted is not None:
        return wanted
    if tool.name not in JUDGED.get(event.name, ()):
        return REFERENCE_RUNS
    return CLOSE_RUNS if event.name in _CLOSE_EVENTS else RUNS


def turns(
    tools: Sequence[str], events: Sequence[str], wanted: int | None, *, quick: bool
) -> Iterator[tuple[int, Event, Tool]]:
    """In each round every event, for each event every tool. Each round begins with another tool."""
    for run in range(1, (wanted or CLOSE_RUNS) + 1):
        first = run % len(tools)
        for event in (EVENTS[name] for name in events if name in EVENTS):
            for tool in (TOOLS[name] for name in (*tools[first:], *tools[:first])):
                if run <= runs(event, tool, wanted, quick=quick):
                    yield run, event, tool


def at_rest(tools: Sequence[str], *, quick: bool) -> list[Tool]:
    """The tools whose cost without events is measured."""
    return [TOOLS[name] for name in tools if name != FAST_100MS and (not quick or name in QUICK[IDLE])]
