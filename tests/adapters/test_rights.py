"""The least role of docs/operations.md, in a real etcd with authentication: it suffices, and it is needed."""

import asyncio
import json
import re
import shlex
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from govipd.adapters.etcd.api import Get, Put
from govipd.adapters.etcd.client import EtcdClient
from govipd.adapters.etcd.connection import Login
from govipd.config.model import Config
from govipd.core.events import Elected, EtcdState, LeaseRenewed, Resigned
from govipd.ctl.doctor import check_etcd as checks
from govipd.ctl.doctor.finding import Severity
from govipd.errors import EtcdRefusedError
from govipd.host import machine_identity
from tests.adapters.conftest import BootClock, Events
from tests.adapters.doctor_config import bad, configured
from tests.adapters.etcd_cluster import Cluster
from tests.candidate import candidate

DOCS = Path(__file__).resolve().parents[2] / "docs/operations.md"
PASSWORD = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An etcd with what the documentation has a user type, and a user of another prefix."""
    with Cluster(tmp_path_factory.mktemp("etcd")).running() as cluster:
        typed = re.findall(r"^    etcdctl ((?:role|user) .+)$", DOCS.read_text(), flags=re.MULTILINE)
        assert len(typed) == 4
        for command in typed:
            words = shlex.split(command)
            if words[:2] == ["user", "add"]:  # it asks for the password
                words[2] += f":{PASSWORD}"
            cluster.ctl(*words)
        cluster.ctl("role", "add", "web")
        cluster.ctl("role", "grant-permission", "web", "readwrite", "web/", "--prefix")
        cluster.ctl("role", "grant-permission", "web", "read", "govip/", "--prefix")
        cluster.ctl("user", "add", f"web:{PASSWORD}")
        cluster.ctl("user", "grant-role", "web", "web")
        cluster.ctl("user", "add", f"nobody:{PASSWORD}")
        cluster.ctl("user", "add", "root:root")
        cluster.ctl("user", "grant-role", "root", "root")
        cluster.ctl("auth", "enable")
        yield cluster


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o600)
    return file


def config_of(user: str, cluster: Cluster, password: Path, rest: str = "") -> Config:
    login = f'user = "{user}"\npassword_file = "{password}"\n'
    return configured(password.parent, f"endpoints = {json.dumps(cluster.endpoints)}\n{login}", rest)


async def test_the_documented_role_suffices(guarded: Cluster, password: Path, events: Events) -> None:
    """Membership, a campaign, the release with its mark, and the doctor."""
    store = EtcdClient(guarded.endpoints, 2.0, login=Login("govip", password))
    identity = machine_identity("eth0")
    parts = candidate(store, events, BootClock(), "node1", ttl=5, identity=identity)
    election, running = parts.election, asyncio.ensure_future(parts.run())
    election.publish({"state": "leader"})
    election.campaign(1)
    await events.until(lambda: any(isinstance(e, Elected) for e in events))
    renewed = len([e for e in events if isinstance(e, LeaseRenewed)])
    await events.until(lambda: len([e for e in events if isinstance(e, LeaseRenewed)]) > renewed)
    assert not any(isinstance(e, EtcdState) and not e.usable for e in events)
    findings, cluster = await checks.examine(config_of("govip", guarded, password))
    assert bad(findings) == []
    assert cluster is not None
    assert cluster["api"].leader == "node1"
    election.resign(1)
    await events.until(lambda: Resigned(1) in events)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await parts.close()
    await store.close()
    assert guarded.ctl("get", "govip/", "--prefix", "--keys-only", flags=["--user", "root:root"]).split() == [
        "govip/claims/192.0.2.1",
        "govip/released/api",
    ]


async def test_a_missing_right_leaves_the_connection_to_the_others(guarded: Cluster, password: Path) -> None:
    """All groups of a process share it: a refused call must not end the others' watches."""
    failures: list[tuple[str, str]] = []
    store = EtcdClient(
        guarded.endpoints, 2.0, login=Login("govip", password), failed=lambda *failure: failures.append(failure)
    )
    revision = (await store.txn((), (Get("govip/x"),))).revision
    watch = asyncio.ensure_future(store.wait_changed("govip/x", revision + 1))
    await asyncio.sleep(0.3)
    with pytest.raises(EtcdRefusedError):
        await store.txn((), (Get("elsewhere"),))
    await store.txn((), (Put("govip/x", b"", 0),))
    await asyncio.wait_for(watch, 5)
    assert [kind for _, kind in failures] == ["permission_denied"]
    await store.close()


async def test_a_user_of_another_prefix_is_refused(guarded: Cluster, password: Path, events: Events) -> None:
    """One clear line, of which range is missing; reading alone is not enough."""
    findings, _ = await checks.examine(config_of("web", guarded, password))
    (finding,) = (f for f in findings if f.check == "etcd rights")
    assert finding.verdict is Severity.FAILED
    assert finding.detail.startswith("user web may not read and write govip/: ")
    assert finding.detail.endswith("etcdserver: permission denied")
    assert finding.remedy == "etcdctl role grant-permission ROLE readwrite govip/ --prefix"


async def test_a_user_without_any_right_is_no_fault_of_the_endpoint(guarded: Cluster, password: Path) -> None:
    """What fails is what it may not do."""
    findings, _ = await checks.examine(config_of("nobody", guarded, password))
    assert [f.check for f in findings if f.verdict is Severity.FAILED] == ["etcd rights", "members"]


async def test_an_election_outside_the_prefix_needs_a_right_of_its_own(guarded: Cluster, password: Path) -> None:
    """It is asked for beside the prefix."""
    rest = '[[vip]]\nname = "web"\ninterface = "eth0"\naddresses = ["192.0.2.7"]\nelection = "web/leader"\n'
    findings, _ = await checks.examine(config_of("govip", guarded, password, rest))
    rights = [f for f in findings if f.check == "etcd rights"]
    assert [f.verdict for f in rights] == [Severity.OK, Severity.FAILED]
    assert "readwrite web/leader/ --prefix" in rights[1].remedy


async def test_a_wrong_password_is_reported_and_shown_nowhere(guarded: Cluster, password: Path, events: Events) -> None:
    """Neither it nor its file's content is in what an exception, an event or a finding says."""
    wrong = "wrong-horse-battery-staple"
    password.write_text(wrong)
    findings, _ = await checks.examine(config_of("govip", guarded, password))
    (finding,) = (f for f in findings if f.verdict is Severity.FAILED)
    assert "authentication failed" in finding.detail
    assert str(password) in finding.remedy
    store = EtcdClient(guarded.endpoints, 2.0, login=Login("govip", password))
    with pytest.raises(EtcdRefusedError) as refused:
        await store.grant(5)
    await store.close()
    shown = f"{findings!r} {''.join(traceback.format_exception(refused.value))} {refused.value.__cause__!r} {store!r}"
    assert wrong not in shown
    assert PASSWORD not in shown


async def test_a_daemon_that_is_refused_reports_it_without_the_password(
    guarded: Cluster, password: Path, events: Events
) -> None:
    """The events are what becomes lines of the journal, of `systemctl status` and of records in etcd."""
    wrong = "wrong-horse-battery-staple"
    password.write_text(wrong)
    store = EtcdClient(guarded.endpoints, 2.0, login=Login("govip", password))
    running = asyncio.ensure_future(candidate(store, events, BootClock(), "node1", ttl=5, identity={}).run())
    await events.until(lambda: any(isinstance(e, EtcdState) and "authentication failed" in e.detail for e in events))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()
    assert wrong not in repr(events)


def test_a_password_that_is_no_text_is_not_shown(tmp_path: Path) -> None:
    """Python's error message would show a byte of the password."""
    file = tmp_path / "password"
    file.write_bytes(b"\xffsecret")
    with pytest.raises(EtcdRefusedError) as refused:
        Login("govip", file).request()
    assert "is not UTF-8" in str(refused.value)
    assert "0xff" not in "".join(traceback.format_exception(refused.value))


async def test_without_a_user_it_is_reported_that_one_is_needed(guarded: Cluster, tmp_path: Path) -> None:
    """etcd's authentication is on."""
    findings, _ = await checks.examine(configured(tmp_path, f"endpoints = {json.dumps(guarded.endpoints)}"))
    (finding,) = (f for f in findings if f.verdict is Severity.FAILED)
    assert "set etcd.user and etcd.password_file" in finding.remedy
