"""Claims where etcd takes no writes, or shows an earlier state, on a real etcd."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from functools import partial
from ipaddress import ip_interface
from pathlib import Path

import pytest

from govipd.adapters.election.claimant import REREAD_S
from govipd.adapters.election.resignation import LEAVE_S
from govipd.adapters.etcd.api import Compare, Get, Operation, TxnResult
from govipd.adapters.etcd.client import EtcdClient
from govipd.core.events import Deposed, Elected, EtcdState, LeaseLost, LeaseRenewed, Queued, Resigned
from govipd.errors import EtcdRefusedError, EtcdWriteRefusedError
from tests.adapters.claiming import claim, lead
from tests.adapters.etcd_cluster import Cluster
from tests.adapters.member import Member, running

FIRST, SECOND = ip_interface("192.0.2.1/32"), ip_interface("192.0.2.2/32")
BOTH = f"{FIRST} {SECOND}"


async def fill(etcd: Cluster) -> None:
    """Until etcd has no space left: the alarm NOSPACE."""
    for i in range(40):
        await asyncio.to_thread(partial(etcd.ctl, "put", f"junk{i}", "x" * 100_000, check=False))
    assert "NOSPACE" in etcd.ctl("alarm", "list")


class ReadOnly(EtcdClient):
    """A client whose user loses the right to write."""

    refuses = False

    async def revoke(self, lease: int) -> bool:
        if self.refuses:
            raise EtcdRefusedError("etcdserver: permission denied")
        return await super().revoke(lease)

    async def txn(
        self, compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TxnResult:
        if self.refuses and any(not isinstance(op, Get) for op in then):
            raise EtcdWriteRefusedError("etcdserver: permission denied")
        return await super().txn(compare, then, otherwise)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Cluster]:
    """An etcd with little space."""
    with Cluster(tmp_path, extra=["--quota-backend-bytes", str(2 << 20)]).running() as cluster:
        yield cluster


async def test_an_etcd_that_takes_no_writes_lets_its_leader_go(small: Cluster) -> None:
    """Without a mark, so that the next one waits; it holds without a claim, until etcd takes one."""
    a, b = Member(small.endpoints, "a"), Member(small.endpoints, "b")
    async with running(a, b):
        await lead(a)
        b.election.campaign(1)
        await b.sees(Queued)
        await fill(small)
        with pytest.raises(EtcdWriteRefusedError):
            await a.election.check_writes()
        a.election.resign(1)
        async with asyncio.timeout(2):
            await b.sees(Elected)
        async with asyncio.timeout(5):
            await a.until(lambda e: isinstance(e, Resigned | LeaseLost))
        won = next(e for e in b.events if isinstance(e, Elected))
        assert won.not_before > won.proved_at
        assert won.addresses == (FIRST,)
        small.ctl("del", "--prefix", "junk")
        revision = json.loads(small.ctl("endpoint", "status", "-w", "json"))[0]["Status"]["header"]["revision"]
        small.ctl("compact", str(revision))
        small.ctl("defrag")
        small.ctl("alarm", "disarm")
        async with asyncio.timeout(10):
            while claim(small).get("member") != "b":
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.3)
        assert all(e.addresses == (FIRST,) for e in b.events if isinstance(e, Elected)), "held all the while"


async def test_a_role_that_may_not_write_any_more_lets_its_leader_go(etcd: Cluster) -> None:
    """The lease is given back; that needs the right to write its keys, so it may have to end by itself."""
    a = Member(etcd.endpoints, "a", store=ReadOnly)
    async with running(a):
        lease = (await lead(a)).lease_id
        assert isinstance(a.store, ReadOnly)
        a.store.refuses = True
        a.election.resign(1)
        async with asyncio.timeout(12):
            lost = await a.sees(LeaseLost)
        assert isinstance(lost, LeaseLost)
        assert lost.lease_id == lease
        assert await a.sees(Resigned) == Resigned(1)


async def test_a_member_that_etcd_refuses_for_a_moment_leaves_without_the_end_of_its_lease(etcd: Cluster) -> None:
    """Other groups of the process hold their VIPs under the same lease."""
    a = Member(etcd.endpoints, "a", store=ReadOnly)
    async with running(a):
        lease = (await lead(a)).lease_id
        assert isinstance(a.store, ReadOnly)
        a.store.refuses = True
        a.election.resign(1)
        await asyncio.sleep(LEAVE_S / 2)
        a.store.refuses = False
        assert await a.sees(Resigned) == Resigned(1)
        assert not any(isinstance(e, LeaseLost) for e in a.events)
        assert f"{lease:x}" in etcd.ctl("lease", "list")


async def test_a_key_that_comes_late_is_deleted_and_the_lease_stays(etcd: Cluster) -> None:
    """A put that got no answer may take effect after the member has left."""
    a = Member(etcd.endpoints, "a")
    async with running(a):
        lease = (await lead(a)).lease_id
        a.election.resign(1)
        await a.sees(Resigned)
        etcd.ctl("put", f"govip/election/api/{lease:x}", "a", f"--lease={lease:x}")
        async with asyncio.timeout(REREAD_S + 3):
            while etcd.ctl("get", "--prefix", "govip/election/"):
                await asyncio.sleep(0.05)
        assert not any(isinstance(e, LeaseLost) for e in a.events)
        a.election.campaign(2)
        again = await a.until(lambda e: isinstance(e, Elected) and e.campaign == 2)
        assert isinstance(again, Elected)
        assert again.lease_id == lease


async def test_a_join_that_etcd_refuses_leaves_nothing_to_undo(etcd: Cluster) -> None:
    """A refusal is an answer: the group that lacks a right does not end the lease of the groups beside it."""
    a = Member(etcd.endpoints, "a", store=ReadOnly)
    async with running(a):
        await a.sees(LeaseRenewed)
        while not etcd.ctl("get", "--prefix", "govip/members/"):
            await asyncio.sleep(0.05)
        assert isinstance(a.store, ReadOnly)
        a.store.refuses = True
        a.election.campaign(1)
        await a.until(lambda e: isinstance(e, EtcdState) and "permission denied" in e.detail)
        a.election.resign(1)
        assert await a.sees(Resigned) == Resigned(1)
        await asyncio.sleep(LEAVE_S + 0.5)
        assert not any(isinstance(e, LeaseLost) for e in a.events)
        a.store.refuses = False


async def test_an_old_key_that_comes_back_while_we_are_ineligible_is_deleted(etcd: Cluster) -> None:
    """A restored etcd brings back keys and leases."""
    a = Member(etcd.endpoints, "a")
    async with running(a):
        lease = (await lead(a)).lease_id
        a.election.resign(1)
        await a.sees(Resigned)
        etcd.ctl("put", f"govip/election/api/{lease:x}", "a", f"--lease={lease:x}")
        async with asyncio.timeout(REREAD_S + 3):
            while etcd.ctl("get", "--prefix", "govip/election/"):
                await asyncio.sleep(0.1)


async def test_a_deposed_leader_keeps_its_key_until_its_fence_is_closed(etcd: Cluster) -> None:
    """The supervisor resigns when the kernel has confirmed it; what says "in order" before would be untrue."""
    a = Member(etcd.endpoints, "a", addresses=BOTH)
    async with running(a):
        await lead(a)
        etcd.ctl("del", "govip/claims/192.0.2.1")
        await a.sees(Deposed)
        await asyncio.sleep(0.5)
        assert etcd.ctl("get", "--prefix", "govip/election/") != ""
        assert claim(etcd, "192.0.2.2")["member"] == "a"
        assert etcd.ctl("get", "govip/released/api") == ""
        a.election.resign(1)
        assert await a.sees(Resigned) == Resigned(1)
        assert etcd.ctl("get", "--prefix", "govip/election/") == ""
        assert claim(etcd, "192.0.2.2") == {}
