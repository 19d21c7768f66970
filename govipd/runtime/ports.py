"""The protocols by which a VIP group uses the outside. `compose` passes the adapters in; tests pass fakes in.

Every coroutine here ends within a time limit that its implementation states, raises only errors of `govipd.errors`, and
may be cancelled. `run()` coroutines never return: the shell treats a return as a fault.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol

from govipd.core.actions import RestartState
from govipd.core.events import Address, Elsewhere, Event

Sink = Callable[[Event], None]
"""Takes events from adapters. Never blocks; may be called only from the event loop's thread."""


class Clock(Protocol):
    """The clock of every instant and deadline."""

    def now(self) -> float:
        """Seconds of CLOCK_BOOTTIME (clock_gettime(2)), which also counts the time of a suspend."""


class Session(Protocol):
    """The process's lease in etcd, which all its groups share."""

    async def run(self) -> None:
        """Keep a lease alive, until cancelled. Every election of the session gets LeaseRenewed and LeaseLost."""

    def reach(self, access: Any) -> None:
        """Reach etcd by this access from now on (SessionPlan.access). The lease stays."""

    async def close(self) -> None:
        """Give the lease back: one try, within one call's deadline."""


class Election(Protocol):
    """One member's place in one election, under the session's lease (`adapters.election`)."""

    async def run(self) -> None:
        """Stay in the queue while a campaign is wanted, until cancelled."""

    def silenced(self) -> None:
        """Note that this kernel does not answer for the group, or only for what was adopted.

        Leases of earlier processes may be given back.
        """

    async def fence_closed(self) -> None:
        """Note that this kernel is silent, and will be until it leads again. A successor that waits for it may go on.

        Returns at once, or where a successor waits, a millisecond later. resign() follows, which says the same, and may
        be called without this.
        """

    def campaign(self, campaign: int) -> None:
        """Join the queue, under this campaign number. Queued and Elected follow."""

    def adoptable(self, holding: RestartState) -> bool:
        """Whether the group can adopt this: a process has one lease, and another group may have adopted another."""

    def adopt(self, campaign: int, holding: RestartState) -> None:
        """Adopt an earlier process's lease and key; call before run(). The events of a campaign follow.

        silenced() follows when the kernel answers for nothing of the earlier process that was not adopted.
        """

    def resign(self, campaign: int, successor: str = "", *, contested: bool = False) -> None:
        """Leave the queue, and let `successor` become first ("": the next one). Resigned follows once etcd confirms.

        `contested`: write no marker; see core.actions.Resign.
        """

    def hand_over(self, campaign: int, successor: str = "") -> None:
        """Let `successor` become first while this node still answers. SuccessorReady follows; then call resign()."""

    def prepared(self, campaign: int) -> None:
        """Note that the addresses are behind a closed fence: an activation only has to open the fence."""

    async def successors(self) -> Sequence[str]:
        """The members to which this member could hand the VIP over, the next first.

        Raises:
            EtcdError: etcd did not answer.
        """

    def claim(self, addresses: Sequence[Address]) -> None:
        """Set the addresses to claim. Elected names those that this member may hold."""

    def unclaim(self, addresses: Sequence[Address]) -> None:
        """Let go of the claims on these addresses: the kernel does not answer for them any more, and will not."""

    async def check_writes(self) -> None:
        """Check that etcd takes writes. Without writes, this member could not campaign again.

        Raises:
            EtcdWriteRefusedError: etcd takes no writes.
            EtcdError: etcd did not answer.
        """

    def verify(self) -> None:
        """Read this member's place now. Elected or Deposed follows while a campaign runs."""

    def publish(self, record: Mapping[str, object]) -> None:
        """Set this member's record. The newest record is written as soon as etcd allows."""

    def close(self) -> None:
        """End the candidacy. What it has left in etcd is deleted, or goes with the lease."""


class Fence(Protocol):
    """Lets this kernel answer for the VIP until a deadline. The kernel itself ends the answers at the deadline."""

    async def open(self, until: float) -> None:
        """Open until `until` (CLOCK_BOOTTIME), or a little less. Opening an open fence moves the deadline, atomically.

        Raises:
            KernelError: the kernel refused, or `until` has passed.
        """

    async def prepare(self, until: float) -> None:
        """Close, and do the work of a later open(until) in advance.

        Raises:
            KernelError: as close() and open().
        """

    async def replace(self, addresses: tuple[Address, ...]) -> None:
        """Guard exactly these addresses. Any other address is closed, and not guarded any more.

        Raises:
            KernelError: not confirmed; may be repeated.
        """

    async def close(self) -> None:
        """Close. Returns when the kernel has acknowledged. Closing a closed fence succeeds.

        Raises:
            KernelError: it is not known whether the kernel has stopped answering.
        """

    async def guard(self, addresses: tuple[Address, ...]) -> None:
        """Guard these addresses, too. They are closed until the next open(). The others stay as they are.

        Raises:
            KernelError: not confirmed; may be repeated.
        """

    async def remove(self, present: Collection[IPv4Address | IPv6Address] = ()) -> None:
        """Remove the fence, after its addresses were removed. Succeeds where there is no fence.

        `present`: addresses that are still on this machine, on any interface. If the fence guards one, it stays closed.

        Raises:
            KernelError: the kernel did not confirm.
        """


class Addresses(Protocol):
    """The VIP group's addresses on its interface."""

    def of_another(self, address: Address) -> bool:
        """Whether another group of this process holds this address now."""

    async def add(self, until: float) -> None:
        """Add or renew every address, with exactly its prefix length and a lifetime to about `until` at the latest.

        Raises:
            InterfaceMissingError: the interface does not exist.
            KernelError: the kernel refused.
        """

    async def remove(self) -> None:
        """Remove every address of the group from the interface. A missing interface is a success.

        Raises:
            KernelError: the kernel refused.
        """

    async def anywhere(self) -> tuple[Elsewhere, ...]:
        """The addresses of the group that are on any interface of this machine, with any prefix length.

        Raises:
            KernelError: the kernel did not answer.
        """

    async def replace(self, addresses: tuple[Address, ...]) -> None:
        """Set the group's addresses. An address that leaves the group is removed from the interface.

        Raises:
            KernelError: the kernel refused; may be repeated.
        """


class Announcer(Protocol):
    """Announces to the neighbours where the VIP is."""

    def replace(self, addresses: tuple[Address, ...]) -> None:
        """Announce these addresses from now on."""

    def start(self) -> None:
        """Announce at once, then repeat, then periodically, until stop(). A second call begins anew."""

    def prepare(self) -> None:
        """Get ready for first_round(), so that it need not look anything up."""

    def first_round(self) -> None:
        """Announce once: the kernel answers from now on. start() follows."""

    def hold(self, until: float) -> None:
        """Send no frame at `until` (CLOCK_BOOTTIME) or later: the kernel answers until then. Called at each renewal."""

    def stop(self) -> None:
        """Stop announcing: no frame is sent after this call has returned."""

    async def run(self) -> None:
        """Send what start() asks for, until cancelled."""


class Neighbours(Protocol):
    """Asks the wire question: which other machines on the VIP's link answer for the VIP's addresses?"""

    def replace(self, addresses: tuple[Address, ...]) -> None:
        """Ask about these addresses from now on."""

    def ask(self, until: float) -> None:
        """Ask until `until` (CLOCK_BOOTTIME), with frames that change no neighbour cache. WireHeard follows."""

    def stop(self) -> None:
        """End the question. No WireHeard follows."""

    async def run(self) -> None:
        """Ask each question of ask(), until cancelled."""


class AddressMonitor(Protocol):
    """Reports the link's state, and which of the group's addresses are present, lost, or on another interface."""

    def replace(self, addresses: tuple[Address, ...]) -> None:
        """Watch these addresses from now on."""

    def close(self) -> None:
        """Watch nothing any more."""


class RestartStateStore(Protocol):
    """Keeps the restart state, in the unit's runtime directory."""

    def load(self) -> RestartState | None:
        """The restart state of the last process; None where there is none.

        Raises:
            StateFileError: there is a restart state that cannot be trusted; the text says why.
        """

    def save(self, holding: RestartState) -> None:
        """Replace the restart state atomically.

        Raises:
            StateFileError: the write failed; the earlier restart state stays.
        """

    def forget(self) -> None:
        """Delete the restart state. Never raises: the next process refuses or disproves one that stays."""


class Leases(Protocol):
    """The etcd leases of this machine's processes (the unit's runtime directory)."""

    def earlier(self) -> Sequence[int]:
        """Leases of processes before this one."""

    def granted(self, lease: int) -> None:
        """Note a lease of this process. Never raises: without the note, the next process cannot revoke the lease."""

    def ended(self, lease: int) -> None:
        """Note that this lease has ended."""


class Datagrams(Protocol):
    """A UDP port for datagrams between members."""

    async def run(self, receive: Callable[[bytes, tuple[str, int]], None]) -> None:
        """Listen until cancelled; `receive` gets each datagram and its source."""

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        """Send one datagram. Never raises, never waits: a datagram that cannot be sent is lost."""


class TemporaryUdpSocket(Protocol):
    """A UDP socket for one exchange, on a port that the kernel chooses."""

    def open(self, receive: Callable[[bytes, tuple[str, int]], None]) -> tuple[str, int] | None:
        """Listen until close(). Returns the address and port to which others can send; None where there is none."""

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        """Send one datagram. Never raises, never waits: a datagram that cannot be sent is lost."""

    def close(self) -> None:
        """Stop listening. Closing a closed socket does nothing."""


class Pact(Protocol):
    """The pact between the leader and its successor, which may take over early (core.pact)."""

    async def run(self) -> None:
        """Keep this member's side of the pact, until cancelled."""

    def lead(self) -> None:
        """Seek a pact with the successor: this node leads. PactAnswered follows if the successor agrees."""

    def stop(self) -> None:
        """Send and acknowledge nothing more: this node stops answering, or leaves the queue."""

    def enforce(self, pact: str) -> None:
        """Record in etcd that the pact is in force: the fence is short by now."""

    def end(self, pact: str) -> None:
        """End the pact. PactEnded follows once etcd confirms."""


class DrainMark(Protocol):
    """The drain of one VIP group on this node, kept over a reboot (in the unit's state directory)."""

    def is_set(self) -> bool:
        """Whether this node is drained."""

    def set(self) -> None:
        """Drain this node.

        Raises:
            StateFileError: the file could not be written.
        """

    def clear(self) -> None:
        """End the drain.

        Raises:
            StateFileError: the file could not be removed.
        """
