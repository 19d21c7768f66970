"""Fakes of the ports: they record their calls, and fail only when a test says so."""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from govipd.core import events as ev
from govipd.core.actions import Action, Report, RestartState
from govipd.core.journal_kinds import JournalKind
from govipd.errors import EtcdUnavailableError, EtcdWriteRefusedError, KernelError, StateFileError
from govipd.runtime.ports import Sink


class FakeClock:
    """CLOCK_BOOTTIME, or what a test makes of it."""

    def __init__(self) -> None:
        self.offset = 0.0

    def now(self) -> float:
        return time.monotonic() + self.offset


class FakeElection:
    """An etcd that grants everything at once."""

    def __init__(self, sink: Sink, clock: FakeClock, calls: list[str]) -> None:
        self._sink, self._clock, self._calls = sink, clock, calls
        self.records: list[Mapping[str, object]] = []
        self.closed = False
        self.queue = ["node2", "node3"]  # behind this one
        self.silent = self.kernel_silent = False
        self.full = False
        self.told_closed: list[str] = []  # the call just before each fence_closed()
        self._leads: ev.Elected | None = None

    async def run(self) -> None:
        while True:
            self._sink(ev.LeaseRenewed(1, self._clock.now(), 3.0))
            await asyncio.sleep(0.1)

    def silenced(self) -> None:
        self.kernel_silent = True

    async def fence_closed(self) -> None:
        self.told_closed.append(self._calls[-1])

    def adoptable(self, holding: RestartState) -> bool:
        return True

    def campaign(self, campaign: int) -> None:
        self._calls.append("campaign")
        self._leads = ev.Elected(campaign, 1, self._clock.now())
        self._sink(self._leads)

    def adopt(self, campaign: int, holding: RestartState) -> None:
        self._calls.append("adopt")
        self._sink(ev.Elected(campaign, holding.lease_id, self._clock.now(), holding.create_revision))

    def resign(self, campaign: int, successor: str = "", *, contested: bool = False) -> None:
        self._calls.append(f"resign for {successor}" if successor else "resign")
        self._sink(ev.Resigned(campaign))

    def prepared(self, campaign: int) -> None:
        """Nothing is handed over to this node."""

    def hand_over(self, campaign: int, successor: str = "") -> None:
        self._calls.append(f"hand over to {successor}" if successor else "hand over")
        self._sink(ev.SuccessorReady(campaign))

    async def successors(self) -> list[str]:
        if self.silent:
            raise EtcdUnavailableError("no answer")
        return self.queue

    def verify(self) -> None:
        self._calls.append("verify")

    def claim(self, addresses: Sequence[ev.Address]) -> None:
        self._calls.append("claim")
        if self._leads is not None:
            self._sink(replace(self._leads, proved_at=self._clock.now(), addresses=tuple(addresses)))

    def unclaim(self, addresses: Sequence[ev.Address]) -> None:
        self._calls.append("unclaim")

    async def check_writes(self) -> None:
        if self.full:
            raise EtcdWriteRefusedError("etcdserver: mvcc: database space exceeded")

    def publish(self, record: Mapping[str, object]) -> None:
        self.records.append(record)

    def close(self) -> None:
        self.closed = True


class FakeSession:
    """A session whose lease never ends by itself."""

    def __init__(self) -> None:
        self.closed = False
        self.reached: list[object] = []

    async def run(self) -> None:
        await asyncio.Event().wait()

    def reach(self, access: object) -> None:
        self.reached.append(access)

    async def close(self) -> None:
        self.closed = True


class FakeKernel:
    """Fence, addresses, announcer and monitor of one group, in one log of calls."""

    def __init__(self, sink: Sink, calls: list[str]) -> None:
        self._sink, self.calls = sink, calls
        self.refuses: set[str] = set()
        self.announcer_fails = asyncio.Event()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.refuses:
            raise KernelError(f"{name} refused")

    async def open(self, until: float) -> None:
        self._call("open")

    async def close(self) -> None:
        self._call("close")

    async def add(self, until: float) -> None:
        self._call("add")

    async def remove(self) -> None:
        self._call("remove")
        await asyncio.sleep(0.02)  # the kernel takes its time, in which other tasks run

    def start(self) -> None:
        self._call("announce")

    def stop(self) -> None:
        self._call("silence")


class FakeFence(FakeKernel):
    async def prepare(self, until: float) -> None:
        self._call("close")

    async def replace(self, addresses: tuple[ev.Address, ...]) -> None:
        self._call("replace fence")

    async def guard(self, addresses: tuple[ev.Address, ...]) -> None:
        self._call("guard")

    async def remove(self, present: Collection[object] = ()) -> None:
        self._call("remove fence")


class FakeNeighbours:
    """A link on which no machine answers."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def replace(self, addresses: tuple[ev.Address, ...]) -> None:
        pass

    def ask(self, until: float) -> None:
        self._sink(ev.WireHeard(until, ()))

    def stop(self) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()


class FakeAddresses(FakeKernel):
    left: tuple[ev.Elsewhere, ...] = ()

    def of_another(self, address: ev.Address) -> bool:
        return False

    async def anywhere(self) -> tuple[ev.Elsewhere, ...]:
        return self.left

    async def replace(self, addresses: tuple[ev.Address, ...]) -> None:
        self._call("replace addresses")


class FakeAnnouncer(FakeKernel):
    def prepare(self) -> None:
        pass

    def first_round(self) -> None:
        self._call("announce first")

    def hold(self, until: float) -> None:
        pass

    def replace(self, addresses: tuple[ev.Address, ...]) -> None:
        self._call("replace announcer")

    async def run(self) -> None:
        await self.announcer_fails.wait()
        raise RuntimeError("the announcer broke")


class FakeMonitor(FakeKernel):
    def __init__(self, sink: Sink, calls: list[str]) -> None:
        super().__init__(sink, calls)
        sink(ev.LinkState(present=True, admin_up=True, carrier=True, mac="02:00:00:00:00:01"))

    def replace(self, addresses: tuple[ev.Address, ...]) -> None:
        self._call("replace monitor")

    def close(self) -> None:  # type: ignore[override]  # the fence's close() is another one
        self._call("close monitor")


class FakeMemory:
    """One process's memory; `left` is what the last one left, or why it is refused."""

    def __init__(self) -> None:
        self.left: RestartState | str | None = None
        self.full = False

    def load(self) -> RestartState | None:
        if isinstance(self.left, str):
            raise StateFileError(self.left)
        return self.left

    def save(self, holding: RestartState) -> None:
        if self.full:
            raise StateFileError("no space left on device")
        self.left = holding

    def forget(self) -> None:
        self.left = None


class FakePact:
    """A pact that the test makes by events."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    async def run(self) -> None:
        await asyncio.Event().wait()

    def lead(self) -> None:
        self._calls.append("seek a pact")

    def stop(self) -> None:
        self._calls.append("seek no pact")

    def enforce(self, pact: str) -> None:
        self._calls.append(f"enforce {pact}")

    def end(self, pact: str) -> None:
        self._calls.append(f"end {pact}")


class FakeDrain:
    """The operator's word; `full` where it cannot be kept."""

    def __init__(self) -> None:
        self.kept = False
        self.full = False

    def is_set(self) -> bool:
        return self.kept

    def set(self) -> None:
        if self.full:
            raise StateFileError("no space left on device")
        self.kept = True

    def clear(self) -> None:
        self.kept = False


class FakeSource:
    """A probe or a unit monitor that repeats one event until the test sets another."""

    def __init__(self, sink: Sink, event: ev.Event) -> None:
        self._sink = sink
        self.event = event

    async def run(self) -> None:
        while True:
            self._sink(self.event)
            await asyncio.sleep(0.02)


class FakeService:
    """Notes every state that a group comes into."""

    def __init__(self, ending_s: float = 0.0) -> None:
        self.seen: list[tuple[str, str]] = []
        self.ended = False
        self._ending_s = ending_s

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(self._ending_s)
            self.ended = True

    def stepped(self, vip: str, event: ev.Event, actions: Sequence[Action], now: float) -> None:
        self.seen += [(vip, a.state.value) for a in actions if isinstance(a, Report)]


class FakeJournal:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fields: list[Mapping[str, str]] = []

    def write(self, kind: JournalKind, text: str, fields: Mapping[str, str]) -> None:
        self.lines.append(text)
        self.fields.append(fields)


class FakeNotifier:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.statuses: list[str] = []

    def ready(self) -> None:
        self.said.append("ready")

    def status(self, text: str) -> None:
        self.statuses.append(text)

    def stopping(self) -> None:
        self.said.append("stopping")

    def watchdog(self) -> None:
        self.said.append("watchdog")

    def reloading(self) -> None:
        self.said.append("reloading")
