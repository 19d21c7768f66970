"""The sockets of the modelled kernel, for the real fence, addresses and monitor."""

import asyncio
import errno
import marshal
import math
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from ipaddress import ip_address
from itertools import chain
from random import Random
from typing import Self

from govipd.adapters.kernel.nft_expressions import Expression
from govipd.adapters.kernel.nft_table import NFPROTO_ARP, NFPROTO_INET, UNTIMED, Message, Table
from govipd.adapters.kernel.nftables import NfTables
from govipd.adapters.kernel.rtnetlink import Link, RouteSocket
from govipd.core.events import Address
from govipd.errors import KernelError
from tests.sim.clockwork import Process
from tests.sim.kernel import FOR_EVER_S, INTERFACE, SECOND, IPAddress, Kernel, NftError, interface_of

_INDEXES = {INTERFACE: 1, "lo": 2, SECOND: 3}
COMMIT_S = 0.001  # what a transaction costs the process that waits for it
_EVENT_S = (0.0002, 0.003)  # from a change in the kernel to its event in the process


# nf_tables


class SimNfTables(NfTables):
    """Commits transactions to the modelled nf_tables.

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
        """See NfTables. There is one fence, and only the schedule changes its tables."""
        batch = [each for message in messages for each in _said(message)]
        assert batch, "a transaction of nothing does not count for the kernel"
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
        self.commits += 1
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


def _said(messages: Message) -> Iterator[tuple[object, ...]]:
    """The messages in a row of them."""
    stream = BytesIO(messages)
    while stream.tell() < len(messages):
        yield marshal.load(stream)


@dataclass(frozen=True, slots=True)
class _SimTable(Table):
    """Makes messages for the modelled kernel."""

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


def mac_of(host: int, interface: str) -> bytes:
    """The hardware address of a machine's interface."""
    return bytes((2, 0, 0, 0, _INDEXES[interface], 1 + host))


class SimRoute(RouteSocket):
    """Sends requests to the modelled rtnetlink. `removes` is called before an address is removed."""

    def __init__(
        self, process: Process, kernel: Kernel, random: Random, host: int, removes: Callable[[Address], None]
    ) -> None:
        super().__init__()
        self._removes = removes
        self._process = process
        self._model = kernel
        self._random = random
        self._host = host
        self._going: list[Address] = []  # asked to be deleted, by a process that has lost time since

    def link(self, name: str) -> Link:
        """See RouteSocket."""
        return Link(_INDEXES[name], admin_up=True, carrier=self._model.carrier[name], mac=mac_of(self._host, name))

    def forwards_ipv6(self, name: str) -> bool:
        """See RouteSocket."""
        return False

    def where(self, ips: Collection[IPAddress]) -> list[tuple[int, Address]]:
        """See RouteSocket."""
        own = [(index, a) for index in (1, 3) for a in self.addresses(index) if a not in self._going]
        return [each for each in (*own, *((2, a) for a in self._model.elsewhere)) if each[1].ip in ips]

    def lent(self, ips: Collection[IPAddress]) -> list[tuple[int, Address]]:
        """See RouteSocket."""
        return [each for each in self.where(ips) if self._model.addresses.get(each[1], math.inf) < FOR_EVER_S]

    def name(self, index: int) -> str:
        """See RouteSocket."""
        return next(name for name, known in _INDEXES.items() if known == index)

    def addresses(self, index: int) -> dict[Address, int]:
        """See RouteSocket."""
        return {address: 0 for address in self._model.addresses if _INDEXES[interface_of(address.ip)] == index}

    def add(self, index: int, address: Address, valid_lft: int) -> None:
        """See RouteSocket."""
        assert index == _INDEXES[interface_of(address.ip)]
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
    """A netlink socket that gets events a little late, or loses them in an overrun."""

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
        """Start to receive events."""
        self._model.listeners.append(self._hear)

    async def get(self) -> AsyncIterator[_Event]:
        """The events that have arrived."""
        event = await self._heard.get()
        if isinstance(event, OSError):
            raise event
        yield event

    def _hear(self, what: str, address: Address | None) -> None:
        if self._model.overruns:
            self._model.overruns = False
            event: _Event | OSError = OSError(errno.ENOBUFS, "No buffer space available")
        elif address is None:
            event = _Event(event="RTM_NEWLINK", index=_INDEXES[what], IFLA_IFNAME=what)
        else:
            kind = "RTM_NEWADDR" if what.startswith("new") else "RTM_DELADDR"
            index = 2 if what.endswith("elsewhere") else _INDEXES[interface_of(address.ip)]
            event = _Event(event=kind, index=index, prefixlen=address.network.prefixlen, IFA_LOCAL=str(address.ip))
        delay = self._random.uniform(*_EVENT_S) + self._model.event_delay
        self._process.call_later(delay, self._heard.put_nowait, event)
