"""govipctl at its limits: bad arguments, journalctl's failures, a daemon of another version."""

import io
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from govipd.core.settings import Settings
from govipd.core.state_machine import VipStateMachine
from govipd.ctl import client, history, render
from govipd.ctl.main import main
from govipd.errors import DeniedError, NoDaemonError, RefusedError
from govipd.runtime.reporter import Reporter
from govipd.runtime.shared_troubles import SharedTroubles
from govipd.runtime.step_timing import Operation, OperationTimings
from tests.fakes import FakeClock, FakeJournal


def reporter(journal: FakeJournal) -> Reporter:
    return Reporter(
        "api",
        (),
        VipStateMachine(Settings(), 0.0),
        clock=FakeClock(),
        journal=journal,
        shared=SharedTroubles(journal),
        publish=lambda _record: None,
    )


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["status", "--watch", "0"], "'0': must be seconds, from 0.05 to 86400"),
        (["status", "--watch", "nan"], "must be seconds"),
        (["drain", "--wait", "--timeout", "soon"], "must be seconds"),
        (["status", "--watch", "1", "--json"], "not allowed with argument"),
        ([], "required: COMMAND"),
    ],
)
def test_what_is_typed_wrong_is_refused(typed: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, with the reason."""
    with pytest.raises(SystemExit) as end:
        main(typed)
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_the_command_ends_with_its_status_and_its_output(tmp_path: Path) -> None:
    """Though the interpreter is not cleaned up; also where the reader of its output has gone."""
    good, bad = tmp_path / "govip.toml", tmp_path / "bad.toml"
    good.write_text('[[vip]]\nname = "api"\ninterface = "eth0"\naddresses = ["192.0.2.1/24"]\n')
    bad.write_text("[health]\nrize = 1\n")
    command = [sys.executable, "-c", "from govipd.ctl.main import run; run()", "check", "--config"]
    done = subprocess.run([*command, bad], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert "health.rize" in done.stderr
    done = subprocess.run([*command, good], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "valid for eth0: api" in done.stdout
    closed = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command, good], stderr=subprocess.PIPE, check=False)
    assert (closed.returncode, closed.stderr) == (0, b"")
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as broken:
        done = subprocess.run([*command, good], stdout=broken, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_handover_that_is_to_be_waited_for_reads_the_configuration_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the VIP would have moved when the configuration is refused: there is no daemon here, and it is not asked."""
    path = tmp_path / "govip.toml"
    path.write_text("[health]\nrize = 1\n")
    assert main(["handover", "--wait", "--config", str(path)]) == 78
    assert "health.rize" in capsys.readouterr().err


def test_a_configuration_that_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 78, with every fault listed. Options may follow the command."""
    path = tmp_path / "govip.toml"
    path.write_text("[health]\nrize = 1\n")
    assert main(["check", "--config", str(path)]) == 78
    assert "health.rize = 1: no such key; did you mean rise?" in capsys.readouterr().err


def test_the_matches_of_the_history() -> None:
    """Root's lines with a state, of one VIP and one interface."""
    command = history.command("api", "eth0", 7, ["GOVIP_STATE=leader"])
    assert {"--lines=7", "_UID=0", "GOVIP_STATE=leader", "GOVIP_VIP=api"} <= set(command)
    assert "_SYSTEMD_UNIT=govipd@eth0.service" in command


def test_an_operation_comes_back_as_the_daemon_has_reported_it() -> None:
    """Each step with its ms, as govipd's journal entry has them."""
    journal = FakeJournal()
    story = OperationTimings(Operation.TAKE, 12.5, (("won", 0.0), ("fence open", 1.25)))
    reporter(journal).timings(story)
    fields = {"__REALTIME_TIMESTAMP": "1750000000000000", **journal.fields[-1]}
    assert history.move(json.dumps(fields)) == {
        "at": "2025-06-15 15:06:40.000",
        "vip": "api",
        "move": "take-over",
        "began": 12.5,
        "steps": [{"step": "won", "ms": 0.0}, {"step": "fence open", "ms": 1.25}],
    }
    assert "take-over in 1.2 ms: won 0.0, fence open 1.2" in journal.lines[-1]
    Console(file=io.StringIO(), width=100).print(render.moves_table([history.move(json.dumps(fields))]))


@pytest.mark.parametrize("steps", ["", "1", '[["won"]]', '[["won", "x"]]'])
def test_a_move_of_another_version_is_reported(steps: str) -> None:
    """One error, no traceback."""
    fields = {"__REALTIME_TIMESTAMP": "1750000000000000", "GOVIP_BEGAN": "1.0", "GOVIP_STEPS": steps}
    with pytest.raises(NoDaemonError, match="another version"):
        history.move(json.dumps(fields))


def test_a_line_of_the_history() -> None:
    """Fields that journalctl gives as bytes, or not at all, do no harm."""
    fields = {"__REALTIME_TIMESTAMP": "1750000000000000", "GOVIP_VIP": "api", "GOVIP_STATE": "leader", "MESSAGE": [27]}
    assert history.entry(json.dumps(fields)) == {
        "at": "2025-06-15 15:06:40.000",
        "vip": "api",
        "state": "leader",
        "reason": "",
        "message": "[27]",
    }


def test_what_asks_only_this_node_loads_no_etcd_client() -> None:
    """is-leader is for scripts: it must not take as long as grpc's import."""
    asking = "import sys; from govipd.ctl.main import main; main(['is-leader']); print('grpc' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", asking], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "False\n"


@pytest.mark.parametrize(
    ("reply", "error", "told"),
    [
        (b"", NoDaemonError, "it closed the connection"),
        (b"{}", NoDaemonError, "it closed the connection"),
        (b"[]\0", NoDaemonError, "what it says is no reply"),
        (b'{"parameters": {}}\0', NoDaemonError, "it may be another version"),
        (b'{"error": "org.varlink.service.MethodNotFound"}\0', RefusedError, "MethodNotFound"),
        (b'{"error": "org.varlink.service.PermissionDenied"}\0', DeniedError, "only root may do that"),
        (b'{"error": "org.govipd.Node.Refused", "parameters": {"reason": "no"}}\0', RefusedError, "no"),
    ],
)
def test_any_answer_of_a_daemon_is_shown(tmp_path: Path, reply: bytes, error: type[Exception], told: str) -> None:
    """The answers of a crashing daemon, of a newer one, and a refusal."""
    (tmp_path / "eth0").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "eth0" / "control"))
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(error, match=told):
            client.status("eth0", tmp_path)
        thread.join()


def test_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    """It hangs, and its queue of connections is full: waited for within bounds."""
    (tmp_path / "eth0").mkdir()
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(tmp_path / "eth0" / "control"))
        hanging.listen(0)
        for _ in range(2):  # the first one's connection stays in the queue
            with pytest.raises(NoDaemonError, match="does not answer within 1 s"):
                client.status("eth0", tmp_path, patience=1)


def test_where_no_daemon_runs(tmp_path: Path) -> None:
    """A socket without a listener is reported, for all VIPs and for a named one."""
    with pytest.raises(NoDaemonError, match="no govipd runs on this machine"):
        client.instances(None, tmp_path)
    with pytest.raises(NoDaemonError, match="govipd@eth9 does not run"):
        client.status("eth9", tmp_path)
    (tmp_path / "eth0").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "eth0" / "control"))
    assert client.instances(None, tmp_path) == ("eth0",)
    with pytest.raises(NoDaemonError, match="Connection refused"):
        client.status("eth0", tmp_path)
