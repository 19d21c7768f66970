"""The states of a VIP group on this node, and every transition between them.

Rule: a transition that is not in TRANSITIONS does not exist. The diagram in docs/design.md is made of it.
"""

from enum import Enum

from govipd.errors import IllegalTransitionError


class State(Enum):
    """What this node is doing about the VIP."""

    ADOPTING = "adopting"  # an earlier process held the VIP; whether it is still ours is being proven
    STARTING = "starting"  # whatever an earlier process left in the kernel is being removed
    ASIDE = "aside"  # not in the queue: a gate, a rule or the operator says no
    CANDIDATE = "candidate"  # in the queue
    TAKING = "taking"  # leads, proven; the fence is being opened, then the address added
    LEADER = "leader"  # this kernel answers for the VIP
    PASSING = "passing"  # it answers for some hundredths of a second more, until the next in the queue can
    CLOSING = "closing"  # the fence is being closed; the key is kept until that is certain
    LEAVING = "leaving"  # the fence is closed; the address is being removed and the key deleted
    STOPPED = "stopped"


class Trigger(Enum):
    """Why a transition happens."""

    ADOPTED = "adopted"  # what an earlier process held is proven to be ours still
    CLEAN = "clean"  # nothing of an earlier process is left
    FIT = "fit"  # every gate is healthy
    UNFIT = "unfit"  # a gate is not, or the operator wants this node out
    WON = "won"  # the election is won, proven, and the lease is fresh
    HELD = "held"  # the kernel confirmed fence and addresses
    LOST = "lost"  # etcd says that the key or the lease is gone
    EXPIRED = "expired"  # the lease was not confirmed in time
    KERNEL_FAILED = "kernel failed"  # the kernel does not do what holding needs
    HANDOVER = "handover"  # the operator gives the VIP to another member
    RETIRED = "retired"  # the operator wants this node out, or the daemon ends, and every gate is healthy
    PASSED = "passed"  # the next in the queue is ready, or nobody will be in time
    CLOSED = "closed"  # the kernel confirmed the closed fence, or its own deadline has closed it
    LEFT = "left"  # the key is confirmed to be gone
    STOP = "stop"  # nothing is held, and the daemon ends


_DROP = {
    Trigger.UNFIT: State.CLOSING,
    Trigger.LOST: State.CLOSING,
    Trigger.EXPIRED: State.CLOSING,
    Trigger.KERNEL_FAILED: State.CLOSING,
}

TRANSITIONS: dict[State, dict[Trigger, State]] = {
    State.ADOPTING: {Trigger.ADOPTED: State.TAKING, **_DROP},
    State.STARTING: {Trigger.CLEAN: State.ASIDE, Trigger.STOP: State.STOPPED},
    State.ASIDE: {Trigger.FIT: State.CANDIDATE, Trigger.STOP: State.STOPPED},
    State.CANDIDATE: {
        Trigger.WON: State.TAKING,
        Trigger.UNFIT: State.LEAVING,
        Trigger.LOST: State.LEAVING,
    },
    State.TAKING: {Trigger.HELD: State.LEADER, **_DROP},
    State.LEADER: {Trigger.HANDOVER: State.PASSING, Trigger.RETIRED: State.PASSING, **_DROP},
    State.PASSING: {Trigger.PASSED: State.CLOSING, **_DROP},
    State.CLOSING: {Trigger.CLOSED: State.LEAVING},
    State.LEAVING: {Trigger.LEFT: State.ASIDE, Trigger.STOP: State.STOPPED},
    State.STOPPED: {},
}

HOLDING = frozenset({State.TAKING, State.LEADER})  # the fence may be opened
ANSWERING = HOLDING | {State.ADOPTING, State.PASSING}  # the fence may be open
IN_QUEUE = ANSWERING | {State.CANDIDATE}  # a campaign runs
ABSENT = frozenset({State.ASIDE, State.CANDIDATE, State.LEAVING})  # no address may be on the interface


def following(state: State, trigger: Trigger) -> State:
    """The state after `trigger` in `state`.

    Raises:
        IllegalTransitionError: the table has no such transition.
    """
    try:
        return TRANSITIONS[state][trigger]
    except KeyError:
        raise IllegalTransitionError(f"{state.name} does not allow {trigger.name}") from None
