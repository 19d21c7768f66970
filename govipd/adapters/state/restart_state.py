"""The restart state: one process leaves it for the next, in a file in the unit's runtime directory.

systemd keeps the runtime directory over a restart and a crash (RuntimeDirectoryPreserve=restart, systemd.exec(5)), and
removes it on stop. /run is empty after a boot, so an instant of CLOCK_BOOTTIME in the file is of the present boot.
The next process does not trust the file: it proves lease and key in etcd before it uses them.
"""

import os
from ipaddress import ip_interface
from pathlib import Path
from typing import Annotated

import msgspec

from govipd.core.actions import RestartState
from govipd.core.sanitize import sanitize_line
from govipd.errors import StateFileError
from govipd.runtime.ports import Clock

VERSION = 1
_STEP = 64  # bytes; the file's size is a multiple of it, filled up with blanks
AHEAD_MAX_S = 600.0  # longer than any lease: a later deadline must be from another boot


_Number = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]  # as etcd gives them


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content."""

    version: int
    identity: str
    lease_id: _Number
    create_revision: _Number
    until: float
    addresses: tuple[str, ...] = ()


class RestartStateFile:
    """One VIP group's file (implements ports.RestartStateStore).

    Args:
        path: the file; None (not run by systemd): no restart state is kept.
        identity: identifies the group and its settings; a file of another identity is refused.
        clock: the clock of `until`.
    """

    def __init__(self, *, path: Path | None, identity: str, clock: Clock) -> None:
        self._path = path
        self._identity = identity
        self._clock = clock
        self._size = 0  # of the file that this process has written; 0: it has not written one

    def load(self) -> RestartState | None:
        """See ports.RestartStateStore."""
        if self._path is None:
            return None
        try:
            file = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise StateFileError(f"{self._path}: {e.strerror}") from e
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise StateFileError(f"{self._path}: {sanitize_line(str(e))}") from e
        if file.version != VERSION:
            raise StateFileError(f"{self._path}: version {sanitize_line(str(file.version))}, expected {VERSION}")
        if file.identity != self._identity:
            raise StateFileError(f"{self._path}: is of {sanitize_line(file.identity)}, not of {self._identity}")
        ahead = file.until - self._clock.now()
        if ahead <= 0:
            raise StateFileError(f"{self._path}: its lease ended {-ahead:.1f} s ago")
        if ahead > AHEAD_MAX_S:
            raise StateFileError(f"{self._path}: its lease ends in {ahead:.0f} s; it was written on another boot")
        try:
            addresses = tuple(ip_interface(text) for text in file.addresses)
        except ValueError as e:
            raise StateFileError(f"{self._path}: {sanitize_line(str(e))}") from e
        return RestartState(file.lease_id, file.create_revision, file.until, addresses)

    def save(self, holding: RestartState) -> None:
        """See ports.RestartStateStore.

        The first call replaces the file (rename(2) is atomic). Later calls, one for each renewal, write over it: the
        reader is the next process, which begins when a call of write(2) has ended. A file of the same size needs no
        new space.
        """
        if self._path is None:
            return
        addresses = tuple(map(str, holding.addresses))
        file = _File(VERSION, self._identity, holding.lease_id, holding.create_revision, holding.until, addresses)
        content = msgspec.json.encode(file)
        content = content.ljust(max(self._size, -(-len(content) // _STEP) * _STEP))
        try:
            if len(content) != self._size or not _written_over(self._path, content):
                aside = self._path.with_suffix(".new")
                aside.write_bytes(content)
                aside.replace(self._path)
        except OSError as e:
            raise StateFileError(f"{self._path}: {os.strerror(e.errno or 0)}") from e
        self._size = len(content)

    def forget(self) -> None:
        """See ports.RestartStateStore."""
        self._size = 0
        if self._path is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError:
                return


def _written_over(path: Path, content: bytes) -> bool:
    """Write over a file of the same size. Returns False where there is no file."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return os.write(file, content) == len(content)
    finally:
        os.close(file)
