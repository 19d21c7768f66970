"""The etcd client against real etcds: TLS, mutual TLS, authentication, endpoints, deadlines."""

import asyncio
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from govipd.adapters.etcd.api import Delete, Get, IfCreateRevision, Put
from govipd.adapters.etcd.client import EtcdClient
from govipd.adapters.etcd.connection import Connection, Login, Tls
from govipd.errors import (
    ConfigError,
    EtcdRefusedError,
    EtcdUnavailableError,
    LeaseNotFoundError,
    WatchLostError,
)
from tests.adapters.etcd_cluster import Cluster, free_ports
from tests.adapters.pki import make_authorities, make_certificate


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("etcd")).running() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server certificate for 127.0.0.1, a client certificate, and a CA that signed nothing."""
    directory = tmp_path_factory.mktemp("pki")
    make_authorities(directory)
    for name in ("server", "client"):
        make_certificate(directory, name)
    return directory


@pytest.fixture
def mutual(pki: Path, tmp_path: Path) -> Iterator[Cluster]:
    server = ("--cert-file", str(pki / "server.crt"), "--key-file", str(pki / "server.key"))
    client = ("--client-cert-auth", "--trusted-ca-file", str(pki / "ca.crt"))
    cluster = Cluster(tmp_path, scheme="https", extra=[*server, *client])
    cluster.start()
    try:
        flags = [f"--cacert={pki}/ca.crt", f"--cert={pki}/client.crt", f"--key={pki}/client.key"]
        cluster.wait_healthy(flags)
        yield cluster
    finally:
        cluster.stop()


async def grants(etcd: EtcdClient) -> bool:
    try:
        return (await etcd.grant(5))[1] == 5.0
    finally:
        await etcd.close()


async def test_mutual_tls(mutual: Cluster, pki: Path) -> None:
    """With the CA and a client certificate it works; without either it is refused with a reason."""
    tls = Tls(pki / "ca.crt", pki / "client.crt", pki / "client.key")
    assert await grants(EtcdClient(mutual.endpoints, 5.0, tls))
    for wrong in (Tls(pki / "other.crt", pki / "client.crt", pki / "client.key"), Tls(pki / "ca.crt"), Tls()):
        with pytest.raises(EtcdUnavailableError, match=r"127\.0\.0\.1"):
            await grants(EtcdClient(mutual.endpoints, 5.0, wrong))


async def test_an_unreadable_certificate_is_named(mutual: Cluster, pki: Path) -> None:
    """The error names the file."""
    with pytest.raises(EtcdRefusedError, match=r"missing\.crt"):
        await grants(EtcdClient(mutual.endpoints, 5.0, Tls(pki / "missing.crt")))


def test_an_endpoint_must_be_a_url() -> None:
    """The error names what is allowed."""

    async def connect() -> None:
        await EtcdClient(["127.0.0.1:2379"], 1.0).grant(5)

    with pytest.raises(ConfigError, match="http://HOST:PORT"):
        asyncio.run(connect())


async def test_authentication_and_its_renewal(tmp_path: Path) -> None:
    """A user restricted to the prefix works; an expired token is replaced without a failed call."""
    cluster = Cluster(tmp_path, extra=["--auth-token-ttl", "1"])
    password = tmp_path / "password"
    password.write_text("secret\n")
    cluster.start()
    try:
        cluster.wait_healthy()
        cluster.ctl("user", "add", "root:root")
        cluster.ctl("user", "grant-role", "root", "root")
        cluster.ctl("role", "add", "govip")
        cluster.ctl("role", "grant-permission", "govip", "readwrite", "govip/", "--prefix")
        cluster.ctl("user", "add", "govip:secret")
        cluster.ctl("user", "grant-role", "govip", "govip")
        cluster.ctl("auth", "enable")
        etcd = EtcdClient(cluster.endpoints, 5.0, login=Login("govip", password))
        lease, _ = await etcd.grant(60)
        for _ in range(3):
            assert (await etcd.txn((), (Put("govip/x", b"1", lease), Get("govip/x")))).gets[0][0].value == b"1"
            assert (await etcd.renew(lease)).ttl == 60.0
            await asyncio.sleep(1.6)  # longer than a token lives
        cluster.ctl("role", "add", "another", flags=["--user", "root:root"])  # outdates every token
        await etcd.txn((), (Get("govip/x"),))
        with pytest.raises(EtcdRefusedError, match="permission denied"):
            await etcd.txn((), (Get("elsewhere"),))
        await etcd.close()
        password.write_text("wrong\n")
        with pytest.raises(EtcdRefusedError, match="authentication failed"):
            await grants(EtcdClient(cluster.endpoints, 5.0, login=Login("govip", password)))
        with pytest.raises(EtcdRefusedError, match="gone"):
            await grants(EtcdClient(cluster.endpoints, 5.0, login=Login("govip", tmp_path / "gone")))
    finally:
        cluster.stop()


async def test_the_next_endpoint_is_used_after_a_failure(plain: Cluster) -> None:
    """A dead endpoint fails one call; the call after it goes elsewhere."""
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    failures: list[tuple[str, str]] = []
    etcd = EtcdClient([dead, *plain.endpoints], 2.0, failed=lambda endpoint, kind: failures.append((endpoint, kind)))
    with pytest.raises(EtcdUnavailableError, match=dead):
        await etcd.grant(5)
    assert await grants(etcd)
    assert failures == [(dead, "unavailable")]  # who is told of each


async def test_an_endpoint_of_another_cluster_is_refused(plain: Cluster, tmp_path: Path) -> None:
    """Two clusters would elect two leaders: whoever was reached first is the cluster."""
    other = Cluster(tmp_path)
    other.start()
    try:
        other.wait_healthy()
        dead = f"http://127.0.0.1:{free_ports(1)[0]}"
        etcd = EtcdClient([*plain.endpoints, dead, *other.endpoints], 2.0)
        await etcd.grant(5)
        etcd._endpoint_index = 2  # as if two endpoints had failed
        etcd._drop(etcd._connection)
        with pytest.raises(EtcdUnavailableError, match="is of another cluster"):
            await etcd.grant(5)
        assert await grants(etcd)  # the next in turn is the first again
    finally:
        other.stop()


async def test_every_call_ends_at_its_deadline(tmp_path: Path) -> None:
    """A frozen etcd (FIELD 5): grant, renew, txn and the creation of a watch all end in time."""
    with Cluster(tmp_path).running() as cluster:
        etcd = EtcdClient(cluster.endpoints, 0.5)
        lease, _ = await etcd.grant(60)
        await etcd.renew(lease)
        cluster.members[0].signal(signal.SIGSTOP)
        for call in (etcd.renew(lease), etcd.grant(5), etcd.txn((), (Get("x"),)), etcd.wait_changed("x", 1)):
            began = time.monotonic()
            with pytest.raises(EtcdUnavailableError):
                await call
            assert time.monotonic() - began < 5.0
        cluster.members[0].signal(signal.SIGCONT)
        while True:
            try:
                assert (await etcd.renew(lease)).ttl == 60.0
                break
            except EtcdUnavailableError:
                await asyncio.sleep(0.1)
        await etcd.close()


async def test_an_unknown_lease_is_not_found(plain: Cluster) -> None:
    """For a renewal and for a put; revoking it is no error."""
    etcd = EtcdClient(plain.endpoints, 5.0)
    with pytest.raises(LeaseNotFoundError):
        await etcd.renew(12345)
    with pytest.raises(LeaseNotFoundError):
        await etcd.txn((), (Put("x", b"", 12345),))
    await etcd.revoke(12345)
    await etcd.close()


async def test_transactions_and_deletion_watches(plain: Cluster) -> None:
    """Conditions, the keys below a revision, and the deletion that a watch reports."""
    etcd = EtcdClient(plain.endpoints, 5.0)
    lease, _ = await etcd.grant(60)
    first = await etcd.txn((IfCreateRevision("q/a", 0),), (Put("q/a", b"a", lease), Get("q/a")))
    assert first.succeeded
    again = await etcd.txn((IfCreateRevision("q/a", 0),), (Put("q/a", b"b", lease),), (Get("q/a"),))
    assert (again.succeeded, again.gets[0][0].value, again.gets[0][0].lease) == (False, b"a", lease)
    second = await etcd.txn((), (Put("q/b", b"b", lease), Get("q/b")))
    mine = second.gets[0][0]
    ahead = await etcd.txn((), (Get("q/", prefix=True, max_create_revision=mine.create_revision - 1),))
    assert [kv.key for kv in ahead.gets[0]] == ["q/a"]
    watch = asyncio.ensure_future(etcd.wait_changed("q/a", ahead.revision + 1))
    await asyncio.sleep(0.2)
    assert not watch.done()
    await etcd.txn((), (Delete("q/a"),))
    await asyncio.wait_for(watch, 5)
    await etcd.revoke(lease)
    await etcd.close()


def metric(cluster: Cluster, name: str) -> float:
    """A number that etcd publishes."""
    with urllib.request.urlopen(f"{cluster.endpoints[0]}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


async def test_watches_share_one_stream_and_end_one_by_one(plain: Cluster) -> None:
    """One of ten keys changes: only its watch is done; a watch that is not wanted any more ends in etcd, too."""
    etcd = EtcdClient(plain.endpoints, 5.0)
    streams = metric(plain, "etcd_debugging_mvcc_watch_stream_total")
    revision = (await etcd.txn((), (Get("x"),))).revision
    watches = [asyncio.ensure_future(etcd.wait_changed(f"w/{n}", revision + 1)) for n in range(10)]
    while metric(plain, "etcd_debugging_mvcc_watcher_total") < 10:
        await asyncio.sleep(0.05)
    assert metric(plain, "etcd_debugging_mvcc_watch_stream_total") == streams + 1
    await etcd.txn((), (Put("w/3", b"", 0),))
    await asyncio.wait_for(watches[3], 5)
    assert not any(watch.done() for watch in watches if watch is not watches[3])
    for watch in watches[:5]:
        watch.cancel()
    while metric(plain, "etcd_debugging_mvcc_watcher_total") > 5:
        await asyncio.sleep(0.05)
    await etcd.txn((), (Put("w/7", b"", 0),))
    await asyncio.wait_for(watches[7], 5)
    await etcd.close()
    ended = await asyncio.gather(*watches[5:], return_exceptions=True)
    assert [type(end) for end in ended] == [WatchLostError, WatchLostError, type(None), WatchLostError, WatchLostError]


async def test_a_compacted_watch_is_lost(plain: Cluster) -> None:
    """A watch from a compacted revision fails with an error instead of waiting without an end."""
    etcd = EtcdClient(plain.endpoints, 5.0)
    lease, _ = await etcd.grant(60)
    for _ in range(5):
        revision = (await etcd.txn((), (Put("x", b"", lease),))).revision
    plain.ctl("compact", str(revision))
    with pytest.raises(WatchLostError):
        await asyncio.wait_for(etcd.wait_changed("x", 1), 5)
    await etcd.close()


async def test_a_connection_closed_by_another_call_is_not_a_cancellation(plain: Cluster) -> None:
    """gRPC raises CancelledError in calls whose channel is closed: it must not end the task in silence."""
    etcd = EtcdClient(plain.endpoints, 0.5)
    revision = (await etcd.txn((), (Get("x"),))).revision
    watch = asyncio.ensure_future(etcd.wait_changed("x", revision + 1))
    await asyncio.sleep(0.2)
    await etcd.close()
    with pytest.raises(WatchLostError):
        await asyncio.wait_for(watch, 5)


async def test_a_connection_that_is_closed_while_an_answer_is_checked_is_no_fault(
    etcd: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another call has moved on to the next endpoint: the daemon tries again, and does not end."""
    client, header = EtcdClient(etcd.endpoints, 2.0), Connection.header

    async def closed_before(self: Connection, *args: Any) -> Any:
        await self.close(0.0)
        return await header(self, *args)

    monkeypatch.setattr(Connection, "header", closed_before)
    with pytest.raises(EtcdUnavailableError):
        await client.txn((), (Put("key", b"value", 12345),), ())  # this lease does not exist
    await client.close()
