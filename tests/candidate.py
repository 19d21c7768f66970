"""An election as the product composes it, for the tests that need one without a daemon."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path

from govipd.adapters.datagrams import UdpSocket
from govipd.adapters.election.claims import Claims
from govipd.adapters.election.election import EtcdElection
from govipd.adapters.election.lease_file import LeaseFile
from govipd.adapters.election.membership import Membership
from govipd.adapters.election.session import EtcdSession
from govipd.adapters.etcd.api import Store
from govipd.keys import GroupKeys
from govipd.runtime.ports import Clock, Sink
from govipd.runtime.step_timing import StepTimings


@dataclass(frozen=True, slots=True)
class Candidate:
    """One member of one group. The first group of a process keeps the session, too."""

    session: EtcdSession
    first: bool
    election: EtcdElection
    membership: Membership
    claims: Claims
    keys: GroupKeys

    async def run(self) -> None:
        """Keep the candidacy, and the session of the first group, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self.first:
                tasks.create_task(self.session.run())
            tasks.create_task(self.election.run())

    async def close(self) -> None:
        """End the candidacy. The first group gives the lease back."""
        self.election.close()
        if self.first:
            await self.session.close()


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
    beside: Candidate | None = None,
) -> Candidate:
    """Compose one whose kernel is silent. `addresses` are divided by blanks; `runtime` is the runtime directory.

    `beside`: another group of the same process.
    """
    keys = GroupKeys(election or f"{prefix}election/{vip}", vip, prefix, "govip/claims/")
    session = beside.session if beside else EtcdSession(store=store, clock=clock, ttl=ttl, leases=LeaseFile(runtime))
    membership = Membership(
        session=session,
        sink=sink,
        prefix=keys.records,
        member=member,
        identity={"machine": member} if identity is None else identity,
    )
    claims = Claims(keys, tuple(map(ip_interface, addresses.split())))
    candidacy = EtcdElection(
        session=session,
        sink=sink,
        clock=clock,
        keys=keys,
        member=member,
        claims=claims,
        membership=membership,
        timings=StepTimings(clock),
        udp_socket=lambda: UdpSocket(reachable),
    )
    candidacy.silenced()
    return Candidate(
        session,
        beside is None,
        candidacy,
        membership,
        claims,
        keys,
    )
