"""Checks nf_tables: the kernel has it, a leader's fence is open, and no foreign rule drops packets that a VIP needs."""

import itertools
import json
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from govipd.adapters.kernel.fence_rules import FENCES, SLOTS, fence_table, guarded, opened, used
from govipd.adapters.kernel.nftables import NfTables
from govipd.config.model import Config, VipConfig
from govipd.core import texts
from govipd.core.sanitize import sanitize_line
from govipd.ctl.doctor.finding import Cluster, Finding, failed, ok, skipped, warning
from govipd.ctl.doctor.tools import ToolError, ask


async def examine(config: Config, cluster: Cluster | None) -> list[Finding]:
    """Check the fences, and the rules of other programs."""
    findings = []
    wanted = config.election.fence == "nftables"
    if wanted:
        if NfTables().missing():
            return [
                warning("nf_tables", texts.NO_NFTABLES, 'modprobe nf_tables, then restart; or set fence = "address"')
            ]
        findings.append(ok("nf_tables", "this kernel has it"))
    try:
        ruleset = json.loads(await ask("nft", "-j", "list", "ruleset"))["nftables"]
    except ToolError as e:
        remedy = "apt install nftables, and run this as root"
        return [*findings, skipped("firewall", f"rules cannot be read: {e}", remedy)]
    except (ValueError, KeyError, TypeError):
        return [*findings, skipped("firewall", "nft printed what cannot be read")]
    if wanted and cluster is not None:
        leading = [vip for vip in config.vip if cluster[vip.name].leader == config.election.member]
        findings += [_fence(vip, ruleset) for vip in leading]
    return [*findings, *_orphans(config, ruleset), *_foreign(config, ruleset)]


def _fence(vip: VipConfig, ruleset: list[dict[str, Any]]) -> Finding:
    """On the leader, check that both tables exist, and that the fence is open for every address."""
    check, table = f"{vip.name}: fence", fence_table(vip.interface)
    families = {t["family"] for t in _all(ruleset, "table") if t["name"] == table}
    remedy = "govipd repairs it within a renewal; if this lasts: journalctl -u govipd -n 20"
    if families != {"inet", "arp"}:
        return failed(check, f"this member leads, but table {table} is not there in inet and arp", remedy)
    elements = _elements(table, ruleset)
    open_now = set[IPv4Address | IPv6Address]()
    for slot, version in itertools.product(SLOTS, (4, 6)):  # the slot counts, and its element has not ended
        open_now |= elements.get(used(version, slot), set()) & elements.get(opened(version, slot), set())
    closed = [str(address.ip) for address in vip.addresses if address.ip not in open_now]
    if closed:
        return failed(check, f"this member leads, but the fence is closed for {', '.join(closed)}", remedy)
    return ok(check, "open, until the lease runs out")


def _elements(table: str, ruleset: list[dict[str, Any]]) -> dict[str, set[IPv4Address | IPv6Address]]:
    """The addresses in each set of a table in inet."""
    sets = [s for s in _all(ruleset, "set") if s["table"] == table and s["family"] == "inet"]
    return {s["name"]: {_address(e) for e in s.get("elem", [])} for s in sets}


def _address(element: Any) -> IPv4Address | IPv6Address:
    """The address of a set's element, with or without a time-out."""
    return ip_address(str(element["elem"]["val"] if isinstance(element, dict) else element))


def _orphans(config: Config, ruleset: list[dict[str, Any]]) -> list[Finding]:
    """Find orphan fences on the configured interfaces: this machine never answers for the addresses they guard."""
    fenced = config.election.fence == "nftables"
    orphans = set[IPv4Address | IPv6Address]()
    for interface in {vip.interface for vip in config.vip}:
        sets = _elements(fence_table(interface), ruleset)
        owned = {a.ip for vip in config.vip if fenced and vip.interface == interface for a in vip.addresses}
        orphans |= (sets.get(guarded(4), set()) | sets.get(guarded(6), set())) - owned
    remedy = "restart govipd: it removes what an earlier file has left"
    return [
        warning("fence", f"{address} is closed on this machine, and belongs to no VIP here", remedy)
        for address in sorted(orphans, key=str)
    ]


def _foreign(config: Config, ruleset: list[dict[str, Any]]) -> list[Finding]:
    """Find rules of other programs that drop ARP or neighbour discovery before the kernel can answer for a VIP."""
    v6 = [address for vip in config.vip for address in vip.addresses if address.version == 6]
    interfaces = config.interfaces()
    findings = []
    for chain in _all(ruleset, "chain"):
        where = f"{chain['family']} {sanitize_line(chain['table'], 60)} {sanitize_line(chain['name'], 60)}"
        if chain["table"].startswith(FENCES) or "hook" not in chain:
            continue
        rules = [r for r in _all(ruleset, "rule") if (r["family"], r["table"]) == (chain["family"], chain["table"])]
        text = json.dumps(rules)
        drops = chain.get("policy") == "drop"
        some_drop = '"drop"' in text
        arp = chain["family"] == "arp" and (drops or some_drop)
        ingress = chain["family"] == "netdev" and chain.get("dev") in interfaces and some_drop and '"arp"' in text
        remedy = f"nft list chain {where}: let ARP for the VIPs pass"
        if arp or ingress:
            findings.append(warning("firewall", f"chain {where} drops ARP: perhaps that for a VIP", remedy))
        discovery = any(words in text for words in ("icmpv6", "ipv6-icmp"))
        if v6 and drops and chain["hook"] == "input" and chain["family"] in {"inet", "ip6"} and not discovery:
            detail = f"chain {where} drops neighbour solicitations: no machine finds {v6[0].ip}"
            remedy = f"nft insert rule {where} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept"
            findings.append(failed("firewall", detail, remedy))
    return findings or [ok("firewall", "nothing that would drop ARP or neighbour discovery")]


def _all(ruleset: list[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    return (entry[kind] for entry in ruleset if kind in entry)
