"""A member's name and record, and the leases of its machine's earlier processes, on a real etcd."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path

from govipd.adapters.election.claimant import REREAD_S
from govipd.adapters.election.membership import LOOK_S
from govipd.core.events import (
    ClusterFault,
    Elected,
    LeaseLost,
    LeaseRenewed,
    Queued,
)
from tests.adapters.etcd_cluster import Cluster
from tests.adapters.member import Member, running


async def test_a_taken_member_name_is_refused_until_it_is_free(etcd: Cluster) -> None:
    """Another machine has our name: ClusterFault names its address; when it has gone, the fault goes."""
    first = Member(etcd.endpoints, "a", machine="one")
    second = Member(etcd.endpoints, "a", machine="two")
    async with AsyncExitStack() as stack:
        async with running(first):
            while not etcd.ctl("get", "--prefix", "govip/members/"):
                await asyncio.sleep(0.05)
            await stack.enter_async_context(running(second))
            fault = await second.sees(ClusterFault)
            assert isinstance(fault, ClusterFault)
            assert "a is taken by 192.0.2.1" in fault.refused
        await second.until(lambda e: isinstance(e, ClusterFault) and not e.refused)


async def test_members_that_disagree_on_the_addresses_are_reported(etcd: Cluster) -> None:
    """Both members learn that their addresses differ."""
    a = Member(etcd.endpoints, "a", addresses="192.0.2.1/32")
    b = Member(etcd.endpoints, "b", addresses="192.0.2.2/32")
    async with running(a, b):
        told = await asyncio.gather(
            a.until(lambda e: isinstance(e, ClusterFault) and "b has 192.0.2.2/32" in e.warning),
            b.until(lambda e: isinstance(e, ClusterFault) and "a has 192.0.2.1/32" in e.warning),
        )
        assert all(told)


async def test_a_member_at_rest_writes_nothing(etcd: Cluster) -> None:
    """Renewals are no writes, and an unchanged record is not written again; a record that an operator deleted is."""
    a = Member(etcd.endpoints, "a")

    def revision() -> int:
        return int(json.loads(etcd.ctl("get", "x", "-w", "json"))["header"]["revision"])

    async with running(a):
        a.election.campaign(1)
        await a.sees(Elected)
        while not etcd.ctl("get", "--prefix", "govip/members/"):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        before = revision()
        await asyncio.sleep(LOOK_S + REREAD_S)
        assert revision() == before
        etcd.ctl("del", "--prefix", "govip/members/")
        async with asyncio.timeout(20):
            while not etcd.ctl("get", "--prefix", "govip/members/"):
                await asyncio.sleep(0.05)


async def test_a_clone_does_not_take_its_twins_name(etcd: Cluster, tmp_path: Path) -> None:
    """One name, one machine-id; but only the machine whose runtime directory names the lease may have it."""
    twins = [Member(etcd.endpoints, "a", machine="one", runtime=tmp_path / str(i)) for i in range(2)]
    for i in range(2):
        (tmp_path / str(i)).mkdir()
    first, second = twins
    async with running(first):
        first.election.campaign(1)
        await first.sees(Elected)
        async with running(second):
            second.election.campaign(1)
            fault = await second.until(lambda e: isinstance(e, ClusterFault) and bool(e.refused))
            assert isinstance(fault, ClusterFault)
            assert "is taken by 192.0.2.1 or an earlier process of this machine" in fault.refused
            await asyncio.sleep(1.0)
            assert not any(isinstance(e, LeaseLost) for e in first.events)


async def leader_that_dies(etcd: Cluster, runtime: Path) -> int:
    """A process leads, and is killed; its lease."""
    dead = Member(etcd.endpoints, "a", machine="one", runtime=runtime)
    task = asyncio.ensure_future(dead.parts.run())
    dead.election.campaign(1)
    won = await dead.sees(Elected)
    while not etcd.ctl("get", "--prefix", "govip/members/"):
        await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await dead.store.close()
    assert isinstance(won, Elected)
    return won.lease_id


async def test_where_etcd_has_forgotten_an_earlier_lease_nothing_is_taken_for_a_ttl(
    etcd: Cluster, tmp_path: Path
) -> None:
    """etcd's data may be lost; what it confirmed to another machine before may last for a TTL (ADR 27)."""
    lease = await leader_that_dies(etcd, tmp_path)
    etcd.ctl("lease", "revoke", f"{lease:x}")
    alive = Member(etcd.endpoints, "a", machine="one", runtime=tmp_path)
    async with running(alive):
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        alive.election.campaign(1)
        won = await alive.sees(Elected)
        assert isinstance(won, Elected)
        assert won.not_before >= began + 3.0


async def test_a_dead_process_of_this_machine_does_not_hold_up_the_queue(etcd: Cluster, tmp_path: Path) -> None:
    """A killed process leaves its lease and key. The next process revokes the lease before it joins the queue."""
    await leader_that_dies(etcd, tmp_path)
    alive = Member(etcd.endpoints, "a", machine="one", runtime=tmp_path)
    async with running(alive):
        await alive.sees(LeaseRenewed)
        alive.election.campaign(1)
        await alive.sees(Elected)
        assert not any(isinstance(e, Queued) or (isinstance(e, ClusterFault) and e.refused) for e in alive.events)
