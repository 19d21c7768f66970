"""The host's name that this daemon uses as its member name. The daemon keeps the name while it runs and over restarts.

A host that is renamed must not lose its VIP by that (docs/adr/0029). So the name with which the first process began
stays in the runtime directory, which systemd keeps over a restart and a crash, and removes on stop
(RuntimeDirectoryPreserve=restart, systemd.exec(5)). A machine that boots under the name of its template may find that
another member has this name. Then the daemon reads the host's name again until it has changed.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from govipd.core.actions import Action
from govipd.core.events import ClusterFault, Event
from govipd.core.state import State
from govipd.runtime.process_ports import Operator

LOOK_S = 0.5  # seconds between two reads of the host's name while another machine has the name in use
_BYTES_MAX = 256  # of the file; a name is shorter


class HostName:
    """The host's name in use.

    Args:
        path: the file that keeps the name; None (not run by systemd): only memory keeps it.
        nameable: returns whether a name may be a member's.
        ask: returns the host's present name.
    """

    def __init__(
        self, path: Path | None, nameable: Callable[[str], bool], ask: Callable[[], str] = socket.gethostname
    ) -> None:
        self._path = path
        self._nameable = nameable
        self._ask = ask
        kept = self._kept()
        self._first = kept is None
        self._name = kept or ""

    def first_start(self) -> bool:
        """Whether this is the first start since boot or `systemctl stop`: no name was kept. Later calls: False."""
        first, self._first = self._first, False
        return first

    def __call__(self) -> str:
        """The name in use; the host's present name where the kept one cannot be a member's."""
        if not self._nameable(self._name):
            self._name = self._ask()
        return self._name

    def keep(self) -> None:
        """Keep the name for the next process. If the write fails, the next process reads the host's name."""
        if self._path is not None:
            aside = self._path.with_suffix(".new")
            try:
                aside.write_text(self())
                aside.chmod(0o640)  # independent of the umask: for the unit's group; the directory is closed to others
                aside.replace(self._path)
            except OSError:
                return

    def ask_again(self) -> bool:
        """Use the host's present name if it differs and may be a member's. Returns whether it does."""
        name = self._ask()
        if name == self._name or not self._nameable(name):
            return False
        self._name = name
        self.keep()
        return True

    def _kept(self) -> str | None:
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as file:
                return file.read(_BYTES_MAX).decode(errors="replace")
        except OSError:
            return None


class NameService:
    """Reads the host's name again while another machine has the name in use (process_ports.Service).

    The name changes only while every VIP group is ineligible, so that no VIP and no place in a queue is lost.

    Args:
        name: the name in use.
        operator: the daemon.
        renamed: called when the name has changed; by default a reload applies the new name.
    """

    def __init__(
        self,
        name: HostName,
        operator: Operator,
        renamed: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGHUP),
    ) -> None:
        self._host = name
        self._operator = operator
        self._renamed = renamed
        self._refused = False

    async def run(self) -> None:
        """Run until cancelled. Reads the host's name only while the name in use is refused."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._refused and self._all_stand_aside() and self._host.ask_again():
                self._refused = False
                self._renamed()

    def _all_stand_aside(self) -> bool:
        return all(group.state == State.INELIGIBLE.value for group in self._operator.status().groups)

    def stepped(self, vip: str, event: Event, actions: Sequence[Action], now: float) -> None:  # noqa: ARG002  # port's
        """See process_ports.Service."""
        if isinstance(event, ClusterFault):
            self._refused = bool(event.refused)
