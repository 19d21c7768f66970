"""Reports one VIP group to people and programs: the journal, the status, the member's record in etcd."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from govipd.core import texts
from govipd.core.actions import Report
from govipd.core.events import Address, ClusterFault, EtcdFailed, Event
from govipd.core.health import GateStatus, Verdict
from govipd.core.journal_kinds import JournalKind
from govipd.core.state import State
from govipd.core.state_machine import VipStateMachine
from govipd.core.status import GateReport, GroupStatus, Transition
from govipd.runtime.ports import Clock
from govipd.runtime.process_ports import Journal
from govipd.runtime.repeat_filter import RepeatFilter
from govipd.runtime.shared_troubles import SharedTroubles
from govipd.runtime.step_timing import OperationTimings

TRANSITIONS_KEPT = 20
FULL_LINES = 8  # of so many groups, `systemctl status` shows each; of more, how many are in which state
TROUBLES_SHOWN = 3  # and so many of those in trouble
_BEGINNING = frozenset({State.STARTING, State.ADOPTING})  # no gate has been observed yet


class Reporter:
    """Reports each change once, with the texts of core.texts.

    Args:
        name: the VIP group's name.
        addresses: the group's addresses; a reload changes them.
        state_machine: the state machine whose state is reported.
        shared: reports the trouble that all groups of the process have at once.
        publish: takes the member's record for etcd.
    """

    def __init__(
        self,
        name: str,
        addresses: tuple[Address, ...],
        state_machine: VipStateMachine,
        *,
        clock: Clock,
        journal: Journal,
        shared: SharedTroubles,
        publish: Callable[[Mapping[str, object]], None],
    ) -> None:
        self.addresses = addresses
        self.troubles = RepeatFilter(self.line)
        self._name = name
        self._state_machine = state_machine
        self._clock = clock
        self._journal = journal
        self._shared = shared
        self._publish = publish
        self._transitions: deque[Transition] = deque(maxlen=TRANSITIONS_KEPT)
        self._reported_gates: dict[str, Verdict] = {}
        self._reported_etcd = True
        self._reported_fault = ClusterFault()
        self._reported_pact = ""
        self._reported_claimed = ""
        self._reported_mac = ""

    def status_line(self) -> str:
        """One line for `systemctl status`."""
        addresses = [str(a.ip) for a in self.addresses]
        return f"{self._name}: {texts.status(self._state_machine, addresses, self._clock.now())}"

    @property
    def state(self) -> State:
        """The group's state."""
        return self._state_machine.state

    @property
    def in_trouble(self) -> bool:
        """Whether the group is ineligible, or its status line has a warning."""
        return self.state is State.INELIGIBLE or bool(texts.trouble(self._state_machine))

    def status(self) -> GroupStatus:
        """The group's whole status."""
        state_machine, now = self._state_machine, self._clock.now()
        deadline = state_machine.fence.by_lease()
        return GroupStatus(
            vip=self._name,
            addresses=tuple(map(str, self.addresses)),
            state=state_machine.state.value,
            since=self._wall(state_machine.since),
            trigger=state_machine.trigger.value,
            detail=state_machine.detail,
            next=texts.next_step(state_machine.state),
            ahead=state_machine.facts.ahead,
            drained=state_machine.facts.drained,
            gates=tuple(
                GateReport(g.gate.value, g.verdict.value, g.detail, self._wall(g.since))
                for g in state_machine.facts.health.gates()
            ),
            lease_left=None if deadline is None or now >= deadline else deadline - now,
            pact=state_machine.fence.pact.timeout,
            campaigns_in=state_machine.wait(now),
            blockers=state_machine.blockers(now),
            etcd="" if state_machine.facts.etcd.usable else state_machine.facts.etcd.detail,
            warning=texts.trouble(state_machine),
            transitions=tuple(self._transitions),
        )

    def report(self, report: Report) -> None:
        """Report a transition."""
        self._transitions.append(
            Transition(self._wall(report.since), report.state.value, report.trigger.value, report.detail)
        )
        text = texts.transition(report.state, report.trigger, report.detail)
        fields = {"GOVIP_STATE": report.state.value, "GOVIP_REASON": report.trigger.value}
        self.line(JournalKind.of(report.trigger), text, {**fields, "GOVIP_DETAIL": report.detail})
        self.publish()

    def changes(self, event: Event, now: float) -> None:
        """Report changes without a transition: gates, etcd, the pact, claims, the other members."""
        changed = False
        for gate in self._state_machine.facts.health.gates():
            if self._reported_gates.get(gate.gate.value) is not gate.verdict:
                self._reported_gates[gate.gate.value] = gate.verdict
                self._report_gate(gate)
                changed = True
        etcd = self._state_machine.facts.etcd
        text, over = f"etcd does not answer usefully: {etcd.detail}", "etcd answers again"
        follows = "tried again for ever, a held VIP is dropped when its lease ends"
        again = self._reported_etcd or isinstance(event, EtcdFailed)
        if etcd.usable or etcd.of_session:
            self.troubles.resolve(JournalKind.ETCD_SILENT, JournalKind.ETCD_ANSWERS, over, now)
        elif again:
            self.troubles.report(JournalKind.ETCD_SILENT, text, now, next_step=follows)
        if not etcd.of_session:
            self._shared.resolve(self._name, over, now)
        elif again:
            self._shared.report(self._name, text, now, next_step=follows)
        self._reported_etcd = etcd.usable
        pact = self._state_machine.fence.pact
        if pact.id != self._reported_pact:
            self._reported_pact = pact.id
            self.line(JournalKind.PACT_MADE if pact.id else JournalKind.PACT_OVER, texts.pact(pact.timeout))
        claimed = self._state_machine.facts.claimed
        if claimed != self._reported_claimed:
            self._reported_claimed = claimed
            self.line(JournalKind.CLAIMED if claimed else JournalKind.CLAIM_FREE, texts.claimed(claimed))
        fault = self._state_machine.facts.fault
        if fault != self._reported_fault:
            self._reported_fault = fault
            good, bad = (
                JournalKind.MEMBERS_AGREE,
                JournalKind.NAME_TAKEN if fault.refused else JournalKind.MEMBERS_DISAGREE,
            )
            text = fault.refused or fault.warning
            self.line(bad if text else good, text or "the members agree again")
        if changed or self._state_machine.facts.mac != self._reported_mac:
            self._reported_mac = self._state_machine.facts.mac
            self.publish()

    def _report_gate(self, gate: GateStatus) -> None:
        if gate.verdict is not Verdict.UNKNOWN or self._state_machine.state not in _BEGINNING:
            fields = {"GOVIP_GATE": gate.gate.value, "GOVIP_DETAIL": gate.detail}
            self.line(JournalKind[f"GATE_{gate.verdict.name}"], f"gate {gate}", fields)

    def line(self, kind: JournalKind, text: str, fields: Mapping[str, str] | None = None) -> None:
        """Write one journal entry."""
        self._journal.write(kind, f"{self._name}: {text}", {"GOVIP_VIP": self._name, **(fields or {})})

    def timings(self, story: OperationTimings | None) -> None:
        """Report how long each step of a take-over or a release took; nothing for None."""
        if story is not None:
            steps = "[" + ", ".join(f'["{step}", {ms:.3f}]' for step, ms in story.steps) + "]"
            fields = {"GOVIP_MOVE": story.move.value, "GOVIP_BEGAN": f"{story.began:.6f}", "GOVIP_STEPS": steps}
            self.line(JournalKind.TIMELINE, str(story), fields)

    def close(self) -> None:
        """End the reports: the group has ended."""
        self._shared.forget(self._name)

    def _wall(self, then: float) -> float:
        """The wall clock's seconds since 1970 at an instant of CLOCK_BOOTTIME."""
        return datetime.now(UTC).timestamp() - (self._clock.now() - then)

    def publish(self) -> None:
        """Publish the newest state in the member's record in etcd."""
        state_machine = self._state_machine
        since = datetime.fromtimestamp(self._wall(state_machine.since), UTC)
        gates = {
            g.gate.value: {"verdict": g.verdict.value, "detail": g.detail} for g in state_machine.facts.health.gates()
        }
        record = {
            "v": 1,
            "state": state_machine.state.value,
            "since": since.isoformat(timespec="milliseconds"),
            "reason": state_machine.trigger.value,
            "detail": state_machine.detail,
            "drained": state_machine.facts.drained,
            "gates": gates,
            "mac": state_machine.facts.mac,
            "addresses": sorted(map(str, self.addresses)),
        }
        self._publish(record)


def status_of_all(reporters: Sequence[Reporter]) -> str:
    """One line for `systemctl status` about every group."""
    if len(reporters) <= FULL_LINES:
        return " | ".join(reporter.status_line() for reporter in reporters)
    counts = Counter(reporter.state for reporter in reporters)
    in_trouble = [reporter for reporter in reporters if reporter.in_trouble]
    states = ", ".join(f"{count} {state.value}" for state, count in counts.most_common())
    lines = [reporter.status_line() for reporter in in_trouble[:TROUBLES_SHOWN]]
    more = len(in_trouble) - len(lines)
    return " | ".join([f"{len(reporters)} VIPs: {states}", *lines, *([f"{more} more in trouble"] if more else [])])
