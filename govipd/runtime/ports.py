"""What a VIP group needs of the outside, as protocols. `compose` plugs the adapters in; tests plug fakes in.

Every coroutine here ends by itself within a bound that its implementation states, raises only errors of
`govipd.errors`, and may be cancelled. `run()` coroutines never return: the shell takes a return as a fault.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from govipd.core.actions import RestartState
from govipd.core.events import Address, Elsewhere, Event

Sink = Callable[[Event], None]
"""Where adapters put events; never blocks, callable only from the event loop's thread."""


class Clock(Protocol):
    """Time. One clock for everything that is compared with a deadline."""

    def now(self) -> float:
        """Seconds of CLOCK_BOOTTIME (clock_gettime(2)): it goes on while the machine sleeps."""


class Election(Protocol):
    """One member's place in one election (`adapters.election`)."""

    async def run(self) -> None:
        """Keep a lease alive, and stay in the queue while a campaign is wanted, until cancelled."""

    def campaign(self, campaign: int) -> None:
        """Want to be in the queue, under this campaign number. Replies come as events."""

    def adopt(self, campaign: int, holding: RestartState) -> None:
        """Before run(): go on with an earlier process's lease and key, as with a campaign of one's own."""

    def resign(self, campaign: int, successor: str = "", *, contested: bool = False) -> None:
        """Want to be out of the queue, and `successor` to be first in it. Resigned follows once etcd confirmed it.

        `contested`: without the marker of an orderly release, see core.actions.Resign.
        """

    def hand_over(self, campaign: int, successor: str = "") -> None:
        """Let `successor` become first while this node answers. SuccessorReady follows, then call resign()."""

    def prepared(self, campaign: int) -> None:
        """The addresses are behind a closed fence: this node can take the VIP at once."""

    async def successors(self) -> Sequence[str]:
        """The members to which this member could hand the VIP over, the next first.

        Raises:
            EtcdError: etcd did not answer.
        """

    def claim(self, addresses: Sequence[Address]) -> None:
        """Want these addresses from now on. Elected names those that this member may hold."""

    def unclaim(self, addresses: Sequence[Address]) -> None:
        """The kernel does not answer for these any more, and will not: other groups may have them."""

    async def check_writes(self) -> None:
        """See that etcd takes writes, without which this member could not campaign again.

        Raises:
            EtcdWriteRefusedError: it does not.
            EtcdError: etcd did not answer.
        """

    def verify(self) -> None:
        """Read this member's place now. Elected or Deposed follows while a campaign runs."""

    def publish(self, record: Mapping[str, object]) -> None:
        """What other tools see of this member; the newest wins, written as soon as etcd allows."""

    async def close(self) -> None:
        """Give the lease back (best effort, bounded by one call's deadline)."""


class Fence(Protocol):
    """Lets this kernel answer for the VIP until an instant, and not a moment longer by itself."""

    async def open(self, until: float) -> None:
        """Answer until `until` (CLOCK_BOOTTIME), or a little less. Opening an open fence moves the instant, atomically.

        Raises:
            KernelError: the kernel refused, or `until` has passed.
        """

    async def prepare(self, until: float) -> None:
        """Close, and do beforehand what open(until) would have to do.

        Raises:
            KernelError: as close() and open().
        """

    async def replace(self, addresses: tuple[Address, ...]) -> None:
        """Guard these addresses from now on; those that are no longer among them are closed and let go.

        Raises:
            KernelError: not confirmed; may be repeated.
        """

    async def close(self) -> None:
        """Stop answering. Returns when the kernel acknowledged it; closing a closed fence succeeds.

        Raises:
            KernelError: it is not known whether the kernel stopped.
        """

    async def guard(self, addresses: tuple[Address, ...]) -> None:
        """Guard these as well from now on: closed until the fence is opened next. The others are as they were.

        Raises:
            KernelError: not confirmed; may be repeated.
        """

    async def remove(self, present: Collection[IPv4Address | IPv6Address] = ()) -> None:
        """Take the fence down, when no address is left behind it. Succeeds when there is none.

        `present`: what is on this machine all the same, on whichever interface. It keeps the fence up, closed.

        Raises:
            KernelError: the kernel did not confirm.
        """


class Addresses(Protocol):
    """The VIP group's addresses on its interface."""

    def close(self) -> None:
        """Close what it keeps open. Nothing is removed."""

    async def add(self, until: float) -> None:
        """See that every address is present with exactly its prefix, to vanish at about `until` at the latest.

        Raises:
            InterfaceMissingError: the interface does not exist.
            KernelError: the kernel refused.
        """

    async def remove(self) -> None:
        """See that no address of the group is on the interface. A missing interface has none.

        Raises:
            KernelError: the kernel refused.
        """

    async def anywhere(self) -> tuple[Elsewhere, ...]:
        """Where on this machine an address of the group is, with any prefix, on any interface.

        Raises:
            KernelError: the kernel did not answer.
        """

    async def replace(self, addresses: tuple[Address, ...]) -> None:
        """The group consists of these from now on; those that are no longer among them are removed.

        Raises:
            KernelError: the kernel refused; may be repeated.
        """


class Announcer(Protocol):
    """Announces to the neighbours where the VIP is."""

    def replace(self, addresses: tuple[Address, ...]) -> None:
        """Announce these from now on."""

    def start(self) -> None:
        """Announce at once, then repeat, then periodically, until stop(). A start while active begins again."""

    def hold(self, until: float) -> None:
        """The kernel answers until then (CLOCK_BOOTTIME): no frame leaves later. Moves with each renewal."""

    def stop(self) -> None:
        """No frame leaves after this returns."""

    async def run(self) -> None:
        """The task that sends."""


class Neighbours(Protocol):
    """The other machines on the VIP's link, which are asked who answers for its addresses."""

    def replace(self, addresses: tuple[Address, ...]) -> None:
        """Ask about these from now on."""

    def ask(self, until: float) -> None:
        """Ask until then (CLOCK_BOOTTIME), without a frame that changes a neighbour's cache. WireHeard follows."""

    def stop(self) -> None:
        """The answer is not wanted any more."""

    async def run(self) -> None:
        """The task that asks."""


class AddressMonitor(Protocol):
    """Reports the link (LinkState), and addresses of the group that others remove, add, or have put elsewhere."""

    def replace(self, addresses: tuple[Address, ...]) -> None:
        """Watch these from now on."""

    async def run(self) -> None:
        """Observe until cancelled."""


class RestartStateStore(Protocol):
    """What one process leaves for the next (the unit's runtime directory)."""

    def load(self) -> RestartState | None:
        """What the last process left; None when there is nothing that could be ours.

        Raises:
            StateFileError: something is there that cannot be trusted; the text says why.
        """

    def save(self, holding: RestartState) -> None:
        """Replace what is kept, whole or not at all.

        Raises:
            StateFileError: it could not be written; what was there stays.
        """

    def forget(self) -> None:
        """Keep nothing. Never raises: what stays is out of date, and refused or disproved by the next process."""


class Leases(Protocol):
    """The etcd leases of this machine's processes (the unit's runtime directory)."""

    def earlier(self) -> Sequence[int]:
        """Leases of processes before this one, and of groups that are not configured any more."""

    def granted(self, lease: int) -> None:
        """This process has this lease. Never raises: then a successor waits for the lease's end."""

    def ended(self, lease: int) -> None:
        """That lease of this machine was given back."""


class Datagrams(Protocol):
    """A UDP port."""

    async def run(self, receive: Callable[[bytes, tuple[str, int]], None]) -> None:
        """Listen until cancelled; `receive` gets each datagram and its source."""

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        """Send one. Never raises, never waits: what cannot be sent is lost."""


class TemporaryUdpSocket(Protocol):
    """A UDP socket at a port that is chosen for one exchange."""

    def open(self, receive: Callable[[bytes, tuple[str, int]], None]) -> tuple[str, int] | None:
        """Listen until close(), at an address and a port that others can send to; None where there is none."""

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        """Send one. Never raises, never waits: what cannot be sent is lost."""

    def close(self) -> None:
        """Listen no more. Closing a closed one does nothing."""


class Pact(Protocol):
    """The pact between the leader and its successor, which may take over early (core.pact)."""

    async def run(self) -> None:
        """Keep this member's half of the pact, until cancelled."""

    def lead(self) -> None:
        """This node answers for the VIP: seek a pact with the successor. PactAnswered follows."""

    def stop(self) -> None:
        """This node stops answering, or leaves the queue: send and acknowledge nothing."""

    def enforce(self, pact: str) -> None:
        """The fence is short: etcd may say that the pact is in force."""

    def end(self, pact: str) -> None:
        """Want the pact's end. PactEnded follows once etcd confirmed it."""


class DrainMark(Protocol):
    """Whether the operator wants this node out of a VIP's queue, kept over a reboot (the unit's state directory)."""

    def is_set(self) -> bool:
        """Whether it is to stay out."""

    def set(self) -> None:
        """Keep it out.

        Raises:
            StateFileError: it could not be written.
        """

    def clear(self) -> None:
        """Let it in.

        Raises:
            StateFileError: it could not be removed.
        """
