"""The figures of a scenario for docs/edges.md, in one line that `pytest -s` shows."""

from tests.lab.observe import Report


def served_after(report: Report, mark: str, end: str = "") -> float:
    """How many seconds after a mark the last request was lost, up to another mark or the end."""
    until = report.marks[end] if end else report.ended
    lost = [r.sent_at for r in report.requests if not r.by and r.sent_at < until]
    return max(0.0, max(lost, default=0.0) - report.marks[mark])


def edge(name: str, report: Report, mark: str = "event", end: str = "followed") -> None:
    """Print the figures between two marks: two answering (of the whole report), served for good, the longest gap."""
    gap = report.between(report.marks[mark], report.marks[end] if end else report.ended).gap
    print(
        f"edge {name}: two_answering_ms={1000 * report.two_answering:.1f} "
        f"served_after_s={served_after(report, mark, end):.2f} gap_ms={1000 * gap:.0f}"
    )
