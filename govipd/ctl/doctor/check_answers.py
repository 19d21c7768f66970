"""Checks which machines answer for a VIP on the wire: only the leader may."""

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address

from govipd.adapters.kernel.neighbours import who_has, wire
from govipd.config.model import Config
from govipd.ctl.doctor.finding import Cluster, Finding, Queue, failed, ok, skipped
from govipd.errors import KernelError

_LISTEN_S = 1.0


async def examine(config: Config, cluster: Cluster | None) -> list[Finding]:
    """Ask the machines on each interface's link who has each VIP, and who has the leaders' own addresses."""
    if cluster is None:
        return [skipped("answers", "without etcd it is not known which machine should answer")]
    found = await asyncio.gather(*(_interface(config, cluster, interface) for interface in config.interfaces()))
    return [finding for findings in found for finding in findings]


async def _interface(config: Config, cluster: Cluster, interface: str) -> list[Finding]:
    placed = config.placed_on(interface)
    asked = {address.ip for addresses in placed.values() for address in addresses}
    leaders = {name: _addresses_of_leader(cluster[name]) for name in placed}
    try:
        ours = await wire(interface, avoid=asked)
        answers = await who_has(ours, asked.union(*leaders.values()), listen_s=_LISTEN_S)
    except PermissionError:
        return [skipped("answers", "asking the neighbours needs root")]
    except (KernelError, OSError) as e:
        return [skipped("answers", f"the neighbours cannot be asked: {e}")]
    findings = []
    for name, addresses in placed.items():
        macs = frozenset(mac for ip in leaders[name] for mac in answers[ip])
        for address in addresses:
            if address.version == 6 and ours.source6 is None:
                findings.append(skipped(f"{name}: {address.ip}", f"{interface} has no IPv6 address to ask from"))
                continue
            check = f"{name}: {address.ip}"
            judged = _judge(check, interface, answers[address.ip], cluster[name], macs, config.election.member)
            findings.append(judged)
    return findings


def _judge(
    check: str,
    interface: str,
    answered: frozenset[bytes],
    queue: Queue,
    macs_of_leader: frozenset[bytes],
    member: str,
) -> Finding:
    strangers = answered - macs_of_leader
    who = ", ".join(sorted(_named(mac.hex(":"), queue) for mac in strangers))
    remedy = f"find {who} in the switch's table, or with: ip neigh; take the address off that machine"
    if queue.leader in {"", member}:
        leads = "this member leads" if queue.leader else "no member leads"
        if answered:
            return failed(check, f"a foreign host answers for it, {who}, though {leads}", remedy)
        return ok(check, f"no other host answers for it; {leads}")
    if len(answered) > 1 and not macs_of_leader:  # the leader is on another link, or its addresses are unknown
        return failed(check, f"more than one host answers for it, {who}; {queue.leader} leads", remedy)
    if strangers and macs_of_leader:
        beside = "beside" if strangers < answered else "and not"
        return failed(check, f"a foreign host answers for it, {who}, {beside} {queue.leader}, which leads", remedy)
    if not answered:
        text = f"{queue.leader} leads, but no machine answers for it on {interface}"
        return failed(check, text, f"govipctl doctor on {queue.leader}; are both machines on the same link?")
    return ok(check, f"{queue.leader} answers for it, and no other machine")


def _named(mac: str, queue: Queue) -> str:
    """A hardware address, with the members whose records name it."""
    members = [member for member, record in queue.records.items() if mac in str(record.get("mac", "")).split()]
    return f"{mac} ({', '.join(members)})" if members else mac


def _addresses_of_leader(queue: Queue) -> frozenset[IPv4Address | IPv6Address]:
    """The leader's own addresses, from its record. An address on another link will not answer."""
    words = str(queue.records.get(queue.leader, {}).get("node", "")).split(", ")[:8]
    found = set()
    for word in words:
        try:
            found.add(ip_address(word))
        except ValueError:
            continue
    return frozenset(found)
