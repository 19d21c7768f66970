"""What the daemon's process needs of the outside, and offers to it, as protocols. See runtime.ports."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from govipd.core.actions import Action
from govipd.core.events import Event
from govipd.core.journal_kinds import JournalKind
from govipd.core.status import NodeStatus


class Operator(Protocol):
    """The daemon as the operator meets it, by the control socket; `vip` "" is every VIP of this process."""

    def status(self) -> NodeStatus:
        """What this node knows of itself."""

    async def drain(self, vip: str, *, wanted: bool) -> None:
        """Keep this node out of the queue, over a reboot; or let it in again.

        Raises:
            RefusedError: no such VIP, it cannot be kept, or a leader could not come back since etcd takes no writes.
        """

    async def handover(self, vip: str, to: str) -> None:
        """Give the VIP to the member `to`, or with "" to the next in the queue. Begun when this returns.

        Raises:
            RefusedError: this node does not lead, or no member (or not `to`) could take over.
        """


class Service(Protocol):
    """Runs beside the VIP groups, sees every step of each, and may ask the daemon: control socket, metrics, hooks."""

    async def run(self) -> None:
        """Serve until cancelled."""

    def stepped(self, vip: str, event: Event, actions: Sequence[Action], now: float) -> None:
        """A group's state machine took `event` in and asked for `actions`, now begun. Never raises, never blocks."""


class Source(Protocol):
    """A task that observes something for every group of the process: the probe, the unit monitor."""

    async def run(self) -> None:
        """Observe until cancelled."""


class Notifier(Protocol):
    """sd_notify(3)."""

    def ready(self) -> None:
        """READY=1."""

    def status(self, text: str) -> None:
        """STATUS=, one line."""

    def stopping(self) -> None:
        """STOPPING=1."""

    def watchdog(self) -> None:
        """WATCHDOG=1."""

    def reloading(self) -> None:
        """RELOADING=1 with MONOTONIC_USEC; ready() ends it."""


class Journal(Protocol):
    """Where lines for people go, with fields for programs."""

    def write(self, kind: JournalKind, text: str, fields: Mapping[str, str]) -> None:
        """One journal entry. Never raises, never blocks long."""
