"""The states of a VIP group on this node, and every transition between them.

Rule: a transition that is not in TRANSITIONS does not exist. The diagram in docs/design.md is generated from it.
"""

from enum import Enum

from govipd.errors import IllegalTransitionError


class State(Enum):
    """What this node is doing about the VIP."""

    ADOPTING = "adopting"  # an earlier process held the VIP; its lease and key are being proven
    STARTING = "starting"  # the fence is being closed, and an earlier process's addresses removed
    INELIGIBLE = "ineligible"  # not in the queue: a gate, a rule or the operator forbids it
    CANDIDATE = "candidate"  # in the queue
    ACTIVATING = "activating"  # leads, proven; the fence is being opened, then the address added
    LEADER = "leader"  # this kernel answers for the VIP
    HANDING_OVER = "handing-over"  # this kernel still answers, for HANDOVER_S at most, until the successor can
    DEACTIVATING = "deactivating"  # the fence is being closed; the key is kept until it is closed for certain
    RESIGNING = "resigning"  # the fence is closed; the address is being removed and the key deleted
    STOPPED = "stopped"


class Trigger(Enum):
    """Why a transition happens."""

    ADOPTED = "adopted"  # the lease and the key of an earlier process are proven
    CLEANED = "cleaned"  # nothing of an earlier process is left
    ELIGIBLE = "eligible"  # every gate is healthy
    INELIGIBLE = "ineligible"  # a gate is not healthy, or the operator wants this node out
    WON = "won"  # the election is won, proven, and the lease is fresh
    ACTIVATED = "activated"  # the kernel confirmed fence and addresses
    LOST = "lost"  # etcd says that the key or the lease is gone
    EXPIRED = "expired"  # the lease was not confirmed in time
    KERNEL_FAILED = "kernel failed"  # the kernel refuses, or another program keeps removing an address
    HANDOVER = "handover"  # the operator gives the VIP to another member
    WITHDRAWN = "withdrawn"  # the operator wants this node out, or the daemon ends, and every gate is healthy
    SUCCESSOR_READY = "successor ready"  # the successor is ready, or none will be in time
    CLOSED = "closed"  # the kernel confirmed the closed fence, or the fence's own deadline has passed
    RESIGNED = "resigned"  # the key is confirmed to be gone
    STOP = "stop"  # nothing is held, and the daemon ends


_DROP = {
    Trigger.INELIGIBLE: State.DEACTIVATING,
    Trigger.LOST: State.DEACTIVATING,
    Trigger.EXPIRED: State.DEACTIVATING,
    Trigger.KERNEL_FAILED: State.DEACTIVATING,
}

TRANSITIONS: dict[State, dict[Trigger, State]] = {
    State.ADOPTING: {Trigger.ADOPTED: State.ACTIVATING, **_DROP},
    State.STARTING: {Trigger.CLEANED: State.INELIGIBLE, Trigger.STOP: State.STOPPED},
    State.INELIGIBLE: {Trigger.ELIGIBLE: State.CANDIDATE, Trigger.STOP: State.STOPPED},
    State.CANDIDATE: {
        Trigger.WON: State.ACTIVATING,
        Trigger.INELIGIBLE: State.RESIGNING,
        Trigger.LOST: State.RESIGNING,
    },
    State.ACTIVATING: {Trigger.ACTIVATED: State.LEADER, **_DROP},
    State.LEADER: {Trigger.HANDOVER: State.HANDING_OVER, Trigger.WITHDRAWN: State.HANDING_OVER, **_DROP},
    State.HANDING_OVER: {Trigger.SUCCESSOR_READY: State.DEACTIVATING, **_DROP},
    State.DEACTIVATING: {Trigger.CLOSED: State.RESIGNING},
    State.RESIGNING: {Trigger.RESIGNED: State.INELIGIBLE, Trigger.STOP: State.STOPPED},
    State.STOPPED: {},
}

HOLDING = frozenset({State.ACTIVATING, State.LEADER})  # the fence may be opened
ANSWERING = HOLDING | {State.ADOPTING, State.HANDING_OVER}  # the fence may be open
IN_QUEUE = ANSWERING | {State.CANDIDATE}  # a campaign runs
ABSENT = frozenset({State.INELIGIBLE, State.CANDIDATE, State.RESIGNING})  # no address may be on the interface


def next_state(state: State, trigger: Trigger) -> State:
    """The state after `trigger` in `state`.

    Raises:
        IllegalTransitionError: the table has no such transition.
    """
    try:
        return TRANSITIONS[state][trigger]
    except KeyError:
        raise IllegalTransitionError(f"{state.name} does not allow {trigger.name}") from None
