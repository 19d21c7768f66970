"""The election against a real etcd: the queue, the proof, the lease, and etcdctl as a neighbour in the queue."""

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from govipd.adapters.election.claimant import UNORDERLY_S
from govipd.core.events import (
    Deposed,
    Elected,
    EtcdState,
    LeaseLost,
    LeaseRenewed,
    Queued,
    Resigned,
)
from tests.adapters.etcd_cluster import CTL_ENV, Cluster
from tests.adapters.member import Member, running


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, size=3).running() as cluster:
        yield cluster


async def test_the_queue_is_in_order_and_a_resignation_moves_it_up(etcd: Cluster) -> None:
    """The first member is elected; the second learns who is ahead, and is elected after a resignation."""
    a, b = Member(etcd.endpoints, "a"), Member(etcd.endpoints, "b")
    async with running(a, b):
        a.election.campaign(1)
        won = await a.sees(Elected)
        b.election.campaign(1)
        assert await b.sees(Queued) == Queued(1, "a")
        assert not any(isinstance(e, Elected) for e in b.events)
        a.election.resign(1)
        assert await a.sees(Resigned) == Resigned(1)
        await b.sees(Elected)
        assert isinstance(won, Elected)
        renewal = next(e for e in a.events if isinstance(e, LeaseRenewed))
        assert (won.lease_id, renewal.ttl) == (renewal.lease_id, 3.0)


async def test_the_key_is_the_standard_recipes(etcd: Cluster) -> None:
    """`<name>/<lease in hex>`, the member's name as value, attached to the lease."""
    a = Member(etcd.endpoints, "a")
    async with running(a):
        a.election.campaign(1)
        won = await a.sees(Elected)
        assert isinstance(won, Elected)
        kv = json.loads(etcd.ctl("get", "--prefix", "govip/election/", "-w", "json"))["kvs"][0]
        assert kv["lease"] == won.lease_id
        listing = etcd.ctl("get", "--prefix", "govip/election/")
        assert listing == f"govip/election/api/{won.lease_id:x}\na\n"


async def test_we_wait_while_etcdctl_leads(etcd: Cluster) -> None:
    """etcdctl elect leads; we queue behind it by name, and are elected when it leaves."""
    ctl = subprocess.Popen(
        etcd.ctl_command("elect", "govip/election/api", "etcdctl"), env=CTL_ENV, stdout=subprocess.PIPE
    )
    try:
        assert ctl.stdout is not None
        await asyncio.to_thread(ctl.stdout.readline)  # it prints its key when it leads
        a = Member(etcd.endpoints, "a")
        async with running(a):
            a.election.campaign(1)
            assert await a.sees(Queued) == Queued(1, "etcdctl")
            ctl.send_signal(signal.SIGINT)
            await a.sees(Elected)
    finally:
        ctl.kill()
        ctl.communicate()


async def test_etcdctl_waits_while_we_lead(etcd: Cluster) -> None:
    """We lead; etcdctl elect waits, and leads when we resign."""
    a = Member(etcd.endpoints, "a")
    async with running(a):
        a.election.campaign(1)
        await a.sees(Elected)
        ctl = subprocess.Popen(
            etcd.ctl_command("elect", "govip/election/api", "etcdctl"), env=CTL_ENV, stdout=subprocess.PIPE
        )
        try:
            assert ctl.stdout is not None
            elected = asyncio.ensure_future(asyncio.to_thread(ctl.stdout.readline))
            done, _ = await asyncio.wait({elected}, timeout=2)
            assert not done, "etcdctl leads beside us"
            a.election.resign(1)
            assert (await elected).startswith(b"govip/election/api/")
        finally:
            ctl.kill()
            ctl.communicate()


async def test_a_deleted_key_deposes(etcd: Cluster) -> None:
    """`etcdctl del` of the leader's key: Deposed; a new campaign joins at the end of the queue."""
    a = Member(etcd.endpoints, "a")
    async with running(a):
        a.election.campaign(1)
        await a.sees(Elected)
        etcd.ctl("del", "--prefix", "govip/election/")
        await a.sees(Deposed)
        a.election.campaign(2)
        await a.until(lambda e: isinstance(e, Elected) and e.campaign == 2)


async def test_a_revoked_lease_is_lost_and_the_next_session_campaigns_again(etcd: Cluster) -> None:
    """etcdctl lease revoke (FIELD 24, 16): LeaseLost; the next campaign has another lease."""
    a = Member(etcd.endpoints, "a")
    async with running(a):
        a.election.campaign(1)
        won = await a.sees(Elected)
        assert isinstance(won, Elected)
        etcd.ctl("lease", "revoke", f"{won.lease_id:x}")
        lost = await a.sees(LeaseLost)
        assert isinstance(lost, LeaseLost)
        assert lost.lease_id == won.lease_id
        await a.until(lambda e: isinstance(e, LeaseRenewed) and e.lease_id != won.lease_id)
        a.election.campaign(2)
        again = await a.until(lambda e: isinstance(e, Elected) and e.campaign == 2)
        assert isinstance(again, Elected)
        assert again.lease_id != won.lease_id


async def test_a_failed_call_is_not_a_lost_lease(etcd: Cluster) -> None:
    """etcd stopped for a moment (FIELD 2): no LeaseLost, the same lease is renewed afterwards."""
    a = Member(etcd.endpoints, "a")
    async with running(a):
        a.election.campaign(1)
        won = await a.sees(Elected)
        etcd.members[0].stop()
        await a.until(lambda e: isinstance(e, EtcdState) and not e.usable)
        mark = len(a.events)
        etcd.restart(etcd.members[0])
        await a.until(lambda e: isinstance(e, EtcdState) and e.usable, mark)
        renewed = await a.until(lambda e: isinstance(e, LeaseRenewed), mark)
        assert isinstance(won, Elected)
        assert isinstance(renewed, LeaseRenewed)
        assert renewed.lease_id == won.lease_id
        assert not any(isinstance(e, LeaseLost) for e in a.events)


async def test_a_frozen_member_is_left_for_the_next_endpoint(three: Cluster) -> None:
    """The endpoint in use answers nothing any more (FIELD 5): renewals go on elsewhere, the place is kept."""
    a = Member(three.endpoints, "a")
    async with running(a):
        a.election.campaign(1)
        await a.sees(Elected)
        three.members[0].signal(signal.SIGSTOP)
        try:
            frozen_at = time.monotonic()
            await a.until(lambda e: isinstance(e, LeaseRenewed) and e.sent_at > frozen_at + 1)
            await a.until(lambda e: isinstance(e, Elected) and e.proved_at > frozen_at + 1)
        finally:
            three.members[0].signal(signal.SIGCONT)
        assert not any(isinstance(e, LeaseLost | Deposed) for e in a.events)


async def test_what_a_leader_without_its_majority_renews_does_not_count(three: Cluster) -> None:
    """etcd's leader renews leases until it steps down, while the others may have elected another (docs/adr/0005)."""
    statuses = json.loads(three.ctl("endpoint", "status", "--write-out=json"))
    leader = next(s["Endpoint"] for s in statuses if s["Status"]["leader"] == s["Status"]["header"]["member_id"])
    others = [member for member in three.members if member.endpoint != leader]
    assert len(others) == 2
    a = Member([leader], "a")
    async with running(a):
        a.election.campaign(1)
        won = await a.sees(Elected)
        assert isinstance(won, Elected)
        for member in others:
            member.signal(signal.SIGSTOP)
        try:
            cut_at = time.monotonic()
            assert (await a.store.renew(won.lease_id)).ttl == 3.0  # it does confirm
            await asyncio.sleep(1.0)
            assert not any(isinstance(e, LeaseRenewed) and e.sent_at > cut_at for e in a.events)
        finally:
            for member in others:
                member.signal(signal.SIGCONT)


async def test_a_resignation_is_confirmed_after_an_outage(etcd: Cluster) -> None:
    """Resign while etcd is away: confirmed only when etcd has deleted the key."""
    a = Member(etcd.endpoints, "a")
    async with running(a):
        a.election.campaign(1)
        await a.sees(Elected)
        etcd.members[0].stop()
        a.election.resign(1)
        await a.until(lambda e: isinstance(e, EtcdState) and not e.usable)
        assert not any(isinstance(e, Resigned) for e in a.events)
        etcd.restart(etcd.members[0])
        await a.sees(Resigned)
        assert etcd.ctl("get", "--prefix", "govip/election/") == ""


async def test_only_an_orderly_resignation_lets_the_next_take_at_once(etcd: Cluster) -> None:
    """A resignation closes the fence first. A deleted key or a revoked lease says nothing about the fence."""
    a, b = Member(etcd.endpoints, "a"), Member(etcd.endpoints, "b")
    async with running(a, b):
        for campaign in (1, 2):
            a.election.campaign(campaign)
            await a.until(lambda e, n=campaign: isinstance(e, Elected) and e.campaign == n)  # type: ignore[misc]
            b.election.campaign(campaign)
            await b.until(lambda e, n=campaign: e == Queued(n, "a"))  # type: ignore[misc]
            await asyncio.sleep(2 * UNORDERLY_S)  # the first one, too, has waited before it took
            if campaign == 1:
                a.election.resign(1)
            else:
                kvs = json.loads(etcd.ctl("get", "--prefix", "govip/election/", "-w", "json"))["kvs"]
                etcd.ctl("lease", "revoke", f"{min(kvs, key=lambda kv: kv['create_revision'])['lease']:x}")
            won = await b.until(lambda e, n=campaign: isinstance(e, Elected) and e.campaign == n)  # type: ignore[misc]
            assert isinstance(won, Elected)
            waits = won.not_before - won.proved_at
            assert waits >= UNORDERLY_S if campaign == 2 else won.not_before <= time.monotonic()
            b.election.resign(campaign)
            await b.until(lambda e, n=campaign: e == Resigned(n))  # type: ignore[misc]


async def test_a_campaign_that_begins_while_a_session_ends_is_not_forgotten(etcd: Cluster) -> None:
    """The lease is lost, and the next campaign is asked for before the old session has ended: it is stood for."""
    a = Member(etcd.endpoints, "a")
    loop = asyncio.get_running_loop()
    a.on_event = lambda e: isinstance(e, LeaseLost) and loop.call_soon(a.election.campaign, 2)
    async with running(a):
        a.election.campaign(1)
        won = await a.sees(Elected)
        assert isinstance(won, Elected)
        etcd.ctl("lease", "revoke", f"{won.lease_id:x}")
        await a.until(lambda e: isinstance(e, Elected) and e.campaign == 2)


async def test_a_handover_passes_over_the_members_in_between(etcd: Cluster) -> None:
    """The successor is first at once and does not wait; the member that was passed over joins again."""
    one, two, three = (Member(etcd.endpoints, name) for name in ("node1", "node2", "node3"))
    async with running(one, two, three):
        for member in (one, two, three):
            member.election.campaign(1)
            await member.sees(Elected if member is one else Queued)
        assert await one.election.successors() == ["node2", "node3"]
        await asyncio.sleep(UNORDERLY_S)  # until it could hold the VIP
        one.election.resign(1, "node3")
        elected = await three.sees(Elected)
        assert isinstance(elected, Elected)
        assert elected.not_before <= time.monotonic()
        await one.sees(Resigned)
        await two.sees(Deposed)
        assert not any(isinstance(event, Elected) for event in two.events)
        two.election.campaign(2)
        queued = await two.until(lambda e: isinstance(e, Queued) and e.campaign == 2)
        assert isinstance(queued, Queued)
        assert queued.ahead == "node3"


async def test_a_member_that_was_never_first_leaves_no_marker(etcd: Cluster) -> None:
    """It speaks for itself only: who stood ahead of it may answer yet, should that key vanish at the same instant."""
    one, two = Member(etcd.endpoints, "node1"), Member(etcd.endpoints, "node2")
    async with running(one, two):
        one.election.campaign(1)
        await one.sees(Elected)
        two.election.campaign(1)
        await two.sees(Queued)
        two.election.resign(1)
        await two.sees(Resigned)
        assert etcd.ctl("get", "govip/released/api") == ""
        await asyncio.sleep(UNORDERLY_S)
        one.election.resign(1)
        await one.sees(Resigned)
        assert etcd.ctl("get", "govip/released/api") != ""


async def test_a_handover_to_one_that_has_left_goes_to_the_next(etcd: Cluster) -> None:
    """The VIP is given away in any case: its fence is closed already."""
    one, two = Member(etcd.endpoints, "node1"), Member(etcd.endpoints, "node2")
    async with running(one, two):
        one.election.campaign(1)
        await one.sees(Elected)
        two.election.campaign(1)
        await two.sees(Queued)
        one.election.resign(1, "node3")
        await two.sees(Elected)


async def test_a_handover_does_not_pass_over_other_programs(etcd: Cluster) -> None:
    """A program that does not prove its place would believe that it leads if its key were deleted (etcd PR #22387)."""
    one, two = Member(etcd.endpoints, "node1"), Member(etcd.endpoints, "node2")
    async with running(one, two):
        one.election.campaign(1)
        await one.sees(Elected)
        ctl = subprocess.Popen(etcd.ctl_command("elect", "govip/election/api", "etcdctl"), env=CTL_ENV)
        try:
            while len(etcd.ctl("get", "--prefix", "--keys-only", "govip/election/api/").split()) < 2:
                await asyncio.sleep(0.05)
            two.election.campaign(1)
            await two.sees(Queued)
            assert await one.election.successors() == []
        finally:
            ctl.kill()
            ctl.communicate()


async def test_a_member_that_gives_up_a_contested_place_leaves_no_marker(etcd: Cluster) -> None:
    """Its predecessor's kernel still answers: the next one has to wait for that, too."""
    one, two = Member(etcd.endpoints, "node1"), Member(etcd.endpoints, "node2")
    async with running(one, two):
        one.election.campaign(1)
        await one.sees(Elected)
        two.election.campaign(1)
        await two.sees(Queued)
        await asyncio.sleep(UNORDERLY_S)
        one.election.resign(1, contested=True)
        await one.sees(Resigned)
        assert etcd.ctl("get", "govip/released/api") == ""
        elected = await two.sees(Elected)
        assert isinstance(elected, Elected)
        assert elected.not_before > elected.proved_at
