"""Metrics for Prometheus. Gauges are read from the daemon at each scrape; counters are counted at each step."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from govipd.adapters.outputs.scrape_server import ScrapeServer
from govipd.core.actions import Action, Alarm, Conflict, Hold, Report
from govipd.core.events import (
    AddressLost,
    Announced,
    ClusterFault,
    Done,
    EtcdFailed,
    Event,
    Failed,
    LeaseRenewed,
    ProbeResult,
    Stalled,
)
from govipd.core.state import TRANSITIONS, State
from govipd.core.status import GroupStatus
from govipd.runtime.process_ports import Operator

# Seconds. A renewal takes milliseconds, and is given up after a sixth of the TTL. A probe is given up at its time-out.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_CONFLICTS = (*(conflict.value for conflict in Conflict), "address removed", "members disagree", "name taken")
_VERDICTS = ("healthy", "unhealthy", "unknown")


class Metrics(Collector):
    """The metrics of one process, in a registry of their own (implements process_ports.Service).

    Labels come only from the configuration and from closed sets of words, never from data of other machines.
    """

    def __init__(
        self, operator: Operator, server: ScrapeServer, *, longest_transaction: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._operator = operator
        self._server = server
        self._longest_transaction = longest_transaction
        self._seen: Event | None = None  # an event that goes to every group is counted once
        self._known: set[str] = set()
        self.registry = registry = prometheus.CollectorRegistry()
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]  # published without types
        registry.register(self)

        def counter(name: str, text: str, *labels: str) -> prometheus.Counter:
            return prometheus.Counter(f"govip_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> prometheus.Histogram:
            return prometheus.Histogram(f"govip_{name}", text, labels, buckets=_BUCKETS, registry=registry)

        self._transitions = counter("transitions", "Changes into a state, by reason.", "vip", "state", "reason")
        self._renewals = histogram("lease_renewal_seconds", "From sending a renewal to its confirmation.", "vip")
        self._fence = counter("fence_refreshes", "Times the kernel confirmed the open fence.", "vip")
        self._kernel = counter("kernel_failures", "Actions that the kernel refused.", "vip", "action")
        self._frames = counter("announcements", "Frames sent: gratuitous ARP, neighbour advertisements.", "vip")
        self._conflicts = counter("conflicts", "Contradictions seen.", "vip", "kind")
        self._etcd = counter("etcd_errors", "Calls that failed.", "vip", "endpoint", "kind")
        self._probes = counter("probe_checks", "Checks, by result.", "result")
        self._probe_took = histogram("probe_seconds", "Until the answer, where there was one.")
        self._stalls = counter("stalls", "Times the daemon did not run for half a second or more.")
        self._ttl = prometheus.Gauge("govip_lease_ttl_seconds", "TTL, as granted.", ["vip"], registry=registry)
        for result in ("passed", "failed"):
            self._probes.labels(result)

    async def run(self) -> None:
        """See process_ports.Service."""
        await self._server.run(self.text)

    def text(self) -> bytes:
        """The exposition, in Prometheus' text format 0.0.4."""
        return prometheus.generate_latest(self.registry)

    def stepped(self, vip: str, event: Event, actions: Sequence[Action], now: float) -> None:
        """See process_ports.Service."""
        if vip not in self._known:
            self._begin(vip)
        self._count(vip, event, now)
        if event is not self._seen:
            self._seen = event
            self._count_once(event)
        for action in actions:
            if isinstance(action, Report):
                self._transitions.labels(vip, action.state.value, action.trigger.value).inc()
            elif isinstance(action, Alarm):
                self._conflicts.labels(vip, action.conflict.value).inc()

    def _begin(self, vip: str) -> None:
        """Create the group's counters at 0: Prometheus cannot see a rise in a series that did not exist."""
        self._known.add(vip)
        for triggers in TRANSITIONS.values():
            for trigger, state in triggers.items():
                self._transitions.labels(vip, state.value, trigger.value)
        for kind in _CONFLICTS:
            self._conflicts.labels(vip, kind)
        for metric in (self._renewals, self._fence, self._frames):
            metric.labels(vip)

    def _count(self, vip: str, event: Event, now: float) -> None:
        match event:
            case LeaseRenewed():
                self._renewals.labels(vip).observe(now - event.sent_at)
                self._ttl.labels(vip).set(event.ttl)
            case Done(action=Hold()):
                self._fence.labels(vip).inc()
            case Failed():
                self._kernel.labels(vip, type(event.action).__name__).inc()
            case Announced():
                self._frames.labels(vip).inc(event.frames)
            case AddressLost():
                self._conflicts.labels(vip, "address removed").inc()
            case ClusterFault() if event.refused or event.warning:
                self._conflicts.labels(vip, "name taken" if event.refused else "members disagree").inc()
            case EtcdFailed():
                self._etcd.labels(vip, event.endpoint, event.kind).inc()
            case _:
                pass  # other events show in the state that they lead to

    def _count_once(self, event: Event) -> None:
        match event:
            case ProbeResult():
                self._probes.labels("passed" if event.passed else "failed").inc()
                if event.took is not None:
                    self._probe_took.observe(event.took)
            case Stalled():
                self._stalls.inc()
            case _:
                pass

    def collect(self) -> Iterator[Metric]:
        """The gauges, from the daemon's present status (prometheus_client's Collector)."""
        node = self._operator.status()
        about = {"version": node.version, "member": node.member, "interface": node.interface}
        yield _gauge("build_info", "1, with what runs here.", tuple(about), [(tuple(about.values()), 1.0)])
        longest = self._longest_transaction()
        yield _gauge("fence_transaction_longest_seconds", "Of those with nf_tables so far.", (), [((), longest)])
        states = [((g.vip, s.value), g.state == s.value) for g in node.groups for s in State]
        yield _gauge("state", "1 for the state that it is in.", ("vip", "state"), states)
        gates = [((g.vip, r.gate, v), r.verdict == v) for g in node.groups for r in g.gates for v in _VERDICTS]
        yield _gauge("gate", "1 for the verdict on the gate.", ("vip", "gate", "verdict"), gates)
        for name, text, number in _NUMBERS:
            yield _gauge(name, text, ("vip",), [((g.vip,), number(g)) for g in node.groups])


def _lease(group: GroupStatus) -> float:
    return group.lease_left or 0.0


_NUMBERS: tuple[tuple[str, str, Callable[[GroupStatus], float]], ...] = (
    ("leader", "Whether this machine answers for the VIP.", lambda g: g.state == State.LEADER.value),
    ("lease_remaining_seconds", "Until the VIP is dropped if etcd is silent; 0 without a lease.", _lease),
    ("drained", "Whether the operator keeps this machine out.", lambda g: g.drained),
    ("pact_timeout_seconds", "A leader's silence after which the next takes over; 0 without a pact.", lambda g: g.pact),
    ("damping_seconds", "Until damping lets this machine stand for election.", lambda g: g.campaigns_in),
    ("etcd_up", "Whether etcd answers usefully.", lambda g: not g.etcd),
)


def _gauge(name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], float]]) -> Metric:
    family = GaugeMetricFamily(f"govip_{name}", text, labels=labels)
    for values, number in rows:
        family.add_metric(values, float(number))
    return family
