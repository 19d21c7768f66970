"""A node's kernel: one interface, its addresses with lifetimes, and nf_tables as the fence uses it.

Everything here happens at once and wholly, as a netlink request does; how long a process waits for the answer is
the business of `tests.sim.adapters`.
"""

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from govipd.core.events import Address
from tests.sim.clockwork import Timer, World

JIFFY_S = 0.004
_DATE_BYTES = 8
_DEFERRABLE_S = 1.25  # how late the timer that removes expired addresses may be
IPAddress = IPv4Address | IPv6Address
Message = tuple[object, ...]


class Clock:
    """CLOCK_BOOTTIME of a node; `rate` of its seconds pass in a true second."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._booted = 0.0

    def reboot(self, when: float) -> None:
        """Begin anew."""
        self._booted = when

    def reads(self, when: float) -> float:
        """See clockwork.NodeClock."""
        return (when - self._booted) * self.rate

    def instant(self, reading: float) -> float:
        """See clockwork.NodeClock."""
        return self._booted + reading / self.rate


class NftError(Exception):
    """A transaction was refused; nothing of it was applied."""


@dataclass(slots=True)
class _Table:
    guarded: set[bytes] = field(default_factory=set)  # addresses that rules drop unless they are in a set
    ends: dict[bytes, float] = field(default_factory=dict)  # and those they drop from an instant on, in true time
    sets: dict[str, dict[bytes, float]] = field(default_factory=dict)  # element: true time of its end


class Kernel:
    """What a node does with packets for a VIP, whoever tells it to.

    Args:
        world: true time.
        name: for the transcript.
        clock: the node's.
        moves_timeouts: whether adding an element that exists changes its time-out (Linux 6.12 and later).
        changed: called whenever an answer of answers() may have changed.
    """

    def __init__(
        self, world: World, name: str, clock: Clock, *, moves_timeouts: bool, changed: Callable[[], None]
    ) -> None:
        self.link = True  # carrier
        self.refuses = 0  # how many of the next transactions of nf_tables are refused
        self.route_refuses = 0  # and how many requests of rtnetlink
        self.overruns = False  # the next event is lost, and the listener told so
        self.event_delay = 0.0  # seconds by which events are late
        self.addresses: dict[Address, float] = {}  # true time at which each goes
        self.flushed = False  # somebody took the fence away, and it has not been set up again
        self.listeners: list[Callable[[str, Address | None], None]] = []  # of netlink's events
        self._world = world
        self._name = name
        self._clock = clock
        self._moves_timeouts = moves_timeouts
        self._changed = changed
        self._tables: dict[tuple[int, str], _Table] = {}
        self._expiry: Timer | None = None

    def answers(self) -> set[IPAddress]:
        """The addresses for which a packet gets an answer now."""
        now = self._world.now
        return {a.ip for a, goes in self.addresses.items() if goes > now and not self._drops(a.ip.packed)}

    def _drops(self, address: bytes) -> bool:
        return any(
            address in table.guarded
            and (
                table.ends.get(address, float("inf")) <= self._world.now
                or not any(elements.get(address, 0.0) > self._world.now for elements in table.sets.values())
            )
            for table in self._tables.values()
        )

    def reboot(self) -> None:
        """Nothing is left."""
        self.addresses.clear()
        self._tables.clear()
        self.listeners.clear()
        self.flushed = False
        self._update()

    # rtnetlink

    def set_link(self, *, carrier: bool) -> None:
        """Plug the cable, or pull it."""
        self.link = carrier
        self._tell("link", None)

    def add_address(self, address: Address, lifetime: float, lateness: float) -> None:
        """RTM_NEWADDR with replace: whole seconds of lifetime; its end comes late by a part of the timer's slack."""
        new = address not in self.addresses
        self.addresses[address] = self._clock.instant(
            self._clock.reads(self._world.now) + lifetime + lateness * _DEFERRABLE_S
        )
        self._update()
        if new:
            self._tell("new", address)

    def delete_address(self, address: Address) -> bool:
        """RTM_DELADDR; whether it was there."""
        if self.addresses.pop(address, None) is None:
            return False
        self._update()
        self._tell("del", address)
        return True

    def _tell(self, what: str, address: Address | None) -> None:
        for listener in list(self.listeners):
            listener(what, address)

    # nf_tables

    def commit(self, messages: Iterable[Message]) -> None:
        """One transaction.

        Raises:
            NftError: refused.
        """
        tables = {
            key: _Table(set(t.guarded), dict(t.ends), {n: dict(e) for n, e in t.sets.items()})
            for key, t in self._tables.items()
        }
        for message in messages:
            self._apply(tables, message)
        self._tables = tables
        if tables:
            self.flushed = False
        self._update()

    def flush(self) -> None:
        """`nft flush ruleset`, by somebody else."""
        self._tables.clear()
        self.flushed = True
        self._update()

    def _apply(self, tables: dict[tuple[int, str], _Table], message: Message) -> None:
        what, family, name, *rest = message
        key = (int(str(family)), str(name))
        if what == "add table":
            tables.setdefault(key, _Table())
            return
        table = tables.get(key)
        if table is None:
            raise NftError(errno.ENOENT)
        match what, *rest:
            case "delete table", :
                del tables[key]
            case "add set", str(set_name):
                table.sets.setdefault(set_name, {})
            case "flush chain", _:
                table.guarded.clear()
                table.ends.clear()
            case "add rule", bytes(guarded), b"":
                table.guarded.add(guarded)
            case "add rule", bytes(guarded), bytes(date):  # the wall clock is the other one, here
                table.ends[guarded] = self._clock.instant(int.from_bytes(date) / 1e9)
            case "add element", str(set_name), bytes(element), bytes(timeout_ms):
                end = self._end_of(int.from_bytes(timeout_ms))
                elements = table.sets[set_name]
                if self._moves_timeouts or elements.get(element, 0.0) <= self._world.now:
                    elements[element] = end
            case "delete element", str(set_name), bytes(element):
                if table.sets[set_name].pop(element, 0.0) <= self._world.now:
                    raise NftError(errno.ENOENT)
            case _:
                pass  # chains: they are as they should be

    def _end_of(self, timeout_ms: int) -> float:
        """Time-outs count jiffies: a part of one may be added."""
        jiffies = -(-timeout_ms // (JIFFY_S * 1000))
        return self._clock.instant(self._clock.reads(self._world.now) + jiffies * JIFFY_S)

    # Time

    def _update(self) -> None:
        """Look who answers, now and when the next thing expires."""
        now = self._world.now
        ends = [e for t in self._tables.values() for s in t.sets.values() for e in s.values() if e > now]
        ends += [e for t in self._tables.values() for e in t.ends.values() if e > now]
        ends += [goes for goes in self.addresses.values() if goes > now]
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = self._world.at(min(ends), self._expire) if ends else None
        self._changed()

    def _expire(self) -> None:
        self._expiry = None
        for address in [a for a, goes in self.addresses.items() if goes <= self._world.now]:
            del self.addresses[address]
            self._world.note(self._name, f"{address} has expired")
            self._tell("del", address)
        self._update()


def guarded_address(expressions: Iterable[object]) -> tuple[bytes, bytes]:
    """The address that a rule of the fence is about, and the date that it has (b"": none)."""
    values = [v for e in expressions for v in _values(e)]
    (date,) = [v for v in values if len(v) == _DATE_BYTES] or [b""]
    address = max((v for v in values if v != date), key=len)
    ip_address(address)
    return address, date


def _values(thing: object) -> list[bytes]:
    if isinstance(thing, bytes):
        return [thing]
    if isinstance(thing, dict):
        return [v for part in thing.values() for v in _values(part)]
    if isinstance(thing, list | tuple):
        return [v for part in thing for v in _values(part)]
    return []
