"""The kernel-enforced lease (ports.Fence)."""

import errno
import math
from collections.abc import Iterator

from govipd.adapters import nftables as nft
from govipd.core.events import Address
from govipd.errors import KernelError
from govipd.ports import Addresses, Clock

_PRIORITY = -300  # before connection tracking and the filters of others (NF_IP_PRI_RAW)
# From reading the clock to the kernel's acknowledgement: taken off the time-out, and measured. Longer ones for
# processes that get little time.
_ALLOWANCES_S = (0.01, 0.04, 0.16)
# Where somebody took the fence away, the VIP has answered unguarded; set up anew, the fence stays open for this long.
_BRIDGE_MS = 10
_OPEN = {4: "open4", 6: "open6"}  # the sets' names, by IP version, before the slot
_SLOTS = ("a", "b")


class AddressFence:
    """The addresses' own lifetime as the fence: `Addresses.add`, which follows `open`, sets it.

    Weaker than nftables: lifetimes are whole seconds, and the kernel removes an address late (see
    `govipd.adapters.netlink.KernelAddresses`).
    """

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    async def open(self, until: float) -> None:
        """Nothing to open: an address answers as soon, and for as long, as it is there."""

    async def prepare(self, until: float) -> None:  # noqa: ARG002  # the port's
        """Nothing but to be closed: an address that is there answers."""
        await self.close()

    async def replace(self, addresses: tuple[Address, ...]) -> None:
        """See Addresses.replace."""
        await self._addresses.replace(addresses)

    async def remove(self) -> None:
        """Nothing to take down."""

    async def close(self) -> None:
        """Remove the addresses: the kernel stops answering when they are gone."""
        await self._addresses.remove()


class NftFence:
    """nf_tables drops whatever would answer for a VIP that is not an element of a set; elements time out.

    What is dropped for a VIP that is not in the set:

    - in inet/input, what is addressed to it, and neighbour solicitations that ask for it;
    - in inet/output, what is sent from it, and neighbour advertisements that claim it;
    - in arp/output, ARP in both forms whose sender it claims to be.

    Not held back: frames of packet sockets, which the announcer uses.

    Each operation states the whole fence, rules and elements, in one transaction: whatever somebody did to the
    tables (`nft flush ruleset`) is repaired by the next one, and a fence that was open stays open for the
    next process. An element is renewed by adding, deleting and adding it: deleting needs one that exists,
    and kernels before 6.12 do not change the time-out of one that does. Packets see either the old state or the
    new one. Measured on Linux 6.18 with an address of each family: opening and closing take 0.4 ms each; the
    last answer came 13 ms before `until` (median; 8 to 43 ms on a busy host), never after it (`make bench-fence`).

    The time-out is relative, and begins late by whatever this process loses between reading the clock and the kernel's
    commit. So there are two of each set, of which the rules look at one: elements are added to the other, and only when
    they are known to end in time, a second transaction lets the rules look there (docs/adr/0006). Where the first finds
    that somebody took the tables away, it brings them back open for a moment, so that nothing is dropped before the
    second. The time-out runs on jiffies, which stand still while the machine is suspended.

    Args:
        addresses: the group's.
        clock: that of `until`.
        table: name of the tables, one in inet and one in arp, which belong to this fence alone.
        kernel: where transactions go; the fence closes it.
    """

    def __init__(
        self,
        *,
        addresses: tuple[Address, ...],
        clock: Clock,
        table: str,
        kernel: nft.NfTables | None = None,
    ) -> None:
        self._clock = clock
        self._kernel = kernel or nft.NfTables()
        self._inet = self._kernel.table(nft.NFPROTO_INET, table)
        self._arp = self._kernel.table(nft.NFPROTO_ARP, table)
        self._new_tables = (self._inet.add(new=True), self._arp.add(new=True))
        self._slot: str | None = None  # at which the rules look; an earlier process knew
        self._prepared: tuple[str, float] | None = None  # the other slot, and until when its elements last
        self._encode(addresses)

    def _encode(self, addresses: tuple[Address, ...]) -> None:
        """Encoding costs more than the kernel takes, and taking a VIP must not wait for it."""
        self._addresses = addresses
        self._sets = tuple(self._make_sets())
        self._guard = {slot: tuple(self._rules(addresses, slot)) for slot in _SLOTS}
        self._opening = {slot: tuple(self._elements(addresses, slot, opened=True)) for slot in _SLOTS}
        self._closing = tuple(m for slot in _SLOTS for m in self._elements(addresses, slot, opened=False))

    async def prepare(self, until: float) -> None:
        """Close. Then open(until) takes one transaction.

        Raises:
            KernelError: the kernel refused, or `until` has passed; then the fence is closed.
        """
        await self.close()
        self._prepared = await self._fill(until, bridge_ms=0), until

    async def open(self, until: float) -> None:
        """Answer until `until`.

        Raises:
            KernelError: the kernel refused, or `until` has passed; then the fence is closed.
        """
        prepared, self._prepared = self._prepared, None
        slot = prepared[0] if prepared and prepared[1] == until else await self._fill(until, bridge_ms=_BRIDGE_MS)
        self._slot = None  # until the kernel has confirmed; else it is asked
        self._kernel.commit(self._guard[slot])
        self._slot = slot

    async def _fill(self, until: float, *, bridge_ms: int) -> str:
        """Put elements that end at `until` into the slot at which the rules do not look; that slot. See _set_up()."""
        slot = self._looked_at()
        idle = _SLOTS[1 - _SLOTS.index(slot)]
        for allowance in _ALLOWANCES_S:
            began = self._clock.now()
            remaining_ms = math.floor((until - began - allowance) * 1000)
            if remaining_ms <= 0:
                break
            elements = [nft.timing(message, remaining_ms) for message in self._opening[idle]]
            try:
                self._kernel.commit((*self._guard[slot], *elements))
            except KernelError as error:
                if error.number != errno.ENOENT:
                    raise
                self._set_up(slot, elements, min(remaining_ms, bridge_ms))
            # If the process did not run meanwhile, the time-out began late by as much.
            if self._clock.now() - began <= allowance:
                return idle
        await self.close()
        raise KernelError("opening the fence: the lease has run out, or this process is not given the time to hold it")

    def _set_up(self, slot: str, elements: list[nft.Message], bridge_ms: int) -> None:
        """Tables or sets are missing. Where nothing is left of the fence, it stays open for `bridge_ms` more."""
        fence = (*self._sets, *self._guard[slot], *elements)
        if bridge_ms:
            bridge = (nft.timing(message, bridge_ms) for message in self._opening[slot])
            try:
                self._kernel.commit((*self._new_tables, *fence, *bridge))
            except KernelError as error:
                if error.number != errno.EEXIST:
                    raise
            else:
                return
        self._kernel.commit(fence)

    async def replace(self, addresses: tuple[Address, ...]) -> None:
        """Guard these addresses from now on. Those that are no longer among them must be off the interface.

        Raises:
            KernelError: not confirmed; the fence is as it was.
        """
        slot, before = self._looked_at(), self._addresses
        self._prepared = None
        gone = tuple(address for address in before if address not in addresses)
        closing = [m for each in _SLOTS for m in self._elements(gone, each, opened=False)]
        guard = self._rules(addresses, slot)
        self._kernel.commit((*self._sets, *guard, *(nft.timing(message, 1) for message in closing)))
        self._encode(addresses)

    async def close(self) -> None:
        """Stop answering. Also sets a fence up where there was none: what it guards is dropped from then on.

        Raises:
            KernelError: the kernel did not confirm.
        """
        self._prepared = None
        slot = self._slot or _SLOTS[0]
        closing = (nft.timing(message, 1) for message in self._closing)
        self._kernel.commit((*self._sets, *self._guard[slot], *closing))
        self._slot = slot

    def _looked_at(self) -> str:
        """The slot at which the rules look. Of two that an earlier process used: the one that cannot be deleted."""
        if self._slot is None:
            try:
                deleting = (self._inet.delete_set(name + _SLOTS[0]) for name in _OPEN.values())
                self._kernel.commit((*deleting, *self._sets))
            except KernelError as error:
                if error.number not in (errno.EBUSY, errno.ENOENT):
                    raise
                self._slot = _SLOTS[0] if error.number == errno.EBUSY else _SLOTS[1]
            else:
                self._slot = _SLOTS[1]
        return self._slot

    async def remove(self) -> None:
        """Take the fence down: nothing is dropped any more. Succeeds when there is none.

        Raises:
            KernelError: the kernel did not confirm.
        """
        tables = (self._inet, self._arp)
        self._kernel.commit(message for table in tables for message in (table.add(), table.delete()))
        self._kernel.close()

    def _make_sets(self) -> Iterator[nft.Message]:
        """Tables and sets as they should be; elements stay."""
        yield self._inet.add()
        yield self._arp.add()
        for slot in _SLOTS:
            yield self._inet.add_set(_OPEN[4] + slot, 4)
            yield self._inet.add_set(_OPEN[6] + slot, 16)
            yield self._arp.add_set(_OPEN[4] + slot, 4)

    def _rules(self, addresses: tuple[Address, ...], slot: str) -> Iterator[nft.Message]:
        """Chains as they should be, the rules anew."""
        for table, hook in ((self._inet, "input"), (self._inet, "output"), (self._arp, "output")):
            yield table.add_chain(hook, _PRIORITY)
            yield table.flush_chain(hook)
        for address in addresses:
            closed = (nft.not_in(_OPEN[address.version] + slot), nft.drop())
            yield from self._drops(address.version, nft.equal(address.ip.packed), closed)

    def _drops(self, version: int, vip: nft.Expression, closed: tuple[nft.Expression, ...]) -> Iterator[nft.Message]:
        """Rules that drop whatever would answer for a VIP when `closed` holds."""
        if version == 4:
            # Offsets: source and destination in RFC 791 section 3.1, sender protocol address in RFC 826.
            ipv4 = (nft.load_nfproto(), nft.equal(b"\x02"))
            yield self._inet.add_rule("input", (*ipv4, nft.load_network(16, 4), vip, *closed))
            yield self._inet.add_rule("output", (*ipv4, nft.load_network(12, 4), vip, *closed))
            yield self._arp.add_rule("output", (nft.load_network(14, 4), vip, *closed))
        else:
            # RFC 8200 section 3; type and target address in RFC 4861 sections 4.3 and 4.4.
            ipv6 = (nft.load_nfproto(), nft.equal(b"\x0a"))
            icmpv6 = (*ipv6, nft.load_l4proto(), nft.equal(b"\x3a"), nft.load_transport(0, 1))
            target = (nft.load_transport(8, 16), vip, *closed)
            yield self._inet.add_rule("input", (*ipv6, nft.load_network(24, 16), vip, *closed))
            yield self._inet.add_rule("output", (*ipv6, nft.load_network(8, 16), vip, *closed))
            yield self._inet.add_rule("input", (*icmpv6, nft.equal(b"\x87"), *target))
            yield self._inet.add_rule("output", (*icmpv6, nft.equal(b"\x88"), *target))

    def _elements(self, addresses: tuple[Address, ...], slot: str, *, opened: bool) -> Iterator[nft.Message]:
        """Each address in its sets of the slot, or in none of them."""
        for address in addresses:
            name, key = _OPEN[address.version] + slot, address.ip.packed
            for table in (self._inet, self._arp) if address.version == 4 else (self._inet,):
                yield table.add_element(name, key)
                yield table.delete_element(name, key)
                if opened:
                    yield table.add_element(name, key)
