"""What `govipd.cli` composes, of a modelled machine's parts."""

from functools import partial
from typing import TYPE_CHECKING

from govipd.adapters.announce import FrameAnnouncer
from govipd.adapters.claims import Claims
from govipd.adapters.election import EtcdElection
from govipd.adapters.etcd_cluster import Believed
from govipd.adapters.fence import NftFence
from govipd.adapters.keys import GroupKeys
from govipd.adapters.membership import Membership
from govipd.adapters.neighbours import LinkNeighbours
from govipd.adapters.netlink import KernelAddresses, NetlinkMonitor
from govipd.adapters.pact import EtcdPact, NoPact
from govipd.adapters.session import RENEWALS_PER_TTL
from govipd.cli import fence_table, orphan_fences
from govipd.core.events import EtcdFailed
from govipd.core.status import NodeStatus
from govipd.daemon import Plan
from govipd.errors import ConfigError
from govipd.group import GroupPlan, Parts
from govipd.ports import Pact, Sink
from govipd.timeline import Timeline
from tests.sim import adapters as sim
from tests.sim.client import SimStore
from tests.sim.clockwork import Process
from tests.sim.files import File, Group

if TYPE_CHECKING:
    from tests.sim.machine import Machine

CLAIMS = "govip/claims/"
TTL = 3.0
PROBE_S = 0.5


def plan(machine: "Machine", process: Process) -> Plan:
    """What the configuration says.

    Raises:
        ConfigError: it is not readable.
    """
    if machine.file_is_bad:
        raise ConfigError("govip.toml: not TOML")
    file = machine.file
    groups = {
        group.name: GroupPlan(
            group.name,
            (file.prefix, group.election),
            group.addresses,
            machine.settings,
            partial(_parts, machine, process, file, group),
        )
        for group in file.groups
    }
    sources = {
        "probe": lambda sink: sim.SimProbe(machine.proxy, sink, PROBE_S),
        "unit": lambda sink: sim.SimUnit(machine.proxy, sink, machine.proxy_changed, process),
    }
    node = NodeStatus("", machine.member, sim.INTERFACE, groups=())
    return Plan(node, groups, sources)  # type: ignore[arg-type]  # lambdas of two kinds of Source


def _parts(machine: "Machine", process: Process, file: File, group: Group, sink: Sink) -> Parts:
    name, prefix = group.name, file.prefix
    port = sim.PACT_PORT + file.groups.index(group)
    addresses = KernelAddresses(
        interface=sim.INTERFACE,
        addresses=group.addresses,
        clock=process,
        fenced=True,
        route=sim.SimRoute(process, machine.kernel, machine.random, machine.index),
    )
    fence = NftFence(
        addresses=group.addresses,
        clock=process,
        table=fence_table(sim.INTERFACE, name),
        kernel=machine.nftables(process),
    )
    store = SimStore(
        process=process,
        host=machine.index,
        cluster=machine.cluster,
        network=machine.network,
        random=machine.random,
        timeout=TTL / RENEWALS_PER_TTL,
        failed=lambda endpoint, kind: sink(EtcdFailed(endpoint, kind)),
        believed=Believed(machine.known_cluster, TTL, lambda known: setattr(machine, "known_cluster", known)),
    )
    machine.stores.append(store)
    keys = GroupKeys(group.election, name, prefix, CLAIMS)
    claims = Claims(keys, group.addresses)
    membership = Membership(
        store=store,
        sink=sink,
        prefix=keys.records,
        member=machine.member,
        leases=sim.SimLeases(machine.directory, name, [group.name for group in file.groups]),
        identity={"machine": machine.member, "node": machine.name, "pact": f"{machine.index}:{port}"},
    )
    kernels = {other.index: other.kernel for other in machine.oracle.machines}
    timeline = Timeline(process)
    election = EtcdElection(
        store=store,
        sink=sink,
        clock=process,
        keys=keys,
        member=machine.member,
        claims=claims,
        ttl=TTL,
        membership=membership,
        timeline=timeline,
        postbox=lambda: sim.SimPostbox(process, machine.index, machine.network, next(machine.postboxes)),
        token=machine.random.randbytes,
    )
    pact: Pact = NoPact()
    if machine.pact:
        pact = EtcdPact(
            store=store,
            sink=sink,
            clock=process,
            datagrams=sim.SimDatagrams(process, machine.index, machine.network, port),
            timeout=machine.pact,
            keys=keys,
            claims=claims,
            place=election.place,
            taken=election.verify,
            token=machine.random.randbytes,
        )
    return Parts(
        election=election,
        fence=fence,
        addresses=addresses,
        announcer=FrameAnnouncer(
            interface=sim.INTERFACE,
            addresses=group.addresses,
            mac=addresses.mac,
            clock=process,
            transmit=lambda _, frames: process.do(machine.oracle.announced, machine, sim.announced(frames)),
        ),
        monitor=NetlinkMonitor(
            interface=sim.INTERFACE,
            addresses=group.addresses,
            sink=sink,
            clock=process,
            route=sim.SimRoute(process, machine.kernel, machine.random, machine.index),
            listen=lambda: sim.SimEvents(process, machine.kernel, machine.random),
        ),
        neighbours=LinkNeighbours(
            addresses=group.addresses,
            sink=sink,
            clock=process,
            members=membership.macs,
            ear=lambda: sim.SimEar(process, machine.world, machine.index, kernels, machine.network, machine.random),
        ),
        memory=sim.SimMemory(machine.directory, process, name, group.election),
        drain=machine.drain_mark(name),
        pact=pact,
        timeline=timeline,
    )


async def clear_fences(machine: "Machine", process: Process, configured: Plan) -> None:
    """What `govipd.cli` does about fences that no group owns.

    Raises:
        KernelError: the kernel refused.
    """
    route = sim.SimRoute(process, machine.kernel, machine.random, machine.index)
    for line in await orphan_fences(sim.INTERFACE, configured, machine.nftables(process), route):
        machine.world.note(machine.name, line)
    for name in machine.directory.holdings.keys() - configured.groups.keys():  # as cli.forget_orphans
        del machine.directory.holdings[name]
