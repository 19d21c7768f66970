"""Rules of the configuration about timings, keys in etcd and names: what is refused, and the arithmetic behind it.

A check answers with key, value, and what is wrong, in words that follow them. Durations are seconds.
"""

import math
import re
from collections.abc import Iterator, Mapping

from govipd.config_services import Fault

# What fence = "address" adds to the least margin: the kernel removes an address up to a second late.
ADDRESS_FENCE_LATE_S = 1.0

# What is below etcd.prefix beside the elections.
_PARTS = {
    "members/": "where the members publish their state",
    "released/": "where a release leaves its mark",
    "pact/": "where pacts are made",
    "passing/": "where the VIP is passed on",
}
# What a machine is called that has not been given a name yet (hostname(7), systemd-hostnamed.service(8)).
_NO_NAMES = frozenset({"localhost", "localhost.localdomain", "localhost4", "localhost6", "(none)"})


def least_margin(ttl: float, fence: str) -> float:
    """The least margin for a TTL; rounded up to the millisecond, so that it can be written.

    A sixth of the TTL: 2/13 of it for two clocks' rates (core.lease.CLOCKS_SHARE), and 1/78, 25 ms at the least TTL of
    2 s, for a kernel that is late (core.lease.KERNEL_S).
    """
    return math.ceil(ttl * 1000 / 6) / 1000 + (ADDRESS_FENCE_LATE_S if fence == "address" else 0.0)


def timing_faults(ttl: float, margin: float, fence: str) -> Iterator[Fault]:
    """Refuse timings under which two machines could answer, or none would for long.

    - etcd counts leases in whole seconds, and raises what is below its minimum (2 at its default settings).
    - The margin covers clocks that are slewed by a twelfth each, in opposite directions: see least_margin().
    - What the margin leaves must outlast an etcd leader's election: half of the TTL at least.
    """
    if not (ttl.is_integer() and 2 <= ttl <= 300):
        yield "election.ttl", ttl, "must be whole seconds from 2 to 300; etcd's leases are whole seconds"
        return
    least, most = least_margin(ttl, fence), ttl / 2
    if least > most:
        yield "election.ttl", ttl, f'must be at least 3 with fence = "address", whose margin is {least:g} or more'
    elif not least <= margin <= most:
        late = f"{ADDRESS_FENCE_LATE_S:g} + " if fence == "address" else ""
        text = (
            f"must be from {least:g} to {most:g}: at least {late}ttl / 6 = {least:g}, as the clocks of this machine "
            "and of etcd's leader may be slewed by a twelfth each, in opposite directions (2/13 of ttl; the rest is "
            f"for the kernel's timer), and at most half of ttl = {ttl:g}, so that the VIP outlasts an election of "
            "etcd's leader"
        )
        yield "election.margin", margin, text


def key_faults(prefix: str, claims: str, elections: Mapping[int, tuple[str, str]]) -> Iterator[Fault]:
    """Refuse queues that hold keys of something else: a candidate waits for the next older key below NAME/.

    Args:
        prefix: etcd.prefix.
        claims: etcd.claims.
        elections: each VIP's name and election, by its place in the file.
    """
    taken = {f"{prefix}{part}": f"{prefix}{part}, {what} (etcd.prefix moves that)" for part, what in _PARTS.items()}
    for below, words in taken.items():
        if _overlap(claims, below):
            yield "etcd.claims", claims, f"must be apart from {words}; give it another name"
            break
    taken[claims] = f"{claims}, where members claim addresses (etcd.claims moves that)"
    names: set[str] = set()
    for i, (name, election) in elections.items():
        if name in names:
            continue  # that is a fault of its own
        names.add(name)
        below = f"{election}/"
        for other, words in taken.items():
            if _overlap(below, other):
                yield f"vip[{i}].election", election, f"must be apart from {words}; give it another name"
                break
        taken.setdefault(below, f"{election!r}, the election of vip[{i}]")


def _overlap(one: str, other: str) -> bool:
    """Whether keys below one prefix can be below the other."""
    return one.startswith(other) or other.startswith(one)


def nameable(hostname: str) -> bool:
    """Whether a host's name can be a member's: it is one, and not what a machine without a name is called."""
    return hostname not in _NO_NAMES and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", hostname) is not None
