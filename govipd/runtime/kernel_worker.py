"""Executes one VIP group's kernel actions, one after the other, in the order of the state machine's decisions."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from govipd.core.actions import CloseFence, Hold, KernelAction, Prepare, RemoveAddresses
from govipd.core.events import Address, Done, Failed
from govipd.core.journal_kinds import JournalKind
from govipd.errors import KernelError
from govipd.runtime.parts import Parts
from govipd.runtime.ports import Clock, Sink
from govipd.runtime.reporter import Reporter

_A = TypeVar("_A")

READDRESS_RETRY_S = 0.5
REMOVE_AFTER_S = 0.002  # seconds by which the removal of addresses waits, so that the deletion of the key goes first


@dataclass(frozen=True, slots=True)
class _Readdress:
    """Give the wanted addresses to the fence and the other adapters."""


class KernelWorker:
    """The kernel worker of one VIP group.

    Args:
        parts: the group's adapters.
        addresses: the group's addresses.
        sink: where Done and Failed go.
        clock: CLOCK_BOOTTIME.
        reporter: reports what the kernel refuses.
        readdressed: called when the adapters have exactly the wanted addresses, and all others are gone.

    Attributes:
        wanted: the addresses that this node may hold.
        applied: the addresses that the adapters have; all of `wanted`, and others while a change is under way.
        confirmed_until: the instant (CLOCK_BOOTTIME) of the last Hold that the kernel has confirmed.
    """

    def __init__(
        self,
        parts: Parts,
        addresses: tuple[Address, ...],
        *,
        sink: Sink,
        clock: Clock,
        reporter: Reporter,
        readdressed: Callable[[], None],
    ) -> None:
        self.wanted = self.applied = addresses
        self.confirmed_until = 0.0
        self._parts = parts
        self._sink = sink
        self._clock = clock
        self._reporter = reporter
        self._readdressed = readdressed
        self._pending: deque[KernelAction | _Readdress] = deque()
        self._work_waits = asyncio.Event()
        self._prepared = False  # the addresses are present behind a closed fence
        self._open = False  # the kernel has confirmed a Hold since the last CloseFence

    def queue(self, action: KernelAction | _Readdress) -> None:
        """Queue an action. A Hold or CloseFence drops each Prepare and Hold that still waits."""
        self._pending = queued(self._pending, action)
        self._work_waits.set()

    def readdress(self, addresses: tuple[Address, ...]) -> None:
        """Set the addresses that this node may hold."""
        if addresses != self.wanted or addresses != self.applied:
            self.wanted, self.applied = addresses, union(addresses, self.applied)
            self.queue(_Readdress())

    async def run(self) -> None:
        """Execute queued actions until cancelled."""
        while True:
            await self._work_waits.wait()
            if not self._pending:
                self._work_waits.clear()
                continue
            action = self._pending.popleft()
            name = type(action).__name__.strip("_")
            try:
                await self._perform(action)
            except KernelError as e:
                text, now = f"{name} failed: {e}", self._clock.now()
                self._reporter.troubles.report(
                    JournalKind.KERNEL_REFUSES, text, now, next_step="try again", subject=name
                )
                if isinstance(action, _Readdress):
                    asyncio.get_running_loop().call_later(READDRESS_RETRY_S, self.queue, action)
                else:
                    self._sink(Failed(action, str(e)))
            else:
                text, now = f"{name} succeeds again", self._clock.now()
                self._reporter.troubles.resolve(
                    JournalKind.KERNEL_REFUSES, JournalKind.KERNEL_OBEYS, text, now, subject=name
                )
                if not isinstance(action, _Readdress):
                    self._sink(Done(action))

    async def _perform(self, action: KernelAction | _Readdress) -> None:
        parts = self._parts
        match action:
            case Prepare() | Hold() if self.applied != self.wanted:
                await self._apply_addresses()
                await self._perform(action)
            case Prepare():
                await parts.fence.prepare(action.until)  # a reload of the firewall may have deleted the fence
                await parts.addresses.add(action.until)
                self._prepared = True
                parts.announcer.prepare()
                parts.timings.mark("addresses there")
            case Hold():
                await parts.fence.open(action.until)
                parts.announcer.hold(action.until)
                parts.timings.mark("fence open")
                self.confirmed_until = action.until
                if not self._prepared:
                    await parts.addresses.add(action.until)
                    parts.timings.mark("addresses there")
                self._prepared = False  # the next Hold renews the addresses' lifetime
                if not self._open and not self._pending:  # a CloseFence that waits has stopped the announcer
                    parts.announcer.first_round()
                self._open = True
            case CloseFence():
                self._open = False
                try:
                    if self.applied != self.wanted:
                        await self._guard_all()
                finally:
                    await parts.fence.close()
                parts.timings.mark("fence closed")
                await parts.election.fence_closed()
            case RemoveAddresses():
                self._prepared = False
                await asyncio.sleep(REMOVE_AFTER_S)
                await parts.addresses.remove()
                parts.timings.mark("addresses gone")
            case _Readdress():
                await self._apply_addresses()

    async def _apply_addresses(self) -> None:
        """Change the addresses: guard the old and the new ones, remove the old ones, then stop guarding these.

        Raises:
            KernelError: not confirmed; may be repeated.
        """
        both, wanted, parts = self.applied, self.wanted, self._parts
        await self._guard_all()
        await parts.addresses.replace(wanted)
        await parts.fence.replace(wanted)
        parts.announcer.replace(wanted)
        parts.monitor.replace(wanted)
        parts.neighbours.replace(wanted)
        if wanted == self.wanted:
            self.applied = wanted
            self._readdressed()
        if gone := [address for address in both if address not in wanted]:
            parts.election.unclaim(gone)

    async def _guard_all(self) -> None:
        """Give the old and the new addresses to the fence and to the adapter of the addresses."""
        await self._parts.fence.replace(self.applied)
        await self._parts.addresses.replace(self.applied)


def queued(pending: Iterable[_A], action: _A) -> deque[_A]:
    """The queue with one more action. A Hold or CloseFence replaces each Prepare and Hold in the queue."""
    kept = (a for a in pending if not (isinstance(action, Hold | CloseFence) and isinstance(a, Prepare | Hold)))
    return deque((*kept, action))


def union(first: tuple[Address, ...], second: tuple[Address, ...]) -> tuple[Address, ...]:
    """The addresses of both tuples, those of `first` in front."""
    return (*first, *(address for address in second if address not in first))
