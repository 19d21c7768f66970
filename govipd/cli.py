"""govipd's command line and composition root: the only module that names concrete adapters.

Exit status: 0 after an orderly end, 1 after a fault, 78 (EX_CONFIG, sysexits.h) for a refused configuration.
"""

import argparse
import asyncio
import gc
import hashlib
import hmac
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from govipd.adapters.addressfence import AddressFence
from govipd.adapters.announce import FrameAnnouncer
from govipd.adapters.claims import Claims
from govipd.adapters.control import ControlSocket
from govipd.adapters.datagrams import UdpPort, UdpPostbox
from govipd.adapters.drain import DrainFile
from govipd.adapters.election import EtcdElection
from govipd.adapters.etcd import Etcd
from govipd.adapters.etcd_cluster import Believed, ClusterFile
from govipd.adapters.etcd_connection import Access, Login, Tls
from govipd.adapters.fence import NftFence
from govipd.adapters.guard import lacking
from govipd.adapters.handoff import HandoffFile
from govipd.adapters.hooks import Hooks
from govipd.adapters.hostname import HostName, NameService
from govipd.adapters.job import job_type
from govipd.adapters.journal import journal_for
from govipd.adapters.keys import GroupKeys
from govipd.adapters.leases import LeaseFile
from govipd.adapters.membership import Membership
from govipd.adapters.neighbours import LinkNeighbours, PacketEar
from govipd.adapters.netlink import KernelAddresses, NetlinkMonitor
from govipd.adapters.nftables import NfTables
from govipd.adapters.notify import SystemdNotifier, watchdog_interval_s
from govipd.adapters.orphans import clear_orphans
from govipd.adapters.pact import EtcdPact, NoPact
from govipd.adapters.probe import HttpProbe
from govipd.adapters.rtnetlink import RouteSocket
from govipd.adapters.session import RENEWALS_PER_TTL
from govipd.adapters.unit import UnitMonitor
from govipd.config import DEFAULT_CONFIG, Config, Vip, load
from govipd.config_rules import least_margin, nameable
from govipd.core import words
from govipd.core.events import Announced, EtcdFailed
from govipd.core.messages import Message
from govipd.core.status import NodeStatus
from govipd.daemon import Daemon, Plan
from govipd.errors import ConfigError, InterfaceMissingError, KernelError
from govipd.group import GroupPlan, Parts
from govipd.ports import Clock, Fence, Journal, Operator, Pact, Service, Sink, Source
from govipd.timeline import Timeline

EX_CONFIG = 78
CONFIG_RETRY_S = 2.0
ORPHAN_TRIES = 10
ORPHAN_PAUSE_S = 0.03
START_S = 0.8  # from a process's end to the next one's adoption, without systemd's watchdog
# Derives this application's own id from /etc/machine-id, which must not be shown to others (machine-id(5)).
_MACHINE_SALT = b"govipd member identity"


_WEAKER = (
    "the addresses' own lifetime is the only fence, which the kernel keeps to within a second, so the margin is a "
    "second longer"
)
NO_NFTABLES = f"this kernel has no nf_tables: {_WEAKER}; load nf_tables and restart"
LACKING = (
    "this kernel's nf_tables lacks what the fence needs (families inet and arp, sets with time-outs, fib): {why}: "
    f"{_WEAKER}; load what is missing and restart"
)


class BootClock:
    """ports.Clock: CLOCK_BOOTTIME, which goes on while the machine sleeps (clock_gettime(2))."""

    def now(self) -> float:
        """Seconds since boot."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def main(argv: Sequence[str] | None = None) -> int:
    """The daemon. Returns the exit status."""
    args = _arguments().parse_args(argv)
    journal = journal_for(os.environ, sys.stderr)
    name = HostName(_beside("RUNTIME_DIRECTORY", "hostname"), nameable)
    read = partial(_read, args.config, args.interface, journal, name, NfTables())
    try:
        plan = read()
    except ConfigError as e:
        print(e, file=sys.stderr)
        if not args.check_config:
            asyncio.run(stay_silent(args.config, args.interface))
        if "NOTIFY_SOCKET" in os.environ and not args.check_config:
            time.sleep(CONFIG_RETRY_S)  # systemd tries again for ever: a certificate may yet be mounted
        return EX_CONFIG
    if args.check_config:
        return 0
    try:
        orphans = asyncio.run(orphan_fences(args.interface, plan, NfTables(), RouteSocket()))
    except KernelError as e:
        print(f"fences that an earlier process left could not be removed: {e}; next: start again", file=sys.stderr)
        return 1
    for line in orphans:
        journal.write(Message.FENCE_ORPHAN, line, {})
    forget_orphans(_directory("RUNTIME_DIRECTORY"), plan)
    if args.clean_up:
        return asyncio.run(clean_up(plan))
    name.keep()
    daemon = Daemon(
        plan,
        load=read,
        clock=BootClock(),
        journal=journal,
        notifier=SystemdNotifier(),
        watchdog=watchdog_interval_s(os.environ),
        job_type=job_type,
    )
    gc.freeze()  # what is there now stays: looking through it takes 10 ms, in which a VIP may have to move
    return asyncio.run(daemon.run())


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="govipd", description="Keeps virtual IP addresses on one healthy machine.")
    parser.add_argument("--interface", required=True, metavar="IF", help="handle the VIPs of this interface")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--check-config", action="store_true", help="validate the configuration and exit")
    parser.add_argument("--clean-up", action="store_true", help="remove what a killed daemon left, and exit")
    parser.add_argument("--version", action="version", version=f"govipd {version('govipd')}")
    return parser


async def orphan_fences(interface: str, plan: Plan, kernel: NfTables, route: RouteSocket) -> Sequence[str]:
    """See clear_orphans(): an address behind a fence that no group opens would be dead for ever (docs/adr/0022).

    Raises:
        KernelError: the kernel refused ORPHAN_TRIES times.
    """

    async def remove(addresses: Collection[IPv4Address | IPv6Address]) -> Collection[IPv4Address | IPv6Address]:
        with suppress(InterfaceMissingError):
            ours = route.link(interface).index
            for index, address in route.where(addresses):
                if index == ours:
                    route.delete(index, address)
        return {address.ip for _, address in route.where(addresses)}

    groups = [group for group in plan.groups.values() if group.settings.fenced]
    owned = {fence_table(interface, group.name): [a.ip for a in group.addresses] for group in groups}
    try:
        for left in range(ORPHAN_TRIES - 1, -1, -1):
            try:
                return () if kernel.missing() else await clear_orphans(kernel, fence_prefix(interface), owned, remove)
            except KernelError:
                if not left:
                    raise
                await asyncio.sleep(ORPHAN_PAUSE_S)
        return ()
    finally:
        kernel.close()
        route.close()


def forget_orphans(directory: Path | None, plan: Plan) -> None:
    """A reload may bring a group back: it must not adopt what has been cleared, and whose lease is to be revoked."""
    for path in directory.glob("*.json") if directory else ():
        if path.name.removesuffix(".json") not in plan.groups:
            path.unlink(missing_ok=True)


async def clean_up(plan: Plan) -> int:
    """What a daemon does when it stops, for one that could not: no address, no fence."""
    status = 0
    for group in plan.groups.values():
        parts = group.make(lambda _: None)
        try:
            await parts.fence.close()
            await parts.addresses.remove()
            if left := await parts.addresses.anywhere():
                print(f"{group.name}: {words.left_behind(left)}", file=sys.stderr)
            else:
                await parts.fence.remove()
        except KernelError as e:
            print(f"{group.name}: {e}", file=sys.stderr)
            status = 1
        parts.memory.forget()
        parts.addresses.close()
    return status


async def stay_silent(path: Path, interface: str) -> None:
    """Close the fence of a VIP for which the file is refused because it is an address of this host.

    It would answer beside the machine that leads. Not where the host itself is reached by it: that would cut the
    operator off. The fences that an earlier process left for other VIPs stay as they are, closed by their own end.
    """
    try:
        config = load(path, hostname=socket.gethostname())
        vips = config.for_interface(interface)
    except ConfigError:
        return
    own, reachable = local_addresses(), first_address(interface)
    for vip in vips:
        present = [address.ip for address in vip.addresses if address.ip in own]
        answers = ", ".join(map(str, present))
        text = f"{vip.name}: this machine does not answer for {answers} any more: the fence is closed"
        if not present:
            continue
        if reachable in present:
            text = f"{vip.name}: this machine answers for {answers}, and is reached by it: so the fence is not closed"
        elif config.election.fence != "nftables" or NfTables().missing():
            text = f"{vip.name}: this machine answers for {answers}: without nf_tables there is no fence to close"
        else:
            try:
                await NftFence(
                    addresses=vip.addresses, clock=BootClock(), table=fence_table(interface, vip.name)
                ).close()
            except KernelError as e:
                text = f"{vip.name}: this machine answers for {answers}: {e}"
        print(text, file=sys.stderr)


def _read(path: Path, interface: str, journal: Journal, name: HostName, kernel: NfTables) -> Plan:
    """The configuration as a plan for the daemon, whose fences share `kernel`.

    Raises:
        ConfigError: it is refused.
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
    fenced, warnings = config.election.fence == "nftables", tuple[tuple[Message, str], ...]()
    if fenced and NfTables().missing():
        fenced, warnings = False, ((Message.NO_NFTABLES, NO_NFTABLES),)
    elif fenced and (why := lacking(NfTables())):
        fenced, warnings = False, ((Message.NO_NFTABLES, LACKING.format(why=why)),)
    reachable = first_address(interface) if fenced else None
    if config.pact.timeout and not reachable:
        text = f"no pact: {interface} has no address of its own" if fenced else "no pact without nf_tables"
        warnings += ((Message.NO_PACT, f"{text}; a machine that loses power is noticed when its lease ends"),)
    endpoints = nearest_first(config.etcd.endpoints, own)
    groups = {
        vip.name: _group(config, vip, clock, journal, endpoints, reachable, kernel if fenced else None)
        for vip in config.for_interface(interface)
    }
    node = NodeStatus(version("govipd"), config.election.member, interface, groups=())
    services = dict(_services(config, interface, clock, journal, kernel))
    if config.election.member == name():
        services["name",] = partial(NameService, name)
    return Plan(node, groups, sources, services, warnings)


def _services(
    config: Config, interface: str, clock: Clock, journal: Journal, kernel: NfTables
) -> Mapping[Hashable, Callable[[Operator], Service]]:
    """What runs beside the groups, as configured. What is off is not imported."""
    services: dict[Hashable, Callable[[Operator], Service]] = {}
    control = _beside("RUNTIME_DIRECTORY", "control")
    if control:
        services["control", control] = lambda operator: ControlSocket(
            path=control, operator=operator, journal=journal, version=version("govipd")
        )
    interfaces = list(dict.fromkeys(vip.interface for vip in config.vip))
    if address := config.metrics.address(interfaces.index(interface)):
        from govipd.adapters.metrics import Metrics  # noqa: PLC0415  # only where it is wanted
        from govipd.adapters.scrape import ScrapeServer  # noqa: PLC0415

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
    """A daemon that hangs must be replaced while its lease runs (docs/adr/0003).

    Raises:
        ConfigError: the unit's watchdog leaves too little time for that.
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


def _group(
    config: Config,
    vip: Vip,
    clock: Clock,
    journal: Journal,
    endpoints: Sequence[str],
    reachable: IPv4Address | IPv6Address | None,
    kernel: NfTables | None,
) -> GroupPlan:
    """One VIP group, and how to make its parts.

    `reachable`: where others can send datagrams. `kernel`: for the fences of this process; None: there is only the
    addresses' lifetime.
    """
    fenced = kernel is not None
    election = config.election
    places = (config.etcd.prefix, config.etcd.claims)
    identity = (places, config.pact, election.ttl, election.member, fenced, vip.election, vip.interface)
    port = config.pact.port + config.vip.index(vip)
    own = reachable if config.pact.timeout else None
    access = etcd_access(config, endpoints)
    settings = config.settings()
    if not fenced:
        margin = max(settings.margin, least_margin(election.ttl, "address"))
        settings = replace(settings, margin=margin, fenced=False)

    def make(sink: Sink) -> Parts:
        timeline = Timeline(clock)

        def announced(frames: int) -> None:
            timeline.mark("announced")
            sink(Announced(frames))

        addresses = KernelAddresses(interface=vip.interface, addresses=vip.addresses, clock=clock, fenced=fenced)
        fence: Fence = AddressFence(addresses)
        if kernel is not None:
            fence = NftFence(
                addresses=vip.addresses,
                clock=clock,
                table=fence_table(vip.interface, vip.name),
                kernel=kernel,
                interface=vip.interface,
                mac=addresses.mac,
            )
        cluster = ClusterFile(_beside("STATE_DIRECTORY", "cluster"), access.endpoints)
        store = Etcd(
            access.endpoints,
            etcd_timeout(config),
            access.tls,
            access.login,
            failed=lambda endpoint, kind: sink(EtcdFailed(endpoint, kind)),
            noticed=lambda text: journal.write(
                Message.ANOTHER_CLUSTER, f"{vip.name}: {text}", {"GOVIP_VIP": vip.name, "GOVIP_DETAIL": text}
            ),
            believed=Believed(cluster.load(), election.ttl, cluster.save),
            now=clock.now,
        )
        keys = GroupKeys(vip.election, vip.name, config.etcd.prefix, config.etcd.claims)
        claims = Claims(keys, vip.addresses)
        configured = [other.name for other in config.for_interface(vip.interface)]
        membership = Membership(
            store=store,
            sink=sink,
            prefix=keys.records,
            member=config.election.member,
            leases=LeaseFile(_directory("RUNTIME_DIRECTORY"), vip.name, configured),
            identity=machine_identity(vip.interface) | ({"pact": f"{own}:{port}"} if own else {}),
        )
        candidacy = EtcdElection(
            store=store,
            sink=sink,
            clock=clock,
            keys=keys,
            member=config.election.member,
            claims=claims,
            ttl=config.election.ttl,
            membership=membership,
            timeline=timeline,
            postbox=lambda: UdpPostbox(reachable),
        )
        pact: Pact = NoPact()
        if own:
            pact = EtcdPact(
                store=store,
                sink=sink,
                clock=clock,
                datagrams=UdpPort(
                    (str(own), port), lambda text: journal.write(Message.NO_PACT, f"{vip.name}: no pact: {text}", {})
                ),
                timeout=config.pact.timeout,
                keys=keys,
                claims=claims,
                place=candidacy.place,
                taken=candidacy.verify,
            )
        return Parts(
            election=candidacy,
            fence=fence,
            addresses=addresses,
            announcer=FrameAnnouncer(
                interface=vip.interface,
                addresses=vip.addresses,
                mac=addresses.mac,
                clock=clock,
                sent=announced,
            ),
            neighbours=LinkNeighbours(
                addresses=vip.addresses,
                sink=sink,
                clock=clock,
                members=membership.macs,
                ear=lambda: PacketEar(vip.interface),
            ),
            monitor=NetlinkMonitor(interface=vip.interface, addresses=vip.addresses, sink=sink, clock=clock),
            memory=HandoffFile(
                path=_beside("RUNTIME_DIRECTORY", f"{vip.name}.json"), identity=repr(identity[2:]), clock=clock
            ),
            pact=pact,
            timeline=timeline,
            drain=DrainFile(_beside("STATE_DIRECTORY", f"{vip.name}.drained")),
            reach=store.reconfigure,
        )

    return GroupPlan(vip.name, identity, vip.addresses, settings, make, access)


def _beside(variable: str, name: str) -> Path | None:
    """A file in one of the unit's directories, of which systemd tells by environment variables (systemd.exec(5))."""
    directory = _directory(variable)
    return directory and directory / name


def _directory(variable: str) -> Path | None:
    """One of the unit's directories; None where systemd made none."""
    directory = os.environ.get(variable, "").partition(":")[0]
    return Path(directory) if directory else None


def fence_table(interface: str, group: str) -> str:
    """The name of a VIP group's nf_tables tables: letters, digits and underscores, one for each group."""
    return fence_prefix(interface) + _plain(group)


def fence_prefix(interface: str) -> str:
    """What the names of an interface's tables begin with, and no other's: quoted, nothing has two `_` in a row."""
    return f"govipd_{_plain(interface)}__"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", lambda c: "".join(f"_{byte:02x}" for byte in c[0].encode()), name)


def nearest_first(endpoints: Sequence[str], own: Collection[IPv4Address | IPv6Address]) -> Sequence[str]:
    """This machine's own member of etcd before the others: it does not go with another machine that dies."""
    here = {"localhost", "127.0.0.1", "::1", *map(str, own)}
    return sorted(endpoints, key=lambda endpoint: urlsplit(endpoint).hostname not in here)


def etcd_access(config: Config, endpoints: Sequence[str] = ()) -> Access:
    """How etcd is reached as configured, or by these endpoints only."""
    etcd = config.etcd
    ca, cert, key = (Path(p) if p else None for p in (etcd.ca, etcd.cert, etcd.key))
    login = Login(etcd.user, Path(etcd.password_file)) if etcd.user and etcd.password_file else None
    return Access(tuple(endpoints or etcd.endpoints), Tls(ca, cert, key), login)


def etcd_timeout(config: Config) -> float:
    """A call may take as long as the pause between two renewals, in seconds."""
    return config.election.ttl / RENEWALS_PER_TTL


def etcd_client(config: Config, endpoints: Sequence[str] = (), timeout: float | None = None) -> Etcd:
    """A client for one question, or a few."""
    access = etcd_access(config, endpoints)
    return Etcd(access.endpoints, timeout or etcd_timeout(config), access.tls, access.login)


def machine_identity(interface: str) -> dict[str, str]:
    """What tells this machine from another of the same member name, and where people find it."""
    try:
        machine = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        machine = socket.gethostname().encode()
    return {
        "machine": hmac.new(machine, _MACHINE_SALT, hashlib.sha256).hexdigest()[:32],
        "interface": interface,
        "node": ", ".join(sorted(str(a) for a in local_addresses() if not a.is_loopback and not a.is_link_local)),
        "version": version("govipd"),
    }


def local_addresses(interface: str = "") -> tuple[IPv4Address | IPv6Address, ...]:
    """This host's own addresses, or one interface's; not those with a preferred lifetime of 0, as a held VIP has."""
    try:
        command = ["ip", "-json", "address", "show", *(("dev", interface) if interface else ())]
        reply = subprocess.run(command, capture_output=True, timeout=2.0, check=True)
        links = json.loads(reply.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()  # what is made of them is a courtesy; everything else works without it
    return tuple(
        ip_address(info["local"])
        for link in links
        for info in link.get("addr_info", [])
        if "local" in info and info.get("preferred_life_time") != 0
    )


def first_address(interface: str) -> IPv4Address | IPv6Address | None:
    """Where an interface's process can be reached by others of its network."""
    usable = [a for a in local_addresses(interface) if not a.is_link_local]
    return min(usable, key=lambda a: a.version, default=None)
