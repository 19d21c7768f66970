"""What Prometheus reads: as text, and through the server that many or hostile askers meet."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

import pytest

from govipd.adapters.outputs import scrape_server
from govipd.adapters.outputs.metrics import Metrics
from govipd.adapters.outputs.scrape_server import CONNECTIONS_MAX, HEAD_MAX, ScrapeServer
from govipd.core import events as ev
from govipd.core.actions import Alarm, CloseFence, Hold, Report
from govipd.core.state import State, Trigger
from tests import fakes
from tests.adapters.node import FakeOperator

CONF = Path(__file__).resolve().parents[2] / "conf"
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
VIP = ip_interface("192.0.2.100/32")


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


class World:
    def __init__(self, port: int = 0) -> None:
        self.operator, self.journal, self.clock = FakeOperator(), fakes.FakeJournal(), fakes.FakeClock()
        self.server = ScrapeServer("127.0.0.1", port, journal=self.journal, clock=self.clock)
        self.metrics = Metrics(self.operator, self.server)

    def step(self, event: ev.Event, *actions: Report | Alarm, vip: str = "api", now: float = 0.0) -> None:
        self.metrics.stepped(vip, event, actions, now)

    def value(self, series: str) -> float | None:
        """Of one series, written as Prometheus shows it."""
        found = [line for line in self.metrics.text().decode().splitlines() if line.startswith(f"{series} ")]
        return float(found[0].split()[-1]) if found else None

    async def listening(self) -> tuple[str, int]:
        async with asyncio.timeout(10):
            while self.server.bound is None:
                await asyncio.sleep(0.002)
        return self.server.bound

    async def ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*await self.listening())
        try:
            writer.write(request)
            async with asyncio.timeout(10):
                return await reader.read()
        except ConnectionError:  # shown out
            return b""
        finally:
            await hang_up(writer)


@asynccontextmanager
async def serving(port: int = 0) -> AsyncIterator[World]:
    world = World(port)
    task = asyncio.ensure_future(world.metrics.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def exercised() -> World:
    """Everything has happened once."""
    world = World()
    for event in (
        ev.ProbeResult(passed=True, detail="200", took=0.002), ev.ProbeResult(passed=False, detail="no"),
        ev.LeaseRenewed(1, sent_at=9.996, ttl=3.0), ev.Done(Hold(12.5)), ev.Failed(CloseFence(), "busy"),
        ev.Announced(6), ev.AddressLost(VIP), ev.ClusterFault(warning="x"), ev.ClusterFault(refused="x"),
        ev.EtcdFailed("http://192.0.2.11:2379", "timeout"), ev.Stalled(1.0), ev.Done(CloseFence()),
    ):  # fmt: skip
        world.step(event, now=10.0)
    report = Report(State.LEADER, Trigger.ACTIVATED, "", 10.0)
    world.step(ev.Tick(), report, Alarm("somebody added it"))
    return world


def test_what_is_now() -> None:
    """State, gates, lease, the operator's word, and what runs."""
    w = World()
    assert w.value('govip_build_info{interface="eth0",member="node1",version="1.2"}') == 1
    assert w.value('govip_leader{vip="api"}') == 1
    assert w.value('govip_state{state="leader",vip="api"}') == 1
    assert w.value('govip_state{state="candidate",vip="api"}') == 0
    assert w.value('govip_lease_remaining_seconds{vip="api"}') == 2.25
    w.operator.unhealthy("probe")
    w.operator.group = replace(w.operator.group, state="ineligible", lease_left=None, drained=True, etcd="no answer")
    assert w.value('govip_leader{vip="api"}') == 0
    assert w.value('govip_gate{gate="probe",verdict="healthy",vip="api"}') == 0
    assert w.value('govip_gate{gate="probe",verdict="unhealthy",vip="api"}') == 1
    assert w.value('govip_lease_remaining_seconds{vip="api"}') == 0
    assert w.value('govip_drained{vip="api"}') == 1
    assert w.value('govip_etcd_up{vip="api"}') == 0


def test_what_happened_is_counted() -> None:
    """By VIP group, with closed sets of words for labels."""
    w = exercised()
    for series, value in {
        'govip_transitions_total{reason="activated",state="leader",vip="api"}': 1,
        'govip_lease_renewal_seconds_bucket{le="0.005",vip="api"}': 1,
        'govip_lease_renewal_seconds_bucket{le="0.0025",vip="api"}': 0,
        'govip_lease_ttl_seconds{vip="api"}': 3,
        'govip_fence_refreshes_total{vip="api"}': 1,
        "govip_fence_transaction_longest_seconds": 0,
        'govip_kernel_failures_total{action="CloseFence",vip="api"}': 1,
        'govip_announcements_total{vip="api"}': 6,
        'govip_conflicts_total{kind="address added",vip="api"}': 1,
        'govip_conflicts_total{kind="address removed",vip="api"}': 1,
        'govip_conflicts_total{kind="members disagree",vip="api"}': 1,
        'govip_conflicts_total{kind="name taken",vip="api"}': 1,
        'govip_etcd_errors_total{endpoint="http://192.0.2.11:2379",kind="timeout",vip="api"}': 1,
        'govip_probe_checks_total{result="passed"}': 1,
        'govip_probe_checks_total{result="failed"}': 1,
        "govip_probe_seconds_count": 1,
        "govip_stalls_total": 1,
    }.items():
        assert w.value(series) == value, series


def test_one_check_for_several_groups_is_one_check() -> None:
    """The process has one probe, and every group gets its results."""
    w = World()
    result = ev.ProbeResult(passed=True, detail="200", took=0.002)
    w.step(result, vip="api")
    w.step(result, vip="web")
    assert w.value('govip_probe_checks_total{result="passed"}') == 1


def test_counters_are_there_before_they_count() -> None:
    """Prometheus sees no rise in a series that begins at 1."""
    w = World()
    w.step(ev.Tick())
    assert w.value('govip_transitions_total{reason="expired",state="deactivating",vip="api"}') == 0
    assert w.value('govip_conflicts_total{kind="name taken",vip="api"}') == 0


def test_promtool_finds_nothing_to_say() -> None:
    """Names, units and help by Prometheus' conventions."""
    text = exercised().metrics.text()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


async def test_a_scrape_gets_the_metrics_and_other_pages_do_not_exist() -> None:
    """HTTP/1.1, as Prometheus and curl ask it."""
    async with serving() as w:
        head, _, body = (await w.ask(GET)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n")
        assert f"Content-Length: {len(body)}\r\n".encode() in head
        assert body == w.metrics.text()
        assert (await w.ask(GET.replace(b"GET", b"HEAD"))).endswith(b"\r\n\r\n")
        assert (await w.ask(b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
        assert (await w.ask(b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert (await w.ask(b"\x16\x03\x01\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_many_askers_get_one_page() -> None:
    """It is made once in a while, however often it is asked for."""
    async with serving() as w:
        await w.ask(GET)
        asked = w.operator.asked
        for _ in range(20):
            assert b" 200 OK" in await w.ask(GET)
        assert w.operator.asked - asked <= 10
        w.clock.offset += 10
        await w.ask(GET)
        assert w.operator.asked > asked


async def test_those_who_say_nothing_or_too_much_are_shown_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """And meanwhile no more than a few connections are served."""
    monkeypatch.setattr(scrape_server, "EXCHANGE_S", 0.5)
    async with serving() as w:
        assert await w.ask(b"GET /metrics HTTP/1.1\r\nX: " + HEAD_MAX * b"x" + b"\r\n\r\n") == b""
        silent = [await asyncio.open_connection(*await w.listening()) for _ in range(CONNECTIONS_MAX)]
        assert await w.ask(GET) == b""
        for reader, writer in silent:
            with suppress(ConnectionError):
                assert await reader.read() == b""
            await hang_up(writer)
        assert b" 200 OK" in await w.ask(GET)


async def test_a_port_that_is_taken_is_reported_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never the end of the daemon."""
    monkeypatch.setattr(scrape_server, "RETRY_S", 0.01)
    other = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port: int = other.sockets[0].getsockname()[1]
    async with serving(port) as w:
        while not w.journal.lines:
            await asyncio.sleep(0.002)
        assert f"metrics on 127.0.0.1:{port}: not served: " in w.journal.lines[0]
        assert "address already in use; next: tried again for ever" in w.journal.lines[0]
        other.close()
        await other.wait_closed()
        assert b" 200 OK" in await w.ask(GET)
        assert "served, after" in w.journal.lines[-1]


def test_a_daemon_without_metrics_does_not_load_their_library() -> None:
    """It stays lean."""
    code = "import govipd.cli, sys; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    """As Prometheus itself evaluates conf/prometheus-rules.yml, over the series of rules_test.yml."""
    tests = Path(__file__).with_name("rules_test.yml")
    for command in (("check", "rules", "--lint-fatal", CONF / "prometheus-rules.yml"), ("test", "rules", tests)):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for alert in re.findall(r"- alert: (\w+)", (CONF / "prometheus-rules.yml").read_text()):
        assert alert in tests.read_text(), alert


def expressions(node: object) -> Iterable[str]:
    """Every query of a dashboard."""
    if isinstance(node, dict):
        if isinstance(node.get("expr"), str):
            yield node["expr"]
        if isinstance(node.get("query"), str):
            yield node["query"]
        for value in node.values():
            yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def test_every_query_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    """With Grafana's variables filled in; the templates' own functions are Grafana's."""
    dashboard = json.loads((CONF / "grafana-dashboard.json").read_text())
    queries = [query.replace("$__rate_interval", "1m") for query in expressions(dashboard["panels"])]
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["prometheus-rules.yml", "grafana-dashboard.json"])
def test_rules_and_dashboard_name_metrics_that_exist(name: str) -> None:
    """Their series, in what the daemon exports."""
    text = (CONF / name).read_text()
    queries = "\n".join(expressions(json.loads(text))) if name.endswith("json") else "\n".join(
        line for line in text.splitlines() if not line.lstrip().startswith("#")
    )  # fmt: skip
    names = set(re.findall(r"\bgovip_\w+", queries))
    exported = set(re.findall(r"^(govip_\w+)[ {]", exercised().metrics.text().decode(), flags=re.MULTILINE))
    assert names
    assert names <= exported
