"""The shell around one VIP group's state machine: it executes the actions, and reports to the operator."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from govipd.core import actions as ac
from govipd.core import events as ev
from govipd.core import texts
from govipd.core.journal_kinds import JournalKind
from govipd.core.state import ANSWERING, State
from govipd.core.state_machine import VipStateMachine
from govipd.errors import EtcdError, EtcdWriteRefusedError, KernelError, RefusedError, StateFileError
from govipd.runtime.kernel_worker import KernelWorker, union
from govipd.runtime.parts import GroupPlan
from govipd.runtime.ports import Clock, Session, Sink
from govipd.runtime.process_ports import Journal
from govipd.runtime.reporter import Reporter
from govipd.runtime.shared_troubles import SharedTroubles
from govipd.runtime.step_timing import Operation

REPORT_DELAY_S = 0.1  # longest delay of reports, so that they do not delay a take-over or a release (docs/adr/0008)
PACT_END_POLL_S = 0.005
_MOVING = frozenset({State.ACTIVATING, State.HANDING_OVER, State.DEACTIVATING, State.RESIGNING})
_RELEASED = frozenset({State.INELIGIBLE, State.STOPPED})  # states in which a release has finished


class Group:
    """One VIP group: its state machine, and the parts that execute its actions."""

    def __init__(
        self,
        plan: GroupPlan,
        session: Session,
        *,
        post: Callable[["Group", ev.Event], None],
        observe: Callable[[str, ev.Event, Sequence[ac.Action], float], None],
        clock: Clock,
        journal: Journal,
        shared: SharedTroubles,
    ) -> None:
        self.plan = plan
        self.state_machine = VipStateMachine(plan.settings, clock.now())
        self._clock = clock
        self._observe = observe
        self._sink: Sink = lambda event: post(self, event)
        self._parts = plan.make(self._sink, session)
        self.others: Callable[[], Collection[ev.Address]] = lambda: ()  # addresses of this process's other groups
        self.deadline: float | None = None  # when a Tick is due, unless another event comes before; None: never
        self._adopts = False  # this process has adopted the VIP of an earlier one
        self.left_for_adoption = False  # this process ends, and the next process adopts this group's VIP
        self._unreported: deque[tuple[ev.Event, Sequence[ac.Action], float]] = deque()
        self._report_by: float | None = None  # the instant until which reports may wait; None: none waits
        self.reporter = Reporter(
            plan.name,
            plan.addresses,
            self.state_machine,
            clock=clock,
            journal=journal,
            shared=shared,
            publish=self._parts.election.publish,
        )
        self._worker = KernelWorker(
            self._parts,
            plan.addresses,
            sink=self._sink,
            clock=clock,
            reporter=self.reporter,
            readdressed=self._readdressed,
        )

    @property
    def stopped(self) -> bool:
        """Whether this group has ended: it holds no address, and will hold none."""
        return self.state_machine.state is State.STOPPED

    @property
    def reports_pending(self) -> bool:
        """Whether reports wait because a take-over or a release is under way."""
        return bool(self._unreported)

    def tasks(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """The tasks that must run while the group exists, by name."""
        return {
            f"{self.plan.name}: election": self._parts.election.run(),
            f"{self.plan.name}: kernel worker": self._worker.run(),
            f"{self.plan.name}: announcer": self._parts.announcer.run(),
            f"{self.plan.name}: neighbours": self._parts.neighbours.run(),
            f"{self.plan.name}: pact": self._parts.pact.run(),
        }

    def start(self) -> None:
        """Start: try to adopt the VIP of an earlier process, or else remove what that process left."""
        left = None
        try:
            left = self._parts.restart_state.load()
        except StateFileError as e:
            self._report_not_adopted(str(e))
        if left is not None and not self._parts.election.adoptable(left):
            self._report_not_adopted("its lease is not the one that another VIP of this process has adopted")
            left = None
        if left is not None and left.addresses:
            self._worker.applied = union(self._worker.applied, left.addresses)
            self._worker.readdress(tuple(address for address in self._worker.wanted if address in left.addresses))
        now = self._clock.now()
        for action in self.state_machine.start(left, now):
            self._do(action)
        self.deadline = self.state_machine.next_deadline(now)
        if self._parts.drain.is_set():
            self.handle(ev.Drain(wanted=True))

    def _report_not_adopted(self, why: str) -> None:
        text = f"nothing of an earlier process is adopted: {why}; next: start clean"
        self.reporter.line(JournalKind.NOT_ADOPTED, text)

    def handle(self, event: ev.Event) -> None:
        """Give an event to the state machine, and execute its actions.

        Raises:
            IllegalTransitionError: a fault of govipd.
        """
        now = self._clock.now()
        if isinstance(event, ev.AddressFound) and self._is_of_another(event.address):
            return
        if isinstance(event, ev.Elected) and event.addresses is not None:
            # The proof may be older than a reload, so addresses that have left the group are dropped first.
            self._worker.readdress(tuple(address for address in event.addresses if address in self.plan.addresses))
        actions = self.state_machine.step(event, now)
        self.deadline = self.state_machine.next_deadline(now)
        self._parts.timings.follow(actions)
        for action in actions:
            self._do(action)
        self._unreported.append((event, actions, now))
        if self.state_machine.state in _MOVING and not self._late(now):
            return
        self._report_by = None
        self._report()

    def _readdressed(self) -> None:
        """Note that the kernel answers for nothing of an earlier process but what this one has adopted."""
        if self._adopts:
            self._parts.election.silenced()

    def _late(self, now: float) -> bool:
        """Whether reports have waited for REPORT_DELAY_S. The first call starts a timer that calls handle() again."""
        if self._report_by is None:
            self._report_by = now + REPORT_DELAY_S
            asyncio.get_running_loop().call_later(REPORT_DELAY_S, self._sink, ev.Tick())
        return now >= self._report_by

    def _report(self) -> None:
        """Report all steps in their order, so that in the journal a cause comes before its effect."""
        while self._unreported:
            event, actions, now = self._unreported.popleft()
            self._observe(self.plan.name, event, actions, now)
            self.reporter.changes(event, now)
            for action in actions:
                if isinstance(action, ac.Report):
                    self.reporter.report(action)
            if isinstance(event, ev.Announced) or any(
                isinstance(a, ac.Report) and a.state in _RELEASED for a in actions
            ):
                self.reporter.timings(self._parts.timings.end())

    def stopping(self) -> None:
        """Note that the daemon is to stop: the timing of a release begins."""
        if self.state_machine.state is State.LEADER:
            self._parts.timings.begin(Operation.RELEASE, "told to stop")

    def reconfigure(self, plan: GroupPlan) -> None:
        """Apply a plan of the same identity: only the difference, without a release of the VIP."""
        if plan.addresses != self.plan.addresses:
            held = self._worker.wanted if self.state_machine.state in ANSWERING else plan.addresses
            self._worker.readdress(tuple(address for address in plan.addresses if address in held))
            self._parts.election.claim(plan.addresses)
        self.plan = plan
        self.reporter.addresses = plan.addresses
        self.handle(ev.Reconfigured(plan.settings))
        self.reporter.publish()

    def _is_of_another(self, address: ev.Address) -> bool:
        """Whether another group of this process holds the address, or has it while this group is leaving."""
        return self._parts.addresses.of_another(address) or address.ip in {other.ip for other in self.others()}

    # What the operator asks for

    async def drain(self, *, wanted: bool) -> None:
        """See process_ports.Operator."""
        if wanted and self.state_machine.state is State.LEADER:
            await self._check_writes()
        try:
            if wanted:
                self._parts.drain.set()
            else:
                self._parts.drain.clear()
        except StateFileError as e:
            raise RefusedError(f"{self.plan.name}: it could not be kept over a reboot, so nothing was done: {e}") from e
        if self.left_for_adoption:
            return  # the next process finds the drain file
        if wanted is not self.state_machine.facts.drained:
            self.reporter.line(JournalKind.DRAINED if wanted else JournalKind.UNDRAINED, texts.drained(wanted=wanted))
        self.handle(ev.Drain(wanted=wanted))

    async def handover(self, to: str) -> None:
        """See process_ports.Operator."""
        name, ahead = self.plan.name, self.state_machine.facts.ahead
        if self.state_machine.state is not State.LEADER:
            where = f"; {ahead} is ahead of it in the queue" if ahead else ""
            raise RefusedError(f"{name}: this node does not lead{where}; type it on the one that does")
        try:
            successors = await self._parts.election.successors()
        except EtcdError as e:
            text = "etcd does not say which member could take over, so nothing was done"
            raise RefusedError(f"{name}: {text}: {e}") from e
        await self._check_writes()
        if not successors:
            raise RefusedError(f"{name}: no other member stands in the queue, so nothing was done")
        if to and to not in successors:
            raise RefusedError(f"{name}: {to} does not stand in the queue, but {', '.join(successors)}")
        self._sink(ev.Handover(to))

    async def _check_writes(self) -> None:
        """Refuse a planned move after which this node could not campaign again.

        Raises:
            RefusedError: etcd takes no writes.
        """
        try:
            await self._parts.election.check_writes()
        except EtcdWriteRefusedError as e:
            text = "etcd takes no writes, and without them this node cannot stand for election again"
            raise RefusedError(f"{self.plan.name}: {text}, so nothing was done: {e}; free etcd's space first") from e
        except EtcdError:
            return  # no answer is no reason to refuse: the node may have to leave

    async def release(self) -> None:
        """Close the fence and remove the addresses without the state machine, after a fault.

        The restart state is deleted: the next process must not adopt a lease that is given back after this, because
        the revocation may take effect long after the call.

        Raises:
            KernelError: the kernel did not confirm; the fence closes at its own deadline.
        """
        self._parts.announcer.stop()
        await self._parts.fence.close()
        self._parts.restart_state.forget()
        await self._parts.addresses.remove()

    async def part_from_pact(self) -> None:
        """End the pact, and wait until the fence is open as long as the lease allows: the next process needs time."""
        if not self.state_machine.fence.pact.id:
            self._parts.pact.stop()
            return
        while pact := self.state_machine.fence.pact.id:
            self._parts.pact.end(pact)
            await asyncio.sleep(PACT_END_POLL_S)
        self._parts.pact.stop()
        deadline = self.state_machine.fence.by_lease_and_pact() or 0.0
        while self._worker.confirmed_until < deadline:  # noqa: ASYNC110  # once per restart, for a few milliseconds
            await asyncio.sleep(PACT_END_POLL_S)

    def leave_for_adoption(self) -> None:
        """End without a release: fence, addresses and lease stay as they are, for the next process to adopt."""
        self._parts.announcer.stop()
        self._parts.monitor.close()

    async def close(self) -> None:
        """After the end: end the candidacy, and remove the fence if its addresses are not on this machine."""
        self._parts.election.close()
        self._parts.monitor.close()
        self.reporter.close()
        if self.stopped and not self.state_machine.present:
            try:
                found = await self._parts.addresses.anywhere()
                if left := [each for each in found if not self._is_of_another(each.address)]:
                    self.reporter.line(JournalKind.FENCE_LEFT, texts.left_behind(left))
                else:
                    await self._parts.fence.remove()
            except KernelError as e:
                self.reporter.line(JournalKind.FENCE_LEFT, f"the fence is still there, closed: {e}")

    # Actions

    def _do(self, action: ac.Action) -> None:
        match action:
            case ac.Adopt():
                self._parts.election.adopt(action.campaign, action.holding)
                self._adopts = True
                if self._worker.applied == self._worker.wanted:
                    self._readdressed()
                left = action.holding.until - self._clock.now()
                self.reporter.line(JournalKind.ADOPTING, texts.adopting(left), {"GOVIP_STATE": State.ADOPTING.value})
            case ac.SaveRestartState():
                self._save_restart_state(action.holding)
            case ac.DropRestartState():
                self._parts.restart_state.forget()
            case ac.Campaign():
                self._parts.election.campaign(action.campaign)
            case ac.HandOver():
                self._parts.pact.stop()  # the transaction of the handover deletes the pact's keys
                self._parts.election.hand_over(action.campaign, action.successor)
            case ac.Resign():
                self._parts.election.resign(action.campaign, action.successor, contested=action.contested)
            case ac.Prepared():
                self._parts.election.prepared(action.campaign)
            case ac.Verify():
                self._parts.election.verify()
            case ac.EnforcePact():
                self._parts.pact.enforce(action.pact)
            case ac.EndPact():
                self._parts.pact.end(action.pact)
            case ac.CloseFence():
                self._parts.announcer.stop()
                self._parts.pact.stop()
                self._parts.neighbours.stop()
                self._worker.queue(action)
            case ac.Hold():
                self._parts.neighbours.stop()
                self._worker.queue(action)
            case ac.Prepare() | ac.RemoveAddresses():
                self._worker.queue(action)
            case ac.AskWire():
                self._parts.neighbours.ask(action.until)
            case ac.Alarm():
                kind = JournalKind[action.conflict.name]
                self.reporter.troubles.report(kind, action.text, self._clock.now(), subject=action.text)
            case ac.Announce():
                self._parts.announcer.start()
            case ac.SeekPact():
                self._parts.pact.lead()
            case ac.Report():  # written by _report()
                if action.state is State.INELIGIBLE:
                    self._parts.election.silenced()

    def _save_restart_state(self, holding: ac.RestartState) -> None:
        """Save the restart state. After a failure, this process keeps the VIP, but the next one cannot adopt it."""
        try:
            self._parts.restart_state.save(replace(holding, addresses=self._worker.applied))
        except StateFileError as e:
            self.reporter.troubles.report(
                JournalKind.STATE_FILE_REFUSED, f"a restart will move the VIP: {e}", self._clock.now()
            )
        else:
            text = "a restart will not move the VIP"
            self.reporter.troubles.resolve(
                JournalKind.STATE_FILE_REFUSED, JournalKind.STATE_FILE_WRITTEN, text, self._clock.now()
            )
