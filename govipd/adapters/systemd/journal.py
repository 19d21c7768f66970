"""Lines for people, with fields for programs: to systemd's journal, or to standard error."""

import os
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

from logging_journald import JournaldTransport

from govipd.core.journal_kinds import JournalKind
from govipd.runtime.process_ports import Journal

_JOURNALD = Path("/run/systemd/journal/socket")
_IDENTIFIER = "govipd"
_WAIT_US = 50_000  # longest wait, in microseconds, for journald to make room


class SystemdJournal:
    """Writes journald's native protocol (process_ports.Journal; systemd.io/JOURNAL_NATIVE_PROTOCOL).

    libsystemd's sd_journal_send(3) waits as long as journald does not read (a full disk, a stopped journald). The
    Python bindings hold the interpreter's lock meanwhile, so the daemon could lose its lease because of a log line. In
    this class, an entry waits 50 ms at most. The next entry that gets through states the number of lost entries.
    """

    def __init__(self, *, identifier: str = _IDENTIFIER, path: Path = _JOURNALD) -> None:
        self._identifier = identifier
        self._lost = 0
        self._transport = JournaldTransport(path, connected=False)  # a restarted journald has another socket
        # The kernel's time-out: Python's would poll an unconnected socket, which is always writable.
        self._transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, _WAIT_US))

    def write(self, kind: JournalKind, text: str, fields: Mapping[str, str]) -> None:
        """Write one entry. `fields`: names of upper-case letters, digits and underscores. Never raises."""
        if self._lost:
            text = f"{text} ({self._lost} earlier entries were lost: journald did not take them)"
        entry = {
            "MESSAGE": text,
            "MESSAGE_ID": kind.id,
            "PRIORITY": str(kind.priority.value),
            "SYSLOG_IDENTIFIER": self._identifier,
            **fields,
        }
        try:
            # After a lost entry, entries do not wait, until one gets through.
            self._transport.socket.setblocking(not self._lost)
            self._transport.send((name, value.encode(errors="replace").decode()) for name, value in entry.items())
        except OSError:
            self._lost += 1
        else:
            self._lost = 0

    def close(self) -> None:
        """Close the socket."""
        self._transport.socket.close()


class StderrJournal:
    """Writes lines with the time to a stream (process_ports.Journal), without the fields."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, kind: JournalKind, text: str, fields: Mapping[str, str]) -> None:  # noqa: ARG002  # of the port
        """Write one line. Never raises."""
        with suppress(OSError, ValueError):  # ValueError: the stream is closed
            print(datetime.now().astimezone().isoformat(" ", "milliseconds"), text, file=self._stream, flush=True)


def journal_for(environ: Mapping[str, str], stderr: TextIO) -> Journal:
    """The journal if JOURNAL_STREAM names `stderr` (systemd.exec(5)), else `stderr`."""
    try:
        stat = os.fstat(stderr.fileno())
    except (OSError, ValueError):  # closed, or not a file
        return StderrJournal(stderr)
    if environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}":
        return SystemdJournal()
    return StderrJournal(stderr)
