"""The fence of kernels with nf_tables (ports.Fence): the kernel itself ends the answers at the deadline."""

import errno
import math
from collections.abc import Awaitable, Callable, Collection

from govipd.adapters.kernel import fence_rules
from govipd.adapters.kernel.fence_elements import FenceElements
from govipd.adapters.kernel.fence_elements import other as other_slot
from govipd.adapters.kernel.fence_rules import SLOTS, IPAddress
from govipd.adapters.kernel.nft_table import NFPROTO_ARP, NFPROTO_INET, Message, timing
from govipd.adapters.kernel.nftables import NfTables
from govipd.core.events import Address
from govipd.errors import KernelError
from govipd.runtime.ports import Clock

# Seconds allowed from reading the clock to the kernel's acknowledgement. They are taken off the time-out. A
# transaction that took longer is repeated with the next value.
_ALLOWANCES_S = (0.01, 0.04, 0.16)
# If another program deleted the tables, they come back open for so long, so that no packet is lost.
_BRIDGE_MS = 10
# Elements put in ahead may end so much before the next renewal's deadline: then the renewal takes one transaction.
_LOSS_MAX_S = 0.02
_EARLY_MAX_S = 0.005  # elements put in ahead are planned to end so much before the expected deadline

# The kernel's errors where a table, set or chain of this name exists, but differs from the fence's own.
_OF_ANOTHER_MAKING = frozenset({errno.EEXIST, errno.EOPNOTSUPP, errno.EBUSY, errno.EINVAL, errno.ENOENT})

_Commit = Callable[[Callable[[], tuple[Message, ...]]], Awaitable[float | None]]


class NftFence:
    """nf_tables drops every answer for a VIP that is not open. An open address times out.

    For a guarded address that is not open, the rules drop (`govipd.adapters.kernel.fence_rules`):

    - packets to the address, before and after NAT could redirect them (inet/prerouting, inet/input), and neighbour
      solicitations that ask for the address;
    - packets from the address, sent by this machine or rewritten by NAT (inet/output, inet/postrouting), and neighbour
      advertisements that claim the address;
    - in arp/output, ARP requests and replies whose sender is the address.

    The rules do not drop frames of packet sockets, which the announcer uses, nor packets that this machine forwards or
    bridges to and from a VIP that another machine holds.

    **Two slots** (docs/adr/0006). An element's time-out is relative. It begins late by the time that this process loses
    between reading the clock and the kernel's commit. So elements are added to the slot that does not count. When it is
    known that they end in time, a second transaction lets this slot count. A late second transaction prolongs nothing.

    **One transaction a renewal** (docs/adr/0023). The transaction that lets one slot count also puts elements into the
    other slot, which end at the expected deadline of the next renewal. The next renewal uses these elements if they end
    at most 20 ms (or a quarter of the pause between renewals) before its deadline, and not after; else see above.

    **Rules stay** while the kernel confirms that no other program has changed any table. Otherwise the next operation
    states everything, which repairs a change of another program (`nft flush ruleset`). If the tables are gone, this
    operation brings them back open for a moment, so that nothing is dropped before the second transaction.

    A renewal adds, deletes and adds each element: only an existing element can be deleted, and kernels before 6.12 do
    not change the time-out of an existing one. Time-outs run on jiffies, which stand still while the machine sleeps.

    Args:
        addresses: the group's addresses.
        clock: the clock of `until`.
        table: name of the two tables, in inet and in arp, which belong to this fence alone.
        kernel: commits transactions; the fences of a process share it.
        interface: the VIP's interface; "": against NAT, only packets to this machine's own addresses are guarded.
        mac: returns the interface's present hardware address.
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
        self._elements = FenceElements(self._inet, self._arp)
        self._interface, self._mac = interface, mac
        self._rules: tuple[Message, ...] = ()
        self._rules_for: bytes | None = None  # the hardware address
        self._stated: int | None = None  # the NfTables.epoch in which everything was stated
        self._slot: str | None = None  # the slot that counts; None: ask the kernel
        self._ready: tuple[str, float] | None = None  # a slot that does not count, and when its elements end
        self._until: float | None = None  # of the last renewal
        self._encode(addresses)

    def _encode(self, addresses: tuple[Address, ...]) -> None:
        """Encode the messages now: encoding takes longer than the kernel, and an activation must not wait."""
        self._addresses = addresses
        self._guarding = tuple(self._elements.guards(addresses))
        self._filling = {slot: tuple(self._elements.fills(addresses, slot)) for slot in SLOTS}
        self._using = {slot: tuple(self._elements.uses(addresses, slot)) for slot in SLOTS}
        self._closing = tuple(self._elements.closes(addresses))

    async def prepare(self, until: float) -> None:
        """Close the fence, and fill a slot, so that a later open(until) takes only one transaction.

        Raises:
            KernelError: the kernel refused, or `until` has passed; then the fence is closed.
        """
        await self.close()
        self._ready = await self._fill(until, bridge_ms=0), until

    async def open(self, until: float) -> None:
        """Open the fence until `until`, or up to 20 ms less.

        Raises:
            KernelError: the kernel refused, or `until` has passed; then the fence is closed.
        """
        pause = until - self._until if self._until is not None else 0.0
        ready, self._ready = self._ready, None
        loss_max = max(0.0, min(_LOSS_MAX_S, pause / 4))
        if ready and 0 <= until - ready[1] <= loss_max and await self._use(ready[0], until, pause, self._with_others):
            return
        await self._use(await self._fill(until, bridge_ms=_BRIDGE_MS), until, pause, self._alone)

    async def _use(self, slot: str, until: float, pause: float, commit: _Commit) -> bool:
        """Let this slot count, and put elements for the next renewal, `pause` seconds later, into the other slot."""
        other = other_slot(slot)
        expected = until + pause - min(_EARLY_MAX_S, pause / 8)
        remaining_ms, began = 0, 0.0

        def batch() -> tuple[Message, ...]:
            nonlocal remaining_ms, began
            began = self._clock.now()
            remaining_ms = math.floor((expected - began - _ALLOWANCES_S[0]) * 1000) if pause > 0 else 0
            filling = [timing(message, remaining_ms) for message in self._filling[other]] if remaining_ms > 0 else []
            return (*self._using[slot], *filling)

        self._slot = None  # unknown until the kernel confirms; then _counting() asks the kernel
        ended = await commit(batch)
        if ended is None:
            return False
        self._slot, self._until = slot, until
        if remaining_ms > 0:
            # These elements end later than planned, by the time that this process has lost meanwhile.
            self._ready = other, expected + max(0.0, ended - began - _ALLOWANCES_S[0])
        return True

    async def _alone(self, batch: Callable[[], tuple[Message, ...]]) -> float | None:
        """Commit elements in a transaction of their own. Returns the instant after it."""
        self._commit(batch())
        return self._clock.now()

    async def _with_others(self, batch: Callable[[], tuple[Message, ...]]) -> float | None:
        """As _undisturbed(), in one transaction with other fences. Returns the instant after it; None: no commit."""
        if self._stated is None or self._stated != self._kernel.epoch:
            return None
        try:
            return await self._kernel.commit_together(batch, self._clock.now)
        except KernelError as error:
            if error.number != errno.ERESTART:
                raise
            return None

    def _undisturbed(self, batch: tuple[Message, ...]) -> bool:
        """Commit elements alone. Returns False, without a commit, if other parts may differ from what was stated."""
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
        """Commit elements alone; if other parts may differ from what was stated, `first` and everything with them."""
        if not self._undisturbed(batch):
            self._kernel.commit((*first, *self._whole(), *batch))
            self._stated = self._kernel.epoch
        return True

    def _whole(self) -> tuple[Message, ...]:
        """The contents of tables and sets that exist: rules, and the addresses that are guarded."""
        mac = self._mac()
        if not self._rules or mac != self._rules_for:
            versions = {address.version for address in self._addresses}
            # Also the versions of addresses that an earlier process has guarded.
            versions |= {
                v for v in (4, 6) if self._kernel.elements(NFPROTO_INET, self._inet.name, fence_rules.guarded(v))
            }
            self._rules = tuple(fence_rules.rules(self._inet, self._arp, sorted(versions), self._interface, mac))
            self._rules_for = mac
        return (self._inet.add(), self._arp.add(), *self._rules, *self._guarding)

    async def _fill(self, until: float, *, bridge_ms: int) -> str:
        """Put elements that end at `until` into the slot that does not count. Returns that slot. See _set_up()."""
        slot = self._counting()
        idle = other_slot(slot)
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
            # If the process did not run meanwhile, the time-out began so much later.
            if self._clock.now() - began <= allowance:
                return idle
        await self.close()
        raise KernelError("opening the fence: the lease has run out, or this process is not given the time to hold it")

    def _set_up(self, slot: str, elements: tuple[Message, ...], bridge_ms: int) -> None:
        """Create missing tables or sets. Where both tables are missing, the fence is open for `bridge_ms`."""
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
        """Guard these addresses, too. They are closed until the next open().

        Raises:
            KernelError: not confirmed; the fence is as it was.
        """
        new = _without(addresses, self._addresses)
        if new:
            self._ready = self._stated = None
            self._rules = ()  # a new address may be of another IP version
            before, self._addresses = self._addresses, (*self._addresses, *new)
            try:
                self._commit((*self._elements.guards(new), *self._elements.closes(new)), self._sets)
            except KernelError:
                self._addresses, self._rules = before, ()
                raise
            self._encode(self._addresses)

    async def replace(self, addresses: tuple[Address, ...]) -> None:
        """Guard exactly these addresses. The caller has removed every other address from the interface.

        Raises:
            KernelError: not confirmed; the fence is as it was, or guards more.
        """
        await self.guard(addresses)
        if gone := _without(self._addresses, addresses):
            self._ready = None
            self._commit((*self._elements.closes(gone), *self._elements.forgets(gone)), self._sets)
        self._encode(addresses)

    async def close(self) -> None:
        """Close the fence. Where there is none, set it up closed: it drops every answer for its addresses.

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
        """The slot that counts; either one where none counts."""
        if self._slot is None:
            a = SLOTS[0]
            found = (self._kernel.elements(NFPROTO_INET, self._inet.name, fence_rules.used(v, a)) for v in (4, 6))
            self._slot = a if any(found) else other_slot(a)
        return self._slot

    def guarded(self) -> frozenset[IPAddress]:
        """The addresses that the kernel guards, by order of this process or an earlier one.

        Raises:
            KernelError: the kernel did not answer.
        """
        return fence_rules.every(self._kernel, self._inet.name)

    async def remove(self, present: Collection[IPAddress] = ()) -> None:
        """Remove the fence: nothing is dropped any more. Succeeds where there is no fence.

        `present`: addresses that are on this machine. If the fence guards one of them, it stays, closed.

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


def _without(addresses: tuple[Address, ...], others: tuple[Address, ...]) -> tuple[Address, ...]:
    """The addresses that are not among the others, compared without prefixes."""
    return tuple(a for a in addresses if a.ip not in {other.ip for other in others})
