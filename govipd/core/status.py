"""The status of one node, for people and programs. Times are seconds since 1970 (UTC), durations are seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GateReport:
    """One gate: its verdict ("healthy", "unhealthy", "unknown"), since when, and the last observation as a text."""

    gate: str
    verdict: str
    detail: str
    since: float


@dataclass(frozen=True, slots=True)
class Transition:
    """One transition: when, the new state, its trigger, and the detail as a text."""

    at: float
    state: str
    trigger: str
    detail: str


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """One VIP group on this node.

    Attributes:
        ahead: the member before this one in the queue; "" where it is not known, or there is none.
        lease_left: seconds until this node drops the VIP if etcd confirms nothing more; None without a lease.
        pact: seconds of this leader's silence after which its successor takes over; 0 where it has to wait
            for the end of the lease.
        campaigns_in: seconds until damping lets this node campaign; 0 where there is no wait.
        blockers: what keeps this node out of the queue, as texts.
        etcd: what is wrong with etcd; "" where etcd answers.
        warning: what the members disagree about, or who claims an address of this group; "" where nothing is wrong.
        next: what this node does next, as a text.
        transitions: the newest ones, the oldest first.
    """

    vip: str
    addresses: tuple[str, ...]
    state: str
    since: float
    trigger: str
    detail: str
    next: str
    ahead: str
    drained: bool
    gates: tuple[GateReport, ...]
    lease_left: float | None
    pact: float
    campaigns_in: float
    blockers: tuple[str, ...]
    etcd: str
    warning: str
    transitions: tuple[Transition, ...]


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One process: every VIP group of one interface."""

    version: str
    member: str
    interface: str
    groups: tuple[GroupStatus, ...]
