"""What the state machine asks for. The order in which a step returns actions is contract."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Interface, IPv6Interface

from govipd.core.state import State, Trigger

Address = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Campaign:
    """Join the queue. Answered by Queued and Elected, ended by Deposed, LeaseLost or Resign."""

    campaign: int


@dataclass(frozen=True, slots=True)
class RestartState:
    """What a process that holds the VIP leaves for the next process, to prove that the place is its own."""

    lease_id: int
    create_revision: int  # of the key
    until: float  # the latest instant, of CLOCK_BOOTTIME, at which the kernel may answer
    addresses: tuple[Address, ...] = ()  # for which it may answer; () is not known


@dataclass(frozen=True, slots=True)
class Adopt:
    """Go on with an earlier process's lease and key: renew, and prove. Answered as Campaign is."""

    campaign: int
    holding: RestartState


@dataclass(frozen=True, slots=True)
class SaveRestartState:
    """Keep this for the next process; the newest counts."""

    holding: RestartState


@dataclass(frozen=True, slots=True)
class DropRestartState:
    """The next process has nothing to go on with."""


@dataclass(frozen=True, slots=True)
class Resign:
    """Leave the queue, retried until etcd confirms, in favour of `successor` where one is named. Answered by Resigned.

    `contested`: a predecessor's kernel may still answer, so the successor must not find the marker of an orderly
    release.
    """

    campaign: int
    successor: str = ""
    contested: bool = False


@dataclass(frozen=True, slots=True)
class HandOver:
    """Delete our key in etcd while the kernel still answers for up to HANDOVER_S, so that the successor becomes first.

    `successor`: the member's name; "" is the next in the queue. Answered by SuccessorReady. Resign follows, when the
    fence is closed.
    """

    campaign: int
    successor: str = ""


@dataclass(frozen=True, slots=True)
class Verify:
    """Read this member's place now, not only at the next look. Answered by Elected or Deposed."""


@dataclass(frozen=True, slots=True)
class SeekPact:
    """Seek a pact with the successor, from now until CloseFence or HandOver. Answered by PactAnswered."""


@dataclass(frozen=True, slots=True)
class EnforcePact:
    """The fence now honours the pact: record it in etcd as active. May be answered by PactEnded."""

    pact: str


@dataclass(frozen=True, slots=True)
class EndPact:
    """Have etcd confirm that the pact is gone, retried until it does. Answered by PactEnded (or Deposed)."""

    pact: str


@dataclass(frozen=True, slots=True)
class Prepare:
    """Close the fence, and see that every address is present behind it, with a lifetime until `until` (CLOCK_BOOTTIME).

    Answered by Done or Failed.
    """

    until: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """The addresses are behind a closed fence: a leader that hands over to this node may close its own."""

    campaign: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Open the fence until `until` (CLOCK_BOOTTIME), and only then see that every address is present.

    Answered by Done or Failed. Refused by the worker when `until` has passed.
    """

    until: float


@dataclass(frozen=True, slots=True)
class AskWire:
    """Ask the machines on the VIP's link, until `until`, who answers for its addresses. Answered by WireHeard.

    A later one, Hold and CloseFence end it without an answer.
    """

    until: float


@dataclass(frozen=True, slots=True)
class CloseFence:
    """Let this kernel stop answering for the VIP, now. Answered by Done or Failed.

    Ends what only a holder does, too: announcements, the pact, the question on the wire.
    """


@dataclass(frozen=True, slots=True)
class RemoveAddresses:
    """See that no address of the group is on the interface. Answered by Done or Failed."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Announce the VIP to the neighbours (GARP, unsolicited NA): a burst now, repeats after it, then periodically."""


@dataclass(frozen=True, slots=True)
class Report:
    """Report a transition: one journal line, the unit's status, and the member's record in etcd."""

    state: State
    trigger: Trigger
    detail: str
    since: float


class Conflict(Enum):
    """What an alarm is about. The names are those of messages.Message, the values the metric's labels."""

    ADDRESS_ADDED = "address added"  # where this node does not hold the VIP
    ADDRESS_ELSEWHERE = "address elsewhere"  # on another interface of this machine
    MEMBER_ANSWERS = "member answers"  # another member's kernel, though etcd says that it has left
    STRANGER_ANSWERS = "stranger answers"  # a machine that is no member's


@dataclass(frozen=True, slots=True)
class Alarm:
    """Report something that is wrong, but changes no state."""

    text: str
    conflict: Conflict = Conflict.ADDRESS_ADDED


KernelAction = Prepare | Hold | CloseFence | RemoveAddresses
Action = (
    Adopt | Campaign | Resign | HandOver | Verify | Prepared | SeekPact | EnforcePact | EndPact | AskWire | KernelAction
    | Announce | SaveRestartState | DropRestartState | Alarm | Report
)  # fmt: skip
