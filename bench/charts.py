"""The pictures, as SVG: every gap on a logarithmic scale, and the time line of one take-over."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from bench.events import EVENTS
from bench.records import Step, Summary
from bench.tools import TOOLS

WIDTH, LEFT, RIGHT, ROW = 960, 170, 150, 17
LEAST_MS, MOST_MS = 3.0, 20_000.0
COLOURS = {"govipd": "#1a62b8", "keepalived": "#d9730d", "vip": "#777777"}
STYLE = "text{font:12px sans-serif;fill:#222}.h{font-weight:bold}.s{font-size:11px;fill:#666}.two{fill:#c00}"


def colour(name: str) -> str:
    """A tool's colour, by its family."""
    return COLOURS[name.partition("-")[0]]


def svg(height: float, parts: Sequence[str]) -> str:
    """The file."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def text(x: float, y: float, words: str, css: str = "", anchor: str = "start") -> str:
    """A text; y is the base line."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, stroke: str, width: float = 1) -> str:
    """A stroke."""
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{stroke}" stroke-width="{width}"/>'


def gap_chart(summaries: Mapping[tuple[str, str], Summary]) -> str:
    """For each event and tool: the range of gaps as a line, the median as a dot, the time with two answering in red."""
    parts: list[str] = []
    y = 50.0
    for event in EVENTS.values():
        tools = [tool for tool in TOOLS if (event.name, tool) in summaries]
        if not tools:
            continue
        parts.append(text(10, y + 12, f"{event.name}: {event.title.replace('`', '')}", "h"))
        y += ROW + 3
        for tool in tools:
            parts += _gap_row(y, tool, summaries[event.name, tool])
            y += ROW
        y += 10
    grid = []
    for ms in (10, 100, 1000, 10_000):
        label = f"{ms} ms" if ms < 1000 else f"{ms // 1000} s"
        grid += [line(_x(ms), 34, _x(ms), y - 8, "#ddd"), text(_x(ms), 28, label, "s", "middle")]
    title = text(10, 16, "How long clients were not served: median, least to longest", "h")
    return svg(y + 4, [title, *grid, *parts])


def _x(ms: float) -> float:
    share = math.log(min(max(ms, LEAST_MS), MOST_MS) / LEAST_MS) / math.log(MOST_MS / LEAST_MS)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _gap_row(y: float, tool: str, summary: Summary) -> list[str]:
    middle = y + ROW / 2
    ends = _x(max(summary.gaps))
    parts = [
        text(LEFT - 8, middle + 4, tool, "", "end"),
        line(_x(min(summary.gaps)), middle, ends, middle, colour(tool), 3),
        f'<circle cx="{_x(summary.median):.1f}" cy="{middle:.1f}" r="4.5" fill="{colour(tool)}"/>',
    ]
    words = f"{'over ' if summary.censored else ''}{summary.median:.0f}"
    parts.append(text(ends + 9, middle + 4, words))
    if two := max(summary.two_answering):
        parts.append(text(ends + 15 + 7 * len(words), middle + 4, f"two answered for {two / 1000:.1f} s", "two"))
    return parts


def time_line(steps: Sequence[Step]) -> str:
    """A bar for each step of a take-over, with its share of the whole."""
    whole = max((step.at_ms for step in steps), default=0.0) or 1.0
    scale = (WIDTH - 330 - RIGHT) / whole
    parts = [text(10, 16, f"One take-over, haproxy killed, with its median gap: {whole:.0f} ms to the last step", "h")]
    y, before = 36.0, 0.0
    for step in steps:
        share = step.at_ms - before
        fill = "#2a8f4c" if step.node == "client" else COLOURS["govipd"]
        parts += [
            text(10, y + 12, f"{step.node}: {step.name}"),
            _bar(330 + before * scale, y + 2, share * scale, fill),
            text(336 + step.at_ms * scale, y + 13, f"{share:.1f} ms, {100 * share / whole:.0f} %", "s"),
        ]
        y, before = y + ROW + 4, step.at_ms
    return svg(y + 6, parts)


def _bar(x: float, y: float, width: float, fill: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="13" fill="{fill}"/>'


def scale_chart(figures: Sequence[tuple[int, str, float, str]]) -> str:
    """Figures by the number of groups (groups, what, value, unit): for each `what` a row of bars."""
    parts = [text(10, 16, "One daemon with many VIP groups", "h")]
    y = 36.0
    for what in dict.fromkeys(what for _, what, _, _ in figures):
        row = [(groups, value, unit) for groups, name, value, unit in figures if name == what]
        most = max(value for _, value, _ in row) or 1.0
        parts.append(text(10, y + 12, what, "h"))
        y += ROW + 3
        for groups, value, unit in row:
            width = value / most * (WIDTH - LEFT - RIGHT)
            parts += [
                text(LEFT - 8, y + 12, f"{groups} groups" if groups > 1 else "1 group", "", "end"),
                _bar(LEFT, y + 2, width, COLOURS["govipd"]),
                text(LEFT + width + 8, y + 13, f"{value:g} {unit}", "s"),
            ]
            y += ROW
        y += 10
    return svg(y + 4, parts)
