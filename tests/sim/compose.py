"""A modelled machine as the Host of the product's composition, and its file as a configuration."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from govipd.adapters.etcd.api import Store
from govipd.adapters.etcd.connection import Access
from govipd.compose import Host, group_plan, session_plan
from govipd.config.model import (
    Config,
    ElectionConfig,
    EtcdConfig,
    HealthConfig,
    HooksConfig,
    MetricsConfig,
    PactConfig,
    VipConfig,
)
from govipd.core.status import NodeStatus
from govipd.errors import ConfigError
from govipd.leftovers import orphan_fences
from govipd.runtime.parts import Plan
from tests.sim import adapters as sim
from tests.sim.client import SimStore
from tests.sim.clockwork import Process
from tests.sim.files import CLAIMS, File
from tests.sim.kernel import INTERFACE, SECOND, interface_of

if TYPE_CHECKING:
    from tests.sim.machine import Machine

TTL = 3.0
PROBE_S = 0.5


def plan(machine: "Machine", process: Process) -> Plan:
    """The plan of the machine's present file.

    Raises:
        ConfigError: it is not readable.
    """
    if machine.file_is_bad:
        raise ConfigError("govip.toml: not TOML")
    config, host = _config(machine, machine.file), _host(machine, process)
    sources = {
        "probe": lambda sink: sim.SimProbe(machine.proxy, sink, PROBE_S),
        "unit": lambda sink: sim.SimUnit(machine.proxy, sink, machine.proxy_changed, process),
        "link": lambda _: host.kernel.monitor,
    }
    groups = {vip.name: group_plan(config, vip, host) for vip in config.vip}
    node = NodeStatus("", machine.member, INTERFACE, groups=())
    return Plan(node, session_plan(config, host, ()), groups, sources)  # type: ignore[arg-type]  # lambdas of two kinds of Source


def _config(machine: "Machine", file: File) -> Config:
    return Config(
        path="govip.toml",
        etcd=EtcdConfig(prefix=file.prefix, claims=CLAIMS),
        election=ElectionConfig(ttl=TTL, margin=machine.margin, member=machine.member),
        health=HealthConfig(flap_wait=0.5, flap_wait_max=2.0),
        pact=PactConfig(timeout=machine.pact, port=sim.PACT_PORT),
        metrics=MetricsConfig(),
        hooks=HooksConfig(),
        vip=tuple(
            VipConfig(
                name=group.name,
                interface=INTERFACE,
                addresses=group.addresses,
                election=group.election,
                others=tuple((a.ip, SECOND) for a in group.addresses if interface_of(a.ip) == SECOND),
            )
            for group in file.groups
        ),
    )


class SimKnownCluster:
    """The id of the believed etcd cluster, in the state directory, which outlives a boot (compose.KnownCluster)."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine

    def load(self) -> int:
        """See KnownCluster."""
        return self._machine.known_cluster

    def save(self, cluster: int) -> None:
        """See KnownCluster."""
        self._machine.known_cluster = cluster


def _host(machine: "Machine", process: Process) -> Host:
    kernels = {other.index: other.kernel for other in machine.oracle.machines}

    def store(access: Access, **options: Any) -> tuple[Store, Callable[[Access], None]]:
        del access, options["noticed"]  # endpoints are not modelled
        client = SimStore(
            process=process,
            host=machine.index,
            cluster=machine.cluster,
            network=machine.network,
            random=machine.random,
            **options,
        )
        machine.stores.append(client)
        return client, lambda _: None

    return Host(
        clock=process,
        journal=sim.SimJournal(machine.world, machine.name),
        identity=lambda _: {"machine": machine.member, "node": machine.name},
        kernel=machine.instance_adapters(process),
        fenced=True,
        reachable=str(machine.index),
        store=store,
        cluster=lambda _: SimKnownCluster(machine),
        leases=lambda: sim.SimLeases(machine.directory),
        restart_state=lambda name, identity: sim.SimMemory(machine.directory, process, name, identity),
        drain=machine.drain_mark,
        udp_socket=lambda: sim.SimPostbox(process, machine.index, machine.network, next(machine.postboxes)),
        datagrams=lambda port, _: sim.SimDatagrams(process, machine.index, machine.network, port),
        ear=lambda interface: sim.SimEar(
            process, machine.world, machine.index, kernels, machine.network, machine.random, interface
        ),
        token=machine.random.randbytes,
    )


async def clear_fences(machine: "Machine", process: Process, configured: Plan) -> None:
    """Remove the fences that no group owns, as the product does at its start.

    Raises:
        KernelError: the kernel refused.
    """
    route = machine.route(process)
    for line in await orphan_fences(INTERFACE, configured, machine.nftables(process), route):
        machine.world.note(machine.name, line)
    for name in machine.directory.holdings.keys() - configured.groups.keys():  # as leftovers.forget_orphans
        del machine.directory.holdings[name]
