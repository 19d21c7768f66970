"""The events that the benchmark plays on the machine that holds the VIP."""

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass

from bench.tools import Tool
from tests.lab.faults import etcd_leader
from tests.lab.host import until
from tests.lab.lab import Lab
from tests.lab.machine import Machine

Act = Callable[[Lab, Tool, Machine], None]


@dataclass(frozen=True, slots=True)
class Event:
    """An event, and how to watch it.

    `moves`: whether the VIP should. `double`: whether two may answer for long; then the machines are watched for the
    whole window. `leads_etcd`: whether the holder's member of etcd is made its leader before, or another machine's;
    None: as it is.
    """

    name: str
    title: str
    act: Act
    moves: bool = True
    double: bool = False
    leads_etcd: bool | None = None

    @property
    def ends_when_moved(self) -> bool:
        """Whether the watching may end when the VIP has moved."""
        return self.moves and not self.double


def _signalled_haproxy(number: signal.Signals) -> Act:
    return lambda _lab, _tool, holder: holder.signal_unit("haproxy.service", number)


def _signalled(number: signal.Signals) -> Act:
    return lambda _lab, tool, holder: holder.signal_unit(tool.unit, number)


def _stopped(_lab: Lab, tool: Tool, holder: Machine) -> None:
    holder.run(f"systemctl stop {tool.unit}")


def _power_off(_lab: Lab, _tool: Tool, holder: Machine) -> None:
    holder.power_loss()


def _cut_off(lab: Lab, _tool: Tool, holder: Machine) -> None:
    lab.isolate(holder)


def _handed_over(lab: Lab, tool: Tool, holder: Machine) -> None:
    holder.run(tool.hand_over.format(heir=lab.others(holder)[0]))


def place_etcd_leader(lab: Lab, holder: Machine, *, on_holder: bool) -> None:
    """Move etcd's leader to the holder, or away from it."""
    leader = etcd_leader(lab)
    if (leader is holder) == on_holder:
        return
    heir = holder if on_holder else lab.others(holder)[0]
    member = json.loads(heir.run("etcdctl endpoint status -w json").stdout)[0]["Status"]["header"]["member_id"]
    leader.run(f"etcdctl move-leader {member:x}")
    until(lambda: (etcd_leader(lab) is holder) == on_holder, 10, "etcd's leader is where it should be")


EVENTS = {
    event.name: event
    for event in (
        Event("A", "haproxy is killed", _signalled_haproxy(signal.SIGKILL)),
        Event("B", "haproxy is frozen", _signalled_haproxy(signal.SIGSTOP)),
        Event("C", "`systemctl stop` of the daemon", _stopped),
        Event("D", "the daemon is killed", _signalled(signal.SIGKILL), moves=False, double=True),
        Event("E", "the daemon is frozen", _signalled(signal.SIGSTOP), moves=False, double=True),
        Event("F", "power-off", _power_off, leads_etcd=False),
        Event("G", "cut off from its peers, not from clients", _cut_off, double=True, leads_etcd=False),
        Event("handover", "planned handover", _handed_over),
        Event("F-etcd", "power-off of the machine whose etcd leads", _power_off, leads_etcd=True),
        Event("G-etcd", "cut off from its peers, with etcd's leader", _cut_off, double=True, leads_etcd=True),
    )
}
