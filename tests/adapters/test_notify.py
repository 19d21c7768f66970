"""The messages to systemd, read from a socket like systemd's."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from govipd.adapters.systemd.notify import SystemdNotifier, watchdog_interval_s


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield server


@pytest.fixture
def notifier(systemd: socket.socket) -> Iterator[SystemdNotifier]:
    notifier = SystemdNotifier()
    yield notifier
    notifier.close()


def test_each_state_is_one_datagram(systemd: socket.socket, notifier: SystemdNotifier) -> None:
    """As sd_notify(3) writes them; the status is one line of UTF-8."""
    notifier.ready()
    notifier.status("leader → holds\n192.0.2.100")
    notifier.watchdog()
    notifier.stopping()
    received = [systemd.recv(1000).decode() for _ in range(4)]
    assert received == ["READY=1", "STATUS=leader → holds 192.0.2.100", "WATCHDOG=1", "STOPPING=1"]


def test_reload_carries_the_monotonic_time(systemd: socket.socket, notifier: SystemdNotifier) -> None:
    """In microseconds."""
    before = time.monotonic()
    notifier.reloading()
    first, second = systemd.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) / 1e6 <= time.monotonic()


def test_busy_systemd_does_not_hold_the_daemon(notifier: SystemdNotifier) -> None:
    """No process reads, the queue fills, and every call returns."""
    began = time.monotonic()
    for _ in range(30):
        notifier.watchdog()
    assert time.monotonic() - began < 20


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by hand: no socket is made."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was made"))
    SystemdNotifier().ready()


@pytest.mark.parametrize(
    ("environ", "timeout"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "1500000"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_is_for_this_process_only(environ: dict[str, str], timeout: float | None) -> None:
    """sd_watchdog_enabled(3)."""
    assert watchdog_interval_s(environ) == timeout
