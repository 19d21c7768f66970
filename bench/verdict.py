"""The bounds, judged by the medians of one run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.records import Context, Summary
from bench.tools import FAST, GOVIPD, KEEPALIVED, TUNED

Summaries = Mapping[tuple[str, str], Summary]
TO_BEST_KEEPALIVED = (("A", GOVIPD, 0.7), ("B", FAST, 0.5), ("C", GOVIPD, 1.0), ("handover", GOVIPD, 1.0))  # at most


@dataclass(frozen=True, slots=True)
class Judgement:
    """A figure and its bound."""

    name: str
    value: float
    bound: float

    @property
    def good(self) -> bool:
        """Whether the bound holds."""
        return self.value <= self.bound

    def __str__(self) -> str:
        return f"{self.name}={self.value:.3g} {'ok' if self.good else 'MISSED'}"


def best_keepalived(summaries: Summaries, event: str) -> float | None:
    """The shortest median of keepalived's settings, in ms; None if none served again."""
    medians = [s.median for tool in KEEPALIVED if (s := summaries.get((event, tool))) and s.served]
    return min(medians, default=None)


def judge(summaries: Summaries, context: Context) -> Iterator[Judgement]:
    """Every measured figure that has a bound."""
    for event, tool, bound in TO_BEST_KEEPALIVED:
        ours, best = summaries.get((event, tool)), best_keepalived(summaries, event)
        if ours and best:
            yield Judgement(event, ours.median / best, bound)
    # Cut off, keepalived shows no gap, because two machines answer: its gap at power-off is the measure of both.
    power_off = summaries.get(("F", TUNED))
    for event in ("F", "G"):
        ours = summaries.get((event, FAST))
        if ours and power_off:
            yield Judgement(event, ours.median / power_off.median, 1.0)
    if killed := summaries.get(("D", GOVIPD)):
        yield Judgement("D_gap_ms", killed.median, 20.0)
        yield Judgement("D_moves", max(killed.moves), 0)
    two = [max(s.two_answering) for (_, tool), s in summaries.items() if tool.startswith(GOVIPD)]
    if two:
        yield Judgement("two_answering_ms", max(two), 0.0)
    ours_idle = [i for i in context.idle if i.tool == GOVIPD]
    if ours_idle:
        yield Judgement("idle_cpu_percent", max(i.cpu_percent for i in ours_idle), 1.5)
        yield Judgement("resident_mb", max(i.resident_mb for i in ours_idle), 64.0)
    if context.ready_s:
        yield Judgement("ready_s", sorted(context.ready_s)[len(context.ready_s) // 2], 0.6)


def verdict(summaries: Summaries, context: Context) -> tuple[str, bool]:
    """One line, and whether every bound holds."""
    judgements = list(judge(summaries, context))
    return f"bench: {' '.join(map(str, judgements))}", all(j.good for j in judgements)
