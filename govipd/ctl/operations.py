"""The operations drain, undrain and handover, and the wait until each has taken effect."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from govipd.config.model import Config
from govipd.core.state import State
from govipd.core.status import GroupStatus, NodeStatus
from govipd.ctl import client, cluster
from govipd.errors import EtcdError, RefusedError

POLL_S = 0.1
_ABSENT = (State.INELIGIBLE.value, State.STOPPED.value)


def targets(
    interface: str | None, vip: str | None, runtime: Path = client.RUNTIME
) -> list[tuple[NodeStatus, GroupStatus]]:
    """The groups that an operation applies to: the group of one VIP, or all, each with its node.

    Raises:
        NoDaemonError: a daemon does not answer.
        DeniedError: this user may not call a daemon.
        RefusedError: no daemon of this machine has that VIP.
    """
    nodes = [client.status(name, runtime) for name in client.instances(interface, runtime)]
    found = [(node, group) for node in nodes for group in node.groups if vip in (None, group.vip)]
    if not found:
        known = ", ".join(group.vip for node in nodes for group in node.groups)
        raise RefusedError(f"{vip} is no VIP of a govipd on this machine; those are {known}")
    return found


def is_leader(interface: str | None, vip: str | None) -> int:
    """The exit status: 0 if this node leads the VIP (None: every VIP of this machine), else 1."""
    return 0 if all(group.state == State.LEADER.value for _, group in targets(interface, vip)) else 1


def drain(interface: str | None, vip: str | None, *, wanted: bool) -> None:
    """Drain, or end the drain, and wait for the daemon's answer.

    Raises:
        RefusedError: the daemon refused, for example because it cannot write the drain file.
    """
    for node, group in targets(interface, vip):
        client.call(node.interface, "Drain" if wanted else "Undrain", vip=group.vip)


def wait_drained(interface: str | None, vip: str | None, timeout: float) -> None:
    """Wait until this node is out of the queue, and does not hold the VIP. `timeout` is seconds.

    Raises:
        RefusedError: not in time.
    """

    def missing() -> str:
        here = [f"{g.vip} is {g.state}" for _, g in targets(interface, vip) if g.state not in _ABSENT]
        return ", ".join(here)

    _wait(missing, timeout)


def handover(interface: str | None, vip: str | None, to: str | None) -> list[tuple[NodeStatus, GroupStatus]]:
    """Hand over each VIP that this node leads. Returns their groups.

    Raises:
        RefusedError: this node leads no VIP, or no member could take one over.
    """
    meant = targets(interface, vip)
    led = [(node, group) for node, group in meant if group.state == State.LEADER.value]
    for node, group in led or meant:  # the daemon refuses a VIP that it does not lead, and says who leads
        client.call(node.interface, "Handover", vip=group.vip, to=to or "")
    return led


def wait_handed_over(config: Config, given: list[tuple[NodeStatus, GroupStatus]], timeout: float) -> None:
    """Wait until etcd shows, for each VIP, that another member is its leader. `timeout` is seconds.

    Raises:
        RefusedError: not in time.
    """

    def missing() -> str:
        try:
            members = cluster.read(config)
        except EtcdError as e:
            return f"etcd does not answer: {e}"
        unserved = [group.vip for node, group in given if not _held_by_another(members[group.vip], node.member)]
        return f"no other member answers for {', '.join(unserved)}" if unserved else ""

    _wait(missing, timeout)


def _held_by_another(vip: dict[str, Any], member: str) -> bool:
    records = vip["members"].items()
    return any(name != member and record.get("state") == State.LEADER.value for name, record in records)


def _wait(missing: Callable[[], str], timeout: float) -> None:
    until = time.monotonic() + timeout
    time.sleep(POLL_S)  # an earlier look would take CPU time from the daemon
    while text := missing():
        if time.monotonic() >= until:
            raise RefusedError(f"not within {timeout:g} s: {text}; it goes on without being waited for")
        time.sleep(POLL_S)
