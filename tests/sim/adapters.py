"""What a daemon's ports meet here instead of the system: the modelled kernel, systemd, journal and runtime directory.

The real fence, addresses, netlink monitor and announcer run on top of these; only their sockets are modelled.
"""

import asyncio
import errno
import marshal
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import chain
from random import Random
from typing import Self

from govipd.adapters.kernel.nft_expressions import Expression
from govipd.adapters.kernel.nft_table import NFPROTO_ARP, NFPROTO_INET, UNTIMED, Message, Table
from govipd.adapters.kernel.nftables import NfTables
from govipd.adapters.kernel.rtnetlink import Link, RouteSocket
from govipd.core import journal_kinds
from govipd.core.actions import RestartState
from govipd.core.events import Address, ProbeResult, UnitState
from govipd.errors import KernelError, StateFileError
from govipd.runtime.ports import Clock, Sink
from tests.sim.clockwork import Process, World
from tests.sim.kernel import IPAddress, Kernel, NftError
from tests.sim.network import Network

INTERFACE = "eth0"
_WIRE_S = (0.00005, 0.0005)  # from a question on the wire to the other machine, and back again
COMMIT_S = 0.001  # what a transaction costs the process that waits for it
_EVENT_S = (0.0002, 0.003)  # from a change in the kernel to its event in the process


# nf_tables


class SimNfTables(NfTables):
    """Transactions with the modelled nf_tables.

    `descheduled` says for how long the process is not given the processor just before a transaction.
    """

    def __init__(self, process: Process, kernel: Kernel, descheduled: Callable[[], float]) -> None:
        super().__init__()
        self._process = process
        self._model = kernel
        self._descheduled = descheduled
        self._changes = kernel.foreign_changes
        self._under_way: deque[list[tuple[object, ...]]] = deque()  # sent, by a process that has lost time since

    def table(self, family: int, name: str) -> Table:
        """See NfTables."""
        return _SimTable(family, name)

    def commit(self, messages: Iterable[Message], *, undisturbed: bool = False) -> None:
        """See NfTables. There is one fence, and nobody but the schedule changes its tables."""
        batch = [marshal.loads(message) for message in messages]
        self._process.spend(self._descheduled())
        if self._model.refuses:
            self._model.refuses -= 1
            raise KernelError("nf_tables: Device or resource busy")
        if self._changes != self._model.foreign_changes:
            self._changes = self._model.foreign_changes
            self.epoch += 1
            if undisturbed:
                raise KernelError("nf_tables: Interrupted system call should be restarted", errno.ERESTART)
        if self._model.lacks(batch):  # what may well be refused
            try:
                self._model.try_out(chain(*self._under_way, batch))
            except NftError as error:
                code = int(error.args[0])
                raise KernelError(f"nf_tables: {os.strerror(code)}", code) from error
        self._under_way.append(batch)
        self._process.do(self._commit)
        self._process.spend(COMMIT_S)

    def tables(self, prefix: str, families: Iterable[int] = (NFPROTO_INET, NFPROTO_ARP)) -> set[str]:
        """See NfTables."""
        return self._model.tables(prefix, families)

    def missing(self) -> bool:
        """See NfTables."""
        return False

    def elements(self, family: int, table: str, name: str) -> frozenset[bytes]:
        """See NfTables."""
        return self._model.elements(family, table, name)

    def _commit(self) -> None:
        batch = self._under_way.popleft()
        try:
            self._model.commit(batch)
        except NftError as error:
            if self._model.lacks(batch):
                return  # they were there when it was sent; taken away right after it, or right before, is the same
            code = int(error.args[0])
            raise AssertionError(f"nf_tables: {os.strerror(code)}: {batch}") from error

    def close(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True, slots=True)
class _SimTable(Table):
    """Messages that the modelled kernel reads."""

    def add(self, *, new: bool = False) -> Message:
        return self._say("add new table" if new else "add table")

    def delete(self) -> Message:
        return self._say("delete table")

    def add_chain(self, hook: str, priority: int) -> Message:
        return self._say("add chain", hook)

    def flush_chain(self, hook: str) -> Message:
        return self._say("flush chain", hook)

    def add_rule(self, hook: str, expressions: Sequence[Expression]) -> Message:
        lookups = [[each.looks_in, each.wants] for each in expressions if each.looks_in]
        return self._say("add rule", hook, lookups)

    def add_set(self, name: str, key_length: int, *, times_out: bool) -> Message:
        return self._say("add set", name)

    def add_element(self, name: str, key: bytes, *, times_out: bool) -> Message:
        return self._say("add element", name, key, UNTIMED if times_out else b"")

    def delete_element(self, name: str, key: bytes) -> Message:
        return self._say("delete element", name, key)

    def _say(self, what: str, *rest: object) -> Message:
        return marshal.dumps([what, self.family, self.name, *rest])


# rtnetlink


def mac_of(host: int) -> bytes:
    """The hardware address of a machine's interface."""
    return bytes((2, 0, 0, 0, 0, 1 + host))


class SimRoute(RouteSocket):
    """Requests to the modelled rtnetlink. `removes` is told before an address goes."""

    def __init__(
        self, process: Process, kernel: Kernel, random: Random, host: int, removes: Callable[[Address], None]
    ) -> None:
        super().__init__()
        self._removes = removes
        self._process = process
        self._model = kernel
        self._random = random
        self._mac = mac_of(host)
        self._going: list[Address] = []  # asked to be deleted, by a process that has lost time since

    def link(self, name: str) -> Link:
        """See RouteSocket."""
        return Link(1, admin_up=True, carrier=self._model.link, mac=self._mac)

    def where(self, ips: Collection[IPAddress]) -> list[tuple[int, Address]]:
        """See RouteSocket."""
        both = ((1, self._model.addresses), (2, self._model.elsewhere))
        found = [(index, address) for index, there in both for address in there if address.ip in ips]
        return [(index, address) for index, address in found if index > 1 or address not in self._going]

    def name(self, index: int) -> str:
        """See RouteSocket."""
        return {1: INTERFACE, 2: "lo"}[index]

    def addresses(self, index: int) -> dict[Address, int]:
        """See RouteSocket."""
        return dict.fromkeys(self._model.addresses, 0)

    def add(self, index: int, address: Address, valid_lft: int) -> None:
        """See RouteSocket."""
        self._cost(f"adding {address}")
        self._process.do(self._model.add_address, address, float(valid_lft), self._random.random())

    def delete(self, index: int, address: Address) -> None:
        """See RouteSocket."""
        self._cost(f"removing {address}")
        self._going.append(address)
        self._process.do(self._delete, address)

    def _delete(self, address: Address) -> None:
        self._going.remove(address)
        self._removes(address)
        self._model.delete_address(address)

    def _cost(self, what: str) -> None:
        if self._model.route_refuses:
            self._model.route_refuses -= 1
            raise KernelError(f"{what}: No buffer space available")
        self._process.spend(self._random.uniform(0.0001, 0.001))

    def close(self) -> None:
        """Nothing to close."""


def announced(frames: Iterable[bytes]) -> set[IPAddress]:
    """The IPv4 addresses that frames of the announcer claim (RFC 826: the sender's protocol address)."""
    return {ip_address(frame[28:32]) for frame in frames}


class _Event(dict[str, object]):
    """A netlink message, as pyroute2 gives it."""

    def get_attr(self, name: str) -> object:
        return self.get(name)


class SimEvents:
    """A netlink socket that hears of changes: a little later, or of nothing when it overruns."""

    def __init__(self, process: Process, kernel: Kernel, random: Random) -> None:
        self._process = process
        self._model = kernel
        self._random = random
        self._heard: asyncio.Queue[_Event | OSError] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._hear in self._model.listeners:
            self._model.listeners.remove(self._hear)

    async def bind(self, groups: int) -> None:
        """Listen from now on."""
        self._model.listeners.append(self._hear)

    async def get(self) -> AsyncIterator[_Event]:
        """What has come."""
        event = await self._heard.get()
        if isinstance(event, OSError):
            raise event
        yield event

    def _hear(self, what: str, address: Address | None) -> None:
        if self._model.overruns:
            self._model.overruns = False
            event: _Event | OSError = OSError(errno.ENOBUFS, "No buffer space available")
        elif address is None:
            event = _Event(event="RTM_NEWLINK", index=1, IFLA_IFNAME=INTERFACE)
        else:
            kind = "RTM_NEWADDR" if what.startswith("new") else "RTM_DELADDR"
            index = 2 if what.endswith("elsewhere") else 1
            event = _Event(event=kind, index=index, prefixlen=address.network.prefixlen, IFA_LOCAL=str(address.ip))
        delay = self._random.uniform(*_EVENT_S) + self._model.event_delay
        self._process.call_later(delay, self._heard.put_nowait, event)


# The wire


class SimEar:
    """The link between the machines (adapters.neighbours.Ear): a kernel answers for what it answers for."""

    def __init__(
        self,
        process: Process,
        world: World,
        host: int,
        kernels: Mapping[int, Kernel],
        network: Network,
        random: Random,
    ) -> None:
        self._process, self._world, self._host, self._network = process, world, host, network
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
                self._later(other, self._host, self._answered, target, mac_of(other))

    def _answered(self, target: IPAddress, mac: bytes) -> None:
        self._claims.setdefault(target, set()).add(mac)

    def _later(self, source: int, target: int, call: Callable[..., object], *args: object) -> None:
        if self._network.passes(source, target) and self._kernels[source].link and self._kernels[target].link:
            self._world.after(self._random.uniform(*_WIRE_S), call, *args)


# Health


@dataclass(slots=True)
class Proxy:
    """haproxy on one node: what systemd says of it, and what it answers."""

    active_state: str = "active"
    answers: str = "yes"  # "yes", "no" (an error), "hangs"
    bus_away: bool = False  # D-Bus and systemctl do not answer

    @property
    def healthy(self) -> bool:
        """Whether it serves."""
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
    """The unit monitor (ports.Source): a signal for each change, and a look every second."""

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
    """The unit's runtime directory: by group, the identity that a holding is of, and the holding."""

    holdings: dict[str, tuple[str, RestartState]] = field(default_factory=dict)
    leases: dict[str, list[int]] = field(default_factory=dict)  # by group: those that etcd has granted
    full: bool = False


class SimMemory:
    """What one process leaves for the next (ports.Memory)."""

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
    """Which leases are this machine's own (ports.Leases)."""

    def __init__(self, directory: Directory, group: str, configured: Collection[str]) -> None:
        self._directory, self._group = directory, group
        self._earlier = {
            lease: name for name, leases in directory.leases.items() for lease in leases
            if name == group or name not in configured
        }  # fmt: skip

    def earlier(self) -> Sequence[int]:
        """See ports.Leases."""
        return tuple(lease for lease, name in self._earlier.items() if lease in self._directory.leases.get(name, ()))

    def granted(self, lease: int) -> None:
        """See ports.Leases."""
        self._earlier.pop(lease, None)
        known = self._directory.leases.setdefault(self._group, [])
        if lease not in known and not self._directory.full:
            known.append(lease)

    def ended(self, lease: int) -> None:
        """See ports.Leases."""
        name = self._earlier.pop(lease, self._group)
        self._directory.leases[name] = [known for known in self._directory.leases.get(name, ()) if known != lease]


PACT_PORT = 1  # the first group's
POSTBOXES = 100  # further ports, each for a moment


class SimDatagrams:
    """The pact's UDP port (ports.Datagrams). Hosts have their number for an address."""

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
    """A UDP port for a moment (ports.Postbox)."""

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
    """The unit's state directory: it outlives a power loss (ports.DrainMark)."""

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
    """What an entry of the journal says of a state, a gate or a pact."""
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
    """Tells the modelled systemd (ports.Notifier)."""

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
