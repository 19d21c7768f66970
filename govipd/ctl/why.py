"""One paragraph: why a node is or is not the leader, and what would change that."""

from collections.abc import Sequence

from govipd.core import texts
from govipd.core.sanitize import sanitize_line
from govipd.core.state import ANSWERING, State, Trigger
from govipd.core.status import GroupStatus


def why(member: str, group: GroupStatus, now: float) -> str:
    """The paragraph for one VIP on one node.

    Args:
        member: the node's name.
        group: the group's status, with states and triggers that exist.
        now: seconds since 1970.
    """
    state = State(group.state)
    leads = f"{member} leads {group.vip}" if state is State.LEADER else f"{member} does not lead {group.vip}"
    since = f"for {duration(now - group.since)}"
    reason = texts.because(Trigger(group.trigger), group.detail)
    match state:
        case State.LEADER:
            first = f"{leads} and answers for {', '.join(group.addresses)}, {since} ({reason})."
        case State.CANDIDATE:
            behind = f" behind {group.ahead}" if group.ahead else ""
            first = f"{leads}: it has been a candidate{behind} {since} ({reason})."
        case State.INELIGIBLE if group.blockers:
            first = f"{leads}: it has been ineligible {since}, because: {_list(group.blockers)}."
        case State.INELIGIBLE:
            first = f"{leads}: it has been ineligible {since} ({reason}), and was not healthy lately."
        case _:
            first = f"{leads} now: {texts.what(state)}, {since} ({reason})."
    parts = [first, _change(state, group), _etcd(state, group)]
    if group.warning:
        parts.append(f"Beware: {group.warning}.")
    return " ".join(part for part in parts if part)


def _change(state: State, group: GroupStatus) -> str:
    """What would change the node's state."""
    match state:
        case State.LEADER:
            gates = _list([gate.gate for gate in group.gates])
            return (
                f"It holds the VIP while its gates ({gates}) are healthy and etcd confirms its lease; "
                "govipctl drain or govipctl handover gives it to another member."
            )
        case State.INELIGIBLE:
            return " ".join(_conditions(group))
        case _:
            return f"Next: {group.next}."


def _conditions(group: GroupStatus) -> list[str]:
    """What an ineligible node waits for."""
    sentences = []
    if group.drained:
        sentences.append("govipctl undrain lets it in again.")
    if len(group.blockers) > int(group.drained):  # the drain is one of the blockers
        sentences.append(f"Next: {group.next}.")
    if not group.blockers and group.campaigns_in > 0:
        sentences.append(f"It stands for election in {duration(group.campaigns_in)}, if its gates stay healthy.")
    return sentences


def _etcd(state: State, group: GroupStatus) -> str:
    if not group.etcd:
        return ""
    trouble = f"etcd does not answer usefully ({sanitize_line(group.etcd)})"
    if state in ANSWERING and group.lease_left is not None:
        return f"But {trouble}: unless it confirms the lease within {group.lease_left:.1f} s, the VIP is dropped."
    return f"And {trouble}: until it does, this node cannot lead; without a majority of etcd no node can."


def _list(texts: Sequence[str]) -> str:
    return "; ".join(texts) if any(" " in text for text in texts) else ", ".join(texts)


def duration(seconds: float) -> str:
    """A duration for people, in two units at most."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {whole % 60} s"
    return f"{whole} s"
