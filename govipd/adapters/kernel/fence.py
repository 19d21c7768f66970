"""The fence of kernels with nf_tables (ports.Fence): the kernel itself ends the answers at the deadline."""

import errno
import math
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress

from govipd.adapters.kernel.fence_elements import other as other_slot
from govipd.adapters.kernel.fence_rules import SLOTS, IPAddress
from govipd.adapters.kernel.fence_tables import FenceTables, without
from govipd.adapters.kernel.nft_table import Message, timing
from govipd.core.events import Address
from govipd.core.placement import Placement
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

_Commit = Callable[[Callable[[], tuple[Message, ...]], Callable[[], float]], Awaitable[float | None]]


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

    A renewal adds, deletes and adds each element: only an existing element can be deleted, and kernels before 6.12 do
    not change the time-out of an existing one. Time-outs run on jiffies, which stand still while the machine sleeps.

    Args:
        addresses: the group's addresses.
        clock: the clock of `until`.
        tables: the tables of the process's fences.
        placement: on which interface each address is; None: on the interface of the tables.

    Attributes:
        placement: as given.
        addresses: the addresses that are guarded.
        guarding: the messages that guard them.
        placing: the messages that say on which interface each is.
    """

    def __init__(
        self,
        *,
        addresses: tuple[Address, ...],
        clock: Clock,
        tables: FenceTables,
        placement: Placement | None = None,
    ) -> None:
        self.placement = placement or Placement(tables.interface)
        self._clock = clock
        self._tables = tables
        self._elements = tables.elements
        self._slot: str | None = None  # the slot that counts; None: ask the kernel
        # A slot that does not count, when its elements end, and the NfTables.epoch in which they were put there.
        self._ready: tuple[str, float, int] | None = None
        self._renewed_until: float | None = None  # as the last renewal had it
        self._until: float | None = None
        self._encode(addresses)
        tables.join(self)

    def _encode(self, addresses: tuple[Address, ...]) -> None:
        """Encode the messages now: an activation must not wait for that."""
        self.addresses = addresses
        self.guarding = b"".join(self._elements.guards(addresses))
        self.placing = b"".join(self._elements.places(self.placement, addresses))
        self._filling = {slot: b"".join(self._elements.fills(addresses, slot)) for slot in SLOTS}
        self._using = {slot: b"".join(self._elements.uses(addresses, slot)) for slot in SLOTS}
        self._closing = b"".join(self._elements.closes(addresses))

    @property
    def is_open(self) -> bool:
        """Whether the fence was told to be open, and its deadline has not passed."""
        return self._until is not None and self._until > self._clock.now()

    async def prepare(self, until: float) -> None:
        """Close the fence, and fill a slot, so that a later open(until) takes only one transaction.

        Raises:
            KernelError: the kernel refused, or `until` has passed; then the fence is closed.
        """
        await self.close()
        try:
            slot = await self._fill(until, self._alone)
            self._ready = (slot, until, self._tables.kernel.epoch) if slot is not None else None
        finally:
            await self._tables.reopen()

    async def open(self, until: float) -> None:
        """Open the fence until `until`, or up to 20 ms less.

        Raises:
            KernelError: the kernel refused, or `until` has passed; then the fence is closed.
        """
        pause = until - self._renewed_until if self._renewed_until is not None else 0.0
        ready, self._ready = self._ready, None
        loss_max = max(0.0, min(_LOSS_MAX_S, pause / 4))
        self._until = until
        together = self._tables.commit_together
        if ready is not None and (ready[2] != self._tables.kernel.epoch or not 0 <= until - ready[1] <= loss_max):
            ready = None
        if ready is not None and await self._use(ready[0], until, pause, together):
            return
        try:
            epoch = self._tables.kernel.epoch
            slot = await self._fill(until, together)
            if epoch != self._tables.kernel.epoch:
                slot = None  # another fence may have created the tables again, without these elements
            if slot is None or not await self._use(slot, until, pause, together):
                await self._open_alone(until, pause)
        finally:
            await self._tables.reopen()

    async def reopen(self) -> None:
        """See fence_tables.SharingFence. After an error, the next open() opens the fence."""
        self._ready, until = None, self._until
        if until is not None:
            with suppress(KernelError):
                await self._open_alone(until, 0.0)

    async def _open_alone(self, until: float, pause: float) -> None:
        """Open the fence by two transactions of its own. They repair what another program has changed."""
        slot = await self._fill(until, self._alone)
        if slot is not None:
            await self._use(slot, until, pause, self._alone)

    async def _use(self, slot: str, until: float, pause: float, commit: _Commit) -> bool:
        """Let this slot count, and put elements for the next renewal, `pause` seconds later, into the other slot."""
        other = other_slot(slot)
        expected = until + pause - min(_EARLY_MAX_S, pause / 8)
        remaining_ms, began, epoch = 0, 0.0, 0

        def batch() -> tuple[Message, ...]:
            nonlocal remaining_ms, began, epoch
            self._slot = None  # unknown until the kernel confirms; then _counting() asks the kernel
            began, epoch = self._clock.now(), self._tables.kernel.epoch
            remaining_ms = math.floor((expected - began - _ALLOWANCES_S[0]) * 1000) if pause > 0 else 0
            filling = (timing(self._filling[other], remaining_ms),) if remaining_ms > 0 else ()
            return (self._using[slot], *filling)

        self._tables.opens(self)
        ended = await commit(batch, self._clock.now)
        if ended is None:
            return False
        self._renewed_until = until
        self._slot, self._until = None, until
        if epoch == self._tables.kernel.epoch:  # else this fence may have been opened again meanwhile
            self._slot = slot
            if remaining_ms > 0:
                # These elements end later than planned, by the time that this process has lost meanwhile.
                self._ready = other, expected + max(0.0, ended - began - _ALLOWANCES_S[0]), epoch
        return True

    async def _alone(self, batch: Callable[[], tuple[Message, ...]], now: Callable[[], float]) -> float | None:
        """Commit elements in a transaction of their own. Returns the instant after it."""
        self._tables.commit(batch())
        return now()

    async def _fill(self, until: float, commit: _Commit) -> str | None:
        """Put elements that end at `until` into the slot that does not count. Returns that slot; None: no commit."""
        idle, began, remaining_ms = SLOTS[0], 0.0, 0

        def batch() -> tuple[Message, ...]:
            nonlocal idle, began, remaining_ms
            idle, began = other_slot(self._counting()), self._clock.now()
            remaining_ms = math.floor((until - began - allowance) * 1000)
            return (timing(self._filling[idle], remaining_ms),) if remaining_ms > 0 else ()

        for allowance in _ALLOWANCES_S:  # batch() uses it
            ended = await commit(batch, self._clock.now)
            if ended is None:
                return None
            if remaining_ms <= 0:
                break
            # If the process did not run meanwhile, the time-out began so much later.
            if ended - began <= allowance:
                return idle
        await self.close()
        raise KernelError("opening the fence: the lease has run out, or this process is not given the time to hold it")

    def bridge(self) -> Message:
        """See fence_tables.SharingFence: it is open for _BRIDGE_MS."""
        self._ready, slot = None, self._counting()
        remaining_ms = math.floor(((self._until or 0.0) - self._clock.now()) * 1000)
        return (
            self._using[slot] + timing(self._filling[slot], min(remaining_ms, _BRIDGE_MS)) if remaining_ms > 0 else b""
        )

    async def guard(self, addresses: tuple[Address, ...]) -> None:
        """Guard these addresses, too. They are closed until the next open().

        Raises:
            KernelError: not confirmed; the fence is as it was.
        """
        new = without(addresses, self.addresses)
        if new:
            self._ready = None
            before = self.addresses
            self._encode((*before, *new))
            self._tables.restate()
            try:
                self._tables.commit(self._elements.closes(self._tables.closable(self, new)))
            except KernelError:
                self._encode(before)
                self._tables.restate()
                raise
            finally:
                await self._tables.reopen()

    async def replace(self, addresses: tuple[Address, ...]) -> None:
        """Guard exactly these addresses. The caller has removed every other address from the interface.

        Raises:
            KernelError: not confirmed; the fence is as it was, or guards more.
        """
        await self.guard(addresses)
        try:
            if gone := without(self.addresses, addresses):
                self._ready = None
                self._tables.let_go(self, gone)
            self._encode(addresses)  # before the fence is opened again, if it is
        finally:
            await self._tables.reopen()

    async def close(self) -> None:
        """Close the fence. Where there is none, set it up closed: it drops every answer for its addresses.

        Raises:
            KernelError: the kernel did not confirm.
        """
        self._ready = self._until = None
        closable = self._tables.closable(self, self.addresses)
        closing = self._closing if closable == self.addresses else b"".join(self._elements.closes(closable))
        self._tables.join(self)  # again, where it had been removed
        self._tables.look_at_interfaces()
        try:
            try:
                self._tables.commit((closing,))
            except KernelError as error:
                if error.number not in _OF_ANOTHER_MAKING:
                    raise
                self._tables.replace((closing,))
            self._slot = self._slot or SLOTS[0]  # neither counts
        finally:
            await self._tables.reopen()

    def _counting(self) -> str:
        """The slot that counts; either one where none counts."""
        if self._slot is None:
            a = SLOTS[0]
            self._slot = a if self._tables.used(self.addresses, a) else other_slot(a)
        return self._slot

    @property
    def in_use(self) -> bool:
        """Whether the fence is open, or prepared to be opened."""
        return self.is_open or self._ready is not None

    async def remove(self, present: Collection[IPAddress] = ()) -> None:
        """Remove the fence: nothing is dropped any more. Succeeds where there is no fence.

        `present`: addresses that are on this machine. If the fence guards one of them, it stays, closed.

        Raises:
            KernelError: the kernel did not confirm.
        """
        self._until = None
        if any(address.ip in present for address in self.addresses):
            await self.close()
            return
        try:
            self._tables.leave(self)
        finally:
            await self._tables.reopen()
