"""The bounds that are judged, the order of the measurements, and the written report."""

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import plan
from bench.charts import time_line
from bench.events import EVENTS
from bench.records import Context, Idle, Record, Step, read, summarize, write
from bench.report import report
from bench.tools import FAST, FAST_100MS, GOVIPD, TOOLS, TUNED, TUNED_10MS, VIP_MANAGER
from bench.verdict import best_keepalived, verdict

VERSIONS = ("govipd", "commit", "keepalived", "vip-manager", "etcd-server", "haproxy", "systemd")


def record(
    tool: str, event: str, gap: float, *, run: int = 1, two: float = 0, moves: int = 1, censored: bool = False
) -> Record:
    return Record(tool, event, run, gap, two, moves, censored, 10_000, 0, etcd_leader=False)


def context(*idle: Idle, ready: float = 0.5) -> Context:
    steps = [Step(3.0, "node1", "dropping <the> VIP"), Step(12.0, "client", "served again")]
    return Context("2026-01-01", {"kernel": "Linux"}, dict.fromkeys(VERSIONS, "1"), False, list(idle), [ready], steps)


GOOD = [
    record(GOVIPD, "A", 14), record(TUNED, "A", 30), record(TUNED_10MS, "A", 20),
    record(FAST, "B", 300), record(TUNED, "B", 700),
    record(GOVIPD, "C", 7), record(TUNED, "C", 8),
    record(GOVIPD, "handover", 8), record(TUNED, "handover", 8),
    record(GOVIPD, "D", 9, moves=0), record(TUNED, "D", 9, two=9000, moves=7),
    record(FAST, "F", 210), record(TUNED, "F", 240),
    record(FAST, "G", 100), record(TUNED, "G", 8, two=9000),
]  # fmt: skip


def test_all_that_must_hold_is_judged_by_medians() -> None:
    """A ratio to the best keepalived, and bounds of govipd's own."""
    line, good = verdict(summarize(GOOD), context(Idle(GOVIPD, True, 60, 1.0, 60)))
    assert good
    assert line == (
        "bench: A=0.7 ok B=0.429 ok C=0.875 ok handover=1 ok F=0.875 ok G=0.417 ok D_gap_ms=9 ok D_moves=0 ok "
        "two_answering_ms=0 ok idle_cpu_percent=1 ok resident_mb=60 ok ready_s=0.5 ok"
    )


@pytest.mark.parametrize(
    ("name", "worse"),
    [
        ("A", [record(GOVIPD, "A", gap, run=run) for run, gap in ((2, 16), (3, 90))]),
        ("two_answering_ms", [record(FAST, "E", 9, two=0.1)]),
        ("D_moves", [record(GOVIPD, "D", 9, run=2, moves=1)]),
        ("D_gap_ms", [record(GOVIPD, "D", 99, run=2, moves=0)]),
    ],
)
def test_what_does_not_hold_is_missed(name: str, worse: list[Record]) -> None:
    """And nothing else is."""
    line, good = verdict(summarize([*GOOD, *worse]), context())
    assert not good
    assert line.count("MISSED") == 1
    assert f"{name}=" in line.partition(" MISSED")[0].rpartition(" ")[2]


def test_a_daemon_that_is_fat_busy_or_late_is_missed() -> None:
    line, good = verdict({}, context(Idle(GOVIPD, True, 60, 1.6, 65), ready=0.7))
    assert not good
    assert line == "bench: idle_cpu_percent=1.6 MISSED resident_mb=65 MISSED ready_s=0.7 MISSED"


def test_a_keepalived_that_did_not_bring_the_vip_back_is_not_the_best() -> None:
    """Its gap is as long as it was watched, at least."""
    summaries = summarize([record(TUNED, "A", 5, censored=True), record(TUNED_10MS, "A", 30)])
    assert best_keepalived(summaries, "A") == 30
    assert best_keepalived(summaries, "B") is None


def test_the_page_and_the_pictures_can_be_made_again_from_what_is_kept(tmp_path: Path) -> None:
    write(tmp_path, GOOD, context(Idle(GOVIPD, True, 60, 1.0, 60)))
    report(tmp_path, *read(tmp_path))
    page = (tmp_path / "results.md").read_text()
    assert "| A: haproxy is killed | 14.0 (14.0 to 14.0), 1 |  | 30.0 (30.0 to 30.0), 1 |" in page
    assert "| A: haproxy is killed | 0.70 |  |" in page
    assert "| D: the daemon is killed | 0 |  | 9000 |" in page
    assert "| G | 0.417 | 1 | ok |" in page
    for picture in ("gaps.svg", "take-over.svg"):
        assert ET.parse(tmp_path / picture).getroot().tag.endswith("svg")


def test_the_time_line_gives_each_step_its_share() -> None:
    picture = time_line([Step(3.0, "node1", "first"), Step(12.0, "node2", "second")])
    assert "3.0 ms, 25 %" in picture
    assert "9.0 ms, 75 %" in picture


def test_tools_take_turns_within_every_event_and_in_who_comes_first() -> None:
    turns = list(plan.turns([GOVIPD, TUNED], ["A", "C"], 2, quick=False))
    assert [(run, event.name, tool.name) for run, event, tool in turns] == [
        (1, "A", TUNED), (1, "A", GOVIPD), (1, "C", TUNED), (1, "C", GOVIPD),
        (2, "A", GOVIPD), (2, "A", TUNED), (2, "C", GOVIPD), (2, "C", TUNED),
    ]  # fmt: skip


def test_every_tool_plays_every_event_as_often_as_was_asked() -> None:
    """Where etcd's leader is matters to whom etcd elects; the second pact differs when a machine is gone."""
    turns = Counter((tool.name, event.name) for _, event, tool in plan.turns(list(TOOLS), list(EVENTS), 5, quick=False))
    assert set(turns.values()) == {5}
    missing = {(tool, event) for tool in TOOLS for event in EVENTS} - set(turns)
    assert {(tool, event) for tool, event in missing if tool != FAST_100MS} == {
        (tool, event) for tool in TOOLS if tool.startswith("keepalived") for event in ("F-etcd", "G-etcd")
    }


def test_a_quick_run_has_all_that_is_judged() -> None:
    turns = {(tool.name, event.name) for _, event, tool in plan.turns(list(TOOLS), list(EVENTS), 5, quick=True)}
    assert {(GOVIPD, e) for e in "ACDE"} | {(GOVIPD, "handover"), (FAST, "B"), (FAST, "F"), (FAST, "G")} <= turns
    assert (VIP_MANAGER, "F") in turns
