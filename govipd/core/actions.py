"""The actions that a step of the state machine returns. Their order is part of the contract."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Interface, IPv6Interface

from govipd.core.state import State, Trigger

Address = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Campaign:
    """Join the queue. Answered by Queued and Elected. Deposed, LeaseLost or Resign ends the campaign."""

    campaign: int


@dataclass(frozen=True, slots=True)
class RestartState:
    """What the next process needs to adopt the lease and the key of a process that holds the VIP."""

    lease_id: int
    create_revision: int  # of the key
    until: float  # the latest instant, of CLOCK_BOOTTIME, at which the kernel may answer
    addresses: tuple[Address, ...] = ()  # for which the kernel may answer; (): not known


@dataclass(frozen=True, slots=True)
class Adopt:
    """Adopt an earlier process's lease and key: renew the lease, and prove the key's place. Answered like Campaign."""

    campaign: int
    holding: RestartState


@dataclass(frozen=True, slots=True)
class SaveRestartState:
    """Save the restart state for the next process. It replaces the restart state saved before."""

    holding: RestartState


@dataclass(frozen=True, slots=True)
class DropRestartState:
    """Delete the saved restart state: the next process has nothing to adopt."""


@dataclass(frozen=True, slots=True)
class Resign:
    """Leave the queue. The election retries until etcd confirms, then answers with Resigned.

    `successor`: the member that is to lead next; "" is the next in the queue.
    `contested`: the kernel of an earlier holder may still answer, so no marker may be written.
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
    """Read this member's place in the queue now, not only at the next periodic read. Answered by Elected or Deposed."""


@dataclass(frozen=True, slots=True)
class SeekPact:
    """Seek a pact with the successor, from now until CloseFence or HandOver. Answered by PactAnswered."""


@dataclass(frozen=True, slots=True)
class EnforcePact:
    """Record in etcd that the pact is in force: the fence is now short enough. May be answered by PactEnded."""

    pact: str


@dataclass(frozen=True, slots=True)
class EndPact:
    """End the pact in etcd, retried until etcd confirms. Answered by PactEnded, or by Deposed if our key is gone."""

    pact: str


@dataclass(frozen=True, slots=True)
class Prepare:
    """Close the fence, then add every address behind the closed fence, with a lifetime until `until` (CLOCK_BOOTTIME).

    Answered by Done or Failed.
    """

    until: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """Tell the election that the addresses are present behind a closed fence, so a handover to this node may finish."""

    campaign: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Open the fence until `until` (CLOCK_BOOTTIME), then add every address that is not present.

    Answered by Done or Failed. The kernel worker refuses a Hold when `until` has passed.
    """

    until: float


@dataclass(frozen=True, slots=True)
class AskWire:
    """Ask the wire question until `until` (CLOCK_BOOTTIME): which machines answer for the VIP? Answered by WireHeard.

    A later AskWire, a Hold or a CloseFence ends the question without an answer.
    """

    until: float


@dataclass(frozen=True, slots=True)
class CloseFence:
    """Close the fence now, so that this kernel stops answering for the VIP. Answered by Done or Failed.

    This also ends the announcements, the pact and the wire question.
    """


@dataclass(frozen=True, slots=True)
class RemoveAddresses:
    """Remove every address of the group from the interface. Answered by Done or Failed."""


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
    """What an alarm is about. The names are those of JournalKind, the values labels of the metric govip_conflicts."""

    ADDRESS_ADDED = "address added"  # another program added it where this node does not hold the VIP
    ADDRESS_ELSEWHERE = "address elsewhere"  # on another interface of this machine
    MEMBER_ANSWERS = "member answers"  # a member's kernel answers, though etcd says that the member has left
    STRANGER_ANSWERS = "stranger answers"  # a machine that is no member answers


@dataclass(frozen=True, slots=True)
class Alarm:
    """Report a problem that changes no state."""

    text: str
    conflict: Conflict = Conflict.ADDRESS_ADDED


KernelAction = Prepare | Hold | CloseFence | RemoveAddresses
Action = (
    Adopt | Campaign | Resign | HandOver | Verify | Prepared | SeekPact | EnforcePact | EndPact | AskWire | KernelAction
    | Announce | SaveRestartState | DropRestartState | Alarm | Report
)  # fmt: skip
