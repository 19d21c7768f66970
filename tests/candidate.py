"""An election as the product composes it, for the tests that need one without a daemon."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path

from govipd.adapters.datagrams import UdpSocket
from govipd.adapters.election.claims import Claims
from govipd.adapters.election.election import EtcdElection
from govipd.adapters.election.lease_files import LeaseFile
from govipd.adapters.election.membership import Membership
from govipd.adapters.etcd.api import Store
from govipd.keys import GroupKeys
from govipd.runtime.ports import Clock, Sink
from govipd.runtime.step_timing import StepTimings


@dataclass(frozen=True, slots=True)
class Candidate:
    """One member of one group."""

    election: EtcdElection
    membership: Membership
    claims: Claims
    keys: GroupKeys


def candidate(
    store: Store,
    sink: Sink,
    clock: Clock,
    member: str,
    *,
    vip: str = "api",
    election: str = "",
    prefix: str = "govip/",
    ttl: float = 3.0,
    identity: Mapping[str, str] | None = None,
    addresses: str = "192.0.2.1/32",
    reachable: IPv4Address | IPv6Address | None = None,
    runtime: Path | None = None,
) -> Candidate:
    """Compose one. `addresses` are divided by blanks; `runtime` is the unit's runtime directory."""
    keys = GroupKeys(election or f"{prefix}election/{vip}", vip, prefix, "govip/claims/")
    membership = Membership(
        store=store,
        sink=sink,
        prefix=keys.records,
        member=member,
        identity={"machine": member} if identity is None else identity,
        leases=LeaseFile(runtime, vip, [vip]),
    )
    claims = Claims(keys, tuple(map(ip_interface, addresses.split())))
    return Candidate(
        EtcdElection(
            store=store,
            sink=sink,
            clock=clock,
            keys=keys,
            member=member,
            claims=claims,
            ttl=ttl,
            membership=membership,
            timings=StepTimings(clock),
            udp_socket=lambda: UdpSocket(reachable),
        ),
        membership,
        claims,
        keys,
    )
