"""The file that lists this machine's own etcd leases, in the unit's runtime directory.

A lease that etcd shows under this member's name may be another machine's: a clone has the same name and the same
machine-id. Only a lease in this file is this machine's own. The file outlives a crash and a restart, not a boot.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

NAME = "leases"
LEASES_MAX = 100  # in the file; the newest are kept


class LeaseFile:
    """The leases of this process, and of the processes before it (implements ports.Leases).

    Args:
        directory: the unit's runtime directory; None (not run by systemd): no file is read or written.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = directory and directory / NAME
        self._earlier = _read(self._path) if self._path is not None else []

    def earlier(self) -> Sequence[int]:
        """See ports.Leases."""
        known = _read(self._path) if self._path is not None else []
        return tuple(lease for lease in self._earlier if lease in known)

    def granted(self, lease: int) -> None:
        """See ports.Leases."""
        if lease in self._earlier:
            self._earlier.remove(lease)  # this process uses the lease itself
        if self._path is not None and lease not in (known := _read(self._path)):
            _write(self._path, [*known, lease])

    def ended(self, lease: int) -> None:
        """See ports.Leases."""
        if lease in self._earlier:
            self._earlier.remove(lease)
        if self._path is not None:
            _write(self._path, [known for known in _read(self._path) if known != lease])


def _read(path: Path) -> list[int]:
    """The leases in the file; empty where the file cannot be read or parsed."""
    try:
        return [int(text, 16) for text in path.read_text(encoding="ascii").split()][-LEASES_MAX:]
    except (OSError, ValueError):
        return []


def _write(path: Path, leases: Sequence[int]) -> None:
    """Replace the file, or remove an empty one. On a full disk, the next process cannot revoke the lease."""
    aside = path.with_suffix(".new")
    with suppress(OSError):
        if leases:
            aside.write_text("".join(f"{lease:x}\n" for lease in leases[-LEASES_MAX:]), encoding="ascii")
            aside.replace(path)
        else:
            path.unlink(missing_ok=True)
