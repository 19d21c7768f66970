"""One lease for all groups of a process, on a real etcd: each group comes, goes and is adopted by itself."""

import asyncio
import json
import time
from pathlib import Path

from govipd.adapters.election.claimant import REREAD_S
from govipd.adapters.election.session import SILENT_S
from govipd.core.actions import RestartState
from govipd.core.events import Elected, LeaseLost, LeaseRenewed, Resigned
from tests.adapters.etcd_cluster import Cluster
from tests.adapters.member import Member, running

WEB = "192.0.2.2/32"


def two_groups(etcd: Cluster, name: str = "a", runtime: Path | None = None) -> tuple[Member, Member]:
    """The groups "api" and "web" of one process."""
    api = Member(etcd.endpoints, name, machine=name, runtime=runtime)
    return api, Member(etcd.endpoints, name, machine=name, vip="web", addresses=WEB, beside=api)


async def lead(*members: Member) -> list[Elected]:
    """Each campaigns, and wins."""
    won = []
    for member in members:
        member.election.campaign(1)
        event = await member.sees(Elected)
        assert isinstance(event, Elected)
        won.append(event)
    return won


def keys(etcd: Cluster) -> list[str]:
    return etcd.ctl("get", "govip/", "--prefix", "--keys-only").split()


async def until_gone(etcd: Cluster, *gone: str) -> None:
    async with asyncio.timeout(10):
        while any(key.startswith(gone) for key in keys(etcd)):
            await asyncio.sleep(0.05)


async def killed(etcd: Cluster, *members: Member) -> None:
    """The members, all of one process, run and lead until the process is killed."""
    tasks = [asyncio.ensure_future(member.parts.run()) for member in members]
    await lead(*members)
    async with asyncio.timeout(10):
        while len([key for key in keys(etcd) if key.startswith("govip/members/")]) < len(members):
            await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await members[0].store.close()


async def one_is_adopted(etcd: Cluster, runtime: Path) -> tuple[Member, Member, Elected]:
    """After a kill, the next process: "api" adopts what it held, and the kernel is not silent yet for "web"."""
    before = two_groups(etcd, runtime=runtime)
    await killed(etcd, *before)
    won = await before[0].sees(Elected)
    assert isinstance(won, Elected)
    api, web = two_groups(etcd, runtime=runtime)
    web.parts.election.silent = False
    web.parts.election._silenced.clear()
    api.election.adopt(1, RestartState(won.lease_id, won.create_revision, 0.0, ()))
    return api, web, won


async def test_two_groups_have_one_lease(etcd: Cluster) -> None:
    """One grant; each renewal reaches both groups."""
    api, web = two_groups(etcd)
    async with running(api, web):
        first, second = await lead(api, web)
        assert first.lease_id == second.lease_id
        assert etcd.ctl("lease", "list").splitlines()[1:] == [f"{first.lease_id:016x}"]
        seen = len(web.events)
        await web.until(lambda e: isinstance(e, LeaseRenewed), seen)


async def test_a_group_that_leaves_takes_nothing_from_the_one_beside_it(etcd: Cluster) -> None:
    """Its key and claims go; its record goes when the group ends. The other group's lease and key stay."""
    api, web = two_groups(etcd)
    async with running(api, web):
        await lead(api, web)
        web.election.resign(1)
        await web.sees(Resigned)
        await until_gone(etcd, "govip/election/web/")
        web.election.close()
        await until_gone(etcd, "govip/members/web/")
        assert [key for key in keys(etcd) if "api" in key] == [
            f"govip/election/api/{api.parts.session.lease:x}", "govip/members/api/a"
        ]  # fmt: skip
        assert not any(isinstance(e, LeaseLost) for e in api.events)


async def test_a_lost_lease_is_lost_for_every_group(etcd: Cluster) -> None:
    """Both learn of it, and both lead again under the next lease."""
    api, web = two_groups(etcd)
    async with running(api, web):
        won, _ = await lead(api, web)
        etcd.ctl("lease", "revoke", f"{won.lease_id:x}")
        for member in (api, web):
            await member.sees(LeaseLost)
            seen = len(member.events)
            member.election.campaign(2)
            again = await member.until(lambda e: isinstance(e, Elected) and e.campaign == 2, seen)
            assert isinstance(again, Elected)
            assert again.lease_id != won.lease_id


async def test_what_a_group_left_under_an_adopted_lease_is_deleted(etcd: Cluster, tmp_path: Path) -> None:
    """The next process has only the group "api", and adopts the lease. The key of "web" would block its queue."""
    before = two_groups(etcd, runtime=tmp_path)
    await killed(etcd, *before)
    won = await before[0].sees(Elected)
    assert isinstance(won, Elected)
    after = Member(etcd.endpoints, "a", machine="a", runtime=tmp_path)
    after.election.adopt(1, RestartState(won.lease_id, won.create_revision, 0.0, ()))
    async with running(after):
        await until_gone(etcd, "govip/election/web/", "govip/members/web/", "govip/claims/192.0.2.2")
        again = await after.sees(Elected)
        assert isinstance(again, Elected)
        assert again.create_revision == won.create_revision


async def test_a_group_beside_an_adopted_one_keeps_its_place(etcd: Cluster, tmp_path: Path) -> None:
    """The group that is not adopted finds its key in the queue, as the lease lives on."""
    before = two_groups(etcd, runtime=tmp_path)
    await killed(etcd, *before)
    first, second = [await member.sees(Elected) for member in before]
    assert isinstance(first, Elected)
    assert isinstance(second, Elected)
    api, web = two_groups(etcd, runtime=tmp_path)
    api.election.adopt(1, RestartState(first.lease_id, first.create_revision, 0.0, ()))
    assert not web.election.adoptable(RestartState(first.lease_id + 1, 1, 0.0, ()))
    async with running(api, web):
        again = (await lead(web))[0]
        assert (again.lease_id, again.create_revision) == (second.lease_id, second.create_revision)


async def test_what_is_under_an_adopted_lease_stays_until_the_group_is_silent(etcd: Cluster, tmp_path: Path) -> None:
    """The kernel may still answer for "web" by order of the earlier process: its key and claim are another's last."""
    api, web, won = await one_is_adopted(etcd, tmp_path)
    async with running(api, web):
        await api.sees(Elected)
        await asyncio.sleep(1.2 * REREAD_S)
        assert {"govip/claims/192.0.2.2", f"govip/election/web/{won.lease_id:x}"} <= set(keys(etcd))
        web.election.silenced()
        await until_gone(etcd, "govip/election/web/")  # it does not campaign


async def test_a_group_that_went_before_it_was_silent_keeps_the_adopted_lease(etcd: Cluster, tmp_path: Path) -> None:
    """The process is stopped while its kernel refuses: the lease ends by itself, after the fence."""
    api, web, won = await one_is_adopted(etcd, tmp_path)
    async with running(api, web):
        await api.sees(Elected)
        web.election.close()
        await api.parts.close()
        assert f"{won.lease_id:x}" in etcd.ctl("lease", "list")


async def test_an_earlier_lease_is_kept_until_every_group_is_silent(etcd: Cluster, tmp_path: Path) -> None:
    """The kernel may answer for "web" under that lease: "api" joins without its end, and waits for a TTL."""
    await killed(etcd, *two_groups(etcd, runtime=tmp_path))
    api, web = two_groups(etcd, runtime=tmp_path)
    web.election.silent = False
    earlier = json.loads(etcd.ctl("get", "govip/members/web/a", "-w", "json"))["kvs"][0]["lease"]
    async with running(api, web):
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        api.election.campaign(1)
        await asyncio.sleep(SILENT_S / 2)
        assert f"{earlier:x}" in etcd.ctl("lease", "list")
        won = await api.sees(Elected)
        assert isinstance(won, Elected)
        assert won.not_before >= began + 3.0


async def test_an_earlier_lease_ends_as_soon_as_every_group_is_silent(etcd: Cluster, tmp_path: Path) -> None:
    await killed(etcd, *two_groups(etcd, runtime=tmp_path))
    api, web = two_groups(etcd, runtime=tmp_path)
    web.election.silent = False
    async with running(api, web):
        api.election.campaign(1)
        await asyncio.sleep(SILENT_S / 4)
        web.election.silenced()
        await api.sees(Elected)
        assert len(etcd.ctl("lease", "list").splitlines()) == 2
