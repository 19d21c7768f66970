"""`govipctl doctor` on files, clock, page and unit file; and the command itself."""

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from govipd.config import Config
from govipd.ctl.checks import host, units
from govipd.ctl.checks.finding import Finding, Verdict
from govipd.ctl.doctor import doctor, examine
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
    (finding,) = await host.files(config)
    return finding


@pytest.mark.root
async def test_only_root_may_change_what_govipd_does(config: Config, tmp_path: Path) -> None:
    """The file, and the directory in which it could be replaced: owner and mode."""
    assert (await verdict(config)).verdict is Verdict.OK
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
    (finding,) = await host.clock(config)
    assert finding.verdict is Verdict.OK


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
    (finding,) = await host.probe(config)
    assert finding.verdict is Verdict.OK
    status[0] = 503
    (finding,) = await host.probe(config)
    assert (finding.verdict, finding.detail) == (Verdict.FAILED, "HTTP 503")


def test_a_unit_file_that_was_changed(tmp_path: Path) -> None:
    """Comments and the place of the programs may differ, directives may not."""
    installed = tmp_path / "govipd@.service"
    text = UNIT.read_text()
    installed.write_text(f"# a packager's note\n{text.replace('ExecStart=', 'ExecStart=/usr/sbin/')}")
    assert units._drift(installed) is None
    installed.write_text(text.replace("WatchdogSec=1s", "WatchdogSec=1h"))
    finding = units._drift(installed)
    assert finding
    assert (finding.verdict, finding.check) == (Verdict.WARNING, f"unit file {installed}")


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1.0), ("500ms", 0.5), ("1min 30s", 90.0), ("infinity", 0.0), ("0", 0.0)]
)
def test_time_spans_of_systemd(text: str, seconds: float) -> None:
    """As "systemctl show" prints them."""
    assert units._seconds(text) == seconds


async def test_one_thing_that_fails_hides_no_other(config: Config) -> None:
    """Without etcd and, where the tests run, without the interface: every part still tells."""
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
