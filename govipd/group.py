"""The shell around one VIP group's supervisor: it starts the actions and reports what people should see."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from govipd.core import words
from govipd.core.actions import (
    Action,
    Adopt,
    Alarm,
    Announce,
    Campaign,
    CloseFence,
    EndPact,
    Enforce,
    Forget,
    Hold,
    Holding,
    KernelAction,
    Remember,
    RemoveAddresses,
    Report,
    Resign,
    Verify,
)
from govipd.core.events import Address, ClusterFault, Done, Drain, EtcdFailed, Event, Failed, Handover, Reconfigured
from govipd.core.health import GateStatus, Verdict
from govipd.core.messages import Message
from govipd.core.settings import Settings
from govipd.core.state import State
from govipd.core.status import GateReport, GroupStatus, Transition
from govipd.core.supervisor import Supervisor
from govipd.errors import EtcdError, KernelError, MemoryRefusedError, RefusedError
from govipd.ports import (
    Addresses,
    AddressMonitor,
    Announcer,
    Clock,
    DrainMark,
    Election,
    Fence,
    Journal,
    Memory,
    Pact,
    Sink,
)
from govipd.repeats import Repeats

READDRESS_RETRY_S = 0.5
PACT_END_POLL_S = 0.005
TRANSITIONS_KEPT = 20
_BEGINNING = frozenset({State.STARTING, State.ADOPTING})  # nothing has been looked at yet


@dataclass(frozen=True, slots=True)
class Parts:
    """What a group needs of the world, as the composition root makes it."""

    election: Election
    fence: Fence
    addresses: Addresses
    announcer: Announcer
    monitor: AddressMonitor
    memory: Memory
    drain: DrainMark
    pact: Pact


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """One VIP group as configured. Another `identity` is another election: release, then start anew."""

    name: str
    identity: Hashable
    addresses: tuple[Address, ...]
    settings: Settings
    make: Callable[[Sink], Parts] = field(compare=False)


@dataclass(frozen=True, slots=True)
class _Readdress:
    """The group consists of other addresses from now on."""

    addresses: tuple[Address, ...]


class Group:
    """One VIP group: its supervisor, and the parts that do what it decides."""

    def __init__(
        self,
        plan: GroupPlan,
        *,
        post: Callable[["Group", Event], None],
        observe: Callable[[str, Event, Sequence[Action], float], None],
        clock: Clock,
        journal: Journal,
    ) -> None:
        self.plan = plan
        self.supervisor = Supervisor(plan.settings, clock.now())
        self._clock = clock
        self._journal = journal
        self._observe = observe
        self._sink: Sink = lambda event: post(self, event)
        self._parts = plan.make(self._sink)
        self._pending: deque[KernelAction | _Readdress] = deque()
        self._work_waits = asyncio.Event()
        self._held_until = 0.0  # as the kernel has confirmed
        self._transitions: deque[Transition] = deque(maxlen=TRANSITIONS_KEPT)
        self._told_gates: dict[str, Verdict] = {}
        self._repeats = Repeats(self._line)
        self._told_etcd = True
        self._told_fault = ClusterFault()

    @property
    def stopped(self) -> bool:
        """Nothing is held, and nothing will be."""
        return self.supervisor.state is State.STOPPED

    def tasks(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """What must run for as long as the group exists, by name."""
        return {
            f"{self.plan.name}: election": self._parts.election.run(),
            f"{self.plan.name}: kernel worker": self._work(),
            f"{self.plan.name}: announcer": self._parts.announcer.run(),
            f"{self.plan.name}: netlink monitor": self._parts.monitor.run(),
            f"{self.plan.name}: pact": self._parts.pact.run(),
        }

    def start(self) -> None:
        """Begin: what an earlier process held is adopted, whatever else it left is removed."""
        left = None
        try:
            left = self._parts.memory.load()
        except MemoryRefusedError as e:
            self._line(Message.NOT_ADOPTED, f"nothing of an earlier process is adopted: {e}; next: start clean")
        for action in self.supervisor.start(left, self._clock.now()):
            self._do(action)
        if self._parts.drain.is_set():
            self.handle(Drain(wanted=True))

    def handle(self, event: Event) -> None:
        """One step.

        Raises:
            IllegalTransitionError: a fault of ours.
        """
        now = self._clock.now()
        actions = self.supervisor.step(event, now)
        for action in actions:
            self._do(action)
        self._observe(self.plan.name, event, actions, now)
        self._tell_changes(event, now)  # the cause stands before its effect in the journal
        for action in actions:
            if isinstance(action, Report):
                self._report(action)

    def reconfigure(self, plan: GroupPlan) -> None:
        """Apply a plan of the same identity: only the difference, without letting go of the VIP."""
        if plan.addresses != self.plan.addresses:
            self._queue(_Readdress(plan.addresses))
        self.plan = plan
        self.handle(Reconfigured(plan.settings))
        self._publish()

    def status_line(self) -> str:
        """One line for `systemctl status`."""
        addresses = [str(a.ip) for a in self.plan.addresses]
        return f"{self.plan.name}: {words.status(self.supervisor, addresses, self._clock.now())}"

    def status(self) -> GroupStatus:
        """Everything that is known."""
        supervisor, now = self.supervisor, self._clock.now()
        deadline = supervisor.deadline()
        return GroupStatus(
            vip=self.plan.name,
            addresses=tuple(map(str, self.plan.addresses)),
            state=supervisor.state.value,
            since=self._wall(supervisor.since),
            trigger=supervisor.trigger.value,
            detail=supervisor.detail,
            next=words.following(supervisor.state),
            ahead=supervisor.ahead,
            drained=supervisor.drained,
            gates=tuple(
                GateReport(g.gate.value, g.verdict.value, g.detail, self._wall(g.since))
                for g in supervisor.health.gates()
            ),
            lease_left=None if deadline is None or now >= deadline else deadline - now,
            campaigns_in=supervisor.wait(now),
            blockers=supervisor.blockers(now),
            etcd="" if supervisor.etcd.usable else supervisor.etcd.detail,
            warning=supervisor.fault.refused or supervisor.fault.warning,
            transitions=tuple(self._transitions),
        )

    # What the operator asks for

    def drain(self, *, wanted: bool) -> None:
        """See ports.Operator."""
        try:
            if wanted:
                self._parts.drain.set()
            else:
                self._parts.drain.clear()
        except MemoryRefusedError as e:
            raise RefusedError(f"{self.plan.name}: it could not be kept over a reboot, so nothing was done: {e}") from e
        if wanted is not self.supervisor.drained:
            self._line(Message.DRAINED if wanted else Message.UNDRAINED, words.drained(wanted=wanted))
        self.handle(Drain(wanted=wanted))

    async def handover(self, to: str) -> None:
        """See ports.Operator."""
        name, ahead = self.plan.name, self.supervisor.ahead
        if self.supervisor.state is not State.LEADER:
            where = f"; {ahead} is ahead of it in the queue" if ahead else ""
            raise RefusedError(f"{name}: this node does not lead{where}; type it on the one that does")
        try:
            heirs = await self._parts.election.heirs()
        except EtcdError as e:
            raise RefusedError(f"{name}: nobody knows who could take over, so nothing was done: {e}") from e
        if not heirs:
            raise RefusedError(f"{name}: no other member stands in the queue, so nothing was done")
        if to and to not in heirs:
            raise RefusedError(f"{name}: {to} does not stand in the queue, but {', '.join(heirs)}")
        self._sink(Handover(to))

    async def release(self) -> None:
        """Last resort, when the supervisor can no longer be asked: stop answering, then remove.

        The next process must not go on with a lease that is given back after this: the revocation may take effect
        long after it was asked for.

        Raises:
            KernelError: the kernel did not confirm; the fence's own deadline closes it.
        """
        self._parts.announcer.stop()
        await self._parts.fence.close()
        self._parts.memory.forget()
        await self._parts.addresses.remove()

    async def part_from_pact(self) -> None:
        """End the pact and wait until the fence is as long as the lease: the next process needs the time."""
        if not self.supervisor.pact:
            self._parts.pact.stop()
            return
        while pact := self.supervisor.pact:
            self._parts.pact.end(pact)
            await asyncio.sleep(PACT_END_POLL_S)
        self._parts.pact.stop()
        deadline = self.supervisor.deadline() or 0.0
        while self._held_until < deadline:  # noqa: ASYNC110  # once per restart, for a few milliseconds
            await asyncio.sleep(PACT_END_POLL_S)

    def hand_over(self) -> None:
        """End without letting go: fence, addresses and lease stay as they are, for the next process to adopt."""
        self._parts.announcer.stop()
        self._parts.addresses.close()

    async def close(self) -> None:
        """After the end: give the lease back, and take the fence down where nothing is left behind it."""
        if self.stopped and not self.supervisor.present:
            try:
                await self._parts.fence.remove()
            except KernelError as e:
                self._line(Message.FENCE_LEFT, f"the fence is still there, closed: {e}")
        self._parts.addresses.close()
        await self._parts.election.close()

    # Actions

    def _do(self, action: Action) -> None:
        match action:
            case Adopt():
                self._parts.election.adopt(action.campaign, action.holding)
                left = action.holding.until - self._clock.now()
                self._line(Message.ADOPTING, words.adopting(left), {"GOVIP_STATE": State.ADOPTING.value})
            case Remember():
                self._remember(action.holding)
            case Forget():
                self._parts.memory.forget()
            case Campaign():
                self._parts.election.campaign(action.campaign)
            case Resign():
                self._parts.election.resign(action.campaign, action.heir)
            case Verify():
                self._parts.election.verify()
            case Enforce():
                self._parts.pact.enforce(action.pact)
            case EndPact():
                self._parts.pact.end(action.pact)
            case CloseFence():
                self._parts.announcer.stop()
                self._parts.pact.stop()
                self._queue(action)
            case Hold() | RemoveAddresses():
                self._queue(action)
            case Alarm():
                self._repeats.tell(Message.ADDRESS_ADDED, action.text, self._clock.now(), subject=action.text)
            case Announce():
                self._parts.announcer.start()
            case Report(state=State.LEADER):
                self._parts.pact.lead()
            case Report():
                pass  # told by handle()

    def _queue(self, action: KernelAction | _Readdress) -> None:
        """Hand an action to the kernel worker; a Hold that a later Hold or CloseFence overtakes is dropped."""
        if isinstance(action, Hold | CloseFence):
            self._pending = deque(a for a in self._pending if not isinstance(a, Hold))
        self._pending.append(action)
        self._work_waits.set()

    async def _work(self) -> None:
        """Do kernel actions, one after the other, in the order in which they were decided."""
        while True:
            await self._work_waits.wait()
            if not self._pending:
                self._work_waits.clear()
                continue
            action = self._pending.popleft()
            name = type(action).__name__.strip("_")
            try:
                await self._perform(action)
            except KernelError as e:
                text, now = f"{name} failed: {e}", self._clock.now()
                self._repeats.tell(Message.KERNEL_REFUSES, text, now, follows="try again", subject=name)
                if isinstance(action, _Readdress):
                    asyncio.get_running_loop().call_later(READDRESS_RETRY_S, self._queue, action)
                else:
                    self._sink(Failed(action, str(e)))
            else:
                text, now = f"{name} succeeds again", self._clock.now()
                self._repeats.end(Message.KERNEL_REFUSES, Message.KERNEL_OBEYS, text, now, subject=name)
                if not isinstance(action, _Readdress):
                    self._sink(Done(action))

    async def _perform(self, action: KernelAction | _Readdress) -> None:
        parts = self._parts
        match action:
            case Hold():
                await parts.fence.open(action.until)
                self._held_until = action.until
                await parts.addresses.add(action.until)
                parts.announcer.hold(action.until)
            case CloseFence():
                await parts.fence.close()
            case RemoveAddresses():
                await parts.addresses.remove()
            case _Readdress():
                await parts.addresses.replace(action.addresses)  # gone before the fence lets go of them
                await parts.fence.replace(action.addresses)
                parts.announcer.replace(action.addresses)
                parts.monitor.replace(action.addresses)

    def _remember(self, holding: Holding) -> None:
        """Keep it for the next process; a failure costs the next process the adoption, not this one the VIP."""
        try:
            self._parts.memory.save(holding)
        except MemoryRefusedError as e:
            self._repeats.tell(Message.MEMORY_REFUSES, f"a restart will move the VIP: {e}", self._clock.now())
        else:
            text = "a restart will not move the VIP"
            self._repeats.end(Message.MEMORY_REFUSES, Message.MEMORY_KEEPS, text, self._clock.now())

    # What people see

    def _report(self, report: Report) -> None:
        self._transitions.append(
            Transition(self._wall(report.since), report.state.value, report.trigger.value, report.detail)
        )
        text = words.transition(report.state, report.trigger, report.detail)
        fields = {"GOVIP_STATE": report.state.value, "GOVIP_REASON": report.trigger.value}
        self._line(Message.of(report.trigger), text, {**fields, "GOVIP_DETAIL": report.detail})
        self._publish()

    def _tell_changes(self, event: Event, now: float) -> None:
        """Lines for what changed without a transition: gates, etcd, the other members."""
        changed = False
        for gate in self.supervisor.health.gates():
            if self._told_gates.get(gate.gate.value) is not gate.verdict:
                self._told_gates[gate.gate.value] = gate.verdict
                self._tell_gate(gate)
                changed = True
        etcd = self.supervisor.etcd
        if etcd.usable:
            self._repeats.end(Message.ETCD_SILENT, Message.ETCD_ANSWERS, "etcd answers again", now)
        elif self._told_etcd or isinstance(event, EtcdFailed):
            text = f"etcd does not answer usefully: {etcd.detail}"
            follows = "tried again for ever, a held VIP is dropped when its lease ends"
            self._repeats.tell(Message.ETCD_SILENT, text, now, follows=follows)
        self._told_etcd = etcd.usable
        fault = self.supervisor.fault
        if fault != self._told_fault:
            self._told_fault = fault
            good, bad = Message.MEMBERS_AGREE, Message.NAME_TAKEN if fault.refused else Message.MEMBERS_DISAGREE
            text = fault.refused or fault.warning
            self._line(bad if text else good, text or "the members agree again")
        if changed:
            self._publish()

    def _tell_gate(self, gate: GateStatus) -> None:
        if gate.verdict is not Verdict.UNKNOWN or self.supervisor.state not in _BEGINNING:
            fields = {"GOVIP_GATE": gate.gate.value, "GOVIP_DETAIL": gate.detail}
            self._line(Message[f"GATE_{gate.verdict.name}"], f"gate {gate}", fields)

    def _line(self, kind: Message, text: str, fields: Mapping[str, str] | None = None) -> None:
        self._journal.write(kind, f"{self.plan.name}: {text}", {"GOVIP_VIP": self.plan.name, **(fields or {})})

    def _wall(self, then: float) -> float:
        """The wall clock's seconds since 1970 at an instant of CLOCK_BOOTTIME."""
        return datetime.now(UTC).timestamp() - (self._clock.now() - then)

    def _publish(self) -> None:
        """Show other tools the newest state: the member's record in etcd."""
        supervisor = self.supervisor
        since = datetime.fromtimestamp(self._wall(supervisor.since), UTC)
        gates = {g.gate.value: {"verdict": g.verdict.value, "detail": g.detail} for g in supervisor.health.gates()}
        record = {
            "v": 1,
            "state": supervisor.state.value,
            "since": since.isoformat(timespec="milliseconds"),
            "reason": supervisor.trigger.value,
            "detail": supervisor.detail,
            "gates": gates,
            "addresses": sorted(map(str, self.plan.addresses)),
        }
        self._parts.election.publish(record)
