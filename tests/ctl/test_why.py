"""The answers of `govipctl why` and `govipctl status` in the situations of an outage."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from govipd.core import texts
from govipd.core.state import State, Trigger
from govipd.core.status import GateReport, GroupStatus, NodeStatus, Transition
from govipd.ctl.render import history_table, whole
from govipd.ctl.status_command import Found
from govipd.ctl.why import duration, why

NOW = 1_750_000_000.0
HEALTHY = (GateReport("unit", "healthy", "running", NOW - 90), GateReport("probe", "healthy", "200", NOW - 90))
LEADER = GroupStatus(
    vip="api",
    addresses=("192.0.2.100/32",),
    state="leader",
    since=NOW - 3725,
    trigger="activated",
    detail="",
    next=texts.next_step(State.LEADER),
    ahead="",
    drained=False,
    gates=HEALTHY,
    lease_left=2.3,
    pact=0.0,
    campaigns_in=0.0,
    blockers=(),
    etcd="",
    warning="",
    transitions=(Transition(NOW - 3726, "activating", "won", ""), Transition(NOW - 3725, "leader", "activated", "")),
)
CANDIDATE = replace(
    LEADER, state="candidate", trigger="eligible", ahead="node1", lease_left=2.2, next=texts.next_step(State.CANDIDATE)
)
ASIDE = replace(LEADER, state="ineligible", trigger="resigned", next=texts.next_step(State.INELIGIBLE))
DEAD = "unit unhealthy (failed, result: signal)"
LOST = "192.0.2.11:2379: certificate signed by unknown authority"

SITUATIONS = {
    "leader": (
        LEADER,
        ("node2 leads api and answers for 192.0.2.100/32, for 1 h 2 min (the kernel answers for the VIP). "
        "It holds the VIP while its gates (unit, probe) are healthy and etcd confirms its lease; govipctl drain or "
        "govipctl handover gives it to another member."),
    ),
    "standby": (
        CANDIDATE,
        ("node2 does not lead api: it has been a candidate behind node1 for 1 h 2 min (every gate is healthy). "
        "Next: activate the VIP when every member ahead has left."),
    ),
    "haproxy dead": (
        replace(ASIDE, blockers=(DEAD,)),
        (f"node2 does not lead api: it has been ineligible for 1 h 2 min, because: {DEAD}. "
        "Next: campaign when every gate is healthy."),
    ),
    "etcd down, leader": (
        replace(LEADER, etcd="no answer", lease_left=1.25),
        "But etcd does not answer usefully (no answer): unless it confirms the lease within 1.2 s, the VIP is dropped.",
    ),
    "wrong CA": (
        replace(CANDIDATE, ahead="", lease_left=None, etcd=LOST),
        (
            "it has been a candidate for 1 h 2 min (every gate is healthy). Next: activate the VIP when every member "
            f"ahead has left. And etcd does not answer usefully ({LOST}): until it does, this node cannot lead; "
            "without a majority of etcd no node can."
        ),
    ),
    "drained": (
        replace(ASIDE, drained=True, blockers=("drained by the operator",)),
        ("node2 does not lead api: it has been ineligible for 1 h 2 min, because: drained by the operator. "
        "govipctl undrain lets it in again."),
    ),
    "drained and dead": (
        replace(ASIDE, drained=True, blockers=(DEAD, "drained by the operator")),
        (f"because: {DEAD}; drained by the operator. govipctl undrain lets it in again. "
        "Next: campaign when every gate is healthy."),
    ),
    "flapping": (
        replace(ASIDE, campaigns_in=12.4),
        ("it has been ineligible for 1 h 2 min (out of the election), and was not healthy lately. "
        "It stands for election in 12 s, if its gates stay healthy."),
    ),
    "disagreement": (replace(LEADER, warning="members disagree"), "Beware: members disagree."),
}  # fmt: skip


@pytest.mark.parametrize(("group", "told"), SITUATIONS.values(), ids=SITUATIONS)
def test_why(group: GroupStatus, told: str) -> None:
    """One paragraph: the state, its cause, and what would change it."""
    assert told in why("node2", group, NOW)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("trigger", Trigger)
def test_every_state_has_its_paragraph(state: State, trigger: Trigger) -> None:
    """For every cause: the words of the journal, in whole sentences."""
    group = replace(LEADER, state=state.value, trigger=trigger.value, next=texts.next_step(state))
    text = why("node2", group, NOW)
    assert text.startswith(("node2 leads api", "node2 does not lead api"))
    assert text.endswith(".")


def test_a_history_that_has_odd_bytes_can_be_shown() -> None:
    """The journal's words, with the time."""
    stream = io.StringIO()
    entry = {"at": "2025-06-15 15:06:40.000", "vip": "api", "state": "leader", "message": "\x1b[2J[/]"}
    Console(file=stream, width=100).print(history_table([entry]))
    assert stream.getvalue().startswith("2025-06-15 15:06:40.000  \N{REPLACEMENT CHARACTER}[2J[/]")


def test_durations() -> None:
    """Two units at most."""
    told = ["0 s", "0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]
    assert [duration(s) for s in (-1, 0.4, 59, 61, 3600, 90_000)] == told


def shown(found: Found) -> str:
    """What goes to the terminal."""
    stream = io.StringIO()
    Console(file=stream, width=150, color_system=None).print(whole(found.nodes, found.cluster, found.missing, NOW))
    return stream.getvalue()


def node(group: GroupStatus) -> dict[str, NodeStatus]:
    return {"eth0": NodeStatus("1.2.3", "node2", "eth0", (group,))}


CLUSTER = {"api": {"leader": "node1", "queue": ["node1"], "members": {"node1": {"state": "leader"}}}}


def test_the_status_of_a_leader() -> None:
    """Role, since, gates with their last result, lease, fence, addresses, the last transitions."""
    text = shown(Found(node(LEADER), CLUSTER, (), refused=False))
    for told in (
        "node2, eth0, govipd 1.2.3",
        "api         leader",
        "192.0.2.100/32",
        "2025-06-15 14:04:35, 1 h 2 min: the kernel answers for the VIP",
        "gate unit   healthy for 1 min 30 s: running",
        "2.3 s left, being renewed",
        "open for 2.3 s, longer with each renewal",
        "2025-06-15 14:04:34 activating the VIP (won the election)",
        "node1",
    ):
        assert told in text, f"{told}\n{text}"


def test_the_status_while_etcd_is_down() -> None:
    """What this node knows, and that it is not all."""
    found = Found(node(replace(LEADER, etcd="no answer")), None, ("etcd does not answer: no answer",), refused=False)
    text = shown(found)
    assert "2.3 s left, not being renewed" in text
    assert "etcd does not answer: no answer" in text
    assert found.exit_status() == 0


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_shown(state: State) -> None:
    """In the words of `systemctl status`."""
    group = replace(CANDIDATE, state=state.value, next=texts.next_step(state))
    assert texts.what(state) in shown(Found(node(group), None, (), refused=False))


def test_foreign_text_cannot_control_the_terminal() -> None:
    """Gates' details and refusals are what other programs said."""
    gates = (GateReport("probe", "unhealthy", "\x1b[2J[red]", NOW),)
    text = shown(Found(node(replace(ASIDE, gates=gates, blockers=("\x9b2J",))), None, ("\x1b]0;x\x07",), refused=False))
    assert not {"\x1b", "\x9b", "\x07"} & set(text)
    assert "[red]" in text


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (Found({}, CLUSTER, (), refused=False), 0),
        (Found({}, {"api": {"leader": None, "queue": [], "members": {}}}, (), refused=False), 1),
        (Found(node(LEADER), None, (), refused=False), 0),
        (Found(node(CANDIDATE), None, (), refused=False), 1),
        (Found({}, None, (), refused=False), 69),
        (Found(node(LEADER), None, (), refused=True), 78),
    ],
)
def test_exit_status_of_status(found: Found, status: int) -> None:
    """0 every VIP has a leader, 1 one has none, 69 no daemon answers, 78 the configuration is refused."""
    assert found.exit_status() == status
