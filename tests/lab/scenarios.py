"""The demo's scenarios."""

import signal
import time
from collections.abc import Callable
from functools import partial

from tests.lab.host import until
from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.play import Outcome, Scenario

Act = Callable[[Lab, Machine], None]


def typed(command: str) -> Act:
    """A command typed on the holder."""

    def act(_lab: Lab, holder: Machine) -> None:
        holder.run(command)

    return act


def signalled(unit: str, number: signal.Signals) -> Act:
    """A signal to exactly the processes of one of the holder's units."""
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
        until(partial(node.active, "etcd"), 30, f"{node}'s etcd")


def _power_loss(_lab: Lab, holder: Machine) -> None:
    holder.power_loss()


def _isolate(lab: Lab, holder: Machine) -> None:
    lab.isolate(holder)


SCENARIOS = (
    Scenario("haproxy-reloaded", "haproxy is reloaded ten times on the holder", Outcome.STAYS, _reload_haproxy),
    Scenario("haproxy-stopped", "haproxy is stopped on the holder", Outcome.MOVES, typed("systemctl stop haproxy")),
    Scenario("haproxy-killed", "haproxy is killed (SIGKILL) on the holder", Outcome.MOVES,
             signalled("haproxy.service", signal.SIGKILL)),
    Scenario("haproxy-frozen", "haproxy hangs (SIGSTOP) on the holder", Outcome.MOVES,
             signalled("haproxy.service", signal.SIGSTOP)),
    Scenario("govipd-stopped", "govipd is stopped on the holder", Outcome.MOVES, typed(f"systemctl stop {DAEMON}")),
    Scenario("power-loss", "the holder loses power", Outcome.MOVES, _power_loss),
    Scenario("isolated", "the holder is cut off from the others, not from the client", Outcome.MOVES, _isolate),
    Scenario("etcd-in-turn", "each etcd member is stopped and started in turn", Outcome.STAYS, _each_etcd_in_turn),
    Scenario("etcd-majority-lost", "etcd loses its majority, and gets it back", Outcome.RETURNS, _etcd_majority_lost),
)  # fmt: skip
