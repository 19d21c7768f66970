"""What operators do to etcd in the lab: rebuild, restore, fill, authentication, other endpoints."""

import json
import time
from collections.abc import Sequence
from functools import partial

from tests.lab.host import until
from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.provision import endpoints

TOML = "/etc/govip/govip.toml"
DEFAULTS = "/etc/default/etcd"
PASSWORD = "/etc/govip/etcd-password"  # where it is
SNAPSHOT = "/var/lib/etcd/snapshot"
ROOT = "--user=root:root"
OTHER_PORT = 2479


def set_defaults(node: Machine, **settings: str) -> None:
    """Set variables of the machine's etcd for its next start. An empty value removes one."""
    kept = [line for line in node.read(DEFAULTS).splitlines() if line.partition("=")[0] not in settings]
    node.write(DEFAULTS, "".join(f"{line}\n" for line in [*kept, *(f"{k}={v}" for k, v in settings.items() if v)]))


def every(lab: Lab, command: str) -> None:
    """Run the command on each machine that is switched on, one after the other."""
    for node in lab.others():
        node.run(command, timeout=60)


def start(lab: Lab) -> None:
    """Start every etcd, and wait until they serve."""
    every(lab, "systemctl start --no-block etcd")
    for node in lab.others():
        until(partial(_serves, node), 30, f"{node}'s etcd")


def _serves(node: Machine) -> bool:
    return node.run("etcdctl get x", check=False).returncode == 0


def rebuild(lab: Lab, token: str) -> None:
    """Kill every etcd member, and make an empty new cluster. Does not start it."""
    every(lab, "systemctl kill -s KILL etcd; systemctl stop etcd; rm -r /var/lib/etcd/default")
    for node in lab.others():
        set_defaults(node, ETCD_INITIAL_CLUSTER_TOKEN=token)


def initial_cluster(lab: Lab) -> str:
    """The value of etcd's --initial-cluster."""
    return ",".join(f"{n.name}=http://{n.port.v4}:2380" for n in lab.nodes)


def copy_snapshot(lab: Lab) -> None:
    """Copy the snapshot from the first machine to the others."""
    place = SNAPSHOT.lstrip("/")
    for node in lab.nodes[1:]:
        (node.root / place).write_bytes((lab.nodes[0].root / place).read_bytes())


def configure(node: Machine, lab: Lab, *, more: Sequence[str] = (), user: bool = False, only: str = "") -> None:
    """govipd's [etcd] on one machine: the endpoints and `more`, or `only` one; a user or none. Not reloaded."""
    rest = node.read(TOML).partition("\n\n")[2]
    listed = f'"{only}"' if only else ", ".join([endpoints([n.port for n in lab.nodes]), *(f'"{e}"' for e in more)])
    login = f'user = "govip"\npassword_file = "{PASSWORD}"\n' if user else ""
    node.write(PASSWORD, "secret\n")
    (node.root / PASSWORD.lstrip("/")).chmod(0o600)
    node.write(TOML, f"[etcd]\nendpoints = [{listed}]\n{login}\n{rest}")


def reload(lab: Lab, *, more: Sequence[str] = (), user: bool = False) -> None:
    """Edit the file and reload, machine after machine."""
    for node in lab.others():
        configure(node, lab, more=more, user=user)
        node.run(f"systemctl reload {DAEMON}")


def add_users(lab: Lab) -> None:
    """Add the users of docs/operations.md. Authentication stays disabled."""
    lab.nodes[0].run(
        "etcdctl user add root:root; etcdctl user grant-role root root; etcdctl role add govip; "
        "etcdctl role grant-permission govip readwrite govip/ --prefix; etcdctl user add govip:secret; "
        "etcdctl user grant-role govip govip"
    )


def disable_authentication(lab: Lab) -> None:
    """Disable authentication, if it is enabled, and delete every user."""
    lab.nodes[0].run(
        f"etcdctl {ROOT} auth disable; etcdctl user delete govip; etcdctl user delete root; "
        "etcdctl role delete govip; true"
    )


def start_other(node: Machine) -> str:
    """Start another cluster on one machine. Returns its endpoint."""
    client, peer = (f"http://{node.port.v4}:{port}" for port in (OTHER_PORT, OTHER_PORT + 1))
    node.run(
        f"rm -rf /run/other; systemd-run -q --unit=other etcd --name other --data-dir /run/other "
        f"--listen-client-urls {client} --advertise-client-urls {client} --listen-peer-urls {peer} "
        f"--initial-advertise-peer-urls {peer} --initial-cluster other={peer}"
    )
    command = f"ETCDCTL_ENDPOINTS={client} etcdctl get x"
    until(lambda: node.run(command, check=False).returncode == 0, 20, "the other etcd serves")
    return client


def stop_other(node: Machine) -> None:
    """Stop the other cluster, and remove its data."""
    node.run("systemctl stop other; rm -rf /run/other", check=False)


def fill(lab: Lab, quota: int = 16 << 20) -> None:
    """Fill etcd until it raises its alarm NOSPACE. The members restart with a small quota before."""
    _set_quota(lab, str(quota))
    write = "head -c 1000000 /dev/zero | tr '\\0' x | etcdctl put fill/%d"
    for i in range(60):
        if "NOSPACE" in lab.nodes[0].run("etcdctl alarm list").stdout:
            return
        lab.nodes[0].run(write % i, check=False)
    raise AssertionError("etcd is not full")


def remove_filling(lab: Lab) -> str:
    """Delete the keys of fill(), but not their space. Returns the revision."""
    lab.nodes[0].run("etcdctl del --prefix fill/")
    status = json.loads(lab.nodes[0].run("etcdctl endpoint status -w json").stdout)
    return str(status[0]["Status"]["header"]["revision"])


def empty(lab: Lab) -> None:
    """Free the space, and restore the default quota."""
    start(lab)
    revision = remove_filling(lab)
    lab.nodes[0].run(f"etcdctl compact {revision}", check=False)  # it may be done already
    every(lab, "etcdctl defrag; etcdctl alarm disarm")
    _set_quota(lab, "")


def _set_quota(lab: Lab, quota: str) -> None:
    for node in lab.others():
        set_defaults(node, ETCD_QUOTA_BACKEND_BYTES=quota)
        node.run("systemctl restart etcd", timeout=60)
        until(partial(_serves, node), 30, f"{node}'s etcd")
        time.sleep(1.0)
