"""This machine among the members: its name, its state, and whether all agree."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from govipd.cli import machine_identity
from govipd.config import Config, Vip
from govipd.core.text import line
from govipd.ctl.checks.finding import Cluster, Finding, Queue, failed, ok, skipped, warning

STATE_DIRECTORY = Path("/var/lib/govipd")


async def examine(config: Config, cluster: Cluster | None) -> list[Finding]:
    """By VIP: this member's own record, and the others' beside it."""
    if cluster is None:
        return [skipped("members", "etcd could not be read")]
    return [finding for vip in config.vip for finding in _vip(config.election.member, vip, cluster[vip.name])]


def _vip(member: str, vip: Vip, queue: Queue) -> list[Finding]:
    own = queue.records.get(member)
    findings = [_own(member, vip, own, queue), *_addresses(vip, queue)]
    if others := [name for name in queue.names if name != member]:
        findings.append(ok(f"{vip.name}: others", f"{', '.join(line(name, 64) for name in others)} can take the VIP"))
    else:
        remedy = "govipctl status; then govipctl doctor on the machines that should stand"
        text = "no other machine stands for election: none could take the VIP"
        findings.append(warning(f"{vip.name}: others", text, remedy))
    return findings


def _own(member: str, vip: Vip, own: Mapping[str, object] | None, queue: Queue) -> Finding:
    check = f"{vip.name}: this member"
    unit = f"govipd@{vip.interface}"
    if own is None:
        remedy = f"systemctl status {unit}; journalctl -u govipd -n 20"
        return failed(check, f"{member} has no record in etcd: {unit} does not run, or does not reach etcd", remedy)
    if own.get("machine") != machine_identity(vip.interface)["machine"]:
        where = line(str(own.get("node", "an unknown address")))
        text = f"the name {member} is taken by the machine at {where}"
        return failed(check, text, "set election.member to another name")
    if own.get("version") != version("govipd"):
        text = f"runs version {line(str(own.get('version')), 40)}, but {version('govipd')} is installed"
        return warning(check, text, f"systemctl restart {unit} (the VIP stays where it is)")
    state = line(str(own.get("state")), 40)
    why = line(str(own.get("detail") or own.get("reason", "")), 200)
    if (STATE_DIRECTORY / vip.interface / f"{vip.name}.drained").exists() or "drained" in why:
        text = f"{member} is drained by the operator: it does not stand"
        return warning(check, text, "govipctl undrain, when the work is done")
    if member in queue.names:
        place = queue.names.index(member)
        return ok(check, f"{member} leads" if not place else f"{member} is number {place + 1} in the queue")
    text = f"{member} does not stand for election: {state}, {why}"
    return failed(check, text, "govipctl why; journalctl -u govipd -n 20")


def _addresses(vip: Vip, queue: Queue) -> list[Finding]:
    ours = sorted(map(str, vip.addresses))
    differing = [
        f"{line(name, 64)} has {line(', '.join(map(str, theirs)))}"
        for name, record in sorted(queue.records.items())
        if isinstance(theirs := record.get("addresses"), list) and sorted(map(str, theirs)) != ours
    ]
    check = f"{vip.name}: addresses"
    if not differing:
        return [ok(check, f"{', '.join(ours)}, the same on every member")]
    text = f"here {', '.join(ours)}, but {'; '.join(differing)}"
    return [failed(check, text, "make govip.toml the same on every machine, then systemctl reload govipd@IF")]
