"""The records of a valid configuration: tables, keys, types and defaults. Durations are seconds."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from govipd.core.placement import Placement
from govipd.core.settings import Settings
from govipd.errors import ConfigError

HostAddress = IPv4Address | IPv6Address
Address = IPv4Interface | IPv6Interface
Seconds = Annotated[float, Meta(gt=0, le=86400)]
Count = Annotated[int, Meta(ge=1, le=100)]
# \Z, because $ would allow a newline at the end.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
InterfaceName = Annotated[str, Meta(pattern=r"^[^/\s:\x00]{1,15}\Z")]
_PREFIX = r"^[A-Za-z0-9_./-]{1,128}/\Z"

NO_KEYS = frozenset({"others"})  # fields that are no keys of the file
DEFAULT_CONFIG = Path("/etc/govip/govip.toml")


class EtcdConfig(Struct, frozen=True, kw_only=True):
    """[etcd]: how to reach etcd. The client uses the endpoints in turn."""

    endpoints: Annotated[tuple[str, ...], Meta(min_length=1)] = ("http://127.0.0.1:2379",)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    user: str | None = None
    password_file: str | None = None
    prefix: Annotated[str, Meta(pattern=_PREFIX)] = "govip/"
    claims: Annotated[str, Meta(pattern=_PREFIX)] = "govip/claims/"


class ElectionConfig(Struct, frozen=True, kw_only=True):
    """[election]: the lease, the fence, and this member's name (empty: the host's name)."""

    ttl: float = 3.0
    margin: float = 0.6
    member: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{0,64}\Z")] = ""
    fence: Literal["nftables", "address"] = "nftables"
    stranger: Literal["alarm", "wait"] = "alarm"


class HealthConfig(Struct, frozen=True, kw_only=True):
    """[health]: the gates. An empty `unit` or `url` switches that gate off."""

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


class VipConfig(Struct, frozen=True, kw_only=True):
    """[[vip]]: a group of addresses that move together, and the election that decides who holds them.

    `others`: the interface of each address that is not on `interface`. In the file, these stand in `addresses`.
    """

    name: Name
    interface: InterfaceName
    addresses: tuple[Address, ...]
    election: Annotated[str, Meta(pattern=r"^([A-Za-z0-9_./-]{0,254}[A-Za-z0-9_.-])?\Z")] = ""
    others: tuple[tuple[HostAddress, str], ...] = ()

    @property
    def placement(self) -> Placement:
        """On which interface each address is."""
        return Placement(self.interface, {ip: name for ip, name in self.others if name != self.interface})


class PactConfig(Struct, frozen=True, kw_only=True):
    """[pact]: `timeout` is the leader's silence, in seconds, after which its successor takes over; 0: no pact."""

    timeout: float = 0.0
    port: int = 9178


class MetricsConfig(Struct, frozen=True, kw_only=True):
    """[metrics]: the address and port at which Prometheus reads the metrics. Empty: metrics are off."""

    listen: str = ""

    def address(self, nth: int) -> tuple[str, int] | None:
        """Host and port for the process of the nth interface, counted from 0; None when metrics are off."""
        host, _, port = self.listen.rpartition(":")
        return (host.strip("[]"), int(port) + nth) if self.listen else None


class HooksConfig(Struct, frozen=True, kw_only=True):
    """[hooks]: a command for each role: a program's absolute path and its arguments. Empty: no command."""

    leader: tuple[str, ...] = ()
    standby: tuple[str, ...] = ()
    fault: tuple[str, ...] = ()
    timeout: Annotated[float, Meta(ge=0.1, le=300)] = 10.0


class Config(Struct, frozen=True, kw_only=True):
    """A valid configuration."""

    path: str
    etcd: EtcdConfig
    election: ElectionConfig
    health: HealthConfig
    pact: PactConfig
    metrics: MetricsConfig
    hooks: HooksConfig
    vip: tuple[VipConfig, ...]

    def for_interface(self, interface: str) -> tuple[VipConfig, ...]:
        """The VIPs of one interface.

        Raises:
            ConfigError: the interface has no VIP; the text names the interfaces that have one.
        """
        found = tuple(vip for vip in self.vip if vip.interface == interface)
        if not found:
            known = ", ".join(sorted({vip.interface for vip in self.vip}))
            raise ConfigError(f"{self.path}: no [[vip]] has interface = {interface!r}; the file has {known}")
        return found

    def interfaces(self) -> tuple[str, ...]:
        """Every interface that a VIP's file entry names."""
        return tuple(dict.fromkeys(name for vip in self.vip for name in vip.placement.interfaces))

    def placed_on(self, interface: str) -> Mapping[str, tuple[Address, ...]]:
        """The addresses on an interface, by the name of their VIP."""
        placed = {vip.name: vip.placement.by_interface(vip.addresses).get(interface, ()) for vip in self.vip}
        return {name: addresses for name, addresses in placed.items() if addresses}

    def settings(self) -> Settings:
        """The settings for the state machine."""
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
