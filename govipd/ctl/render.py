"""Renders govipctl's findings for people, with rich. Untrusted text is shown only through sanitize_cell()."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from govipd.core import texts
from govipd.core.sanitize import sanitize_line
from govipd.core.state import State, Trigger
from govipd.core.status import GroupStatus, NodeStatus
from govipd.ctl.why import duration

TRANSITIONS = 5
_STYLES = {"healthy": "green", "unhealthy": "red", "unknown": "yellow", "leader": "green"}
_OPEN = (State.ADOPTING.value, State.ACTIVATING.value, State.LEADER.value, State.HANDING_OVER.value)


def sanitize_cell(value: object, longest: int = 500) -> Text:
    """Make untrusted text safe to show: without markup, and without control characters for the terminal."""
    text = sanitize_line(str(value), longest)
    return Text(text, style=_STYLES.get(text, ""))


def whole(
    nodes: Mapping[str, NodeStatus],
    cluster: Mapping[str, Mapping[str, Any]] | None,
    missing: Sequence[str],
    now: float,
) -> RenderableType:
    """This machine's nodes, the cluster, and texts about what is missing. `now`: seconds since 1970."""
    parts: list[RenderableType] = [node_table(node, now) for node in nodes.values()]
    if cluster is not None:
        parts.append(cluster_table(cluster))
    parts += [Text(sanitize_line(text, 1000), style="yellow") for text in missing]
    return Group(*parts)


def node_table(node: NodeStatus, now: float) -> Table:
    """One daemon: for each VIP its state, and the gates, lease, fence and etcd on which the state depends."""
    table = Table.grid(padding=(0, 2))
    table.add_row(
        Text("this node", style="bold"), sanitize_cell(f"{node.member}, {node.interface}, govipd {node.version}")
    )
    for group in node.groups:
        table.add_row()
        table.add_row(sanitize_cell(group.vip), sanitize_cell(_what(group)))
        table.add_row("", sanitize_cell(", ".join(group.addresses)))
        because = texts.because(Trigger(group.trigger), group.detail)
        table.add_row("since", sanitize_cell(f"{_time(group.since)}, {duration(now - group.since)}: {because}"))
        table.add_row("next", sanitize_cell(group.next))
        for gate in group.gates:
            verdict = Text.assemble(
                sanitize_cell(gate.verdict), f" for {duration(now - gate.since)}: ", sanitize_cell(gate.detail)
            )
            table.add_row(sanitize_cell(f"gate {gate.gate}"), verdict)
        table.add_row("lease", sanitize_cell(_lease(group)))
        table.add_row("fence", sanitize_cell(_fence(group)))
        table.add_row("etcd", sanitize_cell(group.etcd or "answers"))
        if group.warning:
            table.add_row(Text("warning", style="red"), sanitize_cell(group.warning))
        for i, t in enumerate(group.transitions[-TRANSITIONS:]):
            because = texts.because(Trigger(t.trigger), t.detail)
            text = f"{_time(t.at)} {texts.what(State(t.state))} ({because})"
            table.add_row("" if i else "lately", sanitize_cell(text))
    table.add_row()
    return table


def cluster_table(cluster: Mapping[str, Mapping[str, Any]]) -> Table:
    """Every member of every VIP, as its record in etcd shows it."""
    table = Table("VIP", "member", "state", "since", "place", "gates", "reason")
    for name, vip in cluster.items():
        for member, record in sorted(vip["members"].items()):
            place = str(vip["queue"].index(member) + 1) if member in vip["queue"] else "-"
            table.add_row(
                sanitize_cell(name),
                sanitize_cell(member),
                sanitize_cell(record.get("state", "?")),
                sanitize_cell(record.get("since", "?")),
                place,
                sanitize_cell(_gates(record.get("gates"))),
                sanitize_cell(record.get("detail") or record.get("reason", "")),
            )
    return table


def history_table(entries: Sequence[Mapping[str, str]]) -> Table:
    """The journal's messages about transitions, the oldest first. Times are UTC."""
    table = Table.grid(Column(no_wrap=True), Column(), padding=(0, 2))
    for entry in entries:
        table.add_row(sanitize_cell(entry["at"]), sanitize_cell(entry["message"]))
    return table


def moves_table(moves: Sequence[Mapping[str, Any]]) -> Table:
    """Take-overs and releases, the oldest first: for each step, when it was done and how long it took."""
    table = Table("at (UTC)", "VIP", "step", "at ms", "took ms")
    for move in moves:
        table.add_row(
            sanitize_cell(move["at"]), sanitize_cell(move["vip"]), Text(str(move["move"]), style="bold"), "", ""
        )
        before = 0.0
        for step in move["steps"]:
            table.add_row("", "", sanitize_cell(step["step"]), f"{step['ms']:.1f}", f"{step['ms'] - before:.1f}")
            before = step["ms"]
        table.add_section()
    return table


def _what(group: GroupStatus) -> str:
    what = texts.what(State(group.state))
    if group.state == State.CANDIDATE.value and group.ahead:
        return f"{what}, behind {group.ahead}"
    if group.state == State.INELIGIBLE.value:
        reasons = "; ".join(group.blockers) or f"was not healthy lately, campaigns in {group.campaigns_in:.0f} s"
        return f"{what}: {reasons}"
    return what


def _lease(group: GroupStatus) -> str:
    if group.lease_left is None:
        return "none"
    return f"{group.lease_left:.1f} s left" + (", not being renewed" if group.etcd else ", being renewed")


def _fence(group: GroupStatus) -> str:
    if group.state in _OPEN and group.lease_left is not None:
        if group.pact:
            return f"open for {group.pact:g} s at most, longer with each answer of the successor"
        return f"open for {group.lease_left:.1f} s, longer with each renewal"
    return "being closed" if group.state == State.DEACTIVATING.value else "closed"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _gates(gates: object) -> str:
    if not isinstance(gates, dict):
        return ""
    verdicts = {gate: value.get("verdict", "?") if isinstance(value, dict) else "?" for gate, value in gates.items()}
    return ", ".join(f"{gate} {verdict}" for gate, verdict in verdicts.items())
