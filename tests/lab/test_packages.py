"""The packages: what an administrator does with them, from the installation to the purge."""

import json
import shutil
import time
from pathlib import Path

import pytest

from tests.lab import image
from tests.lab.host import until
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.network import VIP4
from tests.lab.provision import endpoints

OLDER, NEWER = "0.1.0", "0.1.1"
# What a machine writes by itself while it runs, and what package management keeps of every package.
CHURN = ("/var/log/", "/var/cache/", "/var/lib/apt/", "/var/lib/dpkg/", "/var/lib/etcd/", "/var/lib/systemd/", "/tmp/")
# As on a machine that is not a container: systemd-nspawn makes the settings of the machine's own network read-only.
WRITABLE = "mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,rw /proc/sys/net"
EDIT = """
cat /etc/govip/haproxy-govip.cfg >> /etc/haproxy/haproxy.cfg && systemctl reload haproxy
sed -i 's|^endpoints = .*|endpoints = [{endpoints}]|' /etc/govip/govip.toml
sed -i 's|^addresses = .*|addresses = ["192.0.2.100/32", "2001:db8::100/128"]|' /etc/govip/govip.toml
"""


def package(version: str, pattern: str) -> Path:
    """One of the packages of a version."""
    (found,) = image.packages(version).glob(pattern)
    return found


def install(node: Machine, deb: Path) -> None:
    """What README.md tells to type."""
    node.run(f"cd && DEBIAN_FRONTEND=noninteractive apt install -y ./{deb.name}", timeout=120)


def files(node: Machine) -> set[str]:
    """Every file on the machine's disk that is not written by the machine itself."""
    found = node.run("find / -xdev").stdout.splitlines()
    return {path for path in found if not path.startswith(CHURN)}


def versions(node: Machine) -> dict[str, str]:
    """The version that each member runs, as they publish it."""
    status = json.loads(node.run("govipctl status --json", check=False).stdout or "{}")
    return {name: record["version"] for name, record in status.get("api", {}).get("members", {}).items()}


@pytest.mark.parametrize(("suite", "debian"), [("bookworm", "deb12"), ("trixie", "deb13")])
def test_install_upgrade_and_purge(suite: str, debian: str) -> None:
    """Installed without a network and edited, it leads; upgraded, no request is lost; purged, nothing is left."""
    older, newer = (package(version, f"govip_*+{debian}_*.deb") for version in (OLDER, NEWER))
    with Lab(2, bare=suite) as lab:
        for node in lab.nodes:
            shutil.copy(older, node.root / "root")
            shutil.copy(newer, node.root / "root")
            node.run(WRITABLE)
        before = {node.name: files(node) for node in lab.nodes}

        for node in lab.nodes:
            install(node, older)
            assert node.run("systemctl list-units --no-legend --all 'govipd@*'").stdout == ""
            assert node.run("sysctl -n net.ipv4.ip_nonlocal_bind").stdout == "1\n"
            assert node.run("getent group govip").stdout
            node.run(EDIT.format(endpoints=endpoints([n.port for n in lab.nodes])))
        lab.wait_ready()
        lab.start_daemons()
        holder = lab.wait_serving()
        (other,) = lab.others(holder)
        until(lambda: len(lab.queue()) == 2, 20, "both stand in the queue")

        edited = holder.read("/etc/govip/govip.toml")
        with lab.observe() as watching:
            install(holder, newer)
            until(lambda: versions(other).get(holder.name) == NEWER, 20, "the newer version runs")
            time.sleep(1.0)
        report = watching.report
        assert (report.moves, report.lost, report.two_answering) == (0, 0, 0)
        assert set(report.holders) == {holder.name}
        assert holder.read("/etc/govip/govip.toml") == edited
        assert versions(other) == {holder.name: NEWER, other.name: OLDER}

        for node in (holder, other):
            node.run("apt purge -y govip", timeout=120)
            assert files(node) - before[node.name] == set()
            assert node.run("ls -d /run/govipd", check=False).stdout == ""
            assert node.run("systemctl list-units --no-legend --all 'govipd*'").stdout == ""
            assert node.run("systemctl list-unit-files --no-legend 'govipd*'", check=False).stdout == ""
            assert node.run("nft list tables").stdout == ""
            assert str(VIP4) not in node.run("ip -br address show eth0").stdout
            if node is holder:
                lab.wait_serving(by=other)
        # The mark of an orderly release belongs to the VIP, not to a machine (docs/adr/0004).
        assert other.run("etcdctl get govip/ --prefix --keys-only").stdout.split() == ["govip/released/api"]
