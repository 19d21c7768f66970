"""The configuration: TOML to a frozen Config, or a ConfigError that names every fault.

A line of the error says file, key, value, what is allowed, and where it helps what to do. Durations are
seconds. Nothing is applied here: the caller decides what a valid Config means.
"""

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, ip_address, ip_interface
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import fields, force_setattr

from govipd.config_rules import key_faults, nameable, timing_faults
from govipd.config_services import Fault, Hooks, Metrics, Pact, parsed, unfit_file
from govipd.core.settings import Settings
from govipd.errors import ConfigError
from govipd.profiles import PROFILES, Profile

HostAddress = IPv4Address | IPv6Address
Address = IPv4Interface | IPv6Interface
Seconds = Annotated[float, Meta(gt=0, le=86400)]
Count = Annotated[int, Meta(ge=1, le=100)]
# \Z, not $: that would allow a newline at the end.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
_PREFIX = r"^[A-Za-z0-9_./-]{1,128}/\Z"

DEFAULT_CONFIG = Path("/etc/govip/govip.toml")


class Etcd(Struct, frozen=True, kw_only=True):
    """[etcd]: how to reach it. All endpoints are used in turn."""

    endpoints: Annotated[tuple[str, ...], Meta(min_length=1)] = ("http://127.0.0.1:2379",)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    user: str | None = None
    password_file: str | None = None
    prefix: Annotated[str, Meta(pattern=_PREFIX)] = "govip/"
    claims: Annotated[str, Meta(pattern=_PREFIX)] = "govip/claims/"


class Election(Struct, frozen=True, kw_only=True):
    """[election]: the lease, and this member's name (the host's, when empty)."""

    ttl: float = 3.0
    margin: float = 0.6
    member: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{0,64}\Z")] = ""
    fence: Literal["nftables", "address"] = "nftables"
    stranger: Literal["alarm", "wait"] = "alarm"


class Health(Struct, frozen=True, kw_only=True):
    """[health]: the gates. An empty unit or url switches that gate off."""

    unit: Annotated[str, Meta(pattern=r"^([A-Za-z0-9:_.\\@-]+\.(service|socket|target))?\Z")] = "haproxy.service"
    url: Annotated[str, Meta(pattern=r"^(https?://[^/\s]\S*)?\Z")] = "http://127.0.0.1:8404/healthz"
    interval: Annotated[float, Meta(ge=0.05, le=60)] = 0.5
    timeout: Annotated[float, Meta(ge=0.01, le=10)] = 0.5
    rise: Count = 2
    fall: Count = 2
    link_debounce: Annotated[float, Meta(ge=0, le=10)] = 0.2
    flap_window: Seconds = 60.0
    flap_wait: Seconds = 1.0
    flap_wait_max: Seconds = 30.0


class Vip(Struct, frozen=True, kw_only=True):
    """[[vip]]: a group of addresses that move together, and the election that decides where they are."""

    name: Name
    interface: Annotated[str, Meta(pattern=r"^[^/\s:]{1,15}\Z")]
    addresses: tuple[Address, ...]
    election: Annotated[str, Meta(pattern=r"^([A-Za-z0-9_./-]{0,254}[A-Za-z0-9_.-])?\Z")] = ""


class Config(Struct, frozen=True, kw_only=True):
    """A valid configuration."""

    path: str
    etcd: Etcd
    election: Election
    health: Health
    pact: Pact
    metrics: Metrics
    hooks: Hooks
    vip: tuple[Vip, ...]

    def for_interface(self, interface: str) -> tuple[Vip, ...]:
        """The VIPs of one interface.

        Raises:
            ConfigError: there is none; the interfaces that have one are named.
        """
        found = tuple(vip for vip in self.vip if vip.interface == interface)
        if not found:
            known = ", ".join(sorted({vip.interface for vip in self.vip}))
            raise ConfigError(f"{self.path}: no [[vip]] has interface = {interface!r}; the file has {known}")
        return found

    def settings(self) -> Settings:
        """What the decisions depend on."""
        health = self.health
        return Settings(
            margin=self.election.margin,
            stranger_waits=self.election.stranger == "wait",
            rise=health.rise,
            fall=health.fall,
            unknown_limit=self.election.ttl,
            link_debounce=health.link_debounce,
            unit_gate=bool(health.unit),
            probe_gate=bool(health.url),
            flap_window=health.flap_window,
            flap_wait=health.flap_wait,
            flap_wait_max=health.flap_wait_max,
        )


def load(path: Path, *, hostname: str, local_addresses: Collection[HostAddress] = ()) -> Config:
    """Read and validate.

    Args:
        path: the TOML file.
        hostname: the member's name where the file gives none.
        local_addresses: this host's own addresses, which no VIP may be.

    Raises:
        ConfigError: one line per fault.
    """
    return _Reader(path, local_addresses).read(parsed(path), hostname)


_S = TypeVar("_S", bound=Struct)


class _Reader:
    """Collects every fault before it gives up."""

    def __init__(self, path: Path, local_addresses: Collection[HostAddress]) -> None:
        self._path = path
        self._local = local_addresses
        self._faults: list[str] = []
        self._profile = Profile("default")

    def read(self, document: Mapping[str, Any], hostname: str) -> Config:
        self._unknown("", document, ("profile", "etcd", "election", "health", "pact", "metrics", "hooks", "vip"))
        self._choose(document.get("profile", "default"))
        etcd = self._struct(Etcd, "etcd", document.get("etcd", {}))
        election = self._struct(Election, "election", document.get("election", {}))
        health = self._struct(Health, "health", document.get("health", {}))
        pact = self._struct(Pact, "pact", document.get("pact", {}))
        metrics = self._struct(Metrics, "metrics", document.get("metrics", {}))
        hooks = self._struct(Hooks, "hooks", document.get("hooks", {}))
        vips = self._vips(document.get("vip"))
        if etcd:
            self._check_etcd(etcd)
            for vip in vips.values():
                if not vip.election:
                    force_setattr(vip, "election", f"{etcd.prefix}election/{vip.name}")
            elections = {i: (vip.name, vip.election) for i, vip in vips.items()}
            self._note(key_faults(etcd.prefix, etcd.claims, elections))
        if election:
            self._note(timing_faults(election.ttl, election.margin, election.fence))
            if not election.member:
                self._check_hostname(hostname)
                force_setattr(election, "member", hostname)
        if health:
            self._check_health(health)
        self._check_vips(vips, etcd)
        interfaces, ips = {v.interface for v in vips.values()}, {a.ip for v in vips.values() for a in v.addresses}
        self._note(pact.faults(len(vips), fenced=not election or election.fence == "nftables") if pact else ())
        self._note(metrics.faults(len(interfaces), ips) if metrics else ())
        self._note(hooks.faults() if hooks else ())
        if self._faults:
            raise ConfigError("\n".join(self._faults))
        assert etcd and election and health and pact and metrics and hooks  # noqa: PT018  # what is not left a fault
        return Config(
            path=str(self._path), etcd=etcd, election=election, health=health, pact=pact, metrics=metrics, hooks=hooks,
            vip=tuple(vips.values()),
        )  # fmt: skip

    def _choose(self, name: object) -> None:
        if isinstance(name, str) and name in PROFILES:
            self._profile = Profile(name)
        else:
            names = ", ".join(f'"{known}"' for known in PROFILES)
            self._fault("profile", name, f"must be one of {names}; each is a set of timings, see govip.toml(5)")

    # Types

    def _fault(self, key: str, value: object, text: str) -> None:
        try:
            shown = repr(value)
        except ValueError:  # it has thousands of digits, which only hexadecimal numbers can
            shown = "a number of thousands of digits"
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        self._faults.append(f"{self._path}: {key} = {shown}{self._profile.origin(key)}: {text}")

    def _note(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            self._fault(*fault)

    def _unknown(self, where: str, table: Mapping[str, Any], known: Collection[str]) -> None:
        for key in table:
            if key not in known:
                name = where + (key if key.isprintable() else repr(key))
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(known)}"
                if key == "profile":
                    hint = "it stands at the top of the file, before the first [table]"
                if key == "password":
                    hint = "a password does not belong here; put it into a file of mode 0600 and set password_file"
                    self._fault(name, "...", f"no such key; {hint}")
                else:
                    self._fault(name, table[key], f"no such key; {hint}")

    def _struct(self, kind: type[_S], where: str, table: object) -> _S | None:
        """Convert a table key by key, so that each fault is found; None when there was one."""
        if not isinstance(table, dict):
            self._fault(where, table, f"must be a table, written [{where}]")
            return None
        before = len(self._faults)
        self._unknown(f"{where}.", table, kind.__struct_fields__)
        table = self._profile.fill(where, table)
        values: dict[str, Any] = {}
        for f in fields(kind):
            key = f"{where}.{f.name}"
            if f.name not in table:
                if f.required:
                    self._faults.append(f"{self._path}: {key} is missing")
            elif f.name == "addresses":
                values[f.name] = self._addresses(key, table[f.name])
            else:
                try:
                    values[f.name] = msgspec.convert(table[f.name], f.type)
                    if isinstance(values[f.name], float) and not math.isfinite(values[f.name]):
                        self._fault(key, table[f.name], "must be a finite number")
                except msgspec.ValidationError as e:
                    self._fault(key, table[f.name], _allowed(str(e)))
        return kind(**values) if len(self._faults) == before else None

    def _vips(self, tables: object) -> dict[int, Vip]:
        """Those without a fault, by their place in the file."""
        if not isinstance(tables, list) or not tables:
            self._faults.append(f"{self._path}: vip is missing: write a [[vip]] with name, interface and addresses")
            return {}
        vips = ((i, self._struct(Vip, f"vip[{i}]", table)) for i, table in enumerate(tables))
        return {i: vip for i, vip in vips if vip}

    def _addresses(self, key: str, values: object) -> tuple[Address, ...]:
        if not isinstance(values, list) or not 1 <= len(values) <= 16:
            self._fault(key, values, 'must be 1 to 16 addresses, such as ["192.0.2.100/32"]')
            return ()
        parsed = []
        for i, value in enumerate(values):
            try:
                # Not a number, which ip_interface would take for an address; its str() is never one.
                parsed.append(ip_interface(value if isinstance(value, str) else ""))
            except ValueError:
                self._fault(f"{key}[{i}]", value, 'must be an address, such as "192.0.2.100/32" or "2001:db8::100/128"')
        return tuple(parsed)

    # Meaning

    def _check_etcd(self, etcd: Etcd) -> None:
        for i, endpoint in enumerate(etcd.endpoints):
            key = f"etcd.endpoints[{i}]"
            scheme = endpoint.partition(":")[0]
            if "@" in endpoint:
                self._fault(key, "...", "must be without user and password; set user and password_file")
            elif not _host(endpoint) or not urlsplit(endpoint).port or endpoint.count("/") > 2:
                self._fault(key, endpoint, "must be http://HOST:PORT or https://HOST:PORT")
            elif scheme != etcd.endpoints[0].partition(":")[0]:
                self._fault(key, endpoint, "all endpoints must use the same scheme")
            elif scheme == "http" and (etcd.ca or etcd.cert or etcd.key):
                self._fault(key, endpoint, "must begin with https:// when ca, cert or key is set")
        if bool(etcd.cert) != bool(etcd.key):
            self._fault("etcd.cert", etcd.cert, f"cert and key go together; key is {etcd.key!r}")
        if bool(etcd.user) != bool(etcd.password_file):
            self._fault("etcd.user", etcd.user, f"user and password_file go together; it is {etcd.password_file!r}")
        for name in ("ca", "cert", "key", "password_file"):
            path: str | None = getattr(etcd, name)
            if path is not None and (text := unfit_file(path, secret=name in {"key", "password_file"})):
                self._fault(f"etcd.{name}", path, text)

    def _check_hostname(self, hostname: str) -> None:
        if not nameable(hostname):
            text = f"this host's name {hostname!r} cannot be a member's name; name the host, or set member"
            self._fault("election.member", "", text)

    def _check_health(self, health: Health) -> None:
        if health.url and (not _host(health.url) or "@" in health.url):  # this file is no place for a secret
            shown, example = "..." if "@" in health.url else health.url, "http://127.0.0.1:8404/healthz"
            self._fault("health.url", shown, f"must be a URL, such as {example}, without user and password")
        wait, longest = health.flap_wait, health.flap_wait_max
        if longest < wait:
            self._fault("health.flap_wait_max", longest, f"must be at least flap_wait = {wait:g}")

    def _check_vips(self, vips: Mapping[int, Vip], etcd: Etcd | None) -> None:
        endpoints = {_host(e) for e in etcd.endpoints} if etcd else set()
        names: dict[str, int] = {}
        seen: dict[HostAddress, str] = {}
        for i, vip in vips.items():
            if vip.name in names:
                self._fault(f"vip[{i}].name", vip.name, f"is the name of vip[{names[vip.name]}] too; give it another")
            names.setdefault(vip.name, i)
            for j, address in enumerate(vip.addresses):
                key = f"vip[{i}].addresses[{j}]"
                self._check_address(key, address, endpoints)
                if address.ip in seen:
                    self._fault(key, str(address), f"stands in {seen[address.ip]} already")
                seen.setdefault(address.ip, key)

    def _check_address(self, key: str, address: Address, endpoints: Collection[str | None]) -> None:
        ip, network = address.ip, address.network
        shown = str(address)
        if ip.is_multicast or ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip in IPv4Network("0.0.0.0/8"):
            self._fault(key, shown, "must be a unicast address that other machines can use")
        elif ip.is_reserved or (isinstance(ip, IPv6Address) and ip.ipv4_mapped):
            self._fault(key, shown, "is reserved; must be a unicast address")
        elif isinstance(address, IPv6Interface) and address.scope_id:
            self._fault(key, shown, "must be without %SCOPE; the interface is a key of its own")
        elif not network.prefixlen:
            self._fault(key, shown, "would put every address on the link; leave the prefix out, or give the subnet's")
        elif ip.version == 4 and network.prefixlen < 31 and ip in {network[0], network[-1]}:
            self._fault(key, shown, f"is the network or broadcast address of {network}; must be one of its hosts'")
        elif ip in self._local:
            self._fault(key, shown, "is an address of this host; a VIP must be free: remove it from the host's network")
        elif any(_same(ip, host) for host in endpoints):
            self._fault(key, shown, "is an etcd endpoint: the election would need the VIP that it decides about")


def _host(url: str) -> str | None:
    """The host of an http or https URL; None where the URL is none."""
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
        return False  # a name: resolving it here could hang, and tomorrow it may mean another address


def _allowed(message: str) -> str:
    """The validator's words in ours: "Expected `int`, got `str`" -> "must be int, not str"."""
    text = message.partition(" - at ")[0].replace("`", "")
    return text.replace("Expected ", "must be ", 1).replace(", got ", ", not ", 1)
