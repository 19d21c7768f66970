"""The files that make an image into one machine: what the README tells a user to write."""

from collections.abc import Sequence
from pathlib import Path

from tests.lab.network import VIP4, VIP6, Port

GOVIP_TOML = f"""\
[etcd]
endpoints = [{{endpoints}}]

[[vip]]
name = "api"
interface = "eth0"
addresses = ["{VIP4}/32", "{VIP6}/128"]
"""

HAPROXY_CFG = """\
global
    maxconn 2000
    stats socket /run/haproxy/admin.sock mode 660 level admin
    user haproxy
    group haproxy
defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s
frontend service
    maxconn 1900
    bind :::80 v4v6
    http-request return status 200 content-type text/plain string {name}
"""

ETCD = """\
ETCD_NAME={name}
ETCD_DATA_DIR=/var/lib/etcd/default
ETCD_LISTEN_CLIENT_URLS=http://{ip}:2379,http://127.0.0.1:2379
ETCD_ADVERTISE_CLIENT_URLS=http://{ip}:2379
ETCD_LISTEN_PEER_URLS=http://{ip}:2380
ETCD_INITIAL_ADVERTISE_PEER_URLS=http://{ip}:2380
ETCD_INITIAL_CLUSTER={cluster}
ETCD_INITIAL_CLUSTER_STATE=new
ETCD_PRE_VOTE=true
"""


def provision(root: Path, port: Port, nodes: Sequence[Port]) -> None:
    """Write what a machine has before govipd, below `root`: its names, a member of etcd, a haproxy that serves."""
    cluster = ",".join(f"{n.name}=http://{n.v4}:2380" for n in nodes)
    files = {
        "etc/hostname": f"{port.name}\n",
        "etc/machine-id": f"{port.number:032x}\n",
        "etc/default/etcd": ETCD.format(name=port.name, ip=port.v4, cluster=cluster),
        "etc/haproxy/haproxy.cfg": HAPROXY_CFG.format(name=port.name),
    }
    for name, text in files.items():
        (root / name).write_text(text)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    for unit in ("etcd.service", "haproxy.service"):
        (wants / unit).symlink_to(f"/lib/systemd/system/{unit}")


def configure(root: Path, nodes: Sequence[Port]) -> None:
    """Govipd's configuration on a machine where it is installed, below `root`."""
    with (root / "etc/haproxy/haproxy.cfg").open("a") as haproxy:
        haproxy.write((root / "etc/govip/haproxy-govip.cfg").read_text())
    (root / "etc/govip/govip.toml").write_text(GOVIP_TOML.format(endpoints=endpoints(nodes)))


def endpoints(nodes: Sequence[Port]) -> str:
    """Every member of etcd, as in a TOML list."""
    return ", ".join(f'"http://{n.v4}:2379"' for n in nodes)
