"""Endpoints that are given by name: a dead name server, names that fail, certificates that are checked all the same."""

import asyncio
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from govipd.adapters.etcd.client import EtcdClient
from govipd.adapters.etcd.connection import Tls
from govipd.errors import EtcdUnavailableError
from tests.adapters.etcd_cluster import Cluster, free_ports
from tests.adapters.pki import make_authorities, make_certificate


def port(cluster: Cluster) -> int:
    return int(cluster.endpoints[0].rpartition(":")[2])


class Resolver:
    """Gives the answers that the test sets, after the delay that the test sets."""

    def __init__(self, *addresses: str, seconds: float = 0.0) -> None:
        self.addresses = addresses
        self.seconds = seconds
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        time.sleep(self.seconds)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self.addresses


async def test_a_lookup_outlives_the_call_that_began_it(etcd: Cluster) -> None:
    """A name server that answers after 1.2 s, calls of 0.5 s: it is asked once, and its answer is used."""
    resolver = Resolver("127.0.0.1", seconds=1.2)
    client = EtcdClient([f"http://etcd.example:{port(etcd)}"], 0.5, resolve=resolver)
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(EtcdUnavailableError, match=r"no answer from the name server within 0\.5 s"):
            await client.grant(5)
    lease, _ = await client.grant(5)
    assert time.monotonic() - began < 1.5
    assert len(resolver.asked) == 1
    assert (await client.renew(lease)).ttl == 5.0
    await client.close()


async def test_a_name_that_does_not_resolve_any_more_keeps_its_addresses(etcd: Cluster) -> None:
    """Name servers die after the start: each new connection uses what was known, at once."""
    resolver = Resolver("127.0.0.1")
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    client = EtcdClient([f"http://etcd.example:{port(etcd)}", dead], 0.5, resolve=resolver)
    lease, _ = await client.grant(5)
    resolver.addresses, resolver.seconds = (), 3.0
    for _ in range(2):
        client._endpoint_index = 1  # the other endpoint, and back
        client._drop(client._connection)
        with pytest.raises(EtcdUnavailableError, match=dead):
            await client.renew(lease)
        began = time.monotonic()
        assert (await client.renew(lease)).ttl == 5.0
        assert time.monotonic() - began < 0.4
    assert len(resolver.asked) == 2  # one lookup at a time, beside the calls
    await client.close()


async def test_an_unknown_name_is_reported_and_asked_again(etcd: Cluster) -> None:
    """The error gives the reason. The next endpoint is used meanwhile."""
    resolver = Resolver()
    failures: list[tuple[str, str]] = []
    name = f"http://etcd.example:{port(etcd)}"
    client = EtcdClient([name, *etcd.endpoints], 0.5, resolve=resolver, failed=lambda *what: failures.append(what))
    with pytest.raises(EtcdUnavailableError, match=r"etcd\.example: no address for this name: .*Temporary failure"):
        await client.grant(5)
    assert (await client.grant(5))[1] == 5.0
    assert failures == [(name, "name")]
    resolver.addresses = ("127.0.0.1",)
    client._endpoint_index = 0
    client._drop(client._connection)
    assert (await client.grant(5))[1] == 5.0
    await client.close()


async def test_each_address_of_a_name_is_tried(etcd: Cluster) -> None:
    """The address that works is tried first from then on. IPv6 and IPv4 may be mixed."""
    resolver = Resolver("::1", "127.0.0.1")  # this etcd listens on the second only
    client = EtcdClient([f"http://etcd.example:{port(etcd)}"], 0.5, resolve=resolver)
    with pytest.raises(EtcdUnavailableError):
        await client.grant(5)
    for _ in range(3):
        assert (await client.grant(5))[1] == 5.0
        client._drop(client._connection)
    await client.close()


@pytest.mark.parametrize(("name", "trusted"), [("etcd.example", True), ("other.example", False)])
async def test_certificates_are_checked_against_the_name(tmp_path: Path, name: str, *, trusted: bool) -> None:
    """Not against the address that was found for it."""
    make_authorities(tmp_path)
    make_certificate(tmp_path, "server", host="etcd.example")
    server = ("--cert-file", str(tmp_path / "server.crt"), "--key-file", str(tmp_path / "server.key"))
    cluster = Cluster(tmp_path, scheme="https", extra=server)
    with cluster.running([f"--cacert={tmp_path}/ca.crt", "--insecure-skip-tls-verify"]):
        client = EtcdClient(
            [f"https://{name}:{port(cluster)}"], 5.0, Tls(tmp_path / "ca.crt"), resolve=Resolver("127.0.0.1")
        )
        if trusted:
            assert (await client.grant(5))[1] == 5.0
        else:
            with pytest.raises(EtcdUnavailableError, match="Hostname Verification Check failed"):
                await client.grant(5)
        await client.close()


async def test_a_client_that_is_closed_waits_for_no_lookup(etcd: Cluster) -> None:
    """The process may end, and the next one adopt, while a name server is silent."""
    client = EtcdClient([f"http://etcd.example:{port(etcd)}"], 0.2, resolve=Resolver("127.0.0.1", seconds=2.0))
    with pytest.raises(EtcdUnavailableError):
        await client.grant(5)
    began = time.monotonic()
    await client.close()
    assert time.monotonic() - began < 0.5
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("lookup"))


def test_the_system_s_resolver_is_asked() -> None:
    """localhost has an address everywhere."""

    async def connect() -> None:
        with pytest.raises(EtcdUnavailableError, match=r"localhost|connect"):
            await EtcdClient([f"http://localhost:{free_ports(1)[0]}"], 2.0).grant(5)

    asyncio.run(connect())
