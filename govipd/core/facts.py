"""What is known about the surroundings of one VIP group: gates, etcd, other members, this machine, the operator.

A fact is the newest value that an event of its kind brought. The state machine decides by facts, not by events.
"""

from govipd.core import events as ev
from govipd.core.health import GateStatus, Health
from govipd.core.settings import Settings


class Facts:
    """The facts of one VIP group on one node.

    Attributes:
        health: the gates.
        etcd: whether etcd answers usefully.
        fault: how the other members' records contradict this member's; both texts empty where they do not.
        ahead: the member before us in the queue; "" without one.
        claimed: which addresses of this group another group has claimed, and which member, as a text.
        elsewhere: addresses of the group on other interfaces of this machine.
        mac: the interface's hardware address.
        drained: the operator wants this node out of the queue.
        stop_by: the latest instant (CLOCK_BOOTTIME) at which the daemon ends; None while no stop was requested.
    """

    def __init__(self, settings: Settings, now: float) -> None:
        self.health = Health(settings, now)
        self.etcd = ev.EtcdState(usable=True, detail="")
        self.fault = ev.ClusterFault()
        self.ahead = ""
        self.claimed = ""
        self.elsewhere: tuple[ev.Elsewhere, ...] = ()
        self.mac = ""
        self.drained = False
        self.stop_by: float | None = None

    def note(self, event: ev.Event, now: float) -> None:
        """Store the fact that an event brings. An event without a fact changes nothing here."""
        match event:
            case ev.ProbeResult() | ev.UnitState() | ev.LinkState():
                self.health.note(event, now)
            case ev.EtcdState():
                self.etcd = event
            case ev.ClusterFault():
                self.fault = event
            case ev.Drain():
                self.drained = event.wanted
            case ev.Stop():
                self.stop_by = event.by
            case _:
                pass

    # What keeps this node out of the queue

    def faults(self, gates: tuple[GateStatus, ...]) -> tuple[str, ...]:
        """What is wrong on this node: unhealthy gates, and a member name that another machine has."""
        texts = tuple(map(str, gates))
        return (*texts, self.fault.refused) if self.fault.refused else texts

    def foreign_addresses(self) -> tuple[str, ...]:
        """The group's addresses on other interfaces. This kernel answers for them as soon as the fence is gone."""
        return tuple(
            f"{where}, which is not govipd's to remove; type: ip address delete {where.address} dev {where.interface}"
            for where in self.elsewhere
        )

    def withdrawals(self) -> tuple[str, ...]:
        """Why this node is to leave the queue though nothing is wrong: a drain, or the stop of the daemon. As texts."""
        drained = ("drained by the operator",) if self.drained else ()
        return (*drained, "the daemon was told to stop") if self.stop_by is not None else drained
