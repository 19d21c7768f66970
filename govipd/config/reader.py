"""Reads the configuration: from TOML to a frozen Config, or a ConfigError that names every fault.

Each line of the error names file, key, value, what is allowed, and often a remedy. Durations are seconds. The reader
applies nothing: its caller does.
"""

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import fields, force_setattr

from govipd.config.files import parsed
from govipd.config.model import (
    NO_KEYS,
    Address,
    Config,
    ElectionConfig,
    EtcdConfig,
    HealthConfig,
    HooksConfig,
    HostAddress,
    InterfaceName,
    MetricsConfig,
    PactConfig,
    VipConfig,
)
from govipd.config.profiles import PROFILES, Profile
from govipd.config.rules import (
    Fault,
    etcd_faults,
    health_faults,
    hook_faults,
    key_faults,
    metrics_faults,
    nameable,
    pact_faults,
    timing_faults,
    vip_faults,
)
from govipd.errors import ConfigError


def load(path: Path, *, hostname: str, local_addresses: Collection[HostAddress] = ()) -> Config:
    """Read and validate the configuration.

    Args:
        path: the TOML file.
        hostname: the member's name where the file gives none.
        local_addresses: this host's own addresses, which no VIP may be.

    Raises:
        ConfigError: one line per fault.
    """
    return _Reader(path, local_addresses).read(parsed(path), hostname)


_S = TypeVar("_S", bound=Struct)
# Addresses of one VIP. The transaction by which a leader leaves writes and reads a claim for each, and a reload may
# have replaced all of them just before. etcd allows 128 operations in a transaction (--max-txn-ops).
ADDRESSES_MAX = 30


class _Reader:
    """Reads one file, and collects all faults before it raises."""

    def __init__(self, path: Path, local_addresses: Collection[HostAddress]) -> None:
        self._path = path
        self._local = local_addresses
        self._faults: list[str] = []
        self._profile = Profile("default")

    def read(self, document: Mapping[str, Any], hostname: str) -> Config:
        self._unknown("", document, ("profile", "etcd", "election", "health", "pact", "metrics", "hooks", "vip"))
        self._choose(document.get("profile", "default"))
        etcd = self._struct(EtcdConfig, "etcd", document.get("etcd", {}))
        election = self._struct(ElectionConfig, "election", document.get("election", {}))
        health = self._struct(HealthConfig, "health", document.get("health", {}))
        pact = self._struct(PactConfig, "pact", document.get("pact", {}))
        metrics = self._struct(MetricsConfig, "metrics", document.get("metrics", {}))
        hooks = self._struct(HooksConfig, "hooks", document.get("hooks", {}))
        vips = self._vips(document.get("vip"))
        if etcd:
            self._note(etcd_faults(etcd))
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
            self._note(health_faults(health))
        self._note(vip_faults(vips, etcd, self._local))
        interfaces, ips = {v.interface for v in vips.values()}, {a.ip for v in vips.values() for a in v.addresses}
        self._note(pact_faults(pact, len(vips), fenced=not election or election.fence == "nftables") if pact else ())
        self._note(metrics_faults(metrics, len(interfaces), ips) if metrics else ())
        self._note(hook_faults(hooks) if hooks else ())
        if self._faults:
            raise ConfigError("\n".join(self._faults))
        assert etcd and election and health and pact and metrics and hooks  # noqa: PT018  # None would be a fault
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
        except ValueError:  # a hexadecimal number with thousands of digits
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
        """Convert a table key by key, so that each fault is found. Returns None where the table has a fault."""
        if not isinstance(table, dict):
            self._fault(where, table, f"must be a table, written [{where}]")
            return None
        before = len(self._faults)
        self._unknown(f"{where}.", table, [name for name in kind.__struct_fields__ if name not in NO_KEYS])
        table = self._profile.fill(where, table)
        values: dict[str, Any] = {}
        for f in (f for f in fields(kind) if f.name not in NO_KEYS):
            key = f"{where}.{f.name}"
            if f.name not in table:
                if f.required:
                    self._faults.append(f"{self._path}: {key} is missing")
            elif f.name == "addresses":
                values |= self._addresses(key, table[f.name])
            else:
                try:
                    values[f.name] = msgspec.convert(table[f.name], f.type)
                    if isinstance(values[f.name], float) and not math.isfinite(values[f.name]):
                        self._fault(key, table[f.name], "must be a finite number")
                except msgspec.ValidationError as e:
                    self._fault(key, table[f.name], _allowed(str(e)))
        return kind(**values) if len(self._faults) == before else None

    def _vips(self, tables: object) -> dict[int, VipConfig]:
        """The VIPs without a fault, by their place in the file, counted from 0."""
        if not isinstance(tables, list) or not tables:
            self._faults.append(f"{self._path}: vip is missing: write a [[vip]] with name, interface and addresses")
            return {}
        vips = ((i, self._struct(VipConfig, f"vip[{i}]", table)) for i, table in enumerate(tables))
        return {i: vip for i, vip in vips if vip}

    def _addresses(self, key: str, values: object) -> Mapping[str, Any]:
        """The fields `addresses` and `others` of a VIP."""
        if not isinstance(values, list) or not 1 <= len(values) <= ADDRESSES_MAX:
            self._fault(key, values, f'must be 1 to {ADDRESSES_MAX} addresses, such as ["192.0.2.100/32"]')
            return {}
        parsed, others = list[Address](), list[tuple[HostAddress, str]]()
        for i, value in enumerate(values):
            text, interface = value, None
            if isinstance(value, dict):
                self._unknown(f"{key}[{i}].", value, ("address", "interface"))
                text, interface = value.get("address"), value.get("interface", "")
            try:
                # ip_interface() would accept a number as an address, so only texts are given to it.
                parsed.append(ip_interface(text if isinstance(text, str) else ""))
                if interface is not None:
                    others.append((parsed[-1].ip, msgspec.convert(interface, InterfaceName)))
            except msgspec.ValidationError:
                self._fault(f"{key}[{i}].interface", interface, 'must be the name of an interface, such as "eth1"')
            except ValueError:
                self._fault(f"{key}[{i}]", value, 'must be an address, such as "192.0.2.100/32" or "2001:db8::100/128"')
        return {"addresses": tuple(parsed), "others": tuple(others)}

    def _check_hostname(self, hostname: str) -> None:
        if not nameable(hostname):
            text = f"this host's name {hostname!r} cannot be a member's name; name the host, or set member"
            self._fault("election.member", "", text)


def _allowed(message: str) -> str:
    """Rewrite msgspec's error text: "Expected `int`, got `str`" -> "must be int, not str"."""
    text = message.partition(" - at ")[0].replace("`", "")
    return text.replace("Expected ", "must be ", 1).replace(", got ", ", not ", 1)
