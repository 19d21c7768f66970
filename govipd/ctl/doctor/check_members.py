"""Checks this machine among the members: its name, its state, and whether all members have the same addresses."""

import asyncio
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from govipd.config.model import Config, VipConfig
from govipd.core.sanitize import sanitize_line
from govipd.core.status import GroupStatus
from govipd.ctl import client
from govipd.ctl.doctor.finding import Cluster, Finding, Queue, failed, ok, skipped, warning
from govipd.errors import GovipdError
from govipd.host import machine_identity


async def examine(config: Config, cluster: Cluster | None, runtime: Path = client.RUNTIME) -> list[Finding]:
    """Check this member's record and the others' records, for each VIP. `runtime` has the daemons' sockets."""
    if cluster is None:
        return [skipped("members", "etcd could not be read")]
    findings = []
    for vip in config.vip:
        queue = cluster[vip.name]
        group = await asyncio.to_thread(_daemon, vip, runtime)
        findings += [_own(config.election.member, vip, queue, group), _others(config.election.member, vip, queue)]
        findings.append(_addresses(vip, queue))
    return findings


def _daemon(vip: VipConfig, runtime: Path) -> GroupStatus | None:
    """The VIP's status from the daemon of this machine; None where no daemon answers this user."""
    try:
        groups = client.status(vip.interface, runtime).groups
    except GovipdError:
        return None
    return next((group for group in groups if group.vip == vip.name), None)


def _own(member: str, vip: VipConfig, queue: Queue, group: GroupStatus | None) -> Finding:
    check, unit = f"{vip.name}: this member", f"govipd@{vip.interface}"
    own = queue.records.get(member)
    if own is None:
        text = f"{member} has no record in etcd: {unit} does not run, or does not reach etcd"
        return failed(check, text, f"systemctl status {unit}; journalctl -u govipd -n 20")
    if own.get("machine") != machine_identity(vip.interface)["machine"]:
        where = sanitize_line(str(own.get("node", "an unknown address")))
        text = f"the name {member} is taken by the machine at {where}"
        return failed(check, text, "set election.member to another name")
    if own.get("version") != version("govipd"):
        text = f"runs version {sanitize_line(str(own.get('version')), 40)}, but {version('govipd')} is installed"
        return warning(check, text, f"systemctl restart {unit} (the VIP stays where it is)")
    return _standing(check, member, queue, own, group)


def _standing(check: str, member: str, queue: Queue, own: Mapping[str, object], group: GroupStatus | None) -> Finding:
    """Check whether this member campaigns, and if not, say why."""
    why = sanitize_line("; ".join(group.blockers) if group else str(own.get("detail") or own.get("reason", "")), 200)
    if group.drained if group else own.get("drained") is True:
        text = f"{member} is drained by the operator: it does not stand for election"
        return warning(check, text, "govipctl undrain, when the work is done")
    if member in queue.names:
        place = queue.names.index(member)
        return ok(check, f"{member} is number {place + 1} in the queue" if place else f"{member} leads")
    if group and group.campaigns_in > 0:
        text = f"{member} was not healthy lately: it stands again in {group.campaigns_in:.0f} s"
        return warning(check, text, "find out why it flaps: govipctl history")
    text = f"{member} does not stand for election: {why or sanitize_line(str(own.get('state')), 40)}"
    return failed(check, text, "see what failed here; govipctl why")


def _others(member: str, vip: VipConfig, queue: Queue) -> Finding:
    others = ", ".join(sanitize_line(name, 64) for name in queue.names if name != member)
    if others:
        return ok(f"{vip.name}: others", f"{others} can take over" if queue.leader == member else f"{others} stand too")
    text = "no other machine stands for election: none could take the VIP"
    remedy = "govipctl status; then govipctl doctor on the machines that should stand"
    return warning(f"{vip.name}: others", text, remedy)


def _addresses(vip: VipConfig, queue: Queue) -> Finding:
    ours = sorted(map(str, vip.addresses))
    differing = [
        f"{sanitize_line(name, 64)} has {sanitize_line(', '.join(map(str, theirs)))}"
        for name, record in sorted(queue.records.items())
        if isinstance(theirs := record.get("addresses"), list) and sorted(map(str, theirs)) != ours
    ]
    check = f"{vip.name}: addresses"
    if not differing:
        return ok(check, f"{', '.join(ours)}, the same on every member")
    text = f"here {', '.join(ours)}, but {'; '.join(differing)}"
    return failed(check, text, f"make govip.toml the same everywhere, then systemctl reload govipd@{vip.interface}")
