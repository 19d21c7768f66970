"""Claims, against a real etcd: one holder for each address, whatever the groups and elections are called."""

import asyncio
import json
from ipaddress import ip_interface
from pathlib import Path

from govipd.adapters.election.claimant import REREAD_S, UNORDERLY_S
from govipd.config.reader import ADDRESSES_MAX
from govipd.core.actions import RestartState
from govipd.core.events import Deposed, Elected, Queued, Resigned
from tests.adapters.claiming import claim, lead
from tests.adapters.etcd_cluster import Cluster
from tests.adapters.member import Member, running

FIRST, SECOND = ip_interface("192.0.2.1/32"), ip_interface("192.0.2.2/32")
BOTH = f"{FIRST} {SECOND}"


async def test_the_holder_claims_its_addresses_under_its_lease(etcd: Cluster) -> None:
    """With the group's and the member's name, for people."""
    a = Member(etcd.endpoints, "a", addresses=BOTH)
    async with running(a):
        won = await lead(a)
        assert won.addresses == (FIRST, SECOND)
        kvs = json.loads(etcd.ctl("get", "--prefix", "govip/claims/", "-w", "json"))["kvs"]
        assert [kv["lease"] for kv in kvs] == [won.lease_id] * 2
        assert {claim(etcd)[key] for key in ("vip", "member")} == {"api", "a"}


async def test_another_group_with_one_of_the_addresses_waits_until_it_is_let_go(etcd: Cluster) -> None:
    """It is first in its own election; the journal names who claims what. Then it is as behind an unknown holder."""
    a, b = Member(etcd.endpoints, "a"), Member(etcd.endpoints, "b", vip="apii", addresses=BOTH)
    async with running(a, b):
        await lead(a)
        b.election.campaign(1)
        queued = await b.sees(Queued)
        assert queued == Queued(1, "", "192.0.2.1 is claimed by group api of a")
        assert claim(etcd, "192.0.2.2") == {}, "all of a group's claims, or none"
        a.election.resign(1)
        won = await b.sees(Elected)
        assert isinstance(won, Elected)
        assert won.not_before >= won.proved_at + UNORDERLY_S / 2
        assert claim(etcd)["vip"] == "apii"


async def test_a_claim_that_was_let_go_in_order_costs_the_next_one_no_wait(etcd: Cluster) -> None:
    """Within a group, as the mark says of the key."""
    a, b = Member(etcd.endpoints, "a"), Member(etcd.endpoints, "b")
    async with running(a, b):
        await lead(a)
        b.election.campaign(1)
        await b.sees(Queued)
        a.election.resign(1)
        won = await b.sees(Elected)
        assert isinstance(won, Elected)
        assert won.not_before <= won.proved_at


async def test_the_longest_list_of_addresses_fits_into_etcds_transactions(etcd: Cluster) -> None:
    """Joining, leaving with a successor, and leaving without one."""
    many = " ".join(f"192.0.2.{host}/32" for host in range(1, ADDRESSES_MAX + 1))
    a, b = Member(etcd.endpoints, "a", addresses=many), Member(etcd.endpoints, "b", addresses=many)
    async with running(a, b):
        assert len((await lead(a)).addresses or ()) == ADDRESSES_MAX
        b.election.campaign(1)
        await b.sees(Queued)
        a.election.resign(1)
        await a.sees(Resigned)
        won = await b.until(lambda e: isinstance(e, Elected) and e.proved_at >= e.not_before)
        assert isinstance(won, Elected)
        assert len(won.addresses or ()) == ADDRESSES_MAX
        more = [ip_interface(f"198.51.100.{host}/32") for host in range(1, ADDRESSES_MAX + 1)]
        b.election.claim(more)  # a reload has replaced all of them, and the kernel has not let go of any
        await b.until(lambda e: isinstance(e, Elected) and e.addresses == tuple(more))
        b.election.resign(1)
        await b.sees(Resigned)
        assert claim(etcd) == claim(etcd, "198.51.100.30") == {}


async def test_a_claim_that_ended_with_its_lease_is_waited_for(etcd: Cluster) -> None:
    """No member has written that the holder's kernel is silent."""
    a, b = Member(etcd.endpoints, "a"), Member(etcd.endpoints, "b")
    async with running(a, b):
        lease = (await lead(a)).lease_id
        b.election.campaign(1)
        await b.sees(Queued)
        etcd.ctl("lease", "revoke", f"{lease:x}")
        won = await b.sees(Elected)
        assert isinstance(won, Elected)
        assert won.not_before > won.proved_at


async def test_a_holder_whose_claim_was_deleted_has_lost(etcd: Cluster) -> None:
    """Another group may take the address."""
    a = Member(etcd.endpoints, "a")
    async with running(a):
        await lead(a)
        etcd.ctl("del", "govip/claims/192.0.2.1")
        deposed = await a.sees(Deposed)
        assert deposed == Deposed(1, "our claim of 192.0.2.1 is gone")


async def test_an_address_that_a_reload_adds_is_held_when_it_is_claimed(etcd: Cluster) -> None:
    """An address with another group's claim is not held; the other addresses are."""
    a, b = Member(etcd.endpoints, "a"), Member(etcd.endpoints, "b", vip="web", addresses=str(SECOND))
    async with running(a, b):
        await lead(a)
        await lead(b)
        a.election.claim([FIRST, SECOND])
        pending = await a.until(lambda e: isinstance(e, Elected) and bool(e.pending))
        assert isinstance(pending, Elected)
        assert (pending.addresses, pending.pending) == ((FIRST,), "192.0.2.2 is claimed by group web of b")
        b.election.resign(1)
        await b.sees(Resigned)
        both = await a.until(lambda e: isinstance(e, Elected) and e.addresses == (FIRST, SECOND))
        assert isinstance(both, Elected)
        assert both.pending == ""
        assert claim(etcd, "192.0.2.2")["member"] == "a"


async def test_an_address_that_a_reload_removes_is_let_go_when_the_kernel_is_silent(etcd: Cluster) -> None:
    """Not before."""
    a = Member(etcd.endpoints, "a", addresses=BOTH)
    async with running(a):
        await lead(a)
        since = len(a.events)
        a.election.claim([FIRST])
        await a.until(lambda e: isinstance(e, Elected) and e.addresses == (FIRST,), since)
        assert claim(etcd, "192.0.2.2")["member"] == "a"
        a.election.unclaim([SECOND])
        async with asyncio.timeout(5):
            while claim(etcd, "192.0.2.2"):
                await asyncio.sleep(0.01)


async def test_a_member_that_is_passed_the_vip_lets_go_of_what_its_file_has_not(etcd: Cluster) -> None:
    """While a reload goes from machine to machine."""
    a, b = Member(etcd.endpoints, "a", addresses=BOTH), Member(etcd.endpoints, "b")
    async with running(a, b):
        await lead(a)
        b.election.publish({"state": "candidate", "addresses": ["192.0.2.1/32"]})
        b.election.campaign(1)
        await b.sees(Queued)
        a.election.hand_over(1)
        await b.sees(Elected)
        a.election.resign(1)
        await a.sees(Resigned)
        assert claim(etcd)["member"] == "b"
        async with asyncio.timeout(5):
            while claim(etcd, "192.0.2.2"):
                await asyncio.sleep(0.01)


async def follow(a: Member, b: Member, *published: str) -> None:
    """Let B stand behind A in the queue. A knows B's addresses from B's record."""
    b.election.publish({"state": "candidate", "addresses": published})
    b.election.campaign(1)
    await b.sees(Queued)
    async with asyncio.timeout(5):
        while not await a.election.successors():
            await asyncio.sleep(0.01)


async def test_a_release_gives_the_next_one_the_claims_that_it_wants(etcd: Cluster) -> None:
    """In the transaction that deletes the key, so that the next one need not write; the rest is let go in order."""
    a, b = Member(etcd.endpoints, "a", addresses=BOTH), Member(etcd.endpoints, "b")
    async with running(a, b):
        await lead(a)
        await follow(a, b, "192.0.2.1/32")
        a.election.resign(1)
        won = await b.sees(Elected)
        assert isinstance(won, Elected)
        assert won.not_before <= won.proved_at
        (first, second) = json.loads(etcd.ctl("get", "--prefix", "govip/claims/", "-w", "json"))["kvs"]
        assert (first["version"], first["lease"]) == (2, won.lease_id), "made by a, given to b"
        assert not second.get("value")


async def test_what_was_given_and_is_not_wanted_is_let_go_by_one_that_has_left(etcd: Cluster) -> None:
    """Its record was as before its reload when the claims were given."""
    a, b = Member(etcd.endpoints, "a", addresses=BOTH), Member(etcd.endpoints, "b")
    async with running(a, b):
        await lead(a)
        await follow(a, b, "192.0.2.1/32", "192.0.2.2/32")
        a.election.resign(1)
        await b.sees(Elected)
        assert claim(etcd, "192.0.2.2")["member"] == "b"
        b.election.resign(1)
        await b.sees(Resigned)
        assert claim(etcd) == {}
        async with asyncio.timeout(2 * REREAD_S):
            while claim(etcd, "192.0.2.2"):
                await asyncio.sleep(0.01)


async def test_a_claim_that_was_not_free_to_take_is_not_let_go_in_order(etcd: Cluster) -> None:
    """Its last holder may still answer: the next group waits, as behind a member without a mark."""
    a, b = Member(etcd.endpoints, "a"), Member(etcd.endpoints, "b", vip="web", addresses=str(SECOND))
    async with running(a, b):
        await lead(a)
        lease = (await lead(b)).lease_id
        await asyncio.to_thread(etcd.ctl, "lease", "revoke", f"{lease:x}")
        a.election.claim([FIRST, SECOND])
        async with asyncio.timeout(UNORDERLY_S * 50):
            while SECOND not in a.claims.held:
                await asyncio.sleep(0)
        a.election.resign(1)
        await a.sees(Resigned)
        keys = await asyncio.to_thread(etcd.ctl, "get", "--prefix", "--keys-only", "govip/claims/")
        assert keys.split() == ["govip/claims/192.0.2.1"]


async def test_an_address_that_is_added_and_removed_at_once_does_not_stay_claimed(etcd: Cluster) -> None:
    """The address was claimed, but never held, so no unclaim() for it follows."""
    a = Member(etcd.endpoints, "a")
    async with running(a):
        await lead(a)
        a.election.claim([FIRST, SECOND])
        async with asyncio.timeout(UNORDERLY_S * 50):
            while SECOND not in a.claims.held:
                await asyncio.sleep(0)
        a.election.claim([FIRST])
        async with asyncio.timeout(2 * REREAD_S):
            while claim(etcd, "192.0.2.2"):
                await asyncio.sleep(0.01)
        assert claim(etcd)["member"] == "a"


async def test_the_next_process_lets_go_of_what_its_file_has_not(etcd: Cluster, tmp_path: Path) -> None:
    """An address that was only claimed: at once. One that was held: when the kernel is silent."""
    a = Member(etcd.endpoints, "a", addresses=f"{BOTH} 192.0.2.3/32", runtime=tmp_path)
    killed = asyncio.ensure_future(a.parts.run())
    won = await lead(a)
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    b = Member(etcd.endpoints, "a", runtime=tmp_path)
    b.election.adopt(1, RestartState(won.lease_id, won.create_revision, 0.0, (FIRST, SECOND)))
    async with running(b), asyncio.timeout(3 * REREAD_S):
        while claim(etcd, "192.0.2.3"):
            await asyncio.sleep(0.01)
        assert claim(etcd, "192.0.2.2")["member"] == "a"
        b.election.unclaim([SECOND])
        while claim(etcd, "192.0.2.2"):
            await asyncio.sleep(0.01)
        assert claim(etcd)["member"] == "a"
    await a.store.close()
