"""What can happen to the machine that holds the VIP, and what must come of it. The demo tells them, the tests check."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tests.lab.host import until
from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.observe import Report

TTL_S = 3.0
# A machine that is killed or loses etcd is off the air at the latest this long after, on a busy test host.
LEASE_BOUND_S = TTL_S + 1.0


class Outcome(Enum):
    """Who serves afterwards."""

    MOVES = "another machine serves"
    STAYS = "the same machine serves"
    RETURNS = "nobody serves without an etcd majority; one machine does when it is back"


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something that happens; `undo` brings back what make_whole() would not."""

    name: str
    title: str
    outcome: Outcome
    act: Callable[[Lab, Machine], None]


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


def play(lab: Lab, scenario: Scenario) -> Result:
    """Let it happen to a whole lab, watch, and repair the machines again."""
    lab.make_whole()
    holder = lab.wait_serving()
    with lab.observe() as watching:
        watching.mark("event")
        scenario.act(lab, holder)
        watching.mark("done")
        match scenario.outcome:
            case Outcome.MOVES:
                after = lab.wait_serving(but=holder).name
            case Outcome.STAYS:
                time.sleep(1.0)
                after = lab.serving() or ""
            case Outcome.RETURNS:
                lab.wait_silent()
                time.sleep(1.0)
                watching.mark("back")
                for node in lab.others():
                    node.run("systemctl start --no-block etcd")
                after = lab.wait_serving().name
        time.sleep(1.0)
    report = watching.report
    return Result(scenario, holder.name, after, report, tuple(_faults(scenario, holder.name, after, report)))


def _faults(scenario: Scenario, before: str, after: str, report: Report) -> list[str]:
    """What must not have been; empty when all is well."""
    seen = report.since("event")
    faults = []
    if report.two_answering:
        faults.append(f"two machines answered for {1000 * report.two_answering:.1f} ms")
    match scenario.outcome:
        case Outcome.MOVES if after == before or seen.moves != 1:
            faults.append(f"did not move once: {before} -> {after}, {seen.moves} moves")
        case Outcome.STAYS if after != before or seen.moves or set(seen.holders) != {before}:
            faults.append(f"moved: {before} -> {after}, {seen.moves} moves, holders {seen.holders}")
        case Outcome.RETURNS:
            last = max(a.at for a in report.answers if a.at < report.marks["back"])
            if last - report.marks["done"] > LEASE_BOUND_S:
                faults.append(f"answered for {last - report.marks['done']:.1f} s without a majority")
    return faults


def _run(command: str) -> Callable[[Lab, Machine], None]:
    return lambda _lab, holder: (holder.run(command), None)[1]


def _signal(unit: str, number: signal.Signals) -> Callable[[Lab, Machine], None]:
    return lambda _lab, holder: holder.signal_unit(unit, number)


def _etcd_majority_lost(lab: Lab, holder: Machine) -> None:
    for node in lab.others(holder):
        node.run("systemctl stop etcd")


def _reload_haproxy(_lab: Lab, holder: Machine) -> None:
    for _ in range(10):
        holder.run("systemctl reload haproxy")
        time.sleep(0.2)


def _each_etcd_in_turn(lab: Lab, _holder: Machine) -> None:
    for node in lab.others():
        node.run("systemctl stop etcd")
        time.sleep(2.0)
        node.run("systemctl start etcd", timeout=60)
        until(lambda n=node: n.run("systemctl is-active etcd", check=False).returncode == 0, 30, f"{node}'s etcd")  # type: ignore[misc]


def _power_loss(_lab: Lab, holder: Machine) -> None:
    holder.power_loss()


def _isolate(lab: Lab, holder: Machine) -> None:
    lab.isolate(holder)


SCENARIOS = (
    Scenario("haproxy-reloaded", "haproxy is reloaded ten times on the holder", Outcome.STAYS, _reload_haproxy),
    Scenario("haproxy-stopped", "haproxy is stopped on the holder", Outcome.MOVES, _run("systemctl stop haproxy")),
    Scenario("haproxy-killed", "haproxy is killed (SIGKILL) on the holder", Outcome.MOVES,
             _signal("haproxy.service", signal.SIGKILL)),
    Scenario("haproxy-frozen", "haproxy hangs (SIGSTOP) on the holder", Outcome.MOVES,
             _signal("haproxy.service", signal.SIGSTOP)),
    Scenario("govipd-stopped", "govipd is stopped on the holder", Outcome.MOVES, _run(f"systemctl stop {DAEMON}")),
    Scenario("power-loss", "the holder loses power", Outcome.MOVES, _power_loss),
    Scenario("isolated", "the holder is cut off from the others, not from the client", Outcome.MOVES, _isolate),
    Scenario("etcd-in-turn", "each etcd member is stopped and started in turn", Outcome.STAYS, _each_etcd_in_turn),
    Scenario("etcd-majority-lost", "etcd loses its majority, and gets it back", Outcome.RETURNS, _etcd_majority_lost),
)  # fmt: skip
