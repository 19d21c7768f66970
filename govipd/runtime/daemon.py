"""The shell: one queue of events, one timer, signals. The shell runs the groups and pings systemd's watchdog."""

import asyncio
import contextlib
import signal
import traceback
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import replace

from govipd.core.actions import Action
from govipd.core.events import Address, Event, Stalled, Stop, Tick
from govipd.core.journal_kinds import JournalKind
from govipd.core.liveness import Liveness
from govipd.core.state import State
from govipd.core.status import NodeStatus
from govipd.errors import ConfigError, KernelError, RefusedError
from govipd.runtime.group import Group
from govipd.runtime.parts import Plan
from govipd.runtime.ports import Clock
from govipd.runtime.process_ports import Journal, Notifier, Service
from govipd.runtime.process_session import ProcessSession
from govipd.runtime.reporter import status_of_all
from govipd.runtime.shared_troubles import SharedTroubles
from govipd.runtime.tasks import ProcessTasks

BEAT_S = 0.25  # longest time between two steps of the loop, so that a stall differs from a quiet time
TURN_S = 0.05  # so long a step of the loop takes further events: what follows costs as much for many as for one
STALL_S = 0.5  # a step that is later than this is a stall
STOP_S = 0.6  # etcd's time to confirm the resignation when the daemon ends
ASK_S = 0.3  # systemd's time to answer why it stops the daemon; without an answer the VIP is released
PACT_END_S = 0.3  # etcd's time to end the pact before a restart
CLOSE_S = 0.2  # etcd's time to take the lease back; otherwise the lease ends by itself
SERVICES_S = 0.7  # the services' time to end, after everything else: a running hook may finish


class Daemon:
    """One process: the VIP groups of one interface.

    Args:
        plan: what to run.
        load: reads and validates the configuration. May raise ConfigError; then nothing changes.
        watchdog: systemd's watchdog time-out in seconds, or None.
        job_type: asks systemd for the unit's job. For "restart", the VIP is left to the next process.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        load: Callable[[], Plan],
        clock: Clock,
        journal: Journal,
        notifier: Notifier,
        watchdog: float | None,
        job_type: Callable[[], Awaitable[str]],
    ) -> None:
        self._plan = plan
        self._load = load
        self._clock = clock
        self._journal = journal
        self._notifier = notifier
        self._watchdog = watchdog
        self._job_type = job_type
        now = clock.now()
        self._liveness = Liveness(limit=watchdog or 2 * BEAT_S + STALL_S, now=now)
        self._shared = SharedTroubles(journal)
        self._tasks = ProcessTasks(self._ended)
        self._session = ProcessSession(self._tasks, self._begin_new)
        self._groups: dict[str, Group] = {}
        self._left_for_adoption: list[Group] = []  # the next process adopts these
        self._leaving: list[Group] = []  # no longer configured; each ends when it has released its VIP
        self._sources: dict[Hashable, asyncio.Task[None]] = {}
        self._services: dict[Hashable, tuple[Service, asyncio.Task[None]]] = {}
        self._queue: asyncio.Queue[tuple[Group | None, Event]] = asyncio.Queue()
        self._stop_wanted = False
        self._stopping = False
        self._reload_wanted = False
        self._ready = False
        self._told_states: list[State] = []
        self._told_status = ""
        self._tell_at = 0.0

    async def run(self) -> int:
        """Run until stop(). Returns the process's exit status: 0 after an orderly release, 1 after a fault."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        self._apply(self._plan)
        try:
            await self._loop()
        except Exception as e:  # noqa: BLE001  # the task boundary: after any fault the VIP is released
            self._tasks.fault = e
        return await self._end()

    def stop(self) -> None:
        """End the daemon: leave the VIP to the next process if systemd restarts the unit; else release it."""
        if not self._stop_wanted:
            self._stop_wanted = True
            for group in self._all():
                group.stopping()
            self._notifier.stopping()
            self._tasks.beside(self._ask_why())

    async def _ask_why(self) -> None:
        try:
            async with asyncio.timeout(ASK_S):
                restart = await self._job_type() == "restart"
        except TimeoutError:
            restart = False
        if restart:
            await self._leave_for_adoption()
        self._stopping = True
        self._post(None, Stop(by=self._clock.now() + STOP_S))

    async def _leave_for_adoption(self) -> None:
        """Leave each group that holds its VIP as it is, for the next process to adopt."""
        for name, group in list(self._groups.items()):
            if group.state_machine.state is State.LEADER:
                with contextlib.suppress(TimeoutError):  # then the VIP may move, as after a crash
                    async with asyncio.timeout(PACT_END_S):
                        await group.part_from_pact()
            if group.state_machine.adoptable:
                group.left_for_adoption = True
                self._left_for_adoption.append(self._groups.pop(name))
                text = f"{name}: a restart: the VIP stays; next: the new process adopts it"
                self._journal.write(JournalKind.STAYS, text, {"GOVIP_VIP": name})

    def reload(self) -> None:
        """Read the configuration again and apply the difference. A refused configuration changes nothing."""
        self._reload_wanted = True
        self._post(None, Tick())

    def _reload(self) -> None:
        self._reload_wanted = False
        self._notifier.reloading()
        try:
            plan = self._load()
        except ConfigError as e:
            for line in str(e).splitlines():
                self._journal.write(
                    JournalKind.CONFIG_REFUSED, f"configuration not applied, nothing changed: {line}", {}
                )
        else:
            self._apply(plan)
            self._journal.write(JournalKind.CONFIG_APPLIED, "configuration applied", {})
        self._notifier.ready()

    # What the operator asks for (process_ports.Operator)

    def status(self) -> NodeStatus:
        """See process_ports.Operator."""
        return replace(self._plan.node, groups=tuple(group.reporter.status() for group in self._groups.values()))

    async def drain(self, vip: str, *, wanted: bool) -> None:
        """See process_ports.Operator."""
        drained: list[Group] = []
        while groups := [group for group in self._named(vip, returning=True) if group not in drained]:
            for group in groups:
                await group.drain(wanted=wanted)
            drained += groups
            if vip:
                break  # else a reload may have added groups meanwhile

    async def handover(self, vip: str, to: str) -> None:
        """See process_ports.Operator."""
        for group in self._named(vip):
            await group.handover(to)

    def _named(self, vip: str, *, returning: bool = False) -> list[Group]:
        """The group `vip`, or all for "". `returning`: also groups that start again after a reload or a restart."""
        groups = dict(self._groups)
        if returning:
            groups |= {group.plan.name: group for group in self._leaving if group.plan.name in self._plan.groups}
            groups |= {group.plan.name: group for group in self._left_for_adoption}
        if vip and vip not in groups:
            raise RefusedError(f"{vip} is no VIP of {self._plan.node.interface}; those are {', '.join(groups)}")
        return [group for name, group in groups.items() if vip in ("", name)]

    def _stepped(self, vip: str, event: Event, actions: Sequence[Action], now: float) -> None:
        for service, _ in self._services.values():
            service.stepped(vip, event, actions, now)

    # The loop

    async def _loop(self) -> None:
        beat_at = self._clock.now() + BEAT_S
        pinged_at = float("-inf")
        while not (self._stopping and all(group.stopped for group in self._all())):
            group, event = await self._next(beat_at)
            now = self._clock.now()
            if now > beat_at + STALL_S:
                self._dispatch(None, Stalled(now - beat_at + BEAT_S))
            self._dispatch(group, event)
            while self._clock.now() < now + TURN_S and not self._queue.empty():
                self._dispatch(*self._queue.get_nowait())
            if self._tasks.fault is not None:
                return
            if self._reload_wanted and not self._stop_wanted:
                self._reload()
            self._retire()
            now = self._clock.now()
            if not any(group.reports_pending for group in self._all()):
                self._publish_status(now)
            self._liveness.stepped(now)
            if self._watchdog is not None and now - pinged_at >= self._watchdog / 4 and self._liveness.earned(now):
                self._notifier.watchdog()
                pinged_at = now
            beat_at = now + BEAT_S

    async def _next(self, beat_at: float) -> tuple[Group | None, Event]:
        """The next event, or a Tick when a group's deadline or the beat comes first."""
        now = self._clock.now()
        until = min([beat_at, *(group.deadline for group in self._all() if group.deadline is not None)])
        timer = asyncio.get_running_loop().call_later(max(0.0, until - now), self._post, None, Tick())
        try:
            return await self._queue.get()
        finally:
            timer.cancel()

    def _dispatch(self, group: Group | None, event: Event) -> None:
        receivers = self._all() if group is None else [group]
        if group is None and isinstance(event, Tick):
            now = self._clock.now()
            receivers = [each for each in receivers if each.deadline is not None and each.deadline <= now]
        for receiver in receivers:
            receiver.handle(event)

    def _post(self, group: Group | None, event: Event) -> None:
        self._queue.put_nowait((group, event))

    def _all(self) -> list[Group]:
        return [*self._groups.values(), *self._leaving]

    # Configuration

    def _apply(self, plan: Plan) -> None:
        for kind, warning in plan.warnings:
            self._journal.write(kind, warning, {})
        for name, group in list(self._groups.items()):
            new = plan.groups.get(name)
            if new is None or new.identity != group.plan.identity:
                self._leaving.append(self._groups.pop(name))
                # A leaving group neither removes nor guards an address that another group has now.
                group.others = self._addresses
                group.handle(Stop(by=float("inf")))
            else:
                group.reconfigure(new)
        for key in [k for k in self._sources if k not in plan.sources]:
            self._tasks.cancel(self._sources.pop(key))
        for key in [k for k in self._services if k not in plan.services]:
            self._tasks.cancel(self._services.pop(key)[1])
        for key, source in plan.sources.items():
            if key not in self._sources:
                self._sources[key] = self._tasks.spawn(str(key), source(lambda event: self._post(None, event)).run())
        for key, make in plan.services.items():
            if key not in self._services:
                service = make(self)
                self._services[key] = service, self._tasks.spawn(str(key), service.run())
        self._session.apply(plan.session)
        self._plan = plan
        self._begin_new()

    def _addresses(self) -> frozenset[Address]:
        """The addresses of the groups that are configured and run."""
        return frozenset(address for group in self._groups.values() for address in group.plan.addresses)

    def _begin_new(self) -> None:
        """Start configured groups that do not run. A group waits until one of its name or election has left."""
        leaving = {each for group in self._leaving for each in (group.plan.name, group.plan.election)}
        plans = [plan for name, plan in self._plan.groups.items() if name not in self._groups]
        new = [plan for plan in plans if not leaving & {plan.name, plan.election}]
        if self._stop_wanted or not new:
            return
        session = self._session.as_planned(self._plan.session, used=bool(self._all()))
        if session is None:
            return
        for plan in new:
            group = Group(
                plan,
                session,
                post=self._post,
                observe=self._stepped,
                clock=self._clock,
                journal=self._journal,
                shared=self._shared,
            )
            self._groups[plan.name] = group
            for task, work in group.tasks().items():
                self._tasks.spawn(task, work, group)
            group.start()

    def _retire(self) -> None:
        """End the groups that are no longer configured and have released their VIP."""
        for group in [g for g in self._leaving if g.stopped]:
            self._leaving.remove(group)
            self._tasks.cancel_of(group)
            self._tasks.beside(group.close())
            self._begin_new()

    def _ended(self, task: str) -> None:
        """A task has ended that must not end."""
        self._liveness.ended(task)
        self._post(None, Tick())

    async def _end(self) -> int:
        """End the process, in every case. After a fault, release the VIP without the state machine."""
        services = {task for _, task in self._services.values()}
        await self._tasks.cancel_all(services)  # before any fence is closed: a renewal under way would open it again
        released = self._all()
        fault = self._tasks.fault
        if fault is not None:
            for line in "".join(traceback.format_exception(fault)).splitlines():
                self._journal.write(JournalKind.FAULT, line, {})
            for group in self._all():
                try:
                    await group.release()
                except KernelError as e:
                    released.remove(group)  # keep the lease, which outlasts the fence: do not give it back
                    name = group.plan.name
                    self._journal.write(JournalKind.NOT_RELEASED, f"{name}: not released: {e}", {"GOVIP_VIP": name})
        for group in self._left_for_adoption:
            group.leave_for_adoption()
        for group in released:
            self._tasks.beside(group.close())
        session = self._session.session
        if session is not None and not self._left_for_adoption and released == self._all():
            self._tasks.beside(session.close())
        await self._tasks.wait_beside(CLOSE_S)
        for task in services:
            task.cancel()
        if services:  # a VIP that is left for adoption leaves no time to wait
            await asyncio.wait(services, timeout=0.0 if self._left_for_adoption else SERVICES_S)
        return 0 if fault is None else 1

    # What systemd sees

    def _publish_status(self, now: float) -> None:
        """Send STATUS= at once after a change of state, else once per BEAT_S: the text costs as much as a step."""
        states = [group.state_machine.state for group in self._all()]
        if states == self._told_states and now < self._tell_at:
            return
        self._told_states, self._tell_at = states, now + BEAT_S
        if not self._ready and not {State.STARTING, State.ADOPTING} & set(states):
            self._ready = True
            self._notifier.ready()
        status = status_of_all([group.reporter for group in self._all()])
        if status != self._told_status:
            self._told_status = status
            self._notifier.status(status)
