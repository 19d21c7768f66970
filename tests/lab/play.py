"""Something happens to the machine that holds the VIP, and what must come of it.

`tests.lab.scenarios` are the demo's, `tests.lab.faults` are more; the tests play both.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum

import pytest
from _pytest.mark.structures import ParameterSet

from govipd.core.liveness import START_S
from tests.lab.lab import DAEMON, Lab, Watching
from tests.lab.machine import Machine
from tests.lab.observe import Report

HELD_S = 2.4  # ttl - margin: how long a confirmed renewal holds the VIP
# An etcd leader that has lost its majority goes on confirming renewals until it steps down, which it checks once
# per election time-out (1 s), against what it heard since the last check.
STEP_DOWN_S = 2.0
LEASE_BOUND_S = HELD_S + STEP_DOWN_S + 0.3  # and what a busy host takes to get it done


# On a busy host the observers do not get all of their time. What they did not ask in, they cannot speak for.
UNASKED_SHARE = 0.1
# Nor can a restart be lossless where a process starts later than govipd promises to adopt. It is played again.
ATTEMPTS = 3


class Outcome(Enum):
    """Who serves afterwards."""

    MOVES = "another machine serves"
    STAYS = "the same machine serves"
    RETURNS = "nobody serves without an etcd majority; one machine does when it is back"
    ONE = "one machine serves"
    SERVED = "one machine serves in the end"
    UNSEEN = "the holder keeps it, unseen by the client"


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something that happens; `undo` brings back what Lab.make_whole() does not know of."""

    name: str
    title: str
    outcome: Outcome
    act: Callable[[Lab, Machine], None]
    undo: Callable[[Lab, Machine], None] = lambda _lab, _holder: None
    lossless: bool = False  # not one request may be lost


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    scenario: Scenario
    before: str
    after: str | None
    report: Report
    faults: tuple[str, ...]

    @property
    def seen(self) -> Report:
        """From the event on."""
        return self.report.since("event")

    @property
    def two_answering_ms(self) -> float:
        """For how long two machines answered."""
        return 1000 * self.report.two_answering


def parameters(scenarios: Iterable[Scenario], long: Collection[str]) -> list[ParameterSet]:
    """The scenarios as a test's parameters. Those named in `long` are played by `make edges`, not by `make test`."""
    return [pytest.param(s, marks=pytest.mark.long if s.name in long else (), id=s.name) for s in scenarios]


def play(lab: Lab, scenario: Scenario) -> Result:
    """Let it happen to a whole lab, watch, and repair the machines again.

    A lossless scenario is played again where the host started a process later than START_S, and no two answered.
    """
    for _ in range(ATTEMPTS):
        result = _play_once(lab, scenario)
        if not (scenario.lossless and result.faults) or result.report.two_answering:
            break
        slowest = _slowest_start(next(node for node in lab.nodes if node.name == result.before), result.report)
        if slowest <= START_S:
            break
        lab.say(f"{scenario.name}: govipd started after {slowest:.2f} s, not within {START_S:g} s: played again")
    return result


def _slowest_start(node: Machine, report: Report) -> float:
    """The longest time in seconds from the end of a process of govipd to the first word of the next, by the journal."""
    lines = node.run(f"journalctl -q -o json -u {DAEMON}").stdout.splitlines()
    ended, slowest = None, 0.0
    for entry in map(json.loads, lines):
        at = int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6
        if at < report.marks["event"]:
            continue
        if entry["_PID"] != "1":
            slowest = max(slowest, at - ended if ended else 0.0)
            ended = None
        elif entry["MESSAGE"].endswith("Deactivated successfully.") or "Main process exited" in entry["MESSAGE"]:
            ended = at
    return slowest


def _play_once(lab: Lab, scenario: Scenario) -> Result:
    lab.make_whole()
    holder = lab.wait_serving()
    with lab.observe() as watching:
        watching.mark("event")
        try:
            scenario.act(lab, holder)
            watching.mark("done")
            after = _follow(lab, scenario, holder, watching)
            watching.mark("followed")
        finally:
            scenario.undo(lab, holder)
        time.sleep(1.0)
    report = watching.report
    return Result(scenario, holder.name, after, report, tuple(_faults(scenario, holder.name, after, report)))


def _follow(lab: Lab, scenario: Scenario, holder: Machine, watching: Watching) -> str:
    """Wait for what should come; who serves then."""
    match scenario.outcome:
        case Outcome.MOVES:
            return lab.wait_serving(but=holder).name
        case Outcome.STAYS:
            time.sleep(1.0)
            return lab.serving() or "nobody"
        case Outcome.RETURNS:
            lab.wait_silent()
            time.sleep(1.0)
            watching.mark("back")
            for node in lab.others():
                node.run("systemctl start --no-block etcd")
        case Outcome.UNSEEN:
            lab.wait_silent()
            time.sleep(LEASE_BOUND_S)
            return (lab.queue() or ["nobody"])[0]
        case Outcome.ONE:
            time.sleep(LEASE_BOUND_S)
    return lab.wait_serving().name


def _faults(scenario: Scenario, before: str, after: str, report: Report) -> list[str]:
    """What must not have been; empty when all is well."""
    seen = report.since("event")
    faults = []
    if report.two_answering:
        faults.append(f"two machines answered for {1000 * report.two_answering:.1f} ms")
    if report.unasked > UNASKED_SHARE * (report.ended - report.began):
        faults.append(f"nobody asked the machines for {report.unasked:.2f} s: nothing is proven")
    if scenario.lossless and seen.lost:
        faults.append(f"{seen.lost} of {len(seen.requests)} requests were lost")
    match scenario.outcome:
        case Outcome.MOVES if after == before or seen.moves != 1:
            faults.append(f"did not move once: {before} -> {after}, {seen.moves} moves")
        case Outcome.UNSEEN if after != before:
            faults.append(f"moved: {before} -> {after}")
        case Outcome.STAYS if after != before or seen.moves or set(seen.holders) != {before}:
            faults.append(f"moved: {before} -> {after}, {seen.moves} moves, holders {seen.holders}")
        case Outcome.RETURNS:
            last = max(a.at for a in report.answers if a.at < report.marks["back"])
            if last - report.marks["done"] > LEASE_BOUND_S:
                faults.append(f"answered for {last - report.marks['done']:.1f} s without a majority")
    return faults
