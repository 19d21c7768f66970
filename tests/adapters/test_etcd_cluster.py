"""Which cluster the client believes: two in one list of endpoints, one rebuilt or restored, endpoints that change."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from govipd.adapters.etcd.api import Get, Put
from govipd.adapters.etcd.client import EtcdClient
from govipd.adapters.etcd.cluster import UNKNOWN, Believed, ClusterFile
from govipd.adapters.etcd.connection import Access
from govipd.errors import EtcdError, EtcdUnavailableError, EtcdWriteRefusedError, LeaseNotFoundError
from tests.adapters.etcd_cluster import Cluster, free_ports

T = TypeVar("T")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Cluster, Cluster]]:
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
    with Cluster(tmp_path / "ours").running() as ours, Cluster(tmp_path / "other").running() as other:
        yield ours, other


async def until(call: Callable[[], Awaitable[T]], seconds: float = 20.0) -> T:
    """Again and again, as the election does it."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await call()
            except EtcdError:
                await asyncio.sleep(0.05)


async def errors(call: Callable[[], Awaitable[object]], seconds: float) -> list[EtcdError]:
    """The errors of a call that is repeated; a successful call adds none."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await call()
        except EtcdError as e:
            found.append(e)
        await asyncio.sleep(0.02)
    return found


async def test_an_answer_of_another_cluster_is_a_failed_call(two: tuple[Cluster, Cluster]) -> None:
    """That a lease, or a put's lease, is not found there says nothing about it; nor is anything else believed."""
    ours, other = two
    etcd = EtcdClient([*ours.endpoints, *other.endpoints], 1.0)
    lease, _ = await etcd.grant(60)
    revision = (await etcd.txn((), (Get("x"),))).revision
    for call in (
        lambda: etcd.renew(lease),
        lambda: etcd.txn((), (Put("x", b"", lease),)),
        lambda: etcd.txn((), (Get("x"),)),
        lambda: etcd.revoke(12345),
        lambda: etcd.wait_changed("x", revision),
        etcd.status,
    ):
        etcd._endpoint_index = 1  # as if ours had not answered for a moment
        etcd._drop(etcd._connection)
        with pytest.raises(EtcdUnavailableError, match=f"{other.endpoints[0]}: is of another cluster"):
            await call()
        assert (await etcd.renew(lease)).ttl == 60.0  # the next in turn is ours again
    await etcd.close()


async def test_a_hiccup_beside_another_cluster_costs_no_lease(two: tuple[Cluster, Cluster]) -> None:
    """The right one is frozen for longer than a lease: every call fails, none says that the lease is gone."""
    ours, other = two
    etcd = EtcdClient([*ours.endpoints, *other.endpoints], 0.3)
    lease, _ = await etcd.grant(2)
    ours.members[0].signal(signal.SIGSTOP)
    found = await errors(lambda: etcd.renew(lease), 4.0)
    ours.members[0].signal(signal.SIGCONT)
    assert not [e for e in found if isinstance(e, LeaseNotFoundError)]
    assert any("is of another cluster" in str(e) for e in found)
    ours_again = await until(etcd.status)
    assert ours_again.cluster == etcd._believed.id
    await etcd.close()


async def test_a_rebuilt_cluster_is_believed_when_every_lease_has_ended(tmp_path: Path) -> None:
    """Only after every endpoint was of the new cluster for a TTL. The change is reported; old leases are lost."""
    with Cluster(tmp_path).running() as cluster:
        told: list[str] = []
        etcd = EtcdClient(cluster.endpoints, 0.5, noticed=told.append)
        lease, _ = await etcd.grant(2)
        before = await etcd.status()
        cluster.rebuild("second")
        cluster.start()
        cluster.wait_healthy()
        began = time.monotonic()
        await until_another_answers(etcd, lease)
        with pytest.raises(LeaseNotFoundError):
            await until_believed(etcd, lease)
        took = time.monotonic() - began
        assert 2.0 < took < 6.0
        after = await etcd.status()
        assert after.cluster != before.cluster
        assert len(told) == 1
        assert f"({after.cluster:x}, before {before.cluster:x})" in told[0]
        assert (await etcd.grant(5))[1] == 5.0
        await etcd.close()


async def until_believed(etcd: EtcdClient, lease: int) -> None:
    while True:
        try:
            await etcd.renew(lease)
        except EtcdUnavailableError:
            await asyncio.sleep(0.05)


async def test_a_member_that_left_for_a_cluster_of_its_own_is_refused(tmp_path: Path) -> None:
    """It is all that this machine lists; the others, which are not listed, are of the old cluster still."""
    with Cluster(tmp_path, size=3).running() as cluster:
        client = EtcdClient(cluster.endpoints[:1], 0.5)
        lease, _ = await client.grant(2)
        await until(lambda: client.renew(lease))
        await asyncio.sleep(0.3)
        cluster.secede(cluster.members[0])
        await until_another_answers(client, lease)
        found = await errors(lambda: client.renew(lease), 5.0)
        assert all("another cluster" in str(e) for e in found)
        cluster.stop_all_but(cluster.members[0])
        await until(lambda: client.grant(5))
        await client.close()


async def until_another_answers(etcd: EtcdClient, lease: int) -> None:
    """Until an etcd of another cluster answers."""
    while True:
        try:
            await etcd.renew(lease)
        except EtcdUnavailableError as e:
            if "another cluster" in str(e):
                return
        await asyncio.sleep(0.05)


async def test_a_restored_cluster_is_believed_with_what_is_in_it(tmp_path: Path) -> None:
    """`etcdctl snapshot restore` makes another cluster with the old keys."""
    with Cluster(tmp_path, size=3).running() as cluster:
        etcd = EtcdClient(cluster.endpoints, 0.5)
        lease, _ = await etcd.grant(2)
        await etcd.txn((), (Put("kept", b"1", 0),))
        snapshot = tmp_path / "snapshot"
        cluster.snapshot(snapshot)
        cluster.rebuild("restored", snapshot)
        cluster.start()
        cluster.wait_healthy()
        began = time.monotonic()
        result = await until(lambda: etcd.txn((), (Get("kept"),)))
        assert 2.0 < time.monotonic() - began < 6.0
        assert result.gets[0][0].value == b"1"
        await etcd.close()
        assert lease


async def test_other_endpoints_are_used_with_the_same_lease(tmp_path: Path) -> None:
    """reconfigure() keeps the lease. Endpoints of another cluster are refused while the old cluster answers."""
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
    with Cluster(tmp_path / "ours", size=3).running() as ours, Cluster(tmp_path / "other").running() as other:
        etcd = EtcdClient(ours.endpoints[:1], 0.5)
        lease, _ = await etcd.grant(2)
        etcd.reconfigure(Access(tuple(ours.endpoints[1:])))
        assert (await etcd.renew(lease)).ttl == 2.0
        etcd.reconfigure(Access(tuple(other.endpoints)))
        found = await errors(lambda: etcd.renew(lease), 4.0)
        assert all("is of another cluster" in str(e) for e in found)
        ours.stop()
        assert await until(lambda: etcd.grant(5))
        await etcd.close()


async def test_calls_under_way_while_endpoints_change(tmp_path: Path) -> None:
    """They fail like others, or succeed; the next ones work."""
    with Cluster(tmp_path).running() as cluster:
        etcd = EtcdClient(cluster.endpoints, 1.0)
        lease, _ = await etcd.grant(60)
        dead = f"http://127.0.0.1:{free_ports(1)[0]}"
        renewals = [asyncio.ensure_future(until(lambda: etcd.renew(lease))) for _ in range(3)]
        await asyncio.sleep(0)
        etcd.reconfigure(Access((dead, *cluster.endpoints)))
        assert {r.ttl for r in await asyncio.gather(*renewals)} == {60.0}
        await etcd.close()


async def test_a_full_etcd_refuses_writes_only(tmp_path: Path) -> None:
    """The alarm NOSPACE: Put and grant are refused as such, over the same connection; all else works."""
    with Cluster(tmp_path, extra=["--quota-backend-bytes", str(1 << 20)]).running() as cluster:
        failures: list[tuple[str, str]] = []
        etcd = EtcdClient(cluster.endpoints, 2.0, failed=lambda *what: failures.append(what))
        lease, _ = await etcd.grant(60)
        await etcd.txn((), (Put("ours", b"1", lease),))
        cluster.fill()
        for call in (lambda: etcd.txn((), (Put("x", b"", 0),)), lambda: etcd.grant(5)):
            with pytest.raises(EtcdWriteRefusedError, match="database space exceeded"):
                await call()
        assert not failures
        assert (await etcd.renew(lease)).ttl == 60.0
        assert (await etcd.txn((), (Get("ours"),))).gets[0]
        await etcd.revoke(lease)
        assert not (await etcd.txn((), (Get("ours"),))).gets[0]
        await etcd.close()


# The rule by itself

HOME = ("a", "b", "c")


def believed() -> Believed:
    """Cluster 1, with leases of 3 s."""
    known = Believed()
    assert known.refuses("a", 1, HOME) == ""
    known.leased(3.0)
    return known


def test_more_than_half_of_the_endpoints_must_be_of_it_for_a_ttl() -> None:
    """Two of three are enough, with the third silent."""
    known = believed()
    answers = {"a": 2, "b": 2, "c": 0}
    assert not known.looked(answers, HOME, 10.0, 10.1)
    assert not known.looked(answers, HOME, 13.0, 13.2)  # from the end of the first look to the beginning of this one
    assert known.looked(answers, HOME, 13.2, 13.3)
    assert known.refuses("a", 2, HOME) == ""
    assert "another cluster (1) than before (2)" in known.refuses("c", 1, HOME)


@pytest.mark.parametrize(
    "answers",
    [
        {"a": 2, "b": 0, "c": 0},  # the old one may have a majority that cannot be seen from here
        {"a": 2, "b": 2, "c": 1},
        {"a": 2, "b": 2, "c": 3},
        {"a": 0, "b": 0, "c": 0},
    ],
)
def test_less_is_not_enough(answers: dict[str, int]) -> None:
    """However long it lasts."""
    known = believed()
    assert not any(known.looked(answers, HOME, t, t) for t in range(60))


def test_an_answer_of_the_old_one_begins_the_wait_anew() -> None:
    """It is alive, so it may have confirmed a renewal."""
    known = believed()
    answers = dict.fromkeys(HOME, 2)
    assert not known.looked(answers, HOME, 10.0, 10.0)
    assert known.refuses("a", 1, HOME) == ""
    assert not known.looked(answers, HOME, 13.5, 13.5)
    assert known.looked(answers, HOME, 16.5, 16.5)


def test_the_endpoints_of_an_earlier_list_are_asked_too() -> None:
    """They count against the new cluster, not for it."""
    known = believed()
    assert known.asked(("x", "y")) == ("x", "y", *HOME)
    assert not any(known.looked({"x": 2, "y": 2, "a": 1}, ("x", "y"), t, t) for t in range(60))
    assert not known.looked({"x": 2, "y": 0, "a": 2, "b": 2, "c": 2}, ("x", "y"), 60.0, 60.0)
    known.members = ("x", "z")
    assert known.asked(("x", "y")) == ("x", "y", *HOME, "z")
    assert not known.looked({"x": 2, "y": 2, "z": 1}, ("x", "y"), 60.0, 60.0)
    assert not known.looked({"x": 2, "y": 2}, ("x", "y"), 60.0, 60.0)
    assert known.looked({"x": 2, "y": 2}, ("x", "y"), 63.0, 63.0)


def test_an_unknown_id_is_neither() -> None:
    """etcd 3.4 leaves some headers empty."""
    known = believed()
    assert known.refuses("b", 0, HOME) == ""
    assert known.id == 1


def test_the_believed_cluster_is_kept_for_the_next_process(tmp_path: Path) -> None:
    """Beside an endpoint of another cluster, it must not matter which one answers first."""
    listed = ["http://192.0.2.11:2379", "http://192.0.2.12:2379"]
    file = ClusterFile(tmp_path / "cluster", listed)
    assert file.load() == UNKNOWN
    first = Believed(file.load(), 3.0, file.save)
    assert first.refuses("http://192.0.2.11:2379", 0xABC, ("http://192.0.2.11:2379",)) == ""
    second = Believed(file.load(), 3.0, file.save)
    assert "is of another cluster (def)" in second.refuses("http://192.0.2.12:2379", 0xDEF, ("http://192.0.2.12:2379",))
    assert ClusterFile(tmp_path / "cluster", listed[1:]).load() == 0xABC
    assert ClusterFile(tmp_path / "cluster", ["http://192.0.2.21:2379"]).load() == UNKNOWN, "another etcd is wanted"
    (tmp_path / "cluster").write_text("what is this")
    assert file.load() == UNKNOWN
    assert ClusterFile(None, listed).load() == UNKNOWN
