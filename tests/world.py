"""A daemon over fakes, for the tests of the shell and of what stands beside it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_interface

from govipd.core import events as ev
from govipd.core.settings import Settings
from govipd.core.status import NodeStatus
from govipd.errors import ConfigError
from govipd.runtime.daemon import Daemon
from govipd.runtime.parts import GroupPlan, Parts, Plan, SessionPlan
from govipd.runtime.ports import Session, Sink
from govipd.runtime.process_ports import Source
from govipd.runtime.step_timing import StepTimings
from tests import fakes

PASSED = ev.ProbeResult(passed=True, detail="200")
RUNNING = ev.UnitState("active", "running")


class World:
    """A daemon over fakes, and everything a test wants to look at."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.clock, self.journal, self.notifier = fakes.FakeClock(), fakes.FakeJournal(), fakes.FakeNotifier()
        self.elections: list[fakes.FakeElection] = []
        self.kernels: list[fakes.FakeKernel] = []
        self.sources: list[fakes.FakeSource] = []
        self.sessions: list[fakes.FakeSession] = []
        self.plan = Plan(
            NodeStatus("1", "node1", "eth0", groups=()),
            SessionPlan("one", self._session),
            {"api": self.group("api")},
            {"probe": self.source(PASSED), "unit": self.source(RUNNING)},
        )
        self.next_plan: Plan | str = self.plan
        self.memory = fakes.FakeMemory()
        self.drain = fakes.FakeDrain()
        self.pact_calls: list[str] = []
        self.job = "stop"
        self.lease_given_back = True  # what must have become of it in the end
        self.daemon = Daemon(
            self.plan,
            load=self._load,
            clock=self.clock,
            journal=self.journal,
            notifier=self.notifier,
            watchdog=0.5,
            job_type=self._job_type,
        )

    async def _job_type(self) -> str:
        return self.job

    def group(self, name: str, address: str = "192.0.2.100/32", identity: str = "one") -> GroupPlan:
        return GroupPlan(name, name, identity, (ip_interface(address),), Settings(rise=1), self._make)

    def source(self, event: ev.Event) -> Callable[[Sink], Source]:
        def make(sink: Sink) -> Source:
            self.sources.append(fakes.FakeSource(sink, event))
            return self.sources[-1]

        return make

    def _session(self) -> Session:
        self.sessions.append(fakes.FakeSession())
        return self.sessions[-1]

    def _make(self, sink: Sink, _session: Session) -> Parts:
        self.elections.append(fakes.FakeElection(sink, self.clock, self.calls))
        fence = fakes.FakeFence(sink, self.calls)
        addresses = fakes.FakeAddresses(sink, self.calls)
        announcer = fakes.FakeAnnouncer(sink, self.calls)
        monitor = fakes.FakeMonitor(sink, self.calls)
        self.kernels += [fence, addresses, announcer, monitor]
        return Parts(
            election=self.elections[-1],
            fence=fence,
            addresses=addresses,
            announcer=announcer,
            monitor=monitor,
            neighbours=fakes.FakeNeighbours(sink),
            restart_state=self.memory,
            drain=self.drain,
            pact=fakes.FakePact(self.pact_calls),
            timings=StepTimings(self.clock),
        )

    def _load(self) -> Plan:
        if isinstance(self.next_plan, str):
            raise ConfigError(self.next_plan)
        return self.next_plan

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a change. A condition that holds before proves nothing, and is refused: see eventually()."""
        assert not condition(), "this holds already, so that the wait would prove nothing"
        await self.eventually(condition)

    async def eventually(self, condition: Callable[[], bool]) -> None:
        """Wait for what may hold already."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.002)

    def says(self, words: str) -> Callable[[], bool]:
        return lambda: any(words in line for line in self.journal.lines)

    def leads(self) -> bool:
        return bool(self.notifier.statuses) and "leader of" in self.notifier.statuses[-1]


@asynccontextmanager
async def running(expected_status: int = 0, prepare: Callable[[World], None] = lambda _: None) -> AsyncIterator[World]:
    world = World()
    prepare(world)
    task = asyncio.ensure_future(world.daemon.run())
    try:
        yield world
        world.daemon.stop()
        assert await asyncio.wait_for(task, 10) == expected_status
        assert all(session.closed is world.lease_given_back for session in world.sessions)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
