"""The drain file: it exists while the operator keeps this node out of a VIP's queue.

The file is in the unit's state directory, which is kept over a reboot (StateDirectory=, systemd.exec(5)).
"""

import os
from pathlib import Path

from govipd.errors import StateFileError


class DrainFile:
    """One VIP group's file (implements ports.DrainMark).

    Args:
        path: the file; None (not run by systemd): there is no file, and a drain ends with the process.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def is_set(self) -> bool:
        """See ports.DrainMark."""
        return self._path is not None and self._path.exists()

    def set(self) -> None:
        """See ports.DrainMark."""
        if self._path is not None:
            try:
                self._path.touch()
            except OSError as e:
                raise StateFileError(f"{self._path}: {os.strerror(e.errno or 0)}") from e

    def clear(self) -> None:
        """See ports.DrainMark."""
        if self._path is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as e:
                raise StateFileError(f"{self._path}: {os.strerror(e.errno or 0)}") from e
