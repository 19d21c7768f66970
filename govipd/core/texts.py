"""The texts for people: what happened, why, and what happens next. One module keeps the words the same everywhere."""

from collections.abc import Sequence

from govipd.core.events import Elsewhere
from govipd.core.state import ANSWERING, State, Trigger
from govipd.core.state_machine import VipStateMachine

_WEAKER = (
    "the addresses' own lifetime is the only fence, which the kernel keeps to within a second, so the margin is a "
    "second longer"
)
NO_NFTABLES = f"this kernel has no nf_tables: {_WEAKER}; load nf_tables and restart"
NFTABLES_LACKS = (
    "this kernel's nf_tables lacks what the fence needs (families inet and arp, sets with time-outs, fib): {why}: "
    f"{_WEAKER}; load what is missing and restart"
)

_WHAT = {
    State.ADOPTING: "adopting the VIP of an earlier process",
    State.STARTING: "starting",
    State.INELIGIBLE: "ineligible",
    State.CANDIDATE: "candidate",
    State.ACTIVATING: "activating the VIP",
    State.LEADER: "leader",
    State.HANDING_OVER: "handing the VIP over",
    State.DEACTIVATING: "deactivating the VIP",
    State.RESIGNING: "VIP deactivated, resigning from the election",
    State.STOPPED: "stopped",
}

_WHY = {
    Trigger.ADOPTED: "still ours, proven",
    Trigger.CLEANED: "nothing of an earlier process is left",
    Trigger.ELIGIBLE: "every gate is healthy",
    Trigger.INELIGIBLE: "not eligible",
    Trigger.WON: "won the election",
    Trigger.ACTIVATED: "the kernel answers for the VIP",
    Trigger.LOST: "the election is lost",
    Trigger.EXPIRED: "lease expired",
    Trigger.KERNEL_FAILED: "the kernel refused",
    Trigger.HANDOVER: "handed over",
    Trigger.WITHDRAWN: "withdrawn",
    Trigger.SUCCESSOR_READY: "the successor is ready",
    Trigger.CLOSED: "the kernel has stopped answering",
    Trigger.RESIGNED: "out of the election",
    Trigger.STOP: "told to stop",
}

_NEXT = {
    State.ADOPTING: "go on as leader once etcd has confirmed lease and key",
    State.STARTING: "remove what an earlier process left",
    State.INELIGIBLE: "campaign when every gate is healthy",
    State.CANDIDATE: "activate the VIP when every member ahead has left",
    State.ACTIVATING: "open the fence, add the addresses, announce them",
    State.LEADER: "hold it while gates and lease last",
    State.HANDING_OVER: "stop answering when the successor is ready, or in a moment",
    State.DEACTIVATING: "resign from the election once the kernel has stopped answering",
    State.RESIGNING: "wait until every gate is healthy",
    State.STOPPED: "nothing",
}


def transition(state: State, trigger: Trigger, detail: str) -> str:
    """One line for the journal: what, why, what next."""
    return f"{_WHAT[state]} ({because(trigger, detail)}); next: {_NEXT[state]}"


def what(state: State) -> str:
    """What a node in this state does."""
    return _WHAT[state]


def because(trigger: Trigger, detail: str) -> str:
    """Why the node came into its state, as a text."""
    return f"{_WHY[trigger]}: {detail}" if detail else _WHY[trigger]


def next_step(state: State) -> str:
    """What the node does next in this state, if all goes well."""
    return _NEXT[state]


def drained(*, wanted: bool) -> str:
    """One line for the journal: what the operator wants."""
    if wanted:
        return "drained by the operator, also over a reboot; next: resign from the election, until undrained"
    return "undrained by the operator; next: campaign when every gate is healthy"


def pact(timeout: float) -> str:
    """One line for the journal: a pact of T = `timeout` seconds is in force; 0: no pact any more."""
    if timeout:
        return f"a pact with the successor: it takes over when this node is silent for {timeout:g} s"
    return "no pact any more: no member takes over before the lease has ended"


def claimed(text: str) -> str:
    """One line for the journal: which addresses another group has claimed. `text` "": no address any more."""
    if text:
        return (
            f"not taken: {text}; next: take it when that member lets it go. If this is not meant, two files name one "
            "address for two groups: make govip.toml the same on every machine"
        )
    return "no other group claims an address of this group any more"


def left_behind(found: Sequence[Elsewhere]) -> str:
    """One line for the journal: the fence stays closed, because the addresses `found` are still on this machine."""
    where = ", ".join(map(str, found))
    first = found[0]
    return (
        f"{where}: the fence stays, closed, or this machine would answer; next: ip address delete {first.address} "
        f"dev {first.interface}, then govipd --interface IF --clean-up"
    )


def trouble(state_machine: VipStateMachine) -> str:
    """What is wrong but changes no state, as a text; "" when nothing is wrong."""
    fault, question = state_machine.facts.fault, state_machine.question
    strewn = state_machine.state in ANSWERING and ", ".join(map(str, state_machine.facts.elsewhere))
    parts = (
        fault.refused or state_machine.facts.claimed or fault.warning,
        question.trouble if question is not None else "",
        f"{strewn}: beside the interface of the VIP; this machine could not stand for election again" if strewn else "",
    )
    return "; ".join(part for part in parts if part)


def adopting(left: float) -> str:
    """One line for the journal: this process tries to adopt a lease that runs for `left` seconds more."""
    return f"{_WHAT[State.ADOPTING]} (its lease runs {left:.1f} s more); next: {_NEXT[State.ADOPTING]}"


def status(state_machine: VipStateMachine, addresses: Sequence[str], now: float) -> str:
    """One line for `systemctl status`: role, VIP, gates, lease."""
    vip = ", ".join(addresses)
    parts = [_WHAT[state_machine.state]]
    match state_machine.state:
        case State.LEADER:
            parts[0] += f" of {vip}"
        case State.CANDIDATE if state_machine.facts.ahead:
            parts[0] += f" for {vip}, behind {state_machine.facts.ahead}"
        case State.INELIGIBLE if state_machine.blockers(now):
            parts[0] += f" from {vip}: " + "; ".join(state_machine.blockers(now))
        case State.INELIGIBLE:
            parts[0] += f" from {vip}: was not healthy lately, campaigns in {state_machine.wait(now):.0f} s"
        case _:
            parts[0] += f" ({vip})"
    gates = ", ".join(f"{gate.gate.value} {gate.verdict.value}" for gate in state_machine.facts.health.gates())
    parts.append(f"gates: {gates}")
    parts.append(_lease(state_machine, now))
    if text := trouble(state_machine):
        parts.append(f"WARNING: {text}")
    return "; ".join(parts)


def _lease(state_machine: VipStateMachine, now: float) -> str:
    deadline = state_machine.fence.by_lease_and_pact()
    if not state_machine.facts.etcd.usable:
        trouble = f"etcd: {state_machine.facts.etcd.detail}"
        return trouble if deadline is None or now >= deadline else f"lease runs out, {trouble}"
    return "lease renewed" if deadline is not None and now < deadline else "no lease"
