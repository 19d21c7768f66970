"""The rules of the configuration: which values are refused, and the arithmetic behind this. Durations are seconds.

A rule yields a fault for each wrong value: its key, the value, and a text that says what is wrong.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Interface, ip_address
from urllib.parse import urlsplit

from govipd.config.files import unfit_file, unfit_program
from govipd.config.model import (
    Address,
    EtcdConfig,
    HealthConfig,
    HooksConfig,
    HostAddress,
    MetricsConfig,
    PactConfig,
    VipConfig,
)
from govipd.keys import PARTS

Fault = tuple[str, object, str]
"""The key, its value, and a text that says what is wrong."""

# Seconds that fence = "address" adds to the least margin: the kernel removes an address up to a second late.
ADDRESS_FENCE_LATE_S = 1.0
IFNAMSIZ = 16  # linux/if.h; a name has one byte less

# The host's names of machines that have no name of their own yet (hostname(7), systemd-hostnamed.service(8)).
_NO_NAMES = frozenset({"localhost", "localhost.localdomain", "localhost4", "localhost6", "(none)"})


def least_margin(ttl: float, fence: str) -> float:
    """The least margin for a TTL, in seconds; rounded up to the millisecond, so that a file can state it.

    The least margin is a sixth of the TTL: 2/13 of the TTL for the rates of two clocks (core.lease.CLOCKS_SHARE), and
    1/78 (25 ms at the least TTL of 2 s) for a kernel that is late (core.lease.KERNEL_S).
    """
    return math.ceil(ttl * 1000 / 6) / 1000 + (ADDRESS_FENCE_LATE_S if fence == "address" else 0.0)


def timing_faults(ttl: float, margin: float, fence: str) -> Iterator[Fault]:
    """Refuse timings with which two machines could answer, or no machine would answer for long.

    - etcd counts leases in whole seconds, and raises a TTL below its minimum (2 at its default settings).
    - The margin covers clocks that are slewed by a twelfth each, in opposite directions: see least_margin().
    - The TTL less the margin must outlast an election of etcd's leader: at least half of the TTL.
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
    """Refuse elections whose queue would contain other keys: a candidate waits for the next older key below NAME/.

    Args:
        prefix: etcd.prefix.
        claims: etcd.claims.
        elections: each VIP's name and election, by its place in the file.
    """
    taken = {f"{prefix}{part}": f"{prefix}{part}, {what} (etcd.prefix moves that)" for part, what in PARTS.items()}
    for below, words in taken.items():
        if _overlap(claims, below):
            yield "etcd.claims", claims, f"must be apart from {words}; give it another name"
            break
    taken[claims] = f"{claims}, where members claim addresses (etcd.claims moves that)"
    names: set[str] = set()
    for i, (name, election) in elections.items():
        if name in names:
            continue  # vip_faults() reports the double name
        names.add(name)
        below = f"{election}/"
        for other, words in taken.items():
            if _overlap(below, other):
                yield f"vip[{i}].election", election, f"must be apart from {words}; give it another name"
                break
        taken.setdefault(below, f"{election!r}, the election of vip[{i}]")


def _overlap(one: str, other: str) -> bool:
    """Whether a key can be below both prefixes."""
    return one.startswith(other) or other.startswith(one)


def etcd_faults(etcd: EtcdConfig) -> Iterator[Fault]:
    """Refuse endpoints that are no usable URLs, and credentials that are incomplete or cannot be read."""
    for i, endpoint in enumerate(etcd.endpoints):
        key = f"etcd.endpoints[{i}]"
        scheme = endpoint.partition(":")[0]
        if "@" in endpoint:
            yield key, "...", "must be without user and password; set user and password_file"
        elif not _host(endpoint) or not urlsplit(endpoint).port or endpoint.count("/") > 2:
            yield key, endpoint, "must be http://HOST:PORT or https://HOST:PORT"
        elif scheme != etcd.endpoints[0].partition(":")[0]:
            yield key, endpoint, "all endpoints must use the same scheme"
        elif scheme == "http" and (etcd.ca or etcd.cert or etcd.key):
            yield key, endpoint, "must begin with https:// when ca, cert or key is set"
    if bool(etcd.cert) != bool(etcd.key):
        yield "etcd.cert", etcd.cert, f"cert and key go together; key is {etcd.key!r}"
    if bool(etcd.user) != bool(etcd.password_file):
        yield "etcd.user", etcd.user, f"user and password_file go together; it is {etcd.password_file!r}"
    for name in ("ca", "cert", "key", "password_file"):
        path: str | None = getattr(etcd, name)
        if path is not None and (text := unfit_file(path, secret=name in {"key", "password_file"})):
            yield f"etcd.{name}", path, text


def health_faults(health: HealthConfig) -> Iterator[Fault]:
    """Refuse a malformed URL, a URL with a secret, and a flap_wait_max below flap_wait."""
    if health.url and (not _host(health.url) or "@" in health.url):  # this file is no place for a secret
        shown, example = "..." if "@" in health.url else health.url, "http://127.0.0.1:8404/healthz"
        yield "health.url", shown, f"must be a URL, such as {example}, without user and password"
    wait, longest = health.flap_wait, health.flap_wait_max
    if longest < wait:
        yield "health.flap_wait_max", longest, f"must be at least flap_wait = {wait:g}"


def vip_faults(
    vips: Mapping[int, VipConfig], etcd: EtcdConfig | None, local: Collection[HostAddress]
) -> Iterator[Fault]:
    """Refuse names and addresses that occur twice, and addresses that cannot be a VIP.

    Args:
        vips: the VIPs by their place in the file.
        etcd: the table [etcd]; None where it has a fault.
        local: this host's own addresses, which no VIP may be.
    """
    endpoints = {_host(e) for e in etcd.endpoints} if etcd else set()
    names: dict[str, int] = {}
    seen: dict[HostAddress, str] = {}
    for i, vip in vips.items():
        if vip.name in names:
            yield f"vip[{i}].name", vip.name, f"is the name of vip[{names[vip.name]}] too; give it another"
        names.setdefault(vip.name, i)
        for interface in vip.placement.interfaces:
            if len(interface.encode()) >= IFNAMSIZ:
                yield (
                    f"vip[{i}].interface",
                    interface,
                    f"must have fewer than {IFNAMSIZ} bytes, as the kernel's names do",
                )
        for j, address in enumerate(vip.addresses):
            key = f"vip[{i}].addresses[{j}]"
            yield from _address_faults(key, address, endpoints, local)
            if address.ip in seen:
                yield key, str(address), f"stands in {seen[address.ip]} already"
            seen.setdefault(address.ip, key)


def _address_faults(
    key: str, address: Address, endpoints: Collection[str | None], local: Collection[HostAddress]
) -> Iterator[Fault]:
    ip, network = address.ip, address.network
    shown = str(address)
    if ip.is_multicast or ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip in IPv4Network("0.0.0.0/8"):
        yield key, shown, "must be a unicast address that other machines can use"
    elif ip.is_reserved or (isinstance(ip, IPv6Address) and ip.ipv4_mapped):
        yield key, shown, "is reserved; must be a unicast address"
    elif isinstance(address, IPv6Interface) and address.scope_id:
        yield key, shown, "must be without %SCOPE; the interface is a key of its own"
    elif not network.prefixlen:
        yield key, shown, "would put every address on the link; leave the prefix out, or give the subnet's"
    elif ip.version == 4 and network.prefixlen < 31 and ip in {network[0], network[-1]}:
        yield key, shown, f"is the network or broadcast address of {network}; must be one of its hosts'"
    elif ip in local:
        yield key, shown, "is an address of this host; a VIP must be free: remove it from the host's network"
    elif any(_same(ip, host) for host in endpoints):
        yield key, shown, "is an etcd endpoint: the election would need the VIP that it decides about"


def pact_faults(pact: PactConfig, vips: int, *, fenced: bool) -> Iterator[Fault]:
    """Refuse a pact that cannot be kept. `vips`: how many groups. `fenced`: by nf_tables rules."""
    if pact.timeout and not 0.1 <= pact.timeout <= 1.0:
        yield "pact.timeout", pact.timeout, "must be from 0.1 to 1, or 0 for none"
    elif pact.timeout and not fenced:
        text = 'needs election.fence = "nftables", as an address\'s own lifetime is whole seconds; or 0 for none'
        yield "pact.timeout", pact.timeout, text
    if not 1024 <= pact.port <= 65536 - max(1, vips):
        yield "pact.port", pact.port, "must be from 1024 to 65535; each further [[vip]] takes the next one"


def metrics_faults(metrics: MetricsConfig, interfaces: int, vips: Collection[HostAddress]) -> Iterator[Fault]:
    """Refuse a bad address for the metrics. `interfaces`: their number; each takes a port. `vips` are not allowed."""
    if not metrics.listen:
        return
    host, _, port = metrics.listen.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = ip_address(host[1:-1] if bracketed else host)
        valid = bracketed is (ip.version == 6) and port.isascii() and port.isdecimal() and len(port) <= 5
    except ValueError:
        valid = False
    if not valid:
        text = 'must be ADDRESS:PORT, such as "127.0.0.1:9177", "0.0.0.0:9177" or "[::]:9177"'
        yield "metrics.listen", metrics.listen, text
    elif not 1024 <= int(port) <= 65536 - max(1, interfaces):
        text = "must have a port from 1024 to 65535; each further interface takes the next one"
        yield "metrics.listen", metrics.listen, text
    elif ip in vips:
        text = "is a VIP: it would show whichever machine holds it; give the machine's own address"
        yield "metrics.listen", metrics.listen, text


def hook_faults(hooks: HooksConfig) -> Iterator[Fault]:
    """Refuse commands that cannot be run, or that other users could change."""
    for role in ("leader", "standby", "fault"):
        command: tuple[str, ...] = getattr(hooks, role)
        if any("\0" in word for word in command):
            yield f"hooks.{role}", command, "must be without NUL characters"
        elif command and (text := unfit_program(command[0])):
            yield f"hooks.{role}[0]", command[0], text


def nameable(hostname: str) -> bool:
    """Whether a host's name can be a member's name: it is valid, and no default name such as localhost."""
    return hostname not in _NO_NAMES and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", hostname) is not None


def _host(url: str) -> str | None:
    """The host of an http or https URL; None where the URL is not valid."""
    try:
        parts = urlsplit(url)
        valid = url.startswith(("http://", "https://")) and parts.port != 0 and not parts.fragment
    except ValueError:
        return None
    return parts.hostname if valid else None


def _same(ip: HostAddress, host: str | None) -> bool:
    try:
        return host is not None and ip_address(host) == ip
    except ValueError:
        return False  # a name: a lookup could hang, and the name's address may change
