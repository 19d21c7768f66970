"""The shell around one VIP group's supervisor: it starts the actions and reports what people should see."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from govipd.core import texts
from govipd.core.actions import (
    Action,
    Adopt,
    Alarm,
    Announce,
    AskWire,
    Campaign,
    CloseFence,
    DropRestartState,
    EndPact,
    EnforcePact,
    HandOver,
    Hold,
    KernelAction,
    Prepare,
    RemoveAddresses,
    Report,
    Resign,
    RestartState,
    SaveRestartState,
    Verify,
)
from govipd.core.events import (
    Address,
    AddressFound,
    Announced,
    Done,
    Drain,
    Elected,
    Event,
    Failed,
    Handover,
    Reconfigured,
    Tick,
)
from govipd.core.journal_kinds import JournalKind
from govipd.core.settings import Settings
from govipd.core.state import ANSWERING, State
from govipd.core.state_machine import VipStateMachine
from govipd.errors import EtcdError, EtcdWriteRefusedError, KernelError, RefusedError, StateFileError
from govipd.runtime.ports import (
    Addresses,
    AddressMonitor,
    Announcer,
    Clock,
    DrainMark,
    Election,
    Fence,
    Journal,
    Neighbours,
    Pact,
    RestartStateStore,
    Sink,
)
from govipd.runtime.reporter import Reporter
from govipd.runtime.step_timing import Operation, StepTimings

READDRESS_RETRY_S = 0.5
TELL_S = 0.02  # for which a move under way is not held up by telling of it
PACT_END_POLL_S = 0.005
REMOVE_AFTER_S = 0.002  # behind a closed fence an address has time: the deletion of the key goes before
_MOVING = frozenset({State.ACTIVATING, State.HANDING_OVER, State.DEACTIVATING, State.RESIGNING})
_ENDS = frozenset({State.INELIGIBLE, State.STOPPED})  # of a release


@dataclass(frozen=True, slots=True)
class Parts:
    """What a group needs of the world, as the composition root makes it."""

    election: Election
    fence: Fence
    addresses: Addresses
    announcer: Announcer
    monitor: AddressMonitor
    neighbours: Neighbours
    memory: RestartStateStore
    drain: DrainMark
    pact: Pact
    timings: StepTimings
    reach: Callable[[Any], None] = lambda _: None  # etcd, as in GroupPlan.access


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """One VIP group as configured. Another `identity` is another election: release, then start anew.

    `access` is how etcd is reached; another one is handed to `Parts.reach`, without letting go of the VIP.
    """

    name: str
    identity: Hashable
    addresses: tuple[Address, ...]
    settings: Settings
    make: Callable[[Sink], Parts] = field(compare=False)
    access: Hashable = None


@dataclass(frozen=True, slots=True)
class _Readdress:
    """See that the kernel's parts know the addresses that are wanted now."""


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
        self.state_machine = VipStateMachine(plan.settings, clock.now())
        self._clock = clock
        self._observe = observe
        self._sink: Sink = lambda event: post(self, event)
        self._parts = plan.make(self._sink)
        self._pending: deque[KernelAction | _Readdress] = deque()
        self._work_waits = asyncio.Event()
        self._prepared = False  # the addresses are there, behind a closed fence
        self._fence_confirmed_until = 0.0  # as the kernel has confirmed
        self.others: Callable[[], Collection[Address]] = lambda: ()  # addresses of this process's other groups
        self.left_for_adoption = False  # the process ends, and the next one goes on with this group
        self._wanted = plan.addresses  # that this node may hold
        self._applied = plan.addresses  # that the kernel's parts know; more than that while they differ
        self._untold: deque[tuple[Event, Sequence[Action], float]] = deque()
        self._tell_by: float | None = None  # while telling waits
        self.reporter = Reporter(
            plan.name,
            plan.addresses,
            self.state_machine,
            clock=clock,
            journal=journal,
            show=self._parts.election.publish,
        )

    @property
    def stopped(self) -> bool:
        """Nothing is held, and nothing will be."""
        return self.state_machine.state is State.STOPPED

    @property
    def untold(self) -> bool:
        """A move is under way, and people are told of it a little later."""
        return bool(self._untold)

    def tasks(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """What must run for as long as the group exists, by name."""
        return {
            f"{self.plan.name}: election": self._parts.election.run(),
            f"{self.plan.name}: kernel worker": self._work(),
            f"{self.plan.name}: announcer": self._parts.announcer.run(),
            f"{self.plan.name}: netlink monitor": self._parts.monitor.run(),
            f"{self.plan.name}: neighbours": self._parts.neighbours.run(),
            f"{self.plan.name}: pact": self._parts.pact.run(),
        }

    def start(self) -> None:
        """Begin: what an earlier process held is adopted, whatever else it left is removed."""
        left = None
        try:
            left = self._parts.memory.load()
        except StateFileError as e:
            self.reporter.line(
                JournalKind.NOT_ADOPTED, f"nothing of an earlier process is adopted: {e}; next: start clean"
            )
        if left is not None and left.addresses:
            self._applied = _union(self._applied, left.addresses)
            self._readdress(tuple(address for address in self._wanted if address in left.addresses))
        for action in self.state_machine.start(left, self._clock.now()):
            self._do(action)
        if self._parts.drain.is_set():
            self.handle(Drain(wanted=True))

    def handle(self, event: Event) -> None:
        """One step.

        Raises:
            IllegalTransitionError: a fault of ours.
        """
        now = self._clock.now()
        if isinstance(event, AddressFound) and self._is_of_another(event.address):
            return
        if isinstance(event, Elected) and event.addresses is not None:
            self._readdress(event.addresses)  # before anything is held by this proof
        actions = self.state_machine.step(event, now)
        self._time(actions)
        for action in actions:
            self._do(action)
        self._untold.append((event, actions, now))
        if self.state_machine.state in _MOVING and not self._late(now):
            return
        self._tell_by = None
        self._tell()

    def _late(self, now: float) -> bool:
        """Whether people have waited long enough; the first time, see that this is asked again."""
        if self._tell_by is None:
            self._tell_by = now + TELL_S
            asyncio.get_running_loop().call_later(TELL_S, self._sink, Tick())
        return now >= self._tell_by

    def _tell(self) -> None:
        """Tell everybody what has happened, in its order: the cause stands before its effect in the journal."""
        while self._untold:
            event, actions, now = self._untold.popleft()
            self._observe(self.plan.name, event, actions, now)
            self.reporter.changes(event, now)
            for action in actions:
                if isinstance(action, Report):
                    self.reporter.report(action)
            if isinstance(event, Announced) or any(isinstance(a, Report) and a.state in _ENDS for a in actions):
                self.reporter.timings(self._parts.timings.end())

    def told_to_stop(self) -> None:
        """The end is near, unless it is a restart."""
        if self.state_machine.state is State.LEADER:
            self._parts.timings.begin(Operation.RELEASE, "told to stop")

    def _time(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Report(state=State.ACTIVATING):
                    self._parts.timings.begin(Operation.TAKE, "won")
                case Report(state=State.HANDING_OVER):
                    self._parts.timings.begin(Operation.RELEASE, "handing over")
                case Report(state=State.DEACTIVATING):
                    self._parts.timings.begin(Operation.RELEASE, "decided")
                case Report():
                    self._parts.timings.mark(action.state.value)

    def reconfigure(self, plan: GroupPlan) -> None:
        """Apply a plan of the same identity: only the difference, without letting go of the VIP."""
        if plan.addresses != self.plan.addresses:
            held = self._wanted if self.state_machine.state in ANSWERING else plan.addresses
            self._readdress(tuple(address for address in plan.addresses if address in held))
            self._parts.election.claim(plan.addresses)
        if plan.access != self.plan.access:
            self._parts.reach(plan.access)
        self.plan = plan
        self.reporter.addresses = plan.addresses
        self.handle(Reconfigured(plan.settings))
        self.reporter.publish()

    def _is_of_another(self, address: Address) -> bool:
        """Whether this group leaves, and another one of this process has the address."""
        return address.ip in {other.ip for other in self.others()}

    def _readdress(self, addresses: tuple[Address, ...]) -> None:
        """The addresses that this node may hold from now on."""
        if addresses != self._wanted or addresses != self._applied:
            self._wanted, self._applied = addresses, _union(addresses, self._applied)
            self._queue(_Readdress())

    # What the operator asks for

    async def drain(self, *, wanted: bool) -> None:
        """See ports.Operator."""
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
            return  # the next process finds it
        if wanted is not self.state_machine.drained:
            self.reporter.line(JournalKind.DRAINED if wanted else JournalKind.UNDRAINED, texts.drained(wanted=wanted))
        self.handle(Drain(wanted=wanted))

    async def handover(self, to: str) -> None:
        """See ports.Operator."""
        name, ahead = self.plan.name, self.state_machine.ahead
        if self.state_machine.state is not State.LEADER:
            where = f"; {ahead} is ahead of it in the queue" if ahead else ""
            raise RefusedError(f"{name}: this node does not lead{where}; type it on the one that does")
        try:
            successors = await self._parts.election.successors()
        except EtcdError as e:
            raise RefusedError(f"{name}: nobody knows who could take over, so nothing was done: {e}") from e
        await self._check_writes()
        if not successors:
            raise RefusedError(f"{name}: no other member stands in the queue, so nothing was done")
        if to and to not in successors:
            raise RefusedError(f"{name}: {to} does not stand in the queue, but {', '.join(successors)}")
        self._sink(Handover(to))

    async def _check_writes(self) -> None:
        """Refuse a planned move after which this node could not stand for election again.

        Raises:
            RefusedError: etcd takes no writes.
        """
        try:
            await self._parts.election.check_writes()
        except EtcdWriteRefusedError as e:
            text = "etcd takes no writes, and without them this node cannot stand for election again"
            raise RefusedError(f"{self.plan.name}: {text}, so nothing was done: {e}; free etcd's space first") from e
        except EtcdError:
            return  # that etcd does not answer is no reason: the node may have to leave

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
        if not self.state_machine.pact.id:
            self._parts.pact.stop()
            return
        while pact := self.state_machine.pact.id:
            self._parts.pact.end(pact)
            await asyncio.sleep(PACT_END_POLL_S)
        self._parts.pact.stop()
        deadline = self.state_machine.deadline() or 0.0
        while self._fence_confirmed_until < deadline:  # noqa: ASYNC110  # once per restart, for a few milliseconds
            await asyncio.sleep(PACT_END_POLL_S)

    def leave_for_adoption(self) -> None:
        """End without letting go: fence, addresses and lease stay as they are, for the next process to adopt."""
        self._parts.announcer.stop()
        self._parts.addresses.close()

    async def close(self) -> None:
        """After the end: give the lease back, and take the fence down where nothing is left behind it."""
        if self.stopped and not self.state_machine.present:
            try:
                found = await self._parts.addresses.anywhere()
                if left := [each for each in found if not self._is_of_another(each.address)]:
                    self.reporter.line(JournalKind.FENCE_LEFT, texts.left_behind(left))
                else:
                    await self._parts.fence.remove()
            except KernelError as e:
                self.reporter.line(JournalKind.FENCE_LEFT, f"the fence is still there, closed: {e}")
        self._parts.addresses.close()
        await self._parts.election.close()

    # Actions

    def _do(self, action: Action) -> None:
        match action:
            case Adopt():
                self._parts.election.adopt(action.campaign, action.holding)
                left = action.holding.until - self._clock.now()
                self.reporter.line(JournalKind.ADOPTING, texts.adopting(left), {"GOVIP_STATE": State.ADOPTING.value})
            case SaveRestartState():
                self._remember(action.holding)
            case DropRestartState():
                self._parts.memory.forget()
            case Campaign():
                self._parts.election.campaign(action.campaign)
            case HandOver():
                self._parts.pact.stop()  # etcd ends it in the same transaction
                self._parts.election.hand_over(action.campaign, action.successor)
            case Resign():
                self._parts.election.resign(action.campaign, action.successor, contested=action.contested)
            case Verify():
                self._parts.election.verify()
            case EnforcePact():
                self._parts.pact.enforce(action.pact)
            case EndPact():
                self._parts.pact.end(action.pact)
            case CloseFence():
                self._parts.announcer.stop()
                self._parts.pact.stop()
                self._parts.neighbours.stop()
                self._queue(action)
            case Hold():
                self._parts.neighbours.stop()
                self._queue(action)
            case Prepare() | RemoveAddresses():
                self._queue(action)
            case AskWire():
                self._parts.neighbours.ask(action.until)
            case Alarm():
                kind = JournalKind[action.conflict.name]
                self.reporter.repeats.tell(kind, action.text, self._clock.now(), subject=action.text)
            case Announce():
                self._parts.announcer.start()
            case Report(state=State.LEADER):
                self._parts.pact.lead()
            case Report():
                pass  # told by handle()

    def _queue(self, action: KernelAction | _Readdress) -> None:
        """Hand an action to the kernel worker; what a later Hold or CloseFence overtakes is dropped."""
        if isinstance(action, Hold | CloseFence):
            self._pending = deque(a for a in self._pending if not isinstance(a, Prepare | Hold))
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
                self.reporter.repeats.tell(JournalKind.KERNEL_REFUSES, text, now, follows="try again", subject=name)
                if isinstance(action, _Readdress):
                    asyncio.get_running_loop().call_later(READDRESS_RETRY_S, self._queue, action)
                else:
                    self._sink(Failed(action, str(e)))
            else:
                text, now = f"{name} succeeds again", self._clock.now()
                self.reporter.repeats.end(JournalKind.KERNEL_REFUSES, JournalKind.KERNEL_OBEYS, text, now, subject=name)
                if not isinstance(action, _Readdress):
                    self._sink(Done(action))

    async def _perform(self, action: KernelAction | _Readdress) -> None:
        parts = self._parts
        match action:
            case Prepare() | Hold() if self._applied != self._wanted:
                await self._apply_addresses()
                await self._perform(action)
            case Prepare():
                await parts.fence.prepare(action.until)  # a firewall that was loaded anew may have taken it away
                await parts.addresses.add(action.until)
                self._prepared = True
                parts.timings.mark("addresses there")
            case Hold():
                await parts.fence.open(action.until)
                parts.timings.mark("fence open")
                self._fence_confirmed_until = action.until
                if not self._prepared:
                    await parts.addresses.add(action.until)
                    parts.timings.mark("addresses there")
                self._prepared = False  # the next one renews their lifetime
                parts.announcer.hold(action.until)
            case CloseFence():
                if self._applied != self._wanted:
                    await self._guard_all()
                await parts.fence.close()
                parts.timings.mark("fence closed")
            case RemoveAddresses():
                self._prepared = False
                await asyncio.sleep(REMOVE_AFTER_S)
                await parts.addresses.remove()
                parts.timings.mark("addresses gone")
            case _Readdress():
                await self._apply_addresses()

    async def _apply_addresses(self) -> None:
        """First the fence guards what was and what will be; then addresses go; then the fence lets go of those.

        Raises:
            KernelError: not confirmed; may be repeated.
        """
        both, wanted, parts = self._applied, self._wanted, self._parts
        await self._guard_all()
        await parts.addresses.replace(wanted)
        await parts.fence.replace(wanted)
        parts.announcer.replace(wanted)
        parts.monitor.replace(wanted)
        parts.neighbours.replace(wanted)
        if wanted == self._wanted:
            self._applied = wanted
        if gone := [address for address in both if address not in wanted]:
            parts.election.unclaim(gone)

    async def _guard_all(self) -> None:
        """The fence and the addresses know what was and what will be."""
        await self._parts.fence.replace(self._applied)
        await self._parts.addresses.replace(self._applied)

    def _remember(self, holding: RestartState) -> None:
        """Keep it for the next process; a failure costs the next process the adoption, not this one the VIP."""
        try:
            self._parts.memory.save(replace(holding, addresses=self._applied))
        except StateFileError as e:
            self.reporter.repeats.tell(
                JournalKind.STATE_FILE_REFUSED, f"a restart will move the VIP: {e}", self._clock.now()
            )
        else:
            text = "a restart will not move the VIP"
            self.reporter.repeats.end(
                JournalKind.STATE_FILE_REFUSED, JournalKind.STATE_FILE_WRITTEN, text, self._clock.now()
            )


def _union(first: tuple[Address, ...], second: tuple[Address, ...]) -> tuple[Address, ...]:
    return (*first, *(address for address in second if address not in first))
