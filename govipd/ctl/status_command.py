"""`govipctl status`: this machine's status from its daemons, and the cluster's from etcd. Either may be missing."""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live

from govipd.config.reader import load
from govipd.core.state import State
from govipd.core.status import NodeStatus
from govipd.ctl import client, cluster, render
from govipd.errors import ConfigError, DeniedError, EtcdError, NoDaemonError


@dataclass(frozen=True, slots=True)
class Found:
    """The status of daemons and cluster; `missing`: what could not be read; `refused`: the configuration is refused."""

    nodes: dict[str, NodeStatus]
    cluster: cluster.Cluster | None
    missing: tuple[str, ...]
    refused: bool

    def exit_status(self) -> int:
        """0 when every VIP has a leader, 1 when a VIP has no leader, and a higher status when this is not known."""
        if self.refused:
            return os.EX_CONFIG
        if self.cluster is not None:
            return 0 if all(vip["leader"] for vip in self.cluster.values()) else 1
        if self.nodes:
            groups = [group for node in self.nodes.values() for group in node.groups]
            return 0 if all(group.state == State.LEADER.value for group in groups) else 1
        return os.EX_UNAVAILABLE

    def as_json(self) -> str:
        """The status as JSON, for programs."""
        nodes = {interface: asdict(node) for interface, node in self.nodes.items()}
        return json.dumps({"nodes": nodes, "cluster": self.cluster, "missing": self.missing}, indent=2)


def find(config: Path, interface: str | None, runtime: Path = client.RUNTIME) -> Found:
    """Ask the daemons and etcd. If one does not answer, the others are still shown."""
    nodes, missing = _nodes(interface, runtime)
    members, refused = None, False
    try:
        members = cluster.read(load(config, hostname=client.hostname(runtime)))
    except ConfigError as e:
        # Only root can read TLS keys: for another user, this error is no fault of the configuration.
        refused = os.geteuid() == 0 or not nodes
        missing.append(f"the cluster is not shown, etcd cannot be asked with this configuration: {e}")
    except EtcdError as e:
        knows = "; shown is what this node knows" if nodes else ""
        missing.append(f"the cluster is not shown, etcd does not answer: {e}{knows}")
    return Found(nodes, members, tuple(missing), refused)


def _nodes(interface: str | None, runtime: Path) -> tuple[dict[str, NodeStatus], list[str]]:
    """The daemons of this machine that answer, by interface, and why the others do not."""
    nodes: dict[str, NodeStatus] = {}
    missing: list[str] = []
    try:
        names = client.instances(interface, runtime)
    except NoDaemonError as e:
        return nodes, [str(e)]
    for name in names:
        try:
            nodes[name] = client.status(name, runtime)
        except (NoDaemonError, DeniedError) as e:
            missing.append(str(e))
    return nodes, missing


def status(config: Path, interface: str | None, *, as_json: bool, watch: float | None) -> int:
    """Show the status: once, or every `watch` seconds. Returns the exit status."""
    console = Console()
    if watch is not None:
        return _watch(console, config, interface, watch)
    found = find(config, interface)
    if as_json:
        print(found.as_json())
    elif found.nodes or found.cluster is not None:
        console.print(render.whole(found.nodes, found.cluster, found.missing, time.time()))
    else:
        print("\n".join(render.sanitize_cell(text).plain for text in found.missing), file=sys.stderr)
    return found.exit_status()


def _watch(console: Console, config: Path, interface: str | None, pause: float) -> int:
    found = None
    try:
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                found = find(config, interface)
                live.update(render.whole(found.nodes, found.cluster, found.missing, time.time()), refresh=True)
                time.sleep(pause)
    except KeyboardInterrupt:
        return found.exit_status() if found else os.EX_UNAVAILABLE
