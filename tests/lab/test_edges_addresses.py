"""The VIP where it must not be, and a holder that does not learn that it has lost it: at no moment do two answer."""

import signal
import time

import pytest

from tests.lab.faults import DROP_IN, UNIT, _lease_revoked, _with_watchdog
from tests.lab.host import until
from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.network import VIP4
from tests.lab.play import Outcome, Scenario, play

LONG_S = 3.0  # longer than a lease, and than systemd's restarts


def _journal(node: Machine) -> str:
    return node.run("journalctl -u govipd -o cat --no-pager").stdout


def _static_then_restart(lab: Lab, holder: Machine) -> None:
    """The address with another prefix is removed; put there while no daemon runs, the daemon refuses, silently."""
    other = lab.others(holder)[0]
    other.run(f"ip address add {VIP4}/24 dev eth0")
    until(lambda: f"somebody added {VIP4}/24 here" in _journal(other), 10, "an alarm")
    until(lambda: str(VIP4) not in other.run("ip -br address show eth0").stdout, 10, "it is removed")
    other.run(f"ip address add {VIP4}/24 dev eth0; systemctl restart {DAEMON}", check=False)
    time.sleep(LONG_S)


def _on_lo_then_stop(lab: Lab, holder: Machine) -> None:
    """It is told of, keeps the machine aside, and the fence stays when the daemon has ended."""
    other = lab.others(holder)[0]
    other.run(f"ip address add {VIP4}/32 dev lo")
    until(lambda: "standing aside" in other.run(f"systemctl status {DAEMON}").stdout, 10, "it stands aside")
    assert f"ip address delete {VIP4}/32 dev lo" in other.run("govipctl why").stdout
    other.run(f"systemctl stop {DAEMON}")
    assert "the fence stays, closed" in _journal(other)
    time.sleep(LONG_S)


def _back(lab: Lab, _holder: Machine) -> None:
    for node in lab.others():
        for where in (f"{VIP4}/24 dev eth0", f"{VIP4}/32 dev lo"):
            node.run(f"ip address delete {where} 2>/dev/null", check=False)
        node.run(f"systemctl restart {DAEMON}")


def _revoked_while_frozen(lab: Lab, holder: Machine) -> None:
    """Its kernel answers until its fence ends by itself: the next one hears that, and waits."""
    holder.run(f"mkdir -p {DROP_IN} && printf '[Service]\\nWatchdogSec=0\\n' > {DROP_IN}/test.conf")
    holder.run(f"systemctl daemon-reload && systemctl restart {DAEMON}")
    lab.wait_serving(by=holder)
    holder.signal_unit(UNIT, signal.SIGSTOP)
    _lease_revoked(lab, holder)
    after = lab.wait_serving(but=holder)
    assert f"{holder}'s kernel still answers for {VIP4}" in _journal(after)
    time.sleep(1.0)
    holder.signal_unit(UNIT, signal.SIGCONT)


SCENARIOS = (
    Scenario("static-vip-with-another-prefix-then-restart", "somebody adds the VIP with /24, and restarts govipd there",
             Outcome.STAYS, _static_then_restart, _back),
    Scenario("vip-on-lo-then-stop", "somebody adds the VIP to lo on another machine, and stops govipd there",
             Outcome.STAYS, _on_lo_then_stop, _back),
    Scenario("lease-revoked-while-frozen", "the holder's lease is revoked while its govipd is frozen", Outcome.MOVES,
             _revoked_while_frozen, _with_watchdog),
)  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_two_never_answer(lab: Lab, scenario: Scenario) -> None:
    """Who serves afterwards is who should, and at no moment two machines answered."""
    result = play(lab, scenario)
    print(f"{scenario.name}: two answering {1000 * result.report.two_answering:.0f} ms")
    seen = [*result.faults, *result.report.overlaps, *result.report.address_events[-40:]]
    assert result.faults == (), "\n".join(seen)
