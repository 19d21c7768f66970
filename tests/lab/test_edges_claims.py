"""One address belongs to one machine, over all groups, files and names: at no moment do two answer."""

import signal
import time

import pytest

from tests.lab.edges import FILES, clone_no_more, cloned, journal, reachable
from tests.lab.faults import DROP_IN, UNIT, _with_watchdog
from tests.lab.figures import edge
from tests.lab.host import until
from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.network import VIP6
from tests.lab.play import Outcome, Scenario, parameters, play


def _clone_and_frozen(lab: Lab, holder: Machine) -> None:
    """The clone sees the original's name and lease in etcd while the original's kernel answers."""
    clone = cloned(lab, holder)
    until(lambda: f"the member name {holder} is taken by" in journal(clone), 20, "the clone is refused")
    holder.run(f"mkdir -p {DROP_IN} && printf '[Service]\\nWatchdogSec=0\\n' > {DROP_IN}/test.conf")
    holder.run(f"systemctl daemon-reload && systemctl restart {DAEMON}")
    lab.wait_serving(by=holder)
    holder.signal_unit(UNIT, signal.SIGSTOP)
    lab.wait_serving(but=holder)
    time.sleep(1.0)
    holder.signal_unit(UNIT, signal.SIGCONT)


def _undo(lab: Lab, holder: Machine) -> None:
    clone_no_more(lab, holder)
    _with_watchdog(lab, holder)


FROZEN = Scenario("clone-and-the-original-frozen", "a clone runs, and the original's govipd hangs", Outcome.MOVES,
                  _clone_and_frozen, _undo)  # fmt: skip


# Drawn by the soak, too.
LONG = {
    "clone-and-the-original-frozen",
    "group-renamed-holder-first",
    "address-moved-giver-first",
    "address-taken-out-and-put-back",
    "another-prefix-on-one-machine",
    "group-removed-by-restart",
}


@pytest.mark.parametrize("scenario", parameters((*FILES, FROZEN), long=LONG))
def test_two_never_answer(lab: Lab, scenario: Scenario) -> None:
    """The right machine serves afterwards, every address is served, and at no moment two machines answered."""
    result = play(lab, scenario)
    edge(scenario.name, result.report)
    seen = [*result.faults, *result.report.overlaps, *result.report.address_events[-40:]]
    assert result.faults == (), "\n".join(seen)
    until(lambda: lab.serving() and reachable(lab, VIP6), 10, "both addresses are served again")
