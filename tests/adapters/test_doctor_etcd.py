"""`govipctl doctor` on etcd: real ones, with TLS, with authentication, dead, and of two clusters."""

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from govipd.adapters.etcd.api import Put
from govipd.adapters.etcd.client import EtcdClient
from govipd.adapters.etcd.messages import EndpointStatus
from govipd.config.model import Config, EtcdConfig
from govipd.ctl.doctor import check_etcd, check_members, check_tls
from govipd.ctl.doctor.finding import Finding, Queue, Severity
from govipd.host import machine_identity
from tests.adapters.doctor_config import bad, configured
from tests.adapters.etcd_cluster import Cluster, free_ports
from tests.adapters.pki import make_authorities, make_certificate


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("etcd")).running() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    make_authorities(directory)
    make_certificate(directory, "server", days=90)
    make_certificate(directory, "client", days=10)
    make_certificate(directory, "expired", days=0)
    make_certificate(directory, "elsewhere", address="192.0.2.1")
    for key in directory.glob("*.key"):
        key.chmod(0o600)
    return directory


def secure(directory: Path, pki: Path, certificate: str) -> Cluster:
    """One etcd with that server certificate, which wants one from its clients."""
    extra = ("--cert-file", str(pki / f"{certificate}.crt"), "--key-file", str(pki / f"{certificate}.key"),
             "--client-cert-auth", "--trusted-ca-file", str(pki / "ca.crt"))  # fmt: skip
    return Cluster(directory, scheme="https", extra=extra)


def endpoints(cluster: Cluster) -> str:
    return f"endpoints = {json.dumps(cluster.endpoints)}\n"


def files(pki: Path, ca: str = "ca", client: str = "client") -> str:
    return f'ca = "{pki}/{ca}.crt"\ncert = "{pki}/{client}.crt"\nkey = "{pki}/{client}.key"\n'


async def failure(config: Config) -> Finding:
    """The only finding that failed."""
    (finding,) = (f for f in (await check_etcd.examine(config))[0] if f.verdict is Severity.FAILED)
    assert finding.remedy
    return finding


async def test_a_sound_etcd(plain: Cluster, tmp_path: Path) -> None:
    """A sound etcd gives no finding to mend; the doctor reads its members and leaves no key behind."""
    before = plain.ctl("get", "", "--prefix")
    findings, cluster = await check_etcd.examine(configured(tmp_path, endpoints(plain)))
    assert bad(findings) == []
    assert [f.check for f in findings] == [f"etcd {plain.endpoints[0]}", "etcd lease", "etcd rights"]
    assert findings[0].detail.startswith("etcd 3.")
    assert cluster == {"api": Queue((), {})}
    assert plain.ctl("get", "", "--prefix") == before
    assert plain.ctl("lease", "list").split() == ["found", "0", "leases"]


async def test_each_endpoint_is_reported(plain: Cluster, tmp_path: Path) -> None:
    """One that nobody listens on fails by itself; the cluster is read from the other."""
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    findings, cluster = await check_etcd.examine(
        configured(tmp_path, f'endpoints = ["{dead}", "{plain.endpoints[0]}"]')
    )
    (finding,) = bad(findings)
    assert (finding.check, finding.verdict) == (f"etcd {dead}", Severity.FAILED)
    assert finding.detail.startswith("etcd does not answer: ")
    assert cluster is not None


async def test_no_etcd_at_all(tmp_path: Path) -> None:
    """The endpoint failed, and what depends on it was left out."""
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    findings, cluster = await check_etcd.examine(configured(tmp_path, f'endpoints = ["{dead}"]'))
    assert [f.verdict for f in findings] == [Severity.FAILED, Severity.SKIPPED, Severity.SKIPPED]
    assert cluster is None


async def test_endpoints_of_two_clusters(plain: Cluster, tmp_path: Path) -> None:
    """Each would elect a leader of its own."""
    other = Cluster(tmp_path)
    other.start()
    try:
        other.wait_healthy()
        both = json.dumps([*plain.endpoints, *other.endpoints])
        findings, _ = await check_etcd.examine(configured(tmp_path, f"endpoints = {both}"))
        assert "the endpoints belong to 2 clusters" in " ".join(f.detail for f in bad(findings))
    finally:
        other.stop()


async def test_an_etcd_without_its_majority(tmp_path: Path) -> None:
    """It answers, but knows no leader."""
    with Cluster(tmp_path, size=3).running() as cluster:
        left = cluster.members[0]
        for member in cluster.members[1:]:
            member.stop()
        async with asyncio.timeout(90):  # until it has noticed
            while "no leader" not in (finding := (await failure(configured(
                tmp_path, f'endpoints = ["{left.endpoint}"]')))).detail:  # fmt: skip
                await asyncio.sleep(0.1)
        assert "majority" in finding.remedy


async def test_a_longer_lease_than_was_asked_for(tmp_path: Path) -> None:
    """An etcd with a long election time-out grants no shorter one."""
    with Cluster(tmp_path, extra=("--election-timeout", "5000", "--heartbeat-interval", "500")).running() as cluster:
        (finding,) = bad((await check_etcd.examine(configured(tmp_path, endpoints(cluster))))[0])
        assert (finding.check, finding.verdict) == ("etcd lease", Severity.WARNING)
        assert "8 s granted where election.ttl = 3" in finding.detail


@pytest.fixture(scope="module")
def mutual(pki: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    flags = [f"--cacert={pki}/ca.crt", f"--cert={pki}/client.crt", f"--key={pki}/client.key"]
    with secure(tmp_path_factory.mktemp("mutual"), pki, "server").running(flags) as cluster:
        yield cluster


async def test_certificates_that_verify(mutual: Cluster, pki: Path, tmp_path: Path) -> None:
    """Sound; and for how long yet: the client's ends within a month."""
    config = configured(tmp_path, endpoints(mutual) + files(pki))
    assert bad((await check_etcd.examine(config))[0]) == []
    found = await check_tls.examine(config.etcd)
    assert [f.check for f in found] == [
        f"TLS {pki}/ca.crt", f"TLS {pki}/client.crt", f"TLS certificate of {mutual.endpoints[0]}",
    ]  # fmt: skip
    assert [f.verdict for f in found] == [Severity.WARNING, Severity.WARNING, Severity.OK]
    assert "valid for 9 more days" in found[1].detail


async def test_the_wrong_authority(mutual: Cluster, pki: Path, tmp_path: Path) -> None:
    """It says which file did not sign the server's certificate."""
    finding = await failure(configured(tmp_path, endpoints(mutual) + files(pki, ca="other")))
    assert finding.check == f"etcd {mutual.endpoints[0]}"
    assert f"not signed by {pki}/other.crt" in finding.detail
    assert "set etcd.ca" in finding.remedy


async def test_a_client_without_a_certificate(mutual: Cluster, pki: Path, tmp_path: Path) -> None:
    """etcd asks for one."""
    finding = await failure(configured(tmp_path, endpoints(mutual) + f'ca = "{pki}/ca.crt"'))
    assert finding.detail.startswith("the server refuses our certificate")
    assert "set etcd.cert and etcd.key" in finding.remedy


async def test_an_etcd_without_tls(plain: Cluster, pki: Path, tmp_path: Path) -> None:
    """https:// where it speaks http://."""
    endpoint = plain.endpoints[0].replace("http:", "https:")
    finding = await failure(configured(tmp_path, f'endpoints = ["{endpoint}"]\n' + files(pki)))
    assert finding.detail == "the server does not speak TLS"


def test_an_alarm_that_several_members_raise_is_named_once() -> None:
    status = EndpointStatus("3.5.0", cluster=1, member=1, leader=1, term=2, size=1, alarms=("NOSPACE", "NOSPACE"))
    assert check_etcd._judge("etcd", status, took=0.0, patience=1.0).detail == "alarm NOSPACE: etcd refuses to write"


# Where wrap_socket() finds the reset, CPython leaves its socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("late_s", [0.0, 0.1], ids=["in the handshake", "before it"])
async def test_a_server_that_hangs_up_on_the_handshake(late_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As etcd without TLS does at times: a reset, not an answer. The reset may come before this side begins."""
    wrap = ssl.SSLContext.wrap_socket

    def late(context: ssl.SSLContext, connection: socket.socket, **options: Any) -> ssl.SSLSocket:
        time.sleep(late_s)
        return wrap(context, connection, **options)

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", late)

    def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() sends RST
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with server:
        endpoint = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finding = await check_tls.handshake("etcd", endpoint, EtcdConfig(endpoints=(endpoint,)))
    assert finding is not None
    assert finding.detail == "the server does not speak TLS"


async def test_a_client_certificate_that_has_expired(mutual: Cluster, pki: Path, tmp_path: Path) -> None:
    """etcd refuses it, and the file says when it ended."""
    config = configured(tmp_path, endpoints(mutual) + files(pki, client="expired"))
    assert (await failure(config)).detail.startswith("the server refuses our certificate")
    (finding,) = (f for f in await check_tls.examine(config.etcd) if f.verdict is Severity.FAILED)
    assert finding.check == f"TLS {pki}/expired.crt"
    assert "expired 0 days ago" in finding.detail


async def test_a_key_of_another_certificate(mutual: Cluster, pki: Path, tmp_path: Path) -> None:
    """The files are named."""
    mixed = f'ca = "{pki}/ca.crt"\ncert = "{pki}/client.crt"\nkey = "{pki}/server.key"\n'
    finding = await failure(configured(tmp_path, endpoints(mutual) + mixed))
    assert f"{pki}/client.crt" in finding.detail
    assert "belong together" in finding.remedy


@pytest.mark.parametrize(("certificate", "words"), [("expired", "has expired"), ("elsewhere", "IP address mismatch")])
async def test_a_server_certificate_that_does_not_verify(
    pki: Path, tmp_path: Path, certificate: str, words: str
) -> None:
    """Expired, or of another address."""
    flags = ["--insecure-skip-tls-verify", f"--cert={pki}/client.crt", f"--key={pki}/client.key"]
    with secure(tmp_path, pki, certificate).running(flags) as cluster:
        assert words in (await failure(configured(tmp_path, endpoints(cluster) + files(pki)))).detail


async def test_this_member_and_the_others(plain: Cluster, tmp_path: Path) -> None:
    """Absent, in the queue, aside, drained, with another's name, in another version, with other addresses."""
    config = configured(tmp_path, endpoints(plain))
    store = EtcdClient(plain.endpoints, 5.0)
    lease, _ = await store.grant(60)
    sound = {**machine_identity("eth0"), "addresses": ["192.0.2.100/32", "2001:db8::100/128"], "state": "ineligible"}

    async def said(**changed: object) -> str:
        record = json.dumps({**sound, **changed}).encode()
        await store.txn((), (Put("govip/members/api/node1", record, lease),))
        _, cluster = await check_etcd.examine(config)
        assert cluster is not None
        return " ".join(
            f"{f.verdict.value} {f.detail}." for f in bad(await check_members.examine(config, cluster, tmp_path))
        )

    try:
        _, cluster = await check_etcd.examine(config)
        found = bad(await check_members.examine(config, cluster, tmp_path))
        assert "node1 has no record in etcd: govipd@eth0 does not run" in found[0].detail
        await store.txn((), (Put("govip/election/api/2", b"node2", lease),))
        assert await said(detail="unit unhealthy") == "failed node1 does not stand for election: unit unhealthy."
        assert await said(drained=True) == ("warning node1 is drained by the operator: it does not stand for election.")
        await store.txn((), (Put("govip/election/api/1", b"node1", lease),))
        assert await said() == ""
        text = await said(machine="other", node="192.0.2.12")
        assert text == "failed the name node1 is taken by the machine at 192.0.2.12."
        assert (await said(version="0.0.1")).startswith("warning runs version 0.0.1, but ")
        assert "but node1 has 192.0.2.7/32" in await said(addresses=["192.0.2.7/32"])
    finally:
        await store.revoke(lease)
        await store.close()
