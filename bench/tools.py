"""The tools that are compared: their files, their units, and when each is ready for a fault.

A tool's files stand in bench/conf, in a tree as on the machine's disk, with $names for what differs between machines.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.network import VIP4
from tests.lab.provision import endpoints

CONF = Path(__file__).parent / "conf"
ELECTION = "govip/election/api/"
PACT = "govip/pact/api/"
LEADER_KEY = "http://127.0.0.1:2379/v2/keys/service/bench/leader"


@dataclass(frozen=True, slots=True)
class Tool:
    """A way to keep the VIP on one machine.

    `hand_over` is what an operator types on the holder ({heir}: another machine); `ready` says whether every
    machine of the lab stands where it should when nothing is wrong.
    """

    name: str
    tree: str
    unit: str
    ready: Callable[[Lab], bool]
    hand_over: str
    beside: tuple[str, ...] = ()  # units that it needs
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def elects_in_etcd(self) -> bool:
        """Whether the place of etcd's leader matters to the tool."""
        return self.name not in KEEPALIVED

    @property
    def units(self) -> tuple[str, ...]:
        """The units that are started and stopped for the tool."""
        return (self.unit, *self.beside)

    def files(self, lab: Lab, node: Machine) -> Iterator[tuple[str, str]]:
        """The tool's files: the path below the machine's root, and the contents."""
        number = lab.nodes.index(node)
        ports = [n.port for n in lab.nodes]
        values = {
            "name": node.name,
            "ip": str(node.port.v4),
            "vip": str(VIP4),
            "endpoints": endpoints(ports),
            "peers": "\n".join(f"        {p.v4}" for p in ports if p is not node.port),
            "state": "BACKUP" if number else "MASTER",
            "usual_priority": str(150 - 25 * number),
            "tuned_priority": str(254 - number),
            **self.values,
        }
        for tree in (CONF / "every", CONF / self.tree):
            for path in (p for p in tree.rglob("*") if p.is_file()):
                yield str(path.relative_to(tree)), Template(path.read_text()).safe_substitute(values)


def _keys(lab: Lab, prefix: str) -> list[str]:
    return lab.nodes[0].run(f"etcdctl get --prefix --keys-only {prefix}", check=False).stdout.split()


def _queued(lab: Lab) -> bool:
    return len(_keys(lab, ELECTION)) == len(lab.nodes)


def _in_pact(lab: Lab) -> bool:
    return _queued(lab) and any(key.endswith("/force") for key in _keys(lab, PACT))


def _keepalived_ready(lab: Lab) -> bool:
    """Whether one machine is master and the others are backup, by the newest entry of each journal."""
    told = [
        node.run("journalctl -o cat --no-pager _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID keepalived) "
                 "| grep -oiE 'entering [a-z]+ state' | tail -n 1", check=False).stdout.upper().split()
        for node in lab.nodes
    ]  # fmt: skip
    states = sorted(words[1] for words in told if words)
    return states == ["BACKUP"] * (len(lab.nodes) - 1) + ["MASTER"]


def _key_held(lab: Lab) -> bool:
    answer = lab.nodes[0].run(f"curl -fsS {LEADER_KEY}", check=False).stdout
    return bool(answer) and json.loads(answer)["node"]["value"] in {n.name for n in lab.nodes}


def _govipd(name: str, tree: str, ready: Callable[[Lab], bool], **values: str) -> Tool:
    return Tool(name, tree, f"{DAEMON}.service", ready, "govipctl handover", values=values)


def _keepalived(name: str, tree: str, hand_over: str, **values: str) -> Tool:
    return Tool(name, tree, "keepalived.service", _keepalived_ready, hand_over, values=values)


GOVIPD, FAST, FAST_100MS = "govipd", "govipd-fast", "govipd-fast-100ms"
USUAL, TUNED, TUNED_10MS, VIP_MANAGER = "keepalived", "keepalived-100ms", "keepalived-10ms", "vip-manager"
KEEPALIVED = (USUAL, TUNED, TUNED_10MS)
_TRACK = "echo 1 > /run/haproxy-down"

TOOLS = {
    tool.name: tool
    for tool in (
        _govipd(GOVIPD, "govipd", _queued),
        _govipd(FAST, "govipd-fast", _in_pact, pact="0.2"),
        _govipd(FAST_100MS, "govipd-fast", _in_pact, pact="0.1"),
        _keepalived(USUAL, "keepalived", "systemctl stop keepalived"),
        _keepalived(TUNED, "keepalived-tuned", _TRACK, advert="0.1"),
        _keepalived(TUNED_10MS, "keepalived-tuned", _TRACK, advert="0.01"),
        Tool(VIP_MANAGER, "vip-manager", "vip-manager.service", _key_held,
             f"curl -fsS -o /dev/null -X PUT {LEADER_KEY} -d value={{heir}} -d ttl=3", ("patroni-part.service",)),
    )
}  # fmt: skip
