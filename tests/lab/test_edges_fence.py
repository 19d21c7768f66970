"""A NAT rule that redirects a port of the VIP: the fence stops the redirected packets, too."""

import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.edges import PORT, redirect, redirect_no_more
from tests.lab.faults import DROP_IN, UNIT, _with_watchdog
from tests.lab.figures import edge
from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.network import VIP4, Port
from tests.lab.observe import CHECKOUT
from tests.lab.play import Outcome, Scenario, play
from tests.lab.scenarios import Act

BESIDE = Port("beside", 60)
LONG_S = 60.0
STILL_S = 3.0  # for which the new leader has served, and the old one was asked


@contextmanager
def asking(lab: Lab, holder: Machine) -> Iterator[list[tuple[float, str]]]:
    """A second client asks the VIP's holder at its hardware address. Returns the answers."""
    answers: list[tuple[float, str]] = []
    lab.network.plug(BESIDE)
    try:
        enter = lab.network.enter(BESIDE.name)
        neighbour = ["ip", "neigh", "replace", str(VIP4), "lladdr", holder.port.mac.hex(":"), "dev", "eth0", "nud"]
        subprocess.run([*enter, *neighbour, "permanent"], check=True)
        with tempfile.TemporaryFile("w+") as output:
            command = [sys.executable, "-u", "-m", "tests.lab.ask_nat", str(VIP4), str(PORT), str(LONG_S)]
            process = subprocess.Popen([*enter, *command], stdout=output, cwd=CHECKOUT)
            try:
                yield answers
            finally:
                ended = process.poll()
                process.kill()
                process.wait()
                output.seek(0)
                answers += [(float(line.split()[0]), line.split()[1]) for line in output if line.endswith("\n")]
            assert ended is None, "it ended before the observation"
    finally:
        lab.network.unplug(BESIDE)


def _unwatched(lab: Lab, holder: Machine) -> None:
    holder.run(f"mkdir -p {DROP_IN} && printf '[Service]\\nWatchdogSec=0\\n' > {DROP_IN}/test.conf")
    holder.run(f"systemctl daemon-reload && systemctl restart {DAEMON}")
    lab.wait_serving(by=holder)


def _isolated(lab: Lab, holder: Machine) -> None:
    lab.isolate(holder)
    lab.wait_serving(but=holder)
    time.sleep(STILL_S)


def _frozen(lab: Lab, holder: Machine) -> None:
    holder.signal_unit(UNIT, signal.SIGSTOP)
    lab.wait_serving(but=holder)
    time.sleep(STILL_S)
    holder.signal_unit(UNIT, signal.SIGCONT)


def _restored(lab: Lab, holder: Machine) -> None:
    lab.heal(holder)
    redirect_no_more(lab, holder)
    _with_watchdog(lab, holder)


FROZEN = pytest.param("nat-frozen", _frozen, marks=pytest.mark.long)


@pytest.mark.parametrize(("name", "act"), [("nat-isolated", _isolated), FROZEN])
def test_a_port_that_is_turned_elsewhere(lab: Lab, name: str, act: Act) -> None:
    """The old holder answers no new or established connection from the moment when the new holder answers."""
    holder = lab.wait_serving()
    _unwatched(lab, holder)
    redirect(lab)
    scenario = Scenario(
        name, "the holder turns a port of the VIP to another one, and loses the VIP", Outcome.MOVES, act, _restored
    )
    with asking(lab, holder) as answers:
        time.sleep(0.5)
        result = play(lab, scenario)
    edge(scenario.name, result.report)
    assert result.faults == (), "\n".join([*result.faults, *result.report.overlaps])
    begun = result.report.marks["event"]
    assert {kind for at, kind in answers if at < begun} == {"new", "established"}
    taken = min(a.at for a in result.report.answers if a.by == result.after)
    after = [(at, kind) for at, kind in answers if taken < at < result.report.marks["followed"]]
    last = max(at for at, _ in answers if at < taken)
    print(f"edge {scenario.name}: the old holder's last answer at VIP:{PORT} {1000 * (taken - last):.0f} ms before")
    assert not after, Counter(kind for _, kind in after)
