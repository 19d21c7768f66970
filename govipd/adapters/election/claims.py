"""Claims: who may hold an address, over all groups, elections and prefixes (docs/adr/0031).

An election makes one leader per group name. Where the configuration files of two machines give one address to two
groups, the address has two leaders. So each address has a key of its own, `<claims><ip>`, attached to its holder's
lease. The transaction that proves a member's place also creates every claim of the group, or none. A group is not
activated while another group has a claim on one of its addresses. The groups of a process share its lease. So a claim
is a group's own only if its value names the group, too.

A holder that closed its fence lets go of its claims in the transaction that deletes its key: a claim's value becomes
empty, without a lease. So an empty claim says that the last holder's kernel is silent. An absent claim does not say
that: the lease may have ended early. Then the next holder waits, as behind a member that left without a marker.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface
from itertools import count

from govipd.adapters.etcd.api import Compare, Delete, Get, IfCreateRevision, IfValue, KeyValue, Put
from govipd.core.events import Address
from govipd.core.sanitize import sanitize_line
from govipd.keys import GroupKeys

IPAddress = IPv4Address | IPv6Address

FREE = b""  # the value of a claim that its holder let go in order
CLAIM_BYTES_MAX = 4096  # of another member's claim; a longer one is not parsed


@dataclass(frozen=True, slots=True)
class Standing:
    """What one read says about a group's claims.

    Attributes:
        ours: the value of each claim that carries our lease and names our group.
        free: addresses that their last holder let go in order.
        absent: addresses without a claim.
        others: which group and member claims each other address, as a text.
    """

    ours: Mapping[Address, bytes]
    free: frozenset[Address]
    absent: frozenset[Address]
    others: Mapping[Address, str]

    def __str__(self) -> str:
        """The other members' claims, for people; "" without any."""
        return "; ".join(f"{address.ip} is claimed by {holder}" for address, holder in self.others.items())


class Claims:
    """One member's claims in one group.

    Args:
        keys: the group's keys.
        addresses: the group's addresses.
    """

    def __init__(self, keys: GroupKeys, addresses: Sequence[Address]) -> None:
        self.wanted: tuple[Address, ...] = ()
        self.held: Mapping[Address, bytes] = {}  # value of each claim that is ours, as last confirmed
        self._keys = keys
        self._ours: set[IPAddress] = set()  # our kernel may answer for these: their claims stay until it is silent
        self._absent: frozenset[Address] = frozenset()  # without a claim, as last read
        self._others: frozenset[Address] = frozenset()  # claimed by other members, as last read
        self._serial = count(1)  # a transaction that was given up must not hit a later claim of the same lease
        self.want(addresses)

    def want(self, addresses: Sequence[Address]) -> None:
        """Set the group's addresses."""
        self.wanted = tuple(addresses)
        self.keep(addresses)

    def keep(self, addresses: Iterable[Address]) -> None:
        """Note that our kernel may answer for these addresses: their claims must stay."""
        self._ours.update(address.ip for address in addresses)

    def give_up(self, addresses: Iterable[Address]) -> None:
        """Note that our kernel is silent for these addresses: their claims need not stay."""
        self._ours.difference_update(address.ip for address in addresses)

    def forget(self) -> None:
        """Forget all claims: none is ours any more, and our kernel is silent."""
        self.held = {}
        self._ours = {address.ip for address in self.wanted}

    def every(self) -> Get:
        """Reads the claims of all groups."""
        return Get(self._keys.claims, prefix=True)

    def unwanted(self, found: Iterable[KeyValue], lease: int) -> Mapping[Address, bytes]:
        """The claims in `found` (read by every()) that are the group's, under our lease, on addresses that are not.

        Other members attached such claims to our lease, or an earlier process made them before it held the addresses.
        """
        claims: dict[Address, bytes] = {}
        for kv in found:
            if self.held_by(kv, lease):
                with suppress(ValueError):
                    claims[ip_interface(kv.key.removeprefix(self._keys.claims))] = kv.value
        return {address: value for address, value in claims.items() if address.ip not in self._ours}

    def held_by(self, claim: KeyValue, lease: int) -> bool:
        """Whether our group holds this claim under this lease."""
        return claim.lease == lease and _field(claim.value, "vip") == self._keys.vip

    def owns(self, kv: KeyValue) -> bool:
        """Whether this key is a claim of our group."""
        return kv.key.startswith(self._keys.claims) and self.held_by(kv, kv.lease)

    def missing(self) -> tuple[Address, ...]:
        """The group's addresses on which we have no claim."""
        return tuple(address for address in self.wanted if address not in self.held)

    def reads(self, addresses: Iterable[Address]) -> tuple[Get, ...]:
        """Reads the claims of these addresses, in their order."""
        return tuple(Get(self._keys.claim(address.ip)) for address in addresses)

    def take(self, lease: int, member: str, *, partly: bool) -> tuple[Mapping[Address, Compare], tuple[Put, ...]]:
        """The condition for each of our missing claims, by address, and the puts that create these claims.

        `partly`: leave out addresses that other members had claimed at the last read. Otherwise all claims of the group
        are created, or none.
        """
        missing = tuple(a for a in self.missing() if not (partly and a in self._others))
        compare: dict[Address, Compare] = {
            a: IfCreateRevision(self._keys.claim(a.ip), 0)
            if a in self._absent
            else IfValue(self._keys.claim(a.ip), FREE)
            for a in missing
        }
        return compare, self.puts(missing, lease, member)

    def puts(self, addresses: Iterable[Address], lease: int, member: str) -> tuple[Put, ...]:
        """The puts that attach the claims on these addresses to a member's lease."""
        fields = {"vip": self._keys.vip, "member": member, "lease": f"{lease:x}", "serial": next(self._serial)}
        value = json.dumps(fields).encode()
        return tuple(Put(self._keys.claim(address.ip), value, lease) for address in addresses)

    def look(self, addresses: Sequence[Address], answers: Sequence[Sequence[KeyValue]], lease: int) -> Standing:
        """Note what reads() of these addresses returned."""
        ours: dict[Address, bytes] = {}
        others: dict[Address, str] = {}
        free: set[Address] = set()
        absent: set[Address] = set()
        for address, found in zip(addresses, answers, strict=True):
            if not found:
                absent.add(address)
            elif self.held_by(found[0], lease):
                ours[address] = found[0].value
            elif found[0].value == FREE:
                free.add(address)
            else:
                others[address] = _holder(found[0].value)
        self._absent, self._others = frozenset(absent), frozenset(others)
        self.held = {a: value for a, value in self.held.items() if a not in addresses} | ours
        return Standing(ours, frozenset(free), frozenset(absent), others)

    def unchanged(self, addresses: Iterable[Address]) -> tuple[IfValue, ...]:
        """Conditions: each of these claims of ours is unchanged since we read it."""
        return tuple(IfValue(self._keys.claim(address.ip), self.held[address]) for address in addresses)

    def let_go(self, addresses: Iterable[Address], in_order: Callable[[Address], bool]) -> tuple[Put | Delete, ...]:
        """The operations that let go of these claims: empty a claim that is `in_order`, delete any other."""
        keys = {address: self._keys.claim(address.ip) for address in addresses}
        return tuple(Put(key, FREE, 0) if in_order(address) else Delete(key) for address, key in keys.items())


def _holder(value: bytes) -> str:
    """The group and the member that made a claim, as a text."""
    vip, member = _field(value, "vip"), _field(value, "member")
    if vip and member:
        return f"group {sanitize_line(vip, 64)} of {sanitize_line(member, 64)}"
    return "another program"


def _field(value: bytes, name: str) -> str:
    """A field of a claim's value; "" where the value has no such text."""
    try:
        field = json.loads(value)[name] if len(value) <= CLAIM_BYTES_MAX else ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return field if isinstance(field, str) else ""
