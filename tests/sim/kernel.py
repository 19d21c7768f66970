"""A node's kernel: two interfaces, their addresses with lifetimes, and nf_tables as the fence uses it.

Everything here happens at once and wholly, as a netlink request does; how long a process waits for the answer is
the business of `tests.sim.adapters`.
"""

import errno
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from govipd.core.events import Address
from tests.sim.clockwork import Timer, World

JIFFY_S = 0.004
FOR_EVER_S = 5e5  # a longer lifetime has no end
BRIDGE_S = 0.02  # for so long a fence that was taken away may stay open when it is set up again
UNSEEN_S = 0.05  # an address that is added so soon after a flush was guarded when that was asked for
_DEFERRABLE_S = 1.25  # how late the timer that removes expired addresses may be
IPAddress = IPv4Address | IPv6Address
INTERFACE, SECOND = "eth0", "eth1"  # the groups' own interface, and another one
_ON_SECOND = IPv4Network("198.51.100.0/24")
Message = tuple[object, ...]


def interface_of(ip: IPAddress) -> str:
    """The interface of an address. Every file says the same."""
    return SECOND if ip in _ON_SECOND else INTERFACE


class Clock:
    """A node's CLOCK_BOOTTIME: `rate` of its seconds pass in a true second."""

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
    """The kernel refused a transaction as a whole."""


@dataclass(slots=True)
class _Table:
    # Of each hook: the rules, each by the sets that it looks in, and whether it drops what is there, or what is not.
    rules: dict[str, list[list[tuple[str, bool]]]] = field(default_factory=dict)
    sets: dict[str, dict[bytes, float]] = field(default_factory=dict)  # element: true time of its end


class Kernel:
    """What a node's kernel does with packets for a VIP, and what changes its rules and addresses.

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
        self.carrier = {INTERFACE: True, SECOND: True}
        self.refuses = 0  # how many of the next transactions of nf_tables are refused
        self.route_refuses = 0  # and how many requests of rtnetlink
        self.overruns = False  # the next event is lost, and the listener told so
        self.event_delay = 0.0  # seconds by which events are late
        self.addresses: dict[Address, float] = {}  # true time at which each goes
        self.redirected: set[IPAddress] = set()  # by NAT to a server of this machine that has another address
        self.foreign_changes = 0  # of the tables, by others
        self.elsewhere: dict[Address, float] = {}  # on another interface, by an operator: since when
        self.listeners: list[Callable[[str, Address | None], None]] = []  # of netlink's events
        self._world = world
        self._name = name
        self._clock = clock
        self._moves_timeouts = moves_timeouts
        self._changed = changed
        self._tables: dict[tuple[int, str], _Table] = {}
        self._flushed: dict[bytes, float] = {}  # addresses whose fence was taken away: until when that excuses answers
        self._flushed_at = -math.inf
        self._expiry: Timer | None = None
        self._changes: dict[str, Callable[..., None]] = {
            "add set": lambda table, name: table.sets.setdefault(name, {}),
            "flush chain": lambda table, hook: table.rules.pop(hook, None),
            "add rule": self._add_rule,
            "add element": self._add_element,
            "delete element": self._delete_element,
        }

    def answers(self) -> set[IPAddress]:
        """The addresses for which a packet gets an answer now."""
        now = self._world.now
        there = {a.ip for a, goes in self.addresses.items() if goes > now} | {a.ip for a in self.elsewhere}
        answered = {ip for ip in there if not self._drops(ip.packed, now, "prerouting", "input", "output")}
        # NAT comes before input, and what it has turned elsewhere does not pass there as the VIP's.
        turned = there & self.redirected
        return answered | {ip for ip in turned if not self._drops(ip.packed, now, "prerouting", "postrouting")}

    def closes_at(self, address: IPAddress) -> float:
        """When the fence of an answered address closes by itself; infinity: never."""
        now, key = self._world.now, address.packed
        ends = {found[key] for table in self._tables.values() for found in table.sets.values() if key in found}
        closed = (end for end in sorted(ends) if now < end < math.inf and self._drops(key, end, "input", "output"))
        return next(closed, math.inf)

    def redirect(self, address: IPAddress) -> None:
        """`nft add rule ip nat prerouting ip daddr ADDRESS redirect`; acts while the address is present."""
        self.redirected.add(address)
        self._update()

    def _drops(self, address: bytes, now: float, *hooks: str) -> bool:
        for table in self._tables.values():
            for hook in hooks:
                for rule in table.rules.get(hook, ()):
                    for name, wants in rule:
                        if (table.sets[name].get(address, 0.0) > now) is not wants:
                            break
                    else:
                        if rule:
                            return True
        return False

    def tables(self, prefix: str, families: Iterable[int]) -> set[str]:
        """The names of tables of these families."""
        return {name for family, name in self._tables if family in families and name.startswith(prefix)}

    def elements(self, family: int, table: str, name: str) -> frozenset[bytes]:
        """The keys of a set, without expired elements."""
        found = self._tables.get((family, table), _Table()).sets.get(name, {})
        return frozenset(key for key, end in found.items() if end > self._world.now)

    def reboot(self) -> None:
        """Nothing is left."""
        self.addresses.clear()
        self.elsewhere.clear()
        self._tables.clear()
        self.foreign_changes += 1
        self.redirected.clear()
        self.listeners.clear()
        self._flushed.clear()
        self._update()

    # rtnetlink

    def set_link(self, interface: str, *, carrier: bool) -> None:
        """Plug the cable, or pull it."""
        self.carrier[interface] = carrier
        self._tell(interface, None)

    def add_address(self, address: Address, lifetime: float, lateness: float) -> None:
        """RTM_NEWADDR with replace. A lifetime has whole seconds; it ends late by a part of the timer's slack."""
        new = address not in self.addresses
        if new and not self._guarded(address.ip.packed) and self._world.now < self._flushed_at + UNSEEN_S:
            self._flushed[address.ip.packed] = math.inf
        self.addresses[address] = self._clock.instant(
            self._clock.reads(self._world.now) + lifetime + lateness * _DEFERRABLE_S
        )
        self._update()
        if new:
            self._tell("new", address)

    def delete_address(self, address: Address) -> bool:
        """RTM_DELADDR. Returns whether the address was present."""
        if self.addresses.pop(address, None) is None:
            return False
        self._update()
        self._tell("del", address)
        return True

    def _tell(self, what: str, address: Address | None) -> None:
        for listener in list(self.listeners):
            listener(what, address)

    # nf_tables

    def lacks(self, messages: Iterable[Message]) -> bool:
        """Whether a table that the messages need is missing."""
        return not {(message[1], message[2]) for message in messages} <= self._tables.keys()

    def flushed(self, address: IPAddress) -> bool:
        """Whether another program took the fence away from an address, and govipd has not set it up again."""
        return self._world.now < self._flushed.get(address.packed, 0.0)

    def _guarded(self, address: bytes) -> bool:
        sets = (found for t in self._tables.values() for name, found in t.sets.items() if name.startswith("guarded"))
        return any(address in found for found in sets)

    def commit(self, messages: Iterable[Message]) -> None:
        """One transaction.

        Raises:
            NftError: refused.
        """
        bare = [address for address in self._flushed if not self._guarded(address)]
        self._tables = self._after(messages)
        for address, until in self._flushed.items():
            if self._guarded(address):
                bridged = self._world.now + BRIDGE_S if address in bare else self._world.now
                self._flushed[address] = min(until, bridged)
        self._update()

    def try_out(self, messages: Iterable[Message]) -> None:
        """Check a transaction without committing it.

        Raises:
            NftError: refused.
        """
        self._after(messages)

    def _after(self, messages: Iterable[Message]) -> dict[tuple[int, str], _Table]:
        tables = {
            key: _Table({hook: list(r) for hook, r in t.rules.items()}, {n: dict(e) for n, e in t.sets.items()})
            for key, t in self._tables.items()
        }
        for message in messages:
            self._apply(tables, message)
        return tables

    def flush(self) -> None:
        """`nft flush ruleset`, by another program."""
        self._tables.clear()
        self.foreign_changes += 1
        self._flushed.update((address.ip.packed, math.inf) for address in (*self.addresses, *self.elsewhere))
        self._flushed_at = self._world.now
        self._update()

    def add_by_hand(self, address: Address) -> None:
        """`ip address add`, by an operator. Behind a flushed fence the address answers."""
        if not self._guarded(address.ip.packed):
            self._flushed[address.ip.packed] = math.inf
        self.add_address(address, 2 * FOR_EVER_S, 0.0)

    def add_elsewhere(self, address: Address) -> None:
        """`ip address add` on another interface, by an operator."""
        if not self._guarded(address.ip.packed):
            self._flushed[address.ip.packed] = math.inf
        self.elsewhere[address] = self._world.now
        self._update()
        self._tell("new elsewhere", address)

    def delete_elsewhere(self, address: Address) -> None:
        """`ip address delete` there."""
        if address in self.elsewhere:
            del self.elsewhere[address]
            self._update()
            self._tell("del elsewhere", address)

    def _apply(self, tables: dict[tuple[int, str], _Table], message: Message) -> None:
        what, family, name, *rest = message
        key: tuple[int, str] = (family, name)  # type: ignore[assignment]  # as tests.sim.adapters makes them
        if what in {"add table", "add new table"}:
            if what == "add new table" and key in tables:
                raise NftError(errno.EEXIST)
            tables.setdefault(key, _Table())
            return
        if key not in tables:
            raise NftError(errno.ENOENT)
        change = self._changes.get(str(what))
        if change is not None:  # chains are as they should be
            change(tables[key], *rest)
        elif what == "delete table":
            del tables[key]

    @staticmethod
    def _add_rule(table: _Table, hook: str, lookups: list[tuple[str, bool]]) -> None:
        for name, _ in lookups:
            _existing(table, name)
        table.rules.setdefault(hook, []).append(lookups)

    def _add_element(self, table: _Table, name: str, element: bytes, timeout_ms: bytes) -> None:
        elements = _existing(table, name)
        if self._moves_timeouts or elements.get(element, 0.0) <= self._world.now:
            elements[element] = self._end_of(int.from_bytes(timeout_ms)) if timeout_ms else math.inf

    def _delete_element(self, table: _Table, name: str, element: bytes) -> None:
        if _existing(table, name).pop(element, 0.0) <= self._world.now:
            raise NftError(errno.ENOENT)

    def _end_of(self, timeout_ms: int) -> float:
        """The end of a time-out, which counts jiffies and may be a part of one late."""
        jiffies = -(-timeout_ms // (JIFFY_S * 1000))
        return self._clock.instant(self._clock.reads(self._world.now) + jiffies * JIFFY_S)

    # Time

    def _update(self) -> None:
        """Compare the answered addresses now, and when the next element or lifetime ends."""
        now = self._world.now
        ends = [e for t in self._tables.values() for s in t.sets.values() for e in s.values() if now < e < math.inf]
        ends += [goes for goes in (*self.addresses.values(), *self._flushed.values()) if now < goes < math.inf]
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = self._world.at(min(ends), self._expire) if ends else None
        self._changed()

    def _expire(self) -> None:
        self._expiry = None
        for address in [a for a, goes in self.addresses.items() if goes <= self._world.now]:
            del self.addresses[address]
            self._world.note(self._name, f"{address} has expired", f"expired {address}")
            self._tell("del", address)
        self._update()


def _existing(table: _Table, name: str) -> dict[bytes, float]:
    if name not in table.sets:
        raise NftError(errno.ENOENT)
    return table.sets[name]
