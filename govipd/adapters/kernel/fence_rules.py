"""The fence's rules: which packets are dropped for an address that is guarded and not open (docs/adr/0022).

The rules name sets, never addresses, so the rules stay as long as the tables exist. Each hook that an answer could pass
has three rules for an address, and none of them accepts anything:

1. the address is guarded, and no slot is used for it: drop;
2. slot a is used for the address, and has no element of it any more: drop;
3. the same for slot b.
"""

import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from govipd.adapters.kernel import nft_expressions as expr
from govipd.adapters.kernel.nft_table import NFPROTO_ARP, NFPROTO_INET, Message, Table, timing
from govipd.adapters.kernel.nftables import NfTables

FENCES = "govipd_"  # the prefix of all fences' table names
SLOTS = ("a", "b")
EARLY = -300  # before connection tracking, NAT, and other programs' filters (NF_IP_PRI_RAW)
LATE = 300  # after NAT (NF_IP_PRI_NAT_SRC is 100)
_IPV4 = (expr.load_nfproto(), expr.equal(b"\x02"))
_IPV6 = (expr.load_nfproto(), expr.equal(b"\x0a"))
_ICMPV6 = (*_IPV6, expr.load_l4proto(), expr.equal(b"\x3a"), expr.load_transport(0, 1))
# Offsets: source and destination in RFC 791 section 3.1 and RFC 8200 section 3, target address and types in
# RFC 4861 sections 4.3 and 4.4, sender protocol address in RFC 826.
_TO = {4: (*_IPV4, expr.load_network(16, 4)), 6: (*_IPV6, expr.load_network(24, 16))}
_FROM = {4: (*_IPV4, expr.load_network(12, 4)), 6: (*_IPV6, expr.load_network(8, 16))}
_ASKED_FOR = (*_ICMPV6, expr.equal(b"\x87"), expr.load_transport(8, 16))
_CLAIMED = (*_ICMPV6, expr.equal(b"\x88"), expr.load_transport(8, 16))
_ARP_SENDER = (expr.load_network(14, 4),)

# How a kernel refuses a family, an expression or a flag that it does not know.
_NOT_KNOWN = frozenset({errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ENOENT, errno.EINVAL})

Match = tuple[expr.Expression, ...]
IPAddress = IPv4Address | IPv6Address


def guarded(version: int) -> str:
    """The set of guarded addresses: answers pass only while the address is open."""
    return f"guarded{version}"


def placed(version: int, interface: str) -> str:
    """The set of addresses that belong to this interface, where an instance has several."""
    return f"on{version}_{escaped(interface)}"


def used(version: int, slot: str) -> str:
    """The set of addresses for which this slot counts."""
    return f"used{version}{slot}"


def opened(version: int, slot: str) -> str:
    """The slot's set of open addresses. It counts only while the slot does; its elements time out."""
    return f"open{version}{slot}"


def sets(table: Table, versions: tuple[int, ...]) -> Iterator[Message]:
    """Create the table and its sets where they are missing. Elements stay."""
    yield table.add()
    for version in versions:
        length = 4 if version == 4 else 16
        yield table.add_set(guarded(version), length, times_out=False)
        for slot in SLOTS:
            yield table.add_set(used(version, slot), length, times_out=False)
            yield table.add_set(opened(version, slot), length, times_out=True)


def places(inet: Table, interfaces: Sequence[str], versions: Sequence[int]) -> Iterator[Message]:
    """Create the sets of the interfaces' addresses where they are missing."""
    for interface in interfaces:
        for version in versions:
            yield inet.add_set(placed(version, interface), 4 if version == 4 else 16, times_out=False)


def trial(inet: Table, arp: Table) -> tuple[Message, ...]:
    """All parts of a fence in one transaction, to try whether a kernel accepts them."""
    elements = (timing(t.add_element(opened(4, SLOTS[0]), bytes(4), times_out=True), 1000) for t in (inet, arp))
    return (*sets(inet, (4, 6)), *sets(arp, (4,)), *rules(inet, arp, (4, 6), {"lo": bytes(6)}), *elements)


def rules(inet: Table, arp: Table, versions: Sequence[int], links: Mapping[str, bytes | None]) -> Iterator[Message]:
    """Create missing chains, and rewrite their rules, for addresses of these IP versions.

    `links`: the VIPs' interfaces, with their hardware addresses. By these, a rule distinguishes a packet to this
    machine from a packet that this machine only bridges (with br_netfilter, such packets pass these hooks, too). Where
    there are several, a rule about packets that come or leave by an interface is for the addresses of that interface:
    a packet from one link to a VIP of another may be one that this machine routes to the VIP's holder.
    """
    for table, hook, priority in (
        (inet, "prerouting", EARLY),
        (inet, "input", EARLY),
        (inet, "output", EARLY),
        (inet, "postrouting", LATE),
        (arp, "output", EARLY),
    ):
        yield table.add_chain(hook, priority)
        yield table.flush_chain(hook)
    if macs := [mac for mac in links.values() if mac]:
        # A bridged packet is no answer. It has no input interface here, and its frame is from another machine.
        foreign = (part for mac in macs for part in (expr.link_source(), expr.unequal(mac)))
        yield inet.add_rule("postrouting", (*expr.came_by(""), *foreign, expr.accept()))
    for version in versions:
        yield from _closed(inet, "prerouting", version, _TO[version], expr.is_local())
        for interface, mac in links.items():
            for_us = (expr.link_destination(), expr.equal(mac)) if mac else ()
            here = (expr.is_in(placed(version, interface)),) if len(links) > 1 else ()
            yield from _closed(inet, "prerouting", version, (*expr.came_by(interface), *for_us, *_TO[version], *here))
            yield from _closed(inet, "postrouting", version, (*expr.leaves_by(interface), *_FROM[version], *here))
        yield from _closed(inet, "input", version, _TO[version])
        yield from _closed(inet, "output", version, _FROM[version])
    if 4 in versions:
        yield from _closed(arp, "output", 4, _ARP_SENDER)
    if 6 in versions:
        yield from _closed(inet, "input", 6, _ASKED_FOR)
        yield from _closed(inet, "output", 6, _CLAIMED)


def _closed(table: Table, hook: str, version: int, match: Match, last: Match = ()) -> Iterator[Message]:
    """Drop packets that `match`, if the address that was loaded last is guarded and not open.

    `last`: a costly condition, which is tested last.
    """
    a, b = (used(version, slot) for slot in SLOTS)
    unused = expr.is_in(guarded(version)), expr.not_in(a), expr.not_in(b)
    yield table.add_rule(hook, (*match, *unused, *last, expr.drop()))
    for slot in SLOTS:
        ended = expr.is_in(used(version, slot)), expr.not_in(opened(version, slot))
        yield table.add_rule(hook, (*match, *ended, *last, expr.drop()))


def every(kernel: NfTables, table: str) -> frozenset[IPAddress]:
    """The addresses that tables of this name guard, also if another process created the tables.

    Raises:
        KernelError: the kernel did not answer.
    """
    kinds = ((NFPROTO_INET, 4), (NFPROTO_INET, 6), (NFPROTO_ARP, 4))
    keys = (key for family, version in kinds for key in kernel.elements(family, table, guarded(version)))
    return frozenset(ip_address(key) for key in keys if len(key) in (4, 16))  # other keys: of another making


def lacking(kernel: NfTables) -> str:
    """What this kernel's nf_tables lacks for a fence; "" for nothing, or without an answer. Changes nothing."""
    name = "govipd_trial"
    error = kernel.would_refuse(trial(kernel.table(NFPROTO_INET, name), kernel.table(NFPROTO_ARP, name)))
    kernel.close()
    return str(error) if error is not None and error.number in _NOT_KNOWN else ""


def fence_table(interface: str) -> str:
    """The name of the tables of an interface's fences: letters, digits and underscores, another for each interface."""
    return FENCES + escaped(interface)


def escaped(interface: str) -> str:
    """An interface's name in letters, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9]", lambda c: "".join(f"_{byte:02x}" for byte in c[0].encode()), interface)
