"""Composes a VIP group from its parts.

The parts use their machine only through a `Host`. `govipd.plan` makes the Host of this machine; the simulation makes a
Host for each modelled machine. So the simulation runs the same composition as the product.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from govipd.adapters.election.claims import Claims
from govipd.adapters.election.election import EtcdElection
from govipd.adapters.election.membership import Membership
from govipd.adapters.election.session import EtcdSession
from govipd.adapters.etcd.api import Store
from govipd.adapters.etcd.cluster import Believed
from govipd.adapters.etcd.connection import Access
from govipd.adapters.kernel.address_fence import AddressFence
from govipd.adapters.kernel.addresses import KernelAddresses
from govipd.adapters.kernel.announce import FrameAnnouncer
from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.instance import InstanceAdapters
from govipd.adapters.kernel.neighbours import Ear, LinkNeighbours
from govipd.adapters.pact.pact import EtcdPact, NoPact
from govipd.config.model import Config, VipConfig
from govipd.config.rules import least_margin
from govipd.core.events import Announced, EtcdFailed
from govipd.core.journal_kinds import JournalKind
from govipd.etcd_access import etcd_access, etcd_timeout
from govipd.keys import GroupKeys
from govipd.runtime.parts import GroupPlan, Parts, SessionPlan
from govipd.runtime.ports import (
    Clock,
    Datagrams,
    DrainMark,
    Fence,
    Leases,
    Pact,
    RestartStateStore,
    Sink,
    TemporaryUdpSocket,
)
from govipd.runtime.process_ports import Journal
from govipd.runtime.step_timing import StepTimings


class StoreFactory(Protocol):
    """Makes a process's etcd client."""

    def __call__(
        self,
        access: Access,
        *,
        timeout: float,
        failed: Callable[[str, str], None],
        noticed: Callable[[str], None],
        believed: Believed,
    ) -> tuple[Store, Callable[[Access], None]]:
        """Make the client, and a function that gives the client a new access."""


class KnownCluster(Protocol):
    """Keeps the id of the believed etcd cluster (adapters.etcd.cluster.ClusterFile)."""

    def load(self) -> int:
        """The id that was kept; adapters.etcd.cluster.UNKNOWN where there is none."""

    def save(self, cluster: int) -> None:
        """Keep this id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the parts of a VIP group need of their machine.

    Attributes:
        clock: CLOCK_BOOTTIME.
        journal: where adapters write.
        identity: this machine's identity, for an interface (host.machine_identity).
        kernel: the kernel adapters of the instance.
        fenced: whether nf_tables is the fence; else the addresses' lifetime is the only fence.
        reachable: the address to which others can send datagrams; None: there is none.
        store: makes an etcd client.
        cluster: makes the keeper of the believed cluster's id, for these endpoints.
        leases: makes the list of this machine's leases.
        restart_state: makes the store of the restart state, for a group's name and an identity.
        drain: makes the drain of a group.
        udp_socket: makes a temporary UDP socket.
        datagrams: makes a UDP port; its second argument is called when the port is not available.
        ear: makes the Ear of an interface.
        token: makes a secret of that many bytes.
    """

    clock: Clock
    journal: Journal
    identity: Callable[[str], Mapping[str, str]]
    kernel: InstanceAdapters
    fenced: bool
    reachable: IPv4Address | IPv6Address | str | None
    store: StoreFactory
    cluster: Callable[[Sequence[str]], KnownCluster]
    leases: Callable[[], Leases]
    restart_state: Callable[[str, str], RestartStateStore]
    drain: Callable[[str], DrainMark]
    udp_socket: Callable[[], TemporaryUdpSocket]
    datagrams: Callable[[int, Callable[[str], None]], Datagrams]
    ear: Callable[[str], Ear]
    token: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Identity:
    """The settings of a VIP group that a reload cannot change in place: the group is released and started anew.

    Attributes:
        keys: where the group's keys are. The next process may adopt the VIP even if they differ.
        holding: the settings that must be equal for the next process to adopt the VIP.
    """

    keys: tuple[Hashable, ...] = field()
    holding: tuple[Hashable, ...] = field()


def session_plan(config: Config, host: Host, endpoints: Sequence[str]) -> SessionPlan:
    """The plan of the process's session in etcd."""
    access = etcd_access(config, endpoints)
    make = partial(_session, config, host, access)
    return SessionPlan((config.election.ttl, config.election.member), make, access)


def _session(config: Config, host: Host, access: Access) -> EtcdSession:
    session: EtcdSession

    cluster = host.cluster(access.endpoints)
    store, reach = host.store(
        access,
        timeout=etcd_timeout(config),
        failed=lambda endpoint, kind: session.tell(EtcdFailed(endpoint, kind)),
        noticed=lambda text: host.journal.write(JournalKind.ANOTHER_CLUSTER, text, {"GOVIP_DETAIL": text}),
        believed=Believed(cluster.load(), config.election.ttl, cluster.save),
    )
    session = EtcdSession(store=store, clock=host.clock, ttl=config.election.ttl, leases=host.leases(), reach=reach)
    return session


def group_plan(config: Config, vip: VipConfig, host: Host) -> GroupPlan:
    """The plan of one VIP group, with the function that makes its parts."""
    election = config.election
    identity = Identity(
        keys=(config.etcd.prefix, config.etcd.claims, config.pact),
        holding=(election.ttl, election.member, host.fenced, vip.election, *vip.placement.identity),
    )
    settings = config.settings()
    if not host.fenced:
        margin = max(settings.margin, least_margin(election.ttl, "address"))
        settings = replace(settings, margin=margin, fenced=False)
    return GroupPlan(
        vip.name, vip.election, identity, vip.addresses, settings, partial(_parts, config, vip, host, identity)
    )


def _parts(config: Config, vip: VipConfig, host: Host, identity: Identity, sink: Sink, session: EtcdSession) -> Parts:
    clock, member, placement, kernel = host.clock, config.election.member, vip.placement, host.kernel
    timings = StepTimings(clock)

    def announced(frames: int) -> None:
        timings.mark("announced")
        sink(Announced(frames))

    def report(kind: JournalKind, text: str) -> None:
        host.journal.write(kind, f"{vip.name}: {text}", {"GOVIP_VIP": vip.name, "GOVIP_DETAIL": text})

    nft: NftFence | None = None
    if host.fenced:
        nft = NftFence(
            addresses=vip.addresses, clock=clock, tables=kernel.tables, placement=placement
        )  # fmt: skip
    addresses = KernelAddresses(
        placement=placement,
        addresses=vip.addresses,
        clock=clock,
        fenced=host.fenced,
        route=kernel.route,
        present=kernel.present,
        spared=partial(kernel.tables.used_elsewhere, nft) if nft else tuple,
    )
    fence: Fence = nft or AddressFence(addresses)
    keys = GroupKeys(vip.election, vip.name, config.etcd.prefix, config.etcd.claims)
    claims = Claims(keys, vip.addresses)
    port = config.pact.port + config.vip.index(vip)
    own = host.reachable if config.pact.timeout else None
    membership = Membership(
        session=session,
        sink=sink,
        prefix=keys.records,
        member=member,
        identity={**host.identity(vip.interface), **({"pact": f"{own}:{port}"} if own else {})},
    )
    candidacy = EtcdElection(
        session=session,
        sink=sink,
        clock=clock,
        keys=keys,
        member=member,
        claims=claims,
        membership=membership,
        timings=timings,
        udp_socket=host.udp_socket,
        token=host.token,
    )
    pact: Pact = NoPact()
    if own:
        pact = EtcdPact(
            store=session.store,
            sink=sink,
            clock=clock,
            datagrams=host.datagrams(port, lambda text: report(JournalKind.NO_PACT, f"no pact: {text}")),
            timeout=config.pact.timeout,
            keys=keys,
            claims=claims,
            own_key=candidacy.own_key,
            queue_changed=candidacy.verify,
            token=host.token,
        )
    return Parts(
        election=candidacy,
        fence=fence,
        addresses=addresses,
        announcer=FrameAnnouncer(
            placement=placement,
            addresses=vip.addresses,
            mac=kernel.route.mac,
            clock=clock,
            transmit=kernel.transmit,
            router=kernel.route.forwards_ipv6,
            sent=announced,
        ),
        monitor=kernel.monitor.watch(placement, vip.addresses, sink),
        neighbours=LinkNeighbours(
            placement=placement,
            addresses=vip.addresses,
            sink=sink,
            clock=clock,
            members=membership.macs,
            ear=host.ear,
        ),
        restart_state=host.restart_state(vip.name, repr(identity.holding)),
        drain=host.drain(vip.name),
        pact=pact,
        timings=timings,
    )
