"""The host's name as this daemon uses it: kept while it runs and over restarts, asked for again where it is taken.

A member's name is part of what it holds (docs/adr/0029): a host that is renamed must not lose its VIP by it. So the
name with which the first process began stays in the runtime directory, which systemd keeps over a restart and a crash,
and removes on stop (RuntimeDirectoryPreserve=restart, systemd.exec(5)). Machines that boot under the name of their
template find it taken; they ask for the host's name again until it is another one.
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

LOOK_S = 0.5  # between two looks at the host's name while the one in use is taken
_BYTES_MAX = 256  # of the file; a name is shorter


class HostName:
    """The name in use.

    Args:
        path: where it is kept; None (not run by systemd): in memory only.
        nameable: whether a name can be a member's.
        ask: returns the host's name.
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
        """Whether no earlier process has left a name: the first start since boot, or since `systemctl stop`. Once."""
        first, self._first = self._first, False
        return first

    def __call__(self) -> str:
        """The name in use; the host's where none has been of use so far."""
        if not self._nameable(self._name):
            self._name = self._ask()
        return self._name

    def keep(self) -> None:
        """Leave it for the next process. Where that fails, a restart asks the host."""
        if self._path is not None:
            aside = self._path.with_suffix(".new")
            try:
                aside.write_text(self())
                aside.chmod(0o640)  # independent of the umask: for the unit's group; the directory is closed to others
                aside.replace(self._path)
            except OSError:
                return

    def ask_again(self) -> bool:
        """Take the host's name of now; whether that is another one, and of use."""
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
    """Asks for the host's name again while the one in use is another machine's (ports.Service).

    No VIP and no place in a queue is given up for it: every VIP group must be ineligible.

    Args:
        name: the name in use.
        operator: the daemon.
        renamed: applies another name.
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
        """Look until cancelled; at nothing while the name is not refused."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._refused and self._all_stand_aside() and self._host.ask_again():
                self._refused = False
                self._renamed()

    def _all_stand_aside(self) -> bool:
        return all(group.state == State.INELIGIBLE.value for group in self._operator.status().groups)

    def stepped(self, vip: str, event: Event, actions: Sequence[Action], now: float) -> None:  # noqa: ARG002  # port's
        """See ports.Service."""
        if isinstance(event, ClusterFault):
            self._refused = bool(event.refused)
