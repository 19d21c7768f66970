"""The files that list this machine's own etcd leases: one for each VIP group, in the unit's runtime directory.

A lease that etcd shows under this member's name may be another machine's: a clone has the same name and the same
machine-id. Only a lease in these files is this machine's own. The files outlive a crash and a restart, not a boot.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

SUFFIX = ".leases"
LEASES_MAX = 100  # in one file; the newest are kept


class LeaseFile:
    """One VIP group's leases (implements ports.Leases).

    Args:
        directory: the unit's runtime directory; None (not run by systemd): no file is read or written.
        vip: the group.
        configured: every group of this process. Files of other groups come from earlier configurations.
    """

    def __init__(self, directory: Path | None, vip: str, configured: Collection[str]) -> None:
        self._path = directory and directory / f"{vip}{SUFFIX}"
        found = sorted(directory.glob(f"*{SUFFIX}")) if directory else []
        others = [path for path in found if path.name.removesuffix(SUFFIX) not in configured]
        self._earlier: dict[int, Path] = {}
        for path in (*others, *([self._path] if self._path else ())):
            self._earlier |= dict.fromkeys(_read(path), path)

    def earlier(self) -> Sequence[int]:
        """See ports.Leases."""
        return tuple(lease for lease, path in self._earlier.items() if lease in _read(path))

    def granted(self, lease: int) -> None:
        """See ports.Leases."""
        self._earlier.pop(lease, None)  # this process uses the lease itself
        if self._path is not None and lease not in (known := _read(self._path)):
            _write(self._path, [*known, lease])

    def ended(self, lease: int) -> None:
        """See ports.Leases."""
        path = self._earlier.pop(lease, self._path)
        if path is not None:
            _write(path, [known for known in _read(path) if known != lease])


def _read(path: Path) -> list[int]:
    """The leases in a file; empty where the file cannot be read or parsed."""
    try:
        return [int(text, 16) for text in path.read_text(encoding="ascii").split()][-LEASES_MAX:]
    except (OSError, ValueError):
        return []


def _write(path: Path, leases: Sequence[int]) -> None:
    """Replace the file, or remove an empty one. On a full disk, the next process cannot revoke the lease."""
    aside = path.with_suffix(".new-leases")
    with suppress(OSError):
        if leases:
            aside.write_text("".join(f"{lease:x}\n" for lease in leases[-LEASES_MAX:]), encoding="ascii")
            aside.replace(path)
        else:
            path.unlink(missing_ok=True)
