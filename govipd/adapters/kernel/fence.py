"""The kernel-enforced lease (ports.Fence)."""

import errno
import math
from collections.abc import Callable, Collection, Iterable, Iterator

from govipd.adapters.kernel import fence_rules
from govipd.adapters.kernel.fence_rules import SLOTS, IPAddress
from govipd.adapters.kernel.nft_table import NFPROTO_ARP, NFPROTO_INET, Message, Table, timing
from govipd.adapters.kernel.nftables import NfTables
from govipd.core.events import Address
from govipd.errors import KernelError
from govipd.runtime.ports import Clock

# Time allowed between reading the clock and the kernel's acknowledgement. Subtracted from the time-out and checked
# afterwards; retried with the next value if exceeded.
_ALLOWANCES_S = (0.01, 0.04, 0.16)
# If the tables were deleted, recreate them open for this long, so that no packet is lost.
_BRIDGE_MS = 10
_LONG_MS = (
    3_600_000  # for elements that are added and deleted in one transaction: deleting needs one that has not timed out
)
# Elements for the renewal that is expected next may end so much before its end, for then it takes one transaction.
_LOSS_MAX_S = 0.02
_EARLY_MAX_S = 0.005  # by which they are planned to end before the end that is expected

# What the kernel says where a table, set or chain of this name is there, but another one.
_OF_ANOTHER_MAKING = frozenset({errno.EEXIST, errno.EOPNOTSUPP, errno.EBUSY, errno.EINVAL, errno.ENOENT})


class NftFence:
    """nf_tables drops every answer for a VIP that is not open; what is open times out.

    What is dropped for a guarded address that is not open (`govipd.adapters.kernel.fence_rules`):

    - what is addressed to it, before and after NAT could turn it elsewhere (inet/prerouting, inet/input), and
      neighbour solicitations that ask for it;
    - what is sent from it, by this machine or in its place by NAT (inet/output, inet/postrouting), and neighbour
      advertisements that claim it;
    - in arp/output, ARP in both forms whose sender it claims to be.

    Not held back: frames of packet sockets, which the announcer uses; what this machine forwards or bridges to and from
    a VIP that another holds.

    **Two slots** (docs/adr/0006). The time-out of an element is relative, and begins late by the time that this process
    loses between reading the clock and the kernel's commit. So elements are added to a slot that is not used, and when
    it is known that they end in time, a transaction lets that slot count. However late it comes, it prolongs nothing.

    **One transaction a renewal** (docs/adr/0023). The transaction that lets one slot count puts elements into the other
    that end where the next renewal is expected to. If they turn out to end at most 20 ms (or a quarter of the pause
    between two renewals) before its end, and not after it, they are taken; else the slot is filled first, as above.

    **Rules stay** while the kernel confirms that no other program has changed any table; else the next operation states
    everything, which repairs what another program did (`nft flush ruleset`). Where it finds that a program deleted the
    tables away, it brings them back open for a moment, so that nothing is dropped before the second transaction.

    Elements are renewed by adding, deleting and adding: deleting needs one that exists, and kernels before 6.12 do not
    change the time-out of one that does. Time-outs run on jiffies, which stand still while the machine is suspended.

    Args:
        addresses: the group's.
        clock: that of `until`.
        table: name of the tables, one in inet and one in arp, which belong to this fence alone.
        kernel: where transactions go; the fences of a process share it.
        interface: the VIP's; "" guards against NAT only what is addressed to this machine's own addresses.
        mac: the interface's hardware address now.
    """

    def __init__(
        self,
        *,
        addresses: tuple[Address, ...],
        clock: Clock,
        table: str,
        kernel: NfTables | None = None,
        interface: str = "",
        mac: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._shared = kernel is not None
        self._kernel = kernel or NfTables()
        self._inet = self._kernel.table(NFPROTO_INET, table)
        self._arp = self._kernel.table(NFPROTO_ARP, table)
        self._new_tables = (self._inet.add(new=True), self._arp.add(new=True))
        self._sets = (*fence_rules.sets(self._inet, (4, 6)), *fence_rules.sets(self._arp, (4,)))
        self._interface, self._mac = interface, mac
        self._rules: tuple[Message, ...] = ()
        self._rules_for: bytes | None = None  # the hardware address
        self._stated: int | None = None  # the kernel's epoch in which everything was stated
        self._slot: str | None = None  # that counts; an earlier process knew
        self._ready: tuple[str, float] | None = None  # a slot that does not count, and when its elements end
        self._until: float | None = None  # of the last renewal
        self._encode(addresses)

    def _encode(self, addresses: tuple[Address, ...]) -> None:
        """Encoding costs more than the kernel takes, and taking a VIP must not wait for it."""
        self._addresses = addresses
        self._guarding = tuple(self._each(addresses, lambda t, v, key: [_add(t, fence_rules.guarded(v), key)]))
        self._filling = {slot: tuple(self._fills(addresses, slot)) for slot in SLOTS}
        self._using = {slot: tuple(self._uses(addresses, slot)) for slot in SLOTS}
        self._closing = tuple(self._closes(addresses))

    async def prepare(self, until: float) -> None:
        """Close. Then open(until) takes one transaction.

        Raises:
            KernelError: the kernel refused, or `until` has passed; then the fence is closed.
        """
        await self.close()
        self._ready = await self._fill(until, bridge_ms=0), until

    async def open(self, until: float) -> None:
        """Answer until `until`, or up to 20 ms less.

        Raises:
            KernelError: the kernel refused, or `until` has passed; then the fence is closed.
        """
        pause = until - self._until if self._until is not None else 0.0
        ready, self._ready = self._ready, None
        loss_max = max(0.0, min(_LOSS_MAX_S, pause / 4))
        if ready and 0 <= until - ready[1] <= loss_max and self._use(ready[0], until, pause, commit=self._undisturbed):
            return
        self._use(await self._fill(until, bridge_ms=_BRIDGE_MS), until, pause, commit=self._commit)

    def _use(self, slot: str, until: float, pause: float, *, commit: Callable[[tuple[Message, ...]], bool]) -> bool:
        """Let this slot count, and put elements for the next renewal, `pause` seconds later, into the other slot."""
        other = _other(slot)
        expected = until + pause - min(_EARLY_MAX_S, pause / 8)
        began = self._clock.now()
        remaining_ms = math.floor((expected - began - _ALLOWANCES_S[0]) * 1000)
        ahead = pause > 0 and remaining_ms > 0
        filling = [timing(message, remaining_ms) for message in self._filling[other]] if ahead else []
        self._slot = None  # unknown until the kernel confirms; _counting() asks it otherwise
        if not commit((*self._using[slot], *filling)):
            return False
        self._slot, self._until = slot, until
        if ahead:
            # They end later than planned by what this process has lost meanwhile: only then is it known when.
            self._ready = other, expected + max(0.0, self._clock.now() - began - _ALLOWANCES_S[0])
        return True

    def _undisturbed(self, batch: tuple[Message, ...]) -> bool:
        """One transaction with elements only, where everything else is as this fence has stated it; else none."""
        if self._stated is None or self._stated != self._kernel.epoch:
            return False
        try:
            self._kernel.commit(batch, undisturbed=True)
        except KernelError as error:
            if error.number != errno.ERESTART:
                raise
            return False
        return True

    def _commit(self, batch: tuple[Message, ...], first: tuple[Message, ...] = ()) -> bool:
        """One transaction: elements only where everything else stands, else `first` and everything else with them."""
        if not self._undisturbed(batch):
            self._kernel.commit((*first, *self._whole(), *batch))
            self._stated = self._kernel.epoch
        return True

    def _whole(self) -> tuple[Message, ...]:
        """The contents of tables and sets that exist: rules, and the addresses that are guarded."""
        mac = self._mac()
        if not self._rules or mac != self._rules_for:
            versions = {address.version for address in self._addresses}
            # And what an earlier process has guarded.
            versions |= {
                v for v in (4, 6) if self._kernel.elements(NFPROTO_INET, self._inet.name, fence_rules.guarded(v))
            }
            self._rules = tuple(fence_rules.rules(self._inet, self._arp, sorted(versions), self._interface, mac))
            self._rules_for = mac
        return (self._inet.add(), self._arp.add(), *self._rules, *self._guarding)

    async def _fill(self, until: float, *, bridge_ms: int) -> str:
        """Put elements that end at `until` into the slot that does not count; that slot. See _set_up()."""
        slot = self._counting()
        idle = _other(slot)
        for allowance in _ALLOWANCES_S:
            began = self._clock.now()
            remaining_ms = math.floor((until - began - allowance) * 1000)
            if remaining_ms <= 0:
                break
            elements = tuple(timing(message, remaining_ms) for message in self._filling[idle])
            try:
                self._commit(elements)
            except KernelError as error:
                if error.number != errno.ENOENT:
                    raise
                self._set_up(slot, elements, min(remaining_ms, bridge_ms))
            # If the process did not run meanwhile, the time-out began late by as much.
            if self._clock.now() - began <= allowance:
                return idle
        await self.close()
        raise KernelError("opening the fence: the lease has run out, or this process is not given the time to hold it")

    def _set_up(self, slot: str, elements: tuple[Message, ...], bridge_ms: int) -> None:
        """Tables or sets are missing. Where nothing is left of the fence, it stays open for `bridge_ms` more."""
        fence = (*self._sets, *self._whole(), *elements)
        if bridge_ms:
            bridge = (*self._using[slot], *(timing(message, bridge_ms) for message in self._filling[slot]))
            try:
                self._kernel.commit((*self._new_tables, *fence, *bridge))
            except KernelError as error:
                if error.number != errno.EEXIST:
                    raise
            else:
                self._stated = self._kernel.epoch
                return
        self._kernel.commit(fence)
        self._stated = self._kernel.epoch

    async def guard(self, addresses: tuple[Address, ...]) -> None:
        """Guard these as well from now on, closed until the fence is opened next.

        Raises:
            KernelError: not confirmed; the fence is as it was.
        """
        new = _without(addresses, self._addresses)
        if new:
            self._ready = self._stated = None
            self._rules = ()  # the new ones may be of another version
            before, self._addresses = self._addresses, (*self._addresses, *new)
            guarding = self._each(new, lambda t, v, key: [_add(t, fence_rules.guarded(v), key)])
            try:
                self._commit((*guarding, *self._closes(new)), self._sets)
            except KernelError:
                self._addresses, self._rules = before, ()
                raise
            self._encode(self._addresses)

    async def replace(self, addresses: tuple[Address, ...]) -> None:
        """Guard these addresses from now on. Those that are no longer among them must be off the interface.

        Raises:
            KernelError: not confirmed; the fence is as it was, or guards more.
        """
        await self.guard(addresses)
        if gone := _without(self._addresses, addresses):
            self._ready = None
            self._commit((*self._closes(gone), *self._each(gone, _forget)), self._sets)
        self._encode(addresses)

    async def close(self) -> None:
        """Stop answering. Also sets a fence up where there was none: what it guards is dropped from then on.

        Raises:
            KernelError: the kernel did not confirm.
        """
        self._ready = None
        if self._mac() != self._rules_for:
            self._stated = None
        try:
            self._commit(self._closing, self._sets)
        except KernelError as error:
            if error.number not in _OF_ANOTHER_MAKING:
                raise
            # Replaces the tables of these names, in one transaction.
            theirs = [t for t in (self._inet, self._arp) if t.name in self._kernel.tables(t.name, [t.family])]
            self._kernel.commit((*(table.delete() for table in theirs), *self._sets, *self._whole(), *self._closing))
            self._stated = self._kernel.epoch
        self._slot = self._slot or SLOTS[0]  # neither counts

    def _counting(self) -> str:
        """The slot that counts; where none does, one of the two."""
        if self._slot is None:
            a = SLOTS[0]
            found = (self._kernel.elements(NFPROTO_INET, self._inet.name, fence_rules.used(v, a)) for v in (4, 6))
            self._slot = a if any(found) else _other(a)
        return self._slot

    def guarded(self) -> frozenset[IPAddress]:
        """The addresses that the kernel guards, ordered by this process or an earlier one.

        Raises:
            KernelError: the kernel did not answer.
        """
        return fence_rules.every(self._kernel, self._inet.name)

    async def remove(self, present: Collection[IPAddress] = ()) -> None:
        """Take the fence down: nothing is dropped any more. Succeeds when there is none.

        `present`: addresses that are on this machine. One that the fence guards keeps it up, closed.

        Raises:
            KernelError: the kernel did not confirm.
        """
        if any(address.ip in present for address in self._addresses):
            await self.close()
        else:
            tables = (self._inet, self._arp)
            self._kernel.commit(message for table in tables for message in (table.add(), table.delete()))
            self._stated = None
        if not self._shared:
            self._kernel.close()

    def _each(
        self, addresses: tuple[Address, ...], make: Callable[[Table, int, bytes], Iterable[Message]]
    ) -> Iterator[Message]:
        """The messages about each address, for each table that has it."""
        for address in addresses:
            for table in (self._inet, self._arp) if address.version == 4 else (self._inet,):
                yield from make(table, address.version, address.ip.packed)

    def _fills(self, addresses: tuple[Address, ...], slot: str) -> Iterator[Message]:
        """Elements that end when timing() says."""

        def make(table: Table, version: int, key: bytes) -> Iterator[Message]:
            name = fence_rules.opened(version, slot)
            yield timing(table.add_element(name, key, times_out=True), _LONG_MS)
            yield table.delete_element(name, key)
            yield table.add_element(name, key, times_out=True)

        return self._each(addresses, make)

    def _uses(self, addresses: tuple[Address, ...], slot: str) -> Iterator[Message]:
        """This slot counts, the other does not."""

        def make(table: Table, version: int, key: bytes) -> Iterator[Message]:
            yield _add(table, fence_rules.used(version, slot), key)
            yield from _delete(table, fence_rules.used(version, _other(slot)), key)

        return self._each(addresses, make)

    def _closes(self, addresses: tuple[Address, ...]) -> Iterator[Message]:
        """Neither slot counts."""
        return self._each(
            addresses, lambda t, v, key: [m for s in SLOTS for m in _delete(t, fence_rules.used(v, s), key)]
        )


def _without(addresses: tuple[Address, ...], others: tuple[Address, ...]) -> tuple[Address, ...]:
    """The addresses that are not among the others, compared without prefixes."""
    return tuple(a for a in addresses if a.ip not in {other.ip for other in others})


def _other(slot: str) -> str:
    return SLOTS[1 - SLOTS.index(slot)]


def _add(table: Table, name: str, key: bytes) -> Message:
    return table.add_element(name, key, times_out=False)


def _delete(table: Table, name: str, key: bytes) -> tuple[Message, Message]:
    """Delete an element; succeeds where there is none."""
    return _add(table, name, key), table.delete_element(name, key)


def _forget(table: Table, version: int, key: bytes) -> tuple[Message, Message]:
    return _delete(table, fence_rules.guarded(version), key)
