"""`govipctl doctor` on files, clock, page and unit file; and the command itself."""

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from govipd.config.model import Config, ElectionConfig
from govipd.ctl.doctor import check_clock, check_haproxy, check_host, check_units
from govipd.ctl.doctor.doctor import doctor, examine
from govipd.ctl.doctor.finding import Finding, Severity
from govipd.ctl.main import main
from tests.adapters.doctor_config import configured
from tests.adapters.etcd_cluster import free_ports

UNIT = Path(__file__).resolve().parents[2] / "units/govipd@.service"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Without an etcd: nobody listens on its port."""
    (port,) = free_ports(1)
    return configured(tmp_path, f'endpoints = ["http://127.0.0.1:{port}"]', '[health]\nunit = ""\nurl = ""\n')


async def verdict(config: Config) -> Finding:
    (finding,) = await check_host.files(config)
    return finding


@pytest.mark.root
async def test_only_root_may_change_what_govipd_does(config: Config, tmp_path: Path) -> None:
    """The file, and the directory in which it could be replaced: owner and mode."""
    assert (await verdict(config)).verdict is Severity.OK
    file = tmp_path / "govip.toml"
    file.chmod(0o666)
    finding = await verdict(config)
    assert (finding.detail, finding.remedy) == (
        f"{file} has mode 0666: others could change it", f"chmod go-w {file}",
    )  # fmt: skip
    file.chmod(0o644)
    os.chown(file, 65534, 0)
    assert (await verdict(config)).detail == f"{file} does not belong to root"
    os.chown(file, 0, 0)
    tmp_path.chmod(0o775)
    assert (await verdict(config)).detail == f"{tmp_path} has mode 0775: others could change it"


async def test_the_clock_of_this_machine(config: Config) -> None:
    """It runs at its hardware's rate, or this machine could not be trusted with a lease."""
    for finding in await check_clock.examine(config):
        assert finding.verdict is Severity.OK


def test_a_clock_s_rate_is_judged_by_what_the_margin_allows() -> None:
    """0.6 of 3 s are two clocks off by a ninth; chrony at work is a warning, and not more."""
    election = ElectionConfig(ttl=3.0, margin=0.6)
    assert check_clock.allowed(election) == pytest.approx(1 / 9)
    verdicts = [check_clock.rate(off, election).verdict for off in (0.0, 0.0005, 0.01, 1 / 12, 0.12)]
    assert verdicts == [Severity.OK, Severity.OK, Severity.WARNING, Severity.WARNING, Severity.FAILED]
    assert check_clock.allowed(ElectionConfig(ttl=3.0, margin=0.5)) > 1 / 12


def test_what_chrony_may_do_to_the_clock(tmp_path: Path) -> None:
    """Its default, its file, and the directories that the file names; the last word counts."""
    main, more = tmp_path / "chrony.conf", tmp_path / "conf.d"
    files = (tmp_path / "no", main)
    election = ElectionConfig(ttl=3.0, margin=0.5)
    assert check_clock.chrony_slew(files) == (1 / 12, "chrony's default")
    main.write_text(f"pool example.net iburst\n#maxslewrate 5\nconfdir /nonexistent {more}\n")
    assert check_clock.chrony_slew(files) == (1 / 12, "chrony's default")
    assert check_clock.ntp(["chronyd"], check_clock.chrony_slew(files), election).verdict is Severity.OK
    more.mkdir()
    (more / "fast.conf").write_text("maxslewrate 100000\n")
    finding = check_clock.ntp(["chronyd"], check_clock.chrony_slew(files), election)
    assert finding.verdict is Severity.FAILED
    assert f"may slew the clock by 10.0% (maxslewrate, {more}/fast.conf); 9.1% is allowed" in finding.detail
    assert (
        check_clock.ntp(["chronyd"], check_clock.chrony_slew(files), ElectionConfig(ttl=3.0, margin=0.6)).verdict
        is Severity.OK
    )


def test_what_else_keeps_the_time() -> None:
    """It leaves slewing to the kernel; where nothing is seen, that is said."""
    election = ElectionConfig()
    assert "systemd-timesyncd runs, which slews the clock by 0.05% at most" in (
        check_clock.ntp(["systemd-timesyncd"], None, election).detail
    )
    assert "no chronyd, ntpd or systemd-timesyncd runs here" in check_clock.ntp([], None, election).detail


INFO = "Name: HAProxy\nMaxconn: {maxconn}\nCurrConns: 7\n"
STAT = "# pxname,svname,slim,\nservice,FRONTEND,{service},\ngovip_health,FRONTEND,10,\n"


@pytest.mark.parametrize(
    ("maxconn", "service", "verdict"),
    [(60, 50, Severity.OK), (60, 51, Severity.WARNING), (60, 60, Severity.WARNING)],
)
def test_a_reserve_for_the_page(maxconn: int, service: int, verdict: Severity) -> None:
    """The frontends together must not have more than haproxy as a whole."""
    finding = check_haproxy.judge(INFO.format(maxconn=maxconn), STAT.format(service=service))
    assert finding.verdict is verdict
    assert f"7 of {maxconn} connections; the frontends may have {service + 10} together" in finding.detail


async def test_haproxy_s_limits_where_they_cannot_be_asked(tmp_path: Path) -> None:
    """No file, no socket in it, a socket on which nothing listens, and another unit: said, and no fault."""
    config, file = configured(tmp_path), tmp_path / "haproxy.cfg"
    (finding,) = await check_haproxy.examine(config, file)
    assert (finding.verdict, finding.detail) == (Severity.SKIPPED, f"{file}: No such file or directory")
    file.write_text("global\n    maxconn 60\n")
    (finding,) = await check_haproxy.examine(config, file)
    assert "no stats socket in" in finding.detail
    file.write_text(f"global\n    stats socket {tmp_path}/admin.sock mode 660\n")
    (finding,) = await check_haproxy.examine(config, file)
    assert finding.verdict is Severity.SKIPPED
    assert finding.detail.startswith(f"{tmp_path}/admin.sock: ")
    other = configured(tmp_path, rest='[health]\nunit = "nginx.service"\n')
    assert await check_haproxy.examine(other, file) == []


@pytest.mark.parametrize("answer", ["", "Unknown command\n", "Maxconn: x\nCurrConns: 1\n"])
def test_an_answer_that_is_not_haproxy_s(answer: str) -> None:
    """The check says that the answer is not haproxy's."""
    with pytest.raises((KeyError, ValueError)):
        check_haproxy.judge(answer, STAT.format(service=1))


@pytest.fixture
def page() -> Iterator[tuple[str, list[int]]]:
    """A URL, and the status that it answers."""
    status = [200]

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0])
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # overrides
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", status
        server.shutdown()
        thread.join()


async def test_the_page(page: tuple[str, list[int]], tmp_path: Path) -> None:
    """What it answers."""
    url, status = page
    config = configured(tmp_path, rest=f'[health]\nurl = "{url}"\ntimeout = 10\n')
    (finding,) = await check_host.probe(config)
    assert finding.verdict is Severity.OK
    status[0] = 503
    (finding,) = await check_host.probe(config)
    assert (finding.verdict, finding.detail) == (Severity.FAILED, "HTTP 503")


def test_a_unit_file_that_was_changed(tmp_path: Path) -> None:
    """Comments and the place of the programs may differ, directives may not."""
    installed = tmp_path / "govipd@.service"
    text = UNIT.read_text()
    installed.write_text(f"# a packager's note\n{text.replace('ExecStart=', 'ExecStart=/usr/sbin/')}")
    assert check_units._drift(installed) is None
    installed.write_text(text.replace("WatchdogSec=1s", "WatchdogSec=1h"))
    finding = check_units._drift(installed)
    assert finding
    assert (finding.verdict, finding.check) == (Severity.WARNING, f"unit file {installed}")


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1.0), ("500ms", 0.5), ("1min 30s", 90.0), ("infinity", 0.0), ("0", 0.0)]
)
def test_time_spans_of_systemd(text: str, seconds: float) -> None:
    """As "systemctl show" prints them."""
    assert check_units._seconds(text) == seconds


async def test_one_thing_that_fails_hides_no_other(config: Config) -> None:
    """Without etcd (and in tests without the interface), every other check still reports."""
    checks = {finding.check.split(" ")[0] for finding in await examine(config)}
    assert {"configuration", "etcd", "members", "clock", "interface", "nf_tables", "answers"} <= checks


def test_the_command(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1 where something failed; for programs, the same findings."""
    assert doctor(Path(config.path), as_json=False) == 1
    text = capsys.readouterr().out
    assert f"failed   etcd {config.etcd.endpoints[0]}: etcd does not answer: Connection refused\n" in text
    assert "         -> is etcd running there" in text
    assert main(["doctor", "--json", "--config", config.path]) == 1
    found = json.loads(capsys.readouterr().out)
    assert all(finding.keys() == {"check", "verdict", "detail", "remedy"} for finding in found)


def test_a_configuration_that_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each fault, and 78."""
    file = tmp_path / "govip.toml"
    file.write_text("x = 1")
    assert doctor(file, as_json=False) == os.EX_CONFIG
    assert "x = 1: no such key" in capsys.readouterr().err
