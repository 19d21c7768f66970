"""The two nf_tables tables of an instance's fences, in inet and in arp, which the fences of a process share."""

import errno
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Protocol

from govipd.adapters.kernel import fence_rules
from govipd.adapters.kernel.fence_elements import FenceElements
from govipd.adapters.kernel.fence_rules import IPAddress, fence_table
from govipd.adapters.kernel.joint_commits import JointCommits
from govipd.adapters.kernel.nft_table import NFPROTO_ARP, NFPROTO_INET, Message, Table
from govipd.adapters.kernel.nftables import NfTables
from govipd.core.events import Address
from govipd.core.placement import Placement
from govipd.errors import KernelError

_VERSIONS = (4, 6)


class SharingFence(Protocol):
    """What the tables ask of each fence.

    Attributes:
        placement: on which interface each address is.
        addresses: the addresses that it guards.
        guarding: the messages that guard them.
        placing: the messages that say on which interface each is.
    """

    placement: Placement
    addresses: tuple[Address, ...]
    guarding: Message
    placing: Message

    @property
    def is_open(self) -> bool:
        """The fence was told to be open, and its deadline has not passed."""

    @property
    def in_use(self) -> bool:
        """The fence is open, or prepared to be opened."""

    def bridge(self) -> Message:
        """The messages that open the fence for a moment in tables that were created just now."""

    async def reopen(self) -> None:
        """Open the fence again, until the deadline that it had."""


class FenceTables:
    """The tables, their sets and rules, and the guarded addresses of every fence.

    **Rules stay** while the kernel confirms that no other program has changed any table. Otherwise the next operation
    states everything, which repairs a change of another program (`nft flush ruleset`). If the tables are gone, this
    operation brings the open fences back open for a moment, so that nothing is dropped before they are opened again.

    Args:
        interface: the interface whose instance this is; it names the tables.
        kernel: commits transactions.
        mac: returns an interface's present hardware address.

    Attributes:
        interface: as given.
        name: of the tables.
        kernel: as given.
    """

    def __init__(self, interface: str, kernel: NfTables, mac: Callable[[str], bytes | None] = lambda _: None) -> None:
        self.name = fence_table(interface)
        self.kernel = kernel
        self.interface, self._mac = interface, mac
        self._joint = JointCommits(kernel)
        self._fences: Sequence[SharingFence] = ()
        self._shared_ips: frozenset[IPAddress] | None = None  # see _shared(); None: not known
        self._interfaces: tuple[str, ...] = (interface,)  # of every fence
        self._rules: tuple[Message, ...] = ()
        self._rules_for: tuple[Mapping[str, bytes | None], frozenset[int]] | None = None  # interfaces, IP versions
        self._found_versions: frozenset[int] | None = None  # of addresses that an earlier process has guarded
        self._stated: int | None = None  # the NfTables.epoch in which everything was stated
        self._to_reopen: list[SharingFence] = []
        self._used: dict[str, tuple[tuple[int, int], frozenset[bytes]]] = {}  # by slot: as of when; see used()

    @cached_property
    def _inet(self) -> Table:
        return self.kernel.table(NFPROTO_INET, self.name)

    @cached_property
    def _arp(self) -> Table:
        return self.kernel.table(NFPROTO_ARP, self.name)

    @cached_property
    def elements(self) -> FenceElements:
        """Makes the messages about addresses."""
        return FenceElements(self._inet, self._arp)

    @cached_property
    def _sets(self) -> tuple[Message, ...]:
        return (*fence_rules.sets(self._inet, _VERSIONS), *fence_rules.sets(self._arp, (4,)))

    # The fences

    def join(self, fence: SharingFence) -> None:
        """Let a fence share the tables. Its addresses are guarded from the next transaction on."""
        if fence not in self._fences:
            self._set_fences([*self._fences, fence])
            self._stated = None

    def leave(self, fence: SharingFence) -> None:
        """Remove a fence; the last one removes the tables. Nothing is dropped any more for its addresses.

        Raises:
            KernelError: the kernel did not confirm.
        """
        others = [*self._besides(fence)]
        if others or self.guarded() - {address.ip for address in fence.addresses}:  # also for an earlier process
            self.let_go(fence, fence.addresses)
        else:
            tables = (self._inet, self._arp)
            self.kernel.commit(message for table in tables for message in (table.add(), table.delete()))
            self._stated = None
        self._set_fences(others)

    def _set_fences(self, fences: Sequence[SharingFence]) -> None:
        self._fences, self._shared_ips = fences, None
        interfaces = (interface for fence in fences for interface in fence.placement.interfaces)
        self._interfaces = tuple(dict.fromkeys((self.interface, *interfaces)))

    def let_go(self, fence: SharingFence, addresses: tuple[Address, ...]) -> None:
        """Close addresses of a fence, and guard them no more, unless another fence does.

        Raises:
            KernelError: the kernel did not confirm.
        """
        closed = self.elements.closes(self.closable(fence, addresses))
        gone = without(addresses, *(other.addresses for other in self._besides(fence)))
        displaced = self.elements.displaces(fence.placement, gone) if self._placed() else ()
        if batch := (*closed, *self.elements.forgets(gone), *displaced):
            self.commit(batch)

    def closable(self, fence: SharingFence, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        """The addresses without those that another fence holds open: a reload gives an address to another group."""
        if self._shared().isdisjoint(address.ip for address in addresses):
            return addresses
        return without(addresses, *(other.addresses for other in self._besides(fence) if other.is_open))

    def used_elsewhere(self, fence: SharingFence) -> frozenset[IPAddress]:
        """The addresses of this fence that other fences hold open, or are prepared to."""
        if not (shared := self._shared()):
            return frozenset()
        used = (address.ip for other in self._besides(fence) if other.in_use for address in other.addresses)
        return shared.intersection(used)

    def _shared(self) -> frozenset[IPAddress]:
        """The addresses that more than one fence guards; perhaps also some that did so before a reload."""
        if self._shared_ips is None:
            fences = Counter(address.ip for fence in self._fences for address in fence.addresses)
            self._shared_ips = frozenset(ip for ip, count in fences.items() if count > 1)
        return self._shared_ips

    def _besides(self, fence: SharingFence) -> Iterator[SharingFence]:
        return (other for other in self._fences if other is not fence)

    # Transactions

    def restate(self) -> None:
        """Let the next transaction state everything: a fence guards other addresses."""
        self._stated = self._shared_ips = None

    def look_at_interfaces(self) -> None:
        """Let the next transaction state everything, if an interface has another hardware address by now."""
        if self._rules_for is not None and self._links() != self._rules_for[0]:
            self._stated = None

    def commit(self, batch: Iterable[Message]) -> None:
        """Commit elements alone; if other parts may differ from what was stated, everything with them.

        Raises:
            KernelError: the kernel refused, or did not confirm.
        """
        batch = tuple(filter(None, batch))
        try:
            if self._undisturbed(batch):
                return
            self.kernel.commit((*self._whole(), *batch))
        except KernelError as error:
            if error.number != errno.ENOENT:
                raise
            self._set_up(batch)
        self._stated = self.kernel.epoch

    async def commit_together(self, make: Callable[[], Iterable[Message]], now: Callable[[], float]) -> float | None:
        """Commit elements in one transaction with those of other fences; where there is no other fence, at once.

        Returns the instant after it; None, without a commit, if other parts may differ from what was stated.

        Raises:
            KernelError: the kernel refused, or did not confirm.
        """
        if self._stated is None or self._stated != self.kernel.epoch:
            return None
        if len(self._fences) == 1:
            return now() if self._undisturbed(tuple(filter(None, make()))) else None
        try:
            return await self._joint.commit(make, now)
        except KernelError as error:
            if error.number != errno.ERESTART:
                raise
            return None

    def replace(self, batch: tuple[Message, ...]) -> None:
        """Delete tables of these names that another program made, and state everything, in one transaction.

        Raises:
            KernelError: the kernel refused, or did not confirm.
        """
        theirs = [t for t in (self._inet, self._arp) if t.name in self.kernel.tables(t.name, [t.family])]
        whole = (*self._sets, *self._whole(), *self.elements.guards(self.guarded()))
        self.kernel.commit((*(table.delete() for table in theirs), *whole, *batch))
        self._stated, self._to_reopen = self.kernel.epoch, self._open()

    def opens(self, fence: SharingFence) -> None:
        """Note that the fence is about to be opened: it need not be opened again for what has happened so far."""
        self._to_reopen = [other for other in self._to_reopen if other is not fence]

    async def reopen(self) -> None:
        """Open the fences that were open when the tables were created again. Each operation ends with this."""
        reopening, self._to_reopen = self._to_reopen, []
        for fence in reopening:
            if fence.is_open:
                await fence.reopen()

    def guarded(self) -> frozenset[IPAddress]:
        """The addresses that the kernel guards, by order of this process or an earlier one.

        Raises:
            KernelError: the kernel did not answer.
        """
        return fence_rules.every(self.kernel, self.name)

    def used(self, addresses: Collection[Address], slot: str) -> bool:
        """Whether the slot counts for one of these addresses, as the kernel has it."""
        as_of = self.kernel.epoch, self.kernel.commits
        if slot not in self._used or self._used[slot][0] != as_of:  # one dump for all fences that ask at once
            found = (self.kernel.elements(NFPROTO_INET, self.name, fence_rules.used(v, slot)) for v in _VERSIONS)
            self._used[slot] = as_of, frozenset[bytes]().union(*found)
        return not self._used[slot][1].isdisjoint(address.packed for address in addresses)

    def _links(self) -> Mapping[str, bytes | None]:
        """The interfaces of every fence, with their hardware addresses."""
        return {interface: self._mac(interface) for interface in self._interfaces}

    def _placed(self) -> tuple[Message, ...]:
        """The sets that say which addresses belong to which interface; none where there is one interface."""
        if len(self._interfaces) == 1:
            return ()
        return tuple(fence_rules.places(self._inet, self._interfaces, _VERSIONS))

    def _open(self) -> list[SharingFence]:
        return [fence for fence in self._fences if fence.is_open]

    def _undisturbed(self, batch: tuple[Message, ...]) -> bool:
        """Commit elements alone. Returns False, without a commit, if other parts may differ from what was stated."""
        if self._stated is None or self._stated != self.kernel.epoch:
            return False
        if not batch:
            return True
        try:
            self.kernel.commit(batch, undisturbed=True)
        except KernelError as error:
            if error.number != errno.ERESTART:
                raise
            return False
        return True

    def _whole(self) -> tuple[Message, ...]:
        """The contents of tables and sets that exist: rules, and the addresses that are guarded."""
        if self._found_versions is None:
            found = (v for v in _VERSIONS if self.kernel.elements(NFPROTO_INET, self.name, fence_rules.guarded(v)))
            self._found_versions = frozenset(found)
        versions = self._found_versions | {address.version for fence in self._fences for address in fence.addresses}
        wanted = self._links(), versions
        if wanted != self._rules_for:
            self._rules = tuple(fence_rules.rules(self._inet, self._arp, sorted(versions), wanted[0]))
            self._rules_for = wanted
        guarding = filter(None, (fence.guarding for fence in self._fences))
        placed = self._placed()
        placing = filter(None, (fence.placing for fence in self._fences)) if placed else ()
        return (self._inet.add(), self._arp.add(), *placed, *self._rules, *guarding, *placing)

    def _set_up(self, batch: tuple[Message, ...]) -> None:
        """Create missing tables or sets. Where both tables are missing, the open fences stay open for a moment."""
        stated = (*self._sets, *self._whole())
        self._to_reopen = self._open()
        if self._to_reopen:
            new = (self._inet.add(new=True), self._arp.add(new=True))
            try:
                self.kernel.commit((*new, *stated, *(fence.bridge() for fence in self._to_reopen), *batch))
            except KernelError as error:
                if error.number != errno.EEXIST:
                    raise
            else:
                return
        self.kernel.commit((*stated, *batch))


def without(addresses: tuple[Address, ...], *others: tuple[Address, ...]) -> tuple[Address, ...]:
    """The addresses that are not among the others, compared without prefixes."""
    ips = {other.ip for each in others for other in each}
    return tuple(address for address in addresses if address.ip not in ips)
