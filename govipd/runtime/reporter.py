"""What people and programs are told of one VIP group: the journal, the status, the member's record in etcd."""

from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from govipd.core import texts
from govipd.core.actions import Report
from govipd.core.events import Address, ClusterFault, EtcdFailed, Event
from govipd.core.health import GateStatus, Verdict
from govipd.core.journal_kinds import Message
from govipd.core.state import State
from govipd.core.state_machine import Supervisor
from govipd.core.status import GateReport, GroupStatus, Transition
from govipd.runtime.ports import Clock, Journal
from govipd.runtime.repeat_filter import Repeats
from govipd.runtime.step_timing import Story

TRANSITIONS_KEPT = 20
_BEGINNING = frozenset({State.STARTING, State.ADOPTING})  # nothing has been looked at yet


class Teller:
    """Tells each thing once, in the words of core.words.

    Args:
        name: the VIP group's.
        addresses: its addresses; a reload changes them.
        supervisor: whose state is told.
        show: takes the member's record for etcd.
    """

    def __init__(
        self,
        name: str,
        addresses: tuple[Address, ...],
        supervisor: Supervisor,
        *,
        clock: Clock,
        journal: Journal,
        show: Callable[[Mapping[str, object]], None],
    ) -> None:
        self.addresses = addresses
        self.repeats = Repeats(self.line)
        self._name = name
        self._supervisor = supervisor
        self._clock = clock
        self._journal = journal
        self._show = show
        self._transitions: deque[Transition] = deque(maxlen=TRANSITIONS_KEPT)
        self._told_gates: dict[str, Verdict] = {}
        self._told_etcd = True
        self._told_fault = ClusterFault()
        self._told_pact = ""
        self._told_claimed = ""
        self._told_mac = ""

    def status_line(self) -> str:
        """One line for `systemctl status`."""
        addresses = [str(a.ip) for a in self.addresses]
        return f"{self._name}: {texts.status(self._supervisor, addresses, self._clock.now())}"

    def status(self) -> GroupStatus:
        """Everything that is known."""
        supervisor, now = self._supervisor, self._clock.now()
        deadline = supervisor.lease_deadline()
        return GroupStatus(
            vip=self._name,
            addresses=tuple(map(str, self.addresses)),
            state=supervisor.state.value,
            since=self._wall(supervisor.since),
            trigger=supervisor.trigger.value,
            detail=supervisor.detail,
            next=texts.following(supervisor.state),
            ahead=supervisor.ahead,
            drained=supervisor.drained,
            gates=tuple(
                GateReport(g.gate.value, g.verdict.value, g.detail, self._wall(g.since))
                for g in supervisor.health.gates()
            ),
            lease_left=None if deadline is None or now >= deadline else deadline - now,
            pact=supervisor.pact.timeout,
            campaigns_in=supervisor.wait(now),
            blockers=supervisor.blockers(now),
            etcd="" if supervisor.etcd.usable else supervisor.etcd.detail,
            warning=texts.trouble(supervisor),
            transitions=tuple(self._transitions),
        )

    def report(self, report: Report) -> None:
        """A transition."""
        self._transitions.append(
            Transition(self._wall(report.since), report.state.value, report.trigger.value, report.detail)
        )
        text = texts.transition(report.state, report.trigger, report.detail)
        fields = {"GOVIP_STATE": report.state.value, "GOVIP_REASON": report.trigger.value}
        self.line(Message.of(report.trigger), text, {**fields, "GOVIP_DETAIL": report.detail})
        self.publish()

    def changes(self, event: Event, now: float) -> None:
        """Lines for what changed without a transition: gates, etcd, the other members."""
        changed = False
        for gate in self._supervisor.health.gates():
            if self._told_gates.get(gate.gate.value) is not gate.verdict:
                self._told_gates[gate.gate.value] = gate.verdict
                self._tell_gate(gate)
                changed = True
        etcd = self._supervisor.etcd
        if etcd.usable:
            self.repeats.end(Message.ETCD_SILENT, Message.ETCD_ANSWERS, "etcd answers again", now)
        elif self._told_etcd or isinstance(event, EtcdFailed):
            text = f"etcd does not answer usefully: {etcd.detail}"
            follows = "tried again for ever, a held VIP is dropped when its lease ends"
            self.repeats.tell(Message.ETCD_SILENT, text, now, follows=follows)
        self._told_etcd = etcd.usable
        pact = self._supervisor.pact
        if pact.id != self._told_pact:
            self._told_pact = pact.id
            self.line(Message.PACT_MADE if pact.id else Message.PACT_OVER, texts.pact(pact.timeout))
        claimed = self._supervisor.claimed
        if claimed != self._told_claimed:
            self._told_claimed = claimed
            self.line(Message.CLAIMED if claimed else Message.CLAIM_FREE, texts.claimed(claimed))
        fault = self._supervisor.fault
        if fault != self._told_fault:
            self._told_fault = fault
            good, bad = Message.MEMBERS_AGREE, Message.NAME_TAKEN if fault.refused else Message.MEMBERS_DISAGREE
            text = fault.refused or fault.warning
            self.line(bad if text else good, text or "the members agree again")
        if changed or self._supervisor.mac != self._told_mac:
            self._told_mac = self._supervisor.mac
            self.publish()

    def _tell_gate(self, gate: GateStatus) -> None:
        if gate.verdict is not Verdict.UNKNOWN or self._supervisor.state not in _BEGINNING:
            fields = {"GOVIP_GATE": gate.gate.value, "GOVIP_DETAIL": gate.detail}
            self.line(Message[f"GATE_{gate.verdict.name}"], f"gate {gate}", fields)

    def line(self, kind: Message, text: str, fields: Mapping[str, str] | None = None) -> None:
        """One entry of the journal."""
        self._journal.write(kind, f"{self._name}: {text}", {"GOVIP_VIP": self._name, **(fields or {})})

    def timeline(self, story: Story | None) -> None:
        """How long each step of a move took."""
        if story is not None:
            steps = "[" + ", ".join(f'["{step}", {ms:.3f}]' for step, ms in story.steps) + "]"
            fields = {"GOVIP_MOVE": story.move.value, "GOVIP_BEGAN": f"{story.began:.6f}", "GOVIP_STEPS": steps}
            self.line(Message.TIMELINE, str(story), fields)

    def _wall(self, then: float) -> float:
        """The wall clock's seconds since 1970 at an instant of CLOCK_BOOTTIME."""
        return datetime.now(UTC).timestamp() - (self._clock.now() - then)

    def publish(self) -> None:
        """Show other tools the newest state: the member's record in etcd."""
        supervisor = self._supervisor
        since = datetime.fromtimestamp(self._wall(supervisor.since), UTC)
        gates = {g.gate.value: {"verdict": g.verdict.value, "detail": g.detail} for g in supervisor.health.gates()}
        record = {
            "v": 1,
            "state": supervisor.state.value,
            "since": since.isoformat(timespec="milliseconds"),
            "reason": supervisor.trigger.value,
            "detail": supervisor.detail,
            "gates": gates,
            "mac": supervisor.mac,
            "addresses": sorted(map(str, self.addresses)),
        }
        self._show(record)
