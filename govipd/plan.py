"""The composition root: makes the daemon's plan from the configuration, with this machine's adapters."""

import os
import socket
import sys
from collections.abc import Callable, Hashable, Mapping
from functools import cache, partial
from importlib.metadata import version
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from govipd.adapters.checks.http_probe import HttpProbe
from govipd.adapters.control.service import ControlSocket
from govipd.adapters.datagrams import UdpPort, UdpSocket
from govipd.adapters.election.lease_file import LeaseFile
from govipd.adapters.election.session import RENEWALS_PER_TTL
from govipd.adapters.etcd.api import Store
from govipd.adapters.etcd.client import EtcdClient
from govipd.adapters.etcd.cluster import ClusterFile
from govipd.adapters.etcd.connection import Access
from govipd.adapters.kernel.fence_rules import lacking
from govipd.adapters.kernel.instance import InstanceAdapters, instance_adapters
from govipd.adapters.kernel.neighbours import PacketEar
from govipd.adapters.kernel.nftables import NfTables
from govipd.adapters.outputs.hooks import Hooks
from govipd.adapters.state.drain import DrainFile
from govipd.adapters.state.hostname import HostName, NameService
from govipd.adapters.state.restart_state import RestartStateFile
from govipd.adapters.systemd.journal import journal_for
from govipd.adapters.systemd.notify import watchdog_interval_s
from govipd.adapters.systemd.unit import UnitMonitor
from govipd.compose import Host, group_plan, session_plan
from govipd.config.model import Config, VipConfig
from govipd.config.reader import load
from govipd.config.rules import nameable
from govipd.core import texts
from govipd.core.journal_kinds import JournalKind
from govipd.core.liveness import START_S
from govipd.core.status import NodeStatus
from govipd.errors import ConfigError
from govipd.etcd_access import nearest_first
from govipd.host import (
    BootClock,
    first_address,
    local_addresses,
    machine_identity,
    runtime_directory,
    state_directory,
)
from govipd.runtime.parts import Plan
from govipd.runtime.ports import Clock, Sink
from govipd.runtime.process_ports import Journal, Operator, Service, Source


def read_plan(path: Path, interface: str, journal: Journal, name: HostName, adapters: InstanceAdapters) -> Plan:
    """Make the daemon's plan from the configuration. `adapters`: of the interface; they outlive reloads.

    Raises:
        ConfigError: the configuration is refused.
    """
    own = local_addresses()
    config = load(path, hostname=name(), local_addresses=own)
    clock = BootClock()
    health = config.health
    _check_restart(config)
    sources: dict[Hashable, Callable[[Sink], Source]] = {}
    if health.url:
        sources["probe", health.url, health.interval, health.timeout] = lambda sink: HttpProbe(
            url=health.url, interval_s=health.interval, timeout_s=health.timeout, sink=sink, clock=clock
        )
    if health.unit:
        sources["unit", health.unit] = lambda sink: UnitMonitor(unit=health.unit, sink=sink, start=name.first_start())
    sources["link",] = lambda _: adapters.monitor
    fenced, warnings = config.election.fence == "nftables", tuple[tuple[JournalKind, str], ...]()
    if fenced and NfTables().missing():
        fenced, warnings = False, ((JournalKind.NO_NFTABLES, texts.NO_NFTABLES),)
    elif fenced and (why := lacking(NfTables())):
        fenced, warnings = False, ((JournalKind.NO_NFTABLES, texts.NFTABLES_LACKS.format(why=why)),)
    reachable = first_address(interface) if fenced else None
    if config.pact.timeout and not reachable:
        text = f"no pact: {interface} has no address of its own" if fenced else "no pact without nf_tables"
        warnings += ((JournalKind.NO_PACT, f"{text}; a machine that loses power is noticed when its lease ends"),)
    host = _this_host(clock, journal, reachable, adapters, fenced=fenced)
    endpoints = nearest_first(config.etcd.endpoints, own)
    groups = {vip.name: group_plan(config, vip, host) for vip in config.for_interface(interface)}
    node = NodeStatus(version("govipd"), config.election.member, interface, groups=())
    services = dict(_services(config, interface, clock, journal, adapters.tables.kernel))
    if config.election.member == name():
        services["name",] = partial(NameService, name)
    return Plan(node, session_plan(config, host, endpoints), groups, sources, services, warnings)


def _this_host(
    clock: Clock,
    journal: Journal,
    reachable: IPv4Address | IPv6Address | None,
    adapters: InstanceAdapters,
    *,
    fenced: bool,
) -> Host:
    runtime, state = runtime_directory(), state_directory()

    def store(access: Access, **options: Any) -> tuple[Store, Callable[[Access], None]]:
        timeout = options.pop("timeout")
        client = EtcdClient(access.endpoints, timeout, access.tls, access.login, now=clock.now, **options)
        return client, client.reconfigure

    return Host(
        clock=clock,
        journal=journal,
        identity=cache(machine_identity),  # runs a program
        kernel=adapters,
        fenced=fenced,
        reachable=reachable,
        store=store,
        cluster=lambda endpoints: ClusterFile(state and state / "cluster", endpoints),
        leases=lambda: LeaseFile(runtime),
        restart_state=lambda vip, identity: RestartStateFile(
            path=runtime and runtime / f"{vip}.json", identity=identity, clock=clock
        ),
        drain=lambda vip: DrainFile(state and state / f"{vip}.drained"),
        udp_socket=lambda: UdpSocket(reachable),
        datagrams=lambda port, refused: UdpPort((str(reachable), port), refused),
        ear=PacketEar,
        token=os.urandom,
    )


def _services(
    config: Config, interface: str, clock: Clock, journal: Journal, kernel: NfTables
) -> Mapping[Hashable, Callable[[Operator], Service]]:
    """The services that are configured. A service that is off is not imported."""
    services: dict[Hashable, Callable[[Operator], Service]] = {}
    if runtime := runtime_directory():
        control = runtime / "control"
        services["control", control] = lambda operator: ControlSocket(
            path=control, operator=operator, journal=journal, version=version("govipd")
        )
    interfaces = list(dict.fromkeys(vip.interface for vip in config.vip))
    if address := config.metrics.address(interfaces.index(interface)):
        from govipd.adapters.outputs.metrics import Metrics  # noqa: PLC0415  # only if configured
        from govipd.adapters.outputs.scrape_server import ScrapeServer  # noqa: PLC0415

        services["metrics", address] = lambda operator: Metrics(
            operator,
            ScrapeServer(*address, journal=journal, clock=clock),
            longest_transaction=lambda: kernel.longest_s,
        )
    hooks = config.hooks
    commands = {"leader": hooks.leader, "standby": hooks.standby, "fault": hooks.fault}
    if any(commands.values()):
        services["hooks", hooks] = lambda operator: Hooks(
            commands, timeout_s=hooks.timeout, operator=operator, journal=journal, clock=clock
        )
    return services


def _check_restart(config: Config) -> None:
    """Check that systemd replaces a daemon that hangs while the daemon's lease still runs (docs/adr/0003).

    Raises:
        ConfigError: the unit's watchdog time-out is too long for that.
    """
    watchdog = watchdog_interval_s(os.environ)
    election = config.election
    left = election.ttl - election.margin - election.ttl / RENEWALS_PER_TTL
    if watchdog is not None and watchdog + START_S > left:
        raise ConfigError(
            f"{config.path}: election.ttl = {election.ttl:g}: a daemon that hangs is replaced after WatchdogSec = "
            f"{watchdog:g} + {START_S:g} s, but its lease runs {left:g} s (ttl - margin - ttl / {RENEWALS_PER_TTL}); "
            "raise ttl, or lower WatchdogSec= in a drop-in of the unit"
        )


def check(path: Path, interface: str) -> None:
    """Read the configuration as the daemon does.

    Raises:
        ConfigError: the configuration is refused.
    """
    read_plan(
        path,
        interface,
        journal_for({}, sys.stderr),
        HostName(None, nameable),
        instance_adapters(interface, BootClock()),
    )


def refused_vips(path: Path, interface: str) -> tuple[Config | None, tuple[VipConfig, ...]]:
    """The interface's VIPs in a file that is refused only because VIPs are addresses of this host; else empty."""
    try:
        config = load(path, hostname=socket.gethostname())
        return config, config.for_interface(interface)
    except ConfigError:
        return None, ()
