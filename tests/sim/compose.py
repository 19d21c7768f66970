"""What `govipd.cli` composes, of a modelled machine's parts."""

import itertools
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from govipd.adapters.announce import FrameAnnouncer
from govipd.adapters.election import RENEWALS_PER_TTL, EtcdElection
from govipd.adapters.fence import NftFence
from govipd.adapters.membership import Membership
from govipd.adapters.neighbours import LinkNeighbours
from govipd.adapters.netlink import KernelAddresses, NetlinkMonitor
from govipd.adapters.pact import EtcdPact, NoPact
from govipd.core.events import Address, EtcdFailed
from govipd.core.status import NodeStatus
from govipd.daemon import Plan
from govipd.errors import ConfigError
from govipd.group import GroupPlan, Parts
from govipd.ports import Pact, Sink
from govipd.timeline import Timeline
from tests.sim import adapters as sim
from tests.sim.client import SimStore
from tests.sim.clockwork import Process

if TYPE_CHECKING:
    from tests.sim.machine import Machine

VIP: Address = ip_interface("192.0.2.100/32")
SECOND: Address = ip_interface("192.0.2.101/32")  # a reload adds it
TWIN: Address = ip_interface("192.0.2.100/24")  # somebody adds it
ELECTION = "api"
PREFIX = "govip/"
TTL = 3.0
PROBE_S = 0.5


def plan(machine: "Machine", process: Process) -> Plan:
    """What the configuration says.

    Raises:
        ConfigError: it is not readable.
    """
    if machine.file_is_bad:
        raise ConfigError("govip.toml: not TOML")
    group = GroupPlan(
        ELECTION, "identity", machine.addresses, machine.settings, lambda sink: _parts(machine, process, sink)
    )
    sources = {
        "probe": lambda sink: sim.SimProbe(machine.proxy, sink, PROBE_S),
        "unit": lambda sink: sim.SimUnit(machine.proxy, sink, machine.proxy_changed, process),
    }
    node = NodeStatus("", machine.name, sim.INTERFACE, groups=())
    return Plan(node, {ELECTION: group}, sources)  # type: ignore[arg-type]  # lambdas of two kinds of Source


def _parts(machine: "Machine", process: Process, sink: Sink) -> Parts:
    addresses = KernelAddresses(
        interface=sim.INTERFACE,
        addresses=machine.addresses,
        clock=process,
        fenced=True,
        route=sim.SimRoute(process, machine.kernel, machine.random, machine.index),
    )
    fence = NftFence(
        addresses=machine.addresses,
        clock=process,
        table="govipd",
        kernel=sim.SimNfTables(process, machine.kernel, lambda: _lost_processor(machine)),
    )
    machine.store = SimStore(
        process=process,
        host=machine.index,
        cluster=machine.cluster,
        network=machine.network,
        random=machine.random,
        timeout=TTL / RENEWALS_PER_TTL,
        failed=lambda endpoint, kind: sink(EtcdFailed(endpoint, kind)),
    )
    membership = Membership(
        store=machine.store,
        sink=sink,
        prefix=f"{PREFIX}members/{ELECTION}/",
        member=machine.name,
        identity={"machine": machine.name, "node": machine.name, "pact": f"{machine.index}:{sim.PACT_PORT}"},
    )
    kernels = {other.index: other.kernel for other in machine.oracle.machines}
    timeline = Timeline(process)
    ports = itertools.count(sim.PACT_PORT + 1)
    election = EtcdElection(
        store=machine.store,
        sink=sink,
        clock=process,
        name=ELECTION,
        member=machine.name,
        mark=f"{PREFIX}released/{ELECTION}",
        pacts=f"{PREFIX}pact/{ELECTION}/",
        ttl=TTL,
        membership=membership,
        timeline=timeline,
        notes=f"{PREFIX}passing/{ELECTION}/",
        postbox=lambda: sim.SimPostbox(process, machine.index, machine.network, next(ports)),
        token=machine.random.randbytes,
    )
    machine.elections.append(election)
    pact: Pact = NoPact()
    if machine.pact:
        pact = EtcdPact(
            store=machine.store,
            sink=sink,
            clock=process,
            datagrams=sim.SimDatagrams(process, machine.index, machine.network),
            timeout=machine.pact,
            queue=f"{ELECTION}/",
            records=f"{PREFIX}members/{ELECTION}/",
            prefix=f"{PREFIX}pact/{ELECTION}/",
            mark=f"{PREFIX}released/{ELECTION}",
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
            addresses=machine.addresses,
            mac=addresses.mac,
            clock=process,
            transmit=lambda *_: process.do(machine.oracle.announced, machine),
        ),
        monitor=NetlinkMonitor(
            interface=sim.INTERFACE,
            addresses=machine.addresses,
            sink=sink,
            clock=process,
            route=sim.SimRoute(process, machine.kernel, machine.random, machine.index),
            listen=lambda: sim.SimEvents(process, machine.kernel, machine.random),
        ),
        neighbours=LinkNeighbours(
            addresses=machine.addresses,
            sink=sink,
            clock=process,
            members=membership.macs,
            ear=lambda: sim.SimEar(process, machine.world, machine.index, kernels, machine.network, machine.random),
        ),
        memory=sim.SimMemory(machine.directory, process),
        drain=machine.drain_mark,
        pact=pact,
        timeline=timeline,
    )


def _lost_processor(machine: "Machine") -> float:
    """Seconds by which a transaction is late."""
    if not machine.lost_processor or machine.random.random() < 0.5:
        return 0.0
    return machine.random.random() * machine.lost_processor
