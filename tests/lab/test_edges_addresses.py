"""The VIP on a wrong interface, and a holder that does not learn of its loss: at no moment do two answer."""

import signal
import subprocess
import sys
import time

import pytest

from tests.lab.faults import DROP_IN, UNIT, _lease_revoked, _with_watchdog
from tests.lab.figures import edge
from tests.lab.host import until
from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.network import VIP4
from tests.lab.play import Outcome, Scenario, play
from tests.lab.scenarios import SCENARIOS as DEMO

LONG_S = 3.0  # longer than a lease, and than systemd's restarts


def _journal(node: Machine) -> str:
    return node.run("journalctl -u govipd -o cat --no-pager").stdout


def _static_then_restart(lab: Lab, holder: Machine) -> None:
    """The address with another prefix is removed. If it is added while no daemon runs, the daemon refuses to start."""
    other = lab.others(holder)[0]
    other.run(f"ip address add {VIP4}/24 dev eth0")
    until(lambda: f"another program added {VIP4}/24 here" in _journal(other), 10, "an alarm")
    until(lambda: str(VIP4) not in other.run("ip -br address show eth0").stdout, 10, "it is removed")
    other.run(f"ip address add {VIP4}/24 dev eth0; systemctl restart {DAEMON}", check=False)
    time.sleep(LONG_S)


def _on_lo_then_stop(lab: Lab, holder: Machine) -> None:
    """The address is reported and keeps the machine ineligible. The fence stays when the daemon has ended."""
    other = lab.others(holder)[0]
    other.run(f"ip address add {VIP4}/32 dev lo")
    until(lambda: "ineligible" in other.run(f"systemctl status {DAEMON}").stdout, 10, "it is ineligible")
    assert f"ip address delete {VIP4}/32 dev lo" in " ".join(other.run("govipctl why").stdout.split())
    other.run(f"systemctl stop {DAEMON}")
    assert "the fence stays, closed" in _journal(other)
    time.sleep(LONG_S)


def _back(lab: Lab, _holder: Machine) -> None:
    for node in lab.others():
        for where in (f"{VIP4}/24 dev eth0", f"{VIP4}/32 dev lo"):
            node.run(f"ip address delete {where} 2>/dev/null", check=False)
        node.run(f"systemctl restart {DAEMON}")


def _revoked_while_frozen(lab: Lab, holder: Machine) -> None:
    """The holder's kernel answers until its fence ends; the successor hears the answers, and waits."""
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
    """The right machine serves afterwards, and at no moment two machines answered."""
    result = play(lab, scenario)
    edge(scenario.name, result.report)
    seen = [*result.faults, *result.report.overlaps, *result.report.address_events[-40:]]
    assert result.faults == (), "\n".join(seen)


# On the switch: answers every ARP probe with a hardware address of its own.
_PROXY = """
import socket
mac = bytes.fromhex("020000000099")
packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
packet.bind(("br0", 0x0806))
while True:
    frame = packet.recv(2048)
    if frame[20:22] == bytes((0, 1)) and frame[28:32] == bytes(4):
        head = frame[6:12] + mac + frame[12:20] + bytes((0, 2))
        packet.send(head + mac + frame[38:42] + frame[22:28] + frame[28:32])
"""


def test_proxy_arp_for_every_address_does_not_slow_a_take_over(lab: Lab) -> None:
    """As in some clouds: the journal has an alarm, and the take-over is not slower."""
    power_loss = next(scenario for scenario in DEMO if scenario.name == "power-loss")
    plain = play(lab, power_loss)
    proxy = subprocess.Popen([*lab.network.enter("switch"), sys.executable, "-c", _PROXY])
    try:
        proxied = play(lab, power_loss)
        assert "a machine that is no member answers for 192.0.2.100 (02:00:00:00:00:99)" in _journal(lab.wait_serving())
    finally:
        proxy.kill()
        proxy.wait()
    print(f"power loss: {1000 * plain.seen.gap:.0f} ms, with proxy ARP {1000 * proxied.seen.gap:.0f} ms")
    assert plain.faults == proxied.faults == ()
