"""The daemon's ports in the simulation: modelled kernel, systemd, journal and runtime directory.

The real fence, addresses, link monitor and announcer run on top of these; only their sockets are modelled.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Self

from govipd.core import journal_kinds
from govipd.core.actions import RestartState
from govipd.core.events import ProbeResult, UnitState
from govipd.errors import StateFileError
from govipd.runtime.ports import Clock, Sink
from tests.sim.clockwork import Process, World
from tests.sim.kernel import IPAddress, Kernel
from tests.sim.kernel_adapters import mac_of
from tests.sim.network import Network

_WIRE_S = (0.00005, 0.0005)  # from a question on the wire to the other machine, and back again


# The wire


class SimEar:
    """One link between the machines (neighbours.Ear): each kernel answers for its addresses."""

    def __init__(
        self,
        process: Process,
        world: World,
        host: int,
        kernels: Mapping[int, Kernel],
        network: Network,
        random: Random,
        interface: str,
    ) -> None:
        self._process, self._world, self._host, self._network = process, world, host, network
        self._interface = interface
        self._kernels = kernels
        self._random = random
        self._claims: dict[IPAddress, set[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, targets: Collection[IPAddress], macs: Collection[bytes]) -> None:
        """See Ear."""
        self._process.do(self._ask, tuple(targets))

    def heard(self) -> dict[IPAddress, set[bytes]]:
        """See Ear."""
        heard, self._claims = self._claims, {}
        return heard

    def _ask(self, targets: tuple[IPAddress, ...]) -> None:
        for other in self._kernels:
            if other != self._host:
                self._later(self._host, other, self._asked, other, targets)

    def _asked(self, other: int, targets: tuple[IPAddress, ...]) -> None:
        answers = self._kernels[other].answers()
        for target in targets:
            if target in answers:
                self._later(other, self._host, self._answered, target, mac_of(other, self._interface))

    def _answered(self, target: IPAddress, mac: bytes) -> None:
        self._claims.setdefault(target, set()).add(mac)

    def _later(self, source: int, target: int, call: Callable[..., object], *args: object) -> None:
        up = all(self._kernels[end].carrier[self._interface] for end in (source, target))
        if up and self._network.passes(source, target):
            self._world.after(self._random.uniform(*_WIRE_S), call, *args)


# Health


@dataclass(slots=True)
class Proxy:
    """haproxy on one node: the state of its unit, and its answers to the probe."""

    active_state: str = "active"
    answers: str = "yes"  # "yes", "no" (an error), "hangs"
    bus_away: bool = False  # D-Bus and systemctl do not answer

    @property
    def healthy(self) -> bool:
        """Whether the proxy serves."""
        return self.active_state in {"active", "reloading"} and self.answers == "yes"


class SimProbe:
    """The HTTP check (ports.Source)."""

    def __init__(self, proxy: Proxy, sink: Sink, interval: float) -> None:
        self._proxy, self._sink, self._interval = proxy, sink, interval

    async def run(self) -> None:
        """Check for ever."""
        while True:
            await asyncio.sleep(self._interval)
            serving = self._proxy.active_state in {"active", "reloading"}
            passed = serving and self._proxy.answers == "yes"
            self._sink(ProbeResult(passed=passed, detail="200" if passed else "no answer"))


class SimUnit:
    """The unit monitor (ports.Source): it gets a signal for each change, and looks every second."""

    def __init__(self, proxy: Proxy, sink: Sink, changed: list[Callable[[], object]], process: Process) -> None:
        self._proxy, self._sink, self._process = proxy, sink, process
        self._changed = asyncio.Event()
        changed.append(lambda: process.call_later(0.004, self._changed.set))

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            self._changed.clear()
            if self._proxy.bus_away:
                self._sink(UnitState(None, "D-Bus is away"))
            else:
                self._sink(UnitState(self._proxy.active_state, self._proxy.active_state))
            try:
                async with asyncio.timeout(1.0):
                    await self._changed.wait()
            except TimeoutError:
                continue


# What systemd keeps and hears


@dataclass(slots=True)
class Directory:
    """The unit's runtime directory: for each group, the restart state and its identity."""

    holdings: dict[str, tuple[str, RestartState]] = field(default_factory=dict)
    leases: list[int] = field(default_factory=list)  # those that etcd has granted
    full: bool = False


class SimMemory:
    """The restart state, which one process leaves for the next (ports.RestartStateStore)."""

    def __init__(self, directory: Directory, clock: Clock, group: str, identity: str) -> None:
        self._directory, self._clock = directory, clock
        self._group, self._identity = group, identity

    def load(self) -> RestartState | None:
        """See ports.Memory."""
        identity, holding = self._directory.holdings.get(self._group, ("", None))
        if holding is not None and identity != self._identity:
            raise StateFileError(f"is of {identity}")
        if holding is not None and holding.until <= self._clock.now():
            raise StateFileError("ended")
        return holding

    def save(self, holding: RestartState) -> None:
        """See ports.Memory."""
        if self._directory.full:
            raise StateFileError("No space left on device")
        self._directory.holdings[self._group] = (self._identity, holding)

    def forget(self) -> None:
        """See ports.Memory."""
        self._directory.holdings.pop(self._group, None)


class SimLeases:
    """The leases of this machine's processes (ports.Leases)."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._earlier = list(directory.leases)

    def earlier(self) -> Sequence[int]:
        """See ports.Leases."""
        return tuple(lease for lease in self._earlier if lease in self._directory.leases)

    def granted(self, lease: int) -> None:
        """See ports.Leases."""
        if lease in self._earlier:
            self._earlier.remove(lease)
        if lease not in self._directory.leases and not self._directory.full:
            self._directory.leases.append(lease)

    def ended(self, lease: int) -> None:
        """See ports.Leases."""
        for known in (self._earlier, self._directory.leases):
            if lease in known:
                known.remove(lease)


PACT_PORT = 1  # the first group's
POSTBOXES = 100  # further ports, each for a moment


class SimDatagrams:
    """The pact's UDP port (ports.Datagrams). A host's number is its address."""

    def __init__(self, process: Process, host: int, network: Network, port: int) -> None:
        self._process, self._host, self._network, self._port = process, host, network, port

    async def run(self, receive: Callable[[bytes, tuple[str, int]], None]) -> None:
        """See ports.Datagrams."""
        process = self._process
        self._network.listen(self._host, self._port, lambda data, source: process.call_soon(receive, data, source))
        await asyncio.Event().wait()

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        """See ports.Datagrams."""
        self._process.do(self._network.datagram, self._host, self._port, int(to[0]), to[1], data)


class SimPostbox:
    """A temporary UDP port (ports.TemporaryUdpSocket)."""

    def __init__(self, process: Process, host: int, network: Network, port: int) -> None:
        self._process, self._host, self._network, self._port = process, host, network, port

    def open(self, receive: Callable[[bytes, tuple[str, int]], None]) -> tuple[str, int] | None:
        """See ports.Postbox."""
        self._listen(lambda data, source: self._process.call_soon(receive, data, source))
        return str(self._host), self._port

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        """See ports.Postbox."""
        self._process.do(self._network.datagram, self._host, self._port, int(to[0]), to[1], data)

    def close(self) -> None:
        """See ports.Postbox."""
        self._listen(None)

    def _listen(self, receive: Callable[[bytes, tuple[str, int]], object] | None) -> None:
        self._process.do(self._network.listen, self._host, self._port, receive)


@dataclass(slots=True)
class SimDrainMark:
    """The drain mark in the unit's state directory, which outlives a power loss (ports.DrainMark)."""

    drained: bool = False

    def is_set(self) -> bool:
        """See ports.DrainMark."""
        return self.drained

    def set(self) -> None:
        """See ports.DrainMark."""
        self.drained = True

    def clear(self) -> None:
        """See ports.DrainMark."""
        self.drained = False


def _event(kind: journal_kinds.JournalKind, fields: Mapping[str, str]) -> str:
    """The transcript's event for a journal entry about a state, a gate or a pact."""
    if state := fields.get("GOVIP_STATE"):
        return f"{state} {fields.get('GOVIP_REASON', '')}".rstrip()
    if gate := fields.get("GOVIP_GATE"):
        return f"gate {gate} {kind.name.removeprefix('GATE_').lower()}"
    return _EVENTS.get(kind, "")


_EVENTS = {
    journal_kinds.JournalKind.PACT_MADE: "pact made",
    journal_kinds.JournalKind.PACT_OVER: "pact over",
}


class SimJournal:
    """The journal is the transcript (ports.Journal)."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self._name = world, name

    def write(self, kind: journal_kinds.JournalKind, text: str, fields: Mapping[str, str]) -> None:
        """See ports.Journal."""
        self._world.note(self._name, text, _event(kind, fields), fields.get("GOVIP_VIP", ""))


class SimNotifier:
    """Sends messages to the modelled systemd (process_ports.Notifier)."""

    def __init__(self, pinged: Callable[[], None]) -> None:
        self._pinged = pinged  # readiness starts the watchdog, as a ping does

    def ready(self) -> None:
        """See ports.Notifier."""
        self._pinged()

    def status(self, text: str) -> None:
        """See ports.Notifier."""

    def stopping(self) -> None:
        """See ports.Notifier."""

    def watchdog(self) -> None:
        """See ports.Notifier."""
        self._pinged()

    def reloading(self) -> None:
        """See ports.Notifier."""
