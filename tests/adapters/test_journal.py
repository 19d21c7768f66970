"""Journal entries, read from a socket like journald's."""

import io
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from govipd.adapters.systemd.journal import StderrJournal, SystemdJournal, journal_for
from govipd.core.journal_kinds import JournalKind


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "socket"))
        server.settimeout(10)
        yield server


@pytest.fixture
def journal(journald: socket.socket, tmp_path: Path) -> Iterator[SystemdJournal]:
    journal = SystemdJournal(path=tmp_path / "socket")
    yield journal
    journal.close()


def test_entry_has_message_priority_identifier_and_fields(journald: socket.socket, journal: SystemdJournal) -> None:
    """One datagram; names as given, text as UTF-8."""
    journal.write(JournalKind.ACTIVATED, "api: leader, für 3 s", {"GOVIP_VIP": "api", "GOVIP_STATE": "leader"})
    assert journald.recv(4096).decode() == (
        f"MESSAGE=api: leader, für 3 s\nMESSAGE_ID={JournalKind.ACTIVATED.id}\nPRIORITY=5\n"
        "SYSLOG_IDENTIFIER=govipd\nGOVIP_VIP=api\nGOVIP_STATE=leader\n"
    )


def test_line_breaks_cannot_forge_fields(journald: socket.socket, journal: SystemdJournal) -> None:
    """Such a value is sent with its length."""
    journal.write(JournalKind.EXPIRED, "a\nPRIORITY=0", {})
    size = struct.pack("<Q", 12)
    rest = f"MESSAGE_ID={JournalKind.EXPIRED.id}\nPRIORITY=4\nSYSLOG_IDENTIFIER=govipd\n"
    assert journald.recv(4096) == b"MESSAGE\n" + size + b"a\nPRIORITY=0\n" + rest.encode()


def test_entry_that_is_too_large_for_the_socket_comes_as_a_file(
    journald: socket.socket, journal: SystemdJournal
) -> None:
    """As journald takes it: an empty datagram with a sealed file."""
    journal.write(JournalKind.ACTIVATED, "x" * 1_000_000, {})
    data, files, _, _ = socket.recv_fds(journald, 1, 1)
    assert data == b""
    with os.fdopen(files[0], "rb") as file:
        file.seek(0)
        assert file.read().startswith(b"MESSAGE=" + b"x" * 1_000_000 + b"\n")


def test_text_that_is_no_unicode_is_written(journald: socket.socket, journal: SystemdJournal) -> None:
    """Names from the file system may hold surrogates."""
    journal.write(JournalKind.ACTIVATED, "a \udcff name", {})
    assert journald.recv(4096).startswith(b"MESSAGE=a ? name\n")


def test_journald_that_does_not_read_does_not_block_the_daemon(
    journald: socket.socket, journal: SystemdJournal
) -> None:
    """Writing does not wait. The number of lost entries is reported when journald reads again."""
    began = time.monotonic()
    for n in range(2000):
        journal.write(JournalKind.GATE_HEALTHY, f"line {n}", {})
    assert time.monotonic() - began < 10
    journald.setblocking(False)
    with suppress(BlockingIOError):
        while journald.recv(4096):
            pass
    journal.write(JournalKind.GATE_HEALTHY, "back", {})
    assert b"earlier entries were lost" in journald.recv(4096)
    journal.write(JournalKind.GATE_HEALTHY, "next", {})
    assert journald.recv(4096).startswith(b"MESSAGE=next\n")


def test_missing_journald_is_survived(journal: SystemdJournal, journald: socket.socket, tmp_path: Path) -> None:
    """Restarted journald, with a new socket at the same place, is found."""
    (tmp_path / "socket").unlink()
    journal.write(JournalKind.GATE_HEALTHY, "nobody reads", {})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as restarted:
        restarted.bind(str(tmp_path / "socket"))
        restarted.settimeout(10)
        journal.write(JournalKind.GATE_HEALTHY, "back", {})
        assert b"1 earlier entries were lost" in restarted.recv(4096)


def test_journal_is_chosen_by_what_stderr_is_connected_to() -> None:
    """JOURNAL_STREAM may be inherited by a process whose stderr was redirected since."""
    with Path(os.devnull).open("w", encoding="utf-8") as stream:
        stat = os.fstat(stream.fileno())
        chosen = journal_for({"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}, stream)
        assert isinstance(chosen, SystemdJournal)
        chosen.close()
        assert isinstance(journal_for({"JOURNAL_STREAM": "1:2"}, stream), StderrJournal)
        assert isinstance(journal_for({}, sys.stderr), StderrJournal)
    assert isinstance(journal_for({"JOURNAL_STREAM": "1:2"}, io.StringIO()), StderrJournal)


def test_stderr_gets_the_time_and_the_message() -> None:
    """And nothing is raised when it is closed."""
    stream = io.StringIO()
    journal = StderrJournal(stream)
    journal.write(JournalKind.GATE_HEALTHY, "api: leader", {"GOVIP_VIP": "api"})
    date, clock, message = stream.getvalue().split(" ", 2)
    assert (date.count("-"), clock.count(":"), message) == (2, 3, "api: leader\n")
    stream.close()
    journal.write(JournalKind.GATE_HEALTHY, "api: leader", {})
