"""The status of a node, as the daemon gives it to services."""

from dataclasses import replace

from govipd.core.status import GateReport, GroupStatus, NodeStatus

HEALTHY = tuple(GateReport(gate, "healthy", "up", 0.0) for gate in ("unit", "probe", "link"))
GROUP = GroupStatus(
    vip="api",
    addresses=("192.0.2.100/32", "2001:db8::100/128"),
    state="leader",
    since=0.0,
    trigger="activated",
    detail="",
    next="",
    ahead="",
    drained=False,
    gates=HEALTHY,
    lease_left=2.25,
    pact=0.0,
    campaigns_in=0.0,
    blockers=(),
    etcd="",
    warning="",
    transitions=(),
)


class FakeOperator:
    """One VIP group, whose status a test changes."""

    def __init__(self) -> None:
        self.group = GROUP
        self.asked = 0

    def unhealthy(self, gate: str) -> None:
        """A gate fails."""
        gates = tuple(replace(g, verdict="unhealthy") if g.gate == gate else g for g in HEALTHY)
        self.group = replace(self.group, gates=gates)

    def status(self) -> NodeStatus:
        self.asked += 1
        return NodeStatus("1.2", "node1", "eth0", (self.group,))

    async def drain(self, vip: str, *, wanted: bool) -> None:
        raise AssertionError("no service here drains")

    async def handover(self, vip: str, to: str) -> None:
        raise AssertionError("no service here hands over")
