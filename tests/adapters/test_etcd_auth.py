"""etcd's authentication, switched on and off while the client runs: no call fails for it, where that can be."""

from pathlib import Path

import pytest

from govipd.adapters.etcd.api import Get, Put
from govipd.adapters.etcd.client import EtcdClient
from govipd.adapters.etcd.connection import Access, Login
from govipd.errors import EtcdError, EtcdRefusedError, EtcdWriteRefusedError
from tests.adapters.etcd_cluster import Cluster

ROOT = ["--user", "root:root"]


@pytest.fixture
def guarded(etcd: Cluster) -> Cluster:
    """It knows the users, and does not ask for them yet."""
    etcd.ctl("user", "add", "root:root")
    etcd.ctl("user", "grant-role", "root", "root")
    etcd.ctl("role", "add", "govip")
    etcd.ctl("role", "grant-permission", "govip", "readwrite", "govip/", "--prefix")
    etcd.ctl("role", "grant-permission", "govip", "read", "read/", "--prefix")
    etcd.ctl("user", "add", "govip:secret")
    etcd.ctl("user", "grant-role", "govip", "govip")
    return etcd


@pytest.fixture
def login(tmp_path: Path) -> Login:
    (tmp_path / "password").write_text("secret\n")
    return Login("govip", tmp_path / "password")


async def use(client: EtcdClient, lease: int) -> None:
    """All that a holder does: each call must succeed at once."""
    for _ in range(2):
        assert (await client.renew(lease)).ttl == 60.0
        result = await client.txn((), (Put("govip/x", b"1", lease), Get("govip/x")))
        assert result.gets[0][0].value == b"1"
        await client.revoke((await client.grant(5))[0])


async def test_the_user_in_the_file_before_authentication_is_enabled(guarded: Cluster, login: Login) -> None:
    """Then enabled, disabled and enabled again: not one call fails."""
    failures: list[tuple[str, str]] = []
    client = EtcdClient(guarded.endpoints, 2.0, login=login, failed=lambda *what: failures.append(what))
    lease, _ = await client.grant(60)
    await use(client, lease)
    for _ in range(2):
        guarded.ctl("auth", "enable")
        await use(client, lease)
        guarded.ctl("auth", "disable", flags=ROOT)
        await use(client, lease)
    assert not failures
    await client.close()


async def test_authentication_is_enabled_before_the_user_is_in_the_file(guarded: Cluster, login: Login) -> None:
    """Reading and writing are refused, with what to do; the lease is renewed; the reload mends it."""
    client = EtcdClient(guarded.endpoints, 2.0)
    lease, _ = await client.grant(60)
    guarded.ctl("auth", "enable")
    with pytest.raises(EtcdRefusedError, match=r"authentication is enabled there; next: set etcd\.user"):
        await client.txn((), (Get("govip/x"),))
    client.reconfigure(Access(tuple(guarded.endpoints), login=login))
    await use(client, lease)
    await client.close()


async def test_another_user(guarded: Cluster, login: Login, tmp_path: Path) -> None:
    """A reload with other credentials is in force with the next call."""
    (tmp_path / "root").write_text("root")
    guarded.ctl("auth", "enable")
    client = EtcdClient(guarded.endpoints, 2.0, login=login)
    await use(client, (await client.grant(60))[0])
    with pytest.raises(EtcdError, match="permission denied"):
        await client.txn((), (Get("elsewhere"),))
    client.reconfigure(Access(tuple(guarded.endpoints), login=Login("root", tmp_path / "root")))
    await client.txn((), (Get("elsewhere"),))
    await client.close()


async def test_a_role_that_may_only_read(guarded: Cluster, login: Login) -> None:
    """Its writes are refused as such; a read that is refused is no refused write."""
    guarded.ctl("auth", "enable")
    client = EtcdClient(guarded.endpoints, 2.0, login=login)
    await client.txn((), (Get("read/x"),))
    with pytest.raises(EtcdWriteRefusedError, match="permission denied"):
        await client.txn((), (Put("read/x", b"", 0),))
    with pytest.raises(EtcdRefusedError) as refused:
        await client.txn((), (Get("elsewhere"),))
    assert not isinstance(refused.value, EtcdWriteRefusedError)
    await client.close()
