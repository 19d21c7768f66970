"""The protocols between the daemon's process and the outside. Those of one VIP group are in runtime.ports."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from govipd.core.actions import Action
from govipd.core.events import Event
from govipd.core.journal_kinds import JournalKind
from govipd.core.status import NodeStatus


class Operator(Protocol):
    """What the operator may ask of the daemon, over the control socket. `vip`: "" means every VIP of this process."""

    def status(self) -> NodeStatus:
        """The status of this node."""

    async def drain(self, vip: str, *, wanted: bool) -> None:
        """Drain this node, also over a reboot, or end the drain.

        Raises:
            RefusedError: there is no such VIP, the drain file cannot be changed, or etcd takes no writes, so that a
                leader that left could not campaign again.
        """

    async def handover(self, vip: str, to: str) -> None:
        """Give the VIP to the member `to`; "" is the next in the queue. Returns when the handover has begun.

        Raises:
            RefusedError: this node does not lead, or no member (or not `to`) could take over.
        """


class Service(Protocol):
    """A part that runs beside the VIP groups and sees each of their steps: control socket, metrics, hooks."""

    async def run(self) -> None:
        """Serve until cancelled."""

    def stepped(self, vip: str, event: Event, actions: Sequence[Action], now: float) -> None:
        """Note a step: the state machine of `vip` got `event` and returned `actions`. Never raises, never blocks."""


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
        """RELOADING=1 with MONOTONIC_USEC; ready() ends the reload."""


class Journal(Protocol):
    """Takes journal entries: lines for people, with fields for programs."""

    def write(self, kind: JournalKind, text: str, fields: Mapping[str, str]) -> None:
        """Write one journal entry. Never raises, never blocks long."""
