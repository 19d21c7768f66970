"""The events of the state machine. Times are seconds of CLOCK_BOOTTIME.

Each docstring says who sends the event and when. Any event may get lost. So each sender repeats what
matters (a probe, a renewal, a re-read), and the state machine compares the actual state with the wanted one.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from govipd.core import actions
from govipd.core.settings import Settings

Address = actions.Address
KernelAction = actions.KernelAction


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """From the probe, once per interval, at the latest when the time-out of the check has passed."""

    passed: bool
    detail: str  # for people: "200 in 2 ms", "no answer within 0.5 s"
    took: float | None = None  # seconds until the answer; None without one


@dataclass(frozen=True, slots=True)
class UnitState:
    """From the unit monitor: at start, at every change systemd signals, and at every periodic re-read.

    `active_state` is systemd's ActiveState (org.freedesktop.systemd1(5)), or None when it is not known.
    """

    active_state: str | None
    detail: str  # for people: "running", "failed, result: signal", "D-Bus is away"


@dataclass(frozen=True, slots=True)
class LinkState:
    """From the link monitor: at start, at every change and at every periodic re-read.

    A group with several interfaces is on a link that is only as good as its worst interface.
    """

    present: bool
    admin_up: bool
    carrier: bool
    mac: str  # as last seen; "" where it has none; of several interfaces: separated by spaces
    interface: str = ""  # of several: the one that is not up; "": all are up, or there is one


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """From the election, for each grant or renewal that etcd confirmed."""

    lease_id: int
    sent_at: float  # the clock just *before* the request was sent
    ttl: float  # seconds, as granted: etcd may grant more than was asked for


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """From the election: etcd answered that this lease does not exist. A call without an answer never causes this."""

    lease_id: int
    detail: str


@dataclass(frozen=True, slots=True)
class Queued:
    """From the election, at each change of the queue: this member waits behind the member `ahead`.

    `claimed`: which address another group has claimed, and which member did, as a text. It is not empty where this
    member is first in the queue, but must wait for that claim.
    """

    campaign: int
    ahead: str
    claimed: str = ""


@dataclass(frozen=True, slots=True)
class Elected:
    """From the election, after each proof that this member is first.

    A linearizable read showed: this member's key exists, carries `lease_id`, and has the lowest create revision.
    """

    campaign: int
    lease_id: int
    proved_at: float  # the clock just before the read was sent
    create_revision: int = 0  # of this member's key
    not_before: float = 0.0  # the predecessor may answer until then; an earlier proof does not allow to activate
    addresses: tuple[Address, ...] | None = None  # that this member may hold; None: all of the group's
    pending: str = ""  # which other addresses another group has claimed, as a text


@dataclass(frozen=True, slots=True)
class Deposed:
    """From the election: a linearizable read disproved this member's place in the queue. `detail` says why."""

    campaign: int
    detail: str


@dataclass(frozen=True, slots=True)
class Resigned:
    """From the election: etcd confirmed that this member's key is gone. The campaign of that number has ended."""

    campaign: int


@dataclass(frozen=True, slots=True)
class SuccessorReady:
    """From the election: the successor waits only for this node's fence to close, or no successor will be ready."""

    campaign: int


@dataclass(frozen=True, slots=True)
class PactAnswered:
    """From the pact, for each datagram that the successor has acknowledged. `timeout` is the pact's T in seconds."""

    pact: str
    timeout: float
    sent_at: float  # the clock just *before* the datagram was sent


@dataclass(frozen=True, slots=True)
class PactEnded:
    """From the pact: etcd has confirmed that the pact is gone. The successor may not take over early any more."""

    pact: str


@dataclass(frozen=True, slots=True)
class EtcdState:
    """From the election, when etcd starts or stops answering usefully, and when the reason changes."""

    usable: bool
    detail: str
    of_session: bool = False  # the trouble is the whole process's


@dataclass(frozen=True, slots=True)
class EtcdFailed:
    """From the etcd client, for each call that failed. Only counted: this event decides nothing.

    `kind`: "timeout", "closed", "answer" (an answer that cannot be used), "name" (the endpoint's name has no address),
    "cluster" (the answer of another cluster), or the name of a gRPC status.
    """

    endpoint: str
    kind: str


@dataclass(frozen=True, slots=True)
class ClusterFault:
    """From the election: the other members' records contradict this member's record.

    `refused`: why this member may not join the queue (another machine has its name). `warning`: a text that is only
    reported. Both empty: the contradiction is gone.
    """

    refused: str = ""
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """From the kernel worker: the kernel acknowledged every part of `action`."""

    action: KernelAction


@dataclass(frozen=True, slots=True)
class Failed:
    """From the kernel worker: some part of `action` did not happen, or is not known to have happened."""

    action: KernelAction
    detail: str


@dataclass(frozen=True, slots=True)
class AddressLost:
    """From the link monitor: another program removed one of the VIP group's addresses."""

    address: Address


@dataclass(frozen=True, slots=True)
class AddressFound:
    """From the link monitor, when an address of the VIP group appears on the interface, and at every re-read.

    `address` has the prefix length that the interface has, which may differ from the group's.
    """

    address: Address


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """An address of the VIP group, with the prefix length it has there, and the interface that has this address."""

    address: Address
    interface: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.address} on {self.interface}"


@dataclass(frozen=True, slots=True)
class AddressesElsewhere:
    """From the link monitor: the VIP group's addresses on other interfaces of this machine.

    Sent when they change, and at every re-read while there are any.
    """

    found: tuple[Elsewhere, ...]


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """Another machine's kernel answers for an address of the VIP group."""

    address: IPv4Address | IPv6Address
    mac: str  # as in LinkState
    member: str  # the member that publishes this address; "" where no member does


@dataclass(frozen=True, slots=True)
class WireHeard:
    """From ports.Neighbours, once for each AskWire (same `until`): who answered last. No answers: silence."""

    until: float
    answers: tuple[WireAnswer, ...]


@dataclass(frozen=True, slots=True)
class Announced:
    """From the announcer, for each round of frames. Only counted: this event decides nothing."""

    frames: int


@dataclass(frozen=True, slots=True)
class Stalled:
    """From the shell: its loop did not run for `seconds` (process stopped, machine suspended or starved)."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """From the shell, after a reload that was validated: the new settings of this group."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class Drain:
    """From the shell: the operator drains this node, or ends the drain. Sent at start too, where a drain is stored."""

    wanted: bool


@dataclass(frozen=True, slots=True)
class Handover:
    """From the shell: the operator gives the VIP to the member `to`, or with "" to the next in the queue."""

    to: str


@dataclass(frozen=True, slots=True)
class Stop:
    """From the shell: release the VIP and end. `by`: the instant at which the state machine stops waiting for etcd."""

    by: float


@dataclass(frozen=True, slots=True)
class Tick:
    """From the shell: the instant that next_deadline() named has come (or a liveness check passes by)."""


Event = (
    ProbeResult | UnitState | LinkState | LeaseRenewed | LeaseLost | Queued | Elected | Deposed | Resigned
    | SuccessorReady | PactAnswered | PactEnded | EtcdState | EtcdFailed | ClusterFault | Done | Failed | AddressLost
    | AddressFound | AddressesElsewhere | WireHeard | Announced | Stalled | Reconfigured | Drain | Handover | Stop
    | Tick
)  # fmt: skip
