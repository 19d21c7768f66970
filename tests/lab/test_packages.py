"""The packages, from the installation to the purge."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab import image
from tests.lab.host import run, until
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
    """The commands of README.md that install a package."""
    node.run(f"cd && DEBIAN_FRONTEND=noninteractive apt install -y ./{deb.name}", timeout=120)


def files(node: Machine) -> set[str]:
    """Every file on the machine's disk, without those that the machine writes itself."""
    found = node.run("find / -xdev").stdout.splitlines()
    return {path for path in found if not path.startswith(CHURN)}


def versions(node: Machine) -> dict[str, str]:
    """The version that each member's record has."""
    status = json.loads(node.run("govipctl status --json", check=False).stdout or "{}")
    cluster = status.get("cluster") or {"api": {"members": {}}}
    return {name: record["version"] for name, record in cluster["api"]["members"].items()}


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
            if node is other:
                node.run("apt remove -y govip", timeout=120)
                assert node.read("/etc/govip/govip.toml") == edited
            node.run("apt purge -y govip", timeout=120)
            assert files(node) - before[node.name] == set()
            assert node.run("ls -d /run/govipd", check=False).stdout == ""
            assert node.run("systemctl list-units --no-legend --all 'govipd*'").stdout == ""
            assert node.run("systemctl list-unit-files --no-legend 'govipd*'", check=False).stdout == ""
            assert node.run("nft list tables").stdout == ""
            assert str(VIP4) not in node.run("ip -br address show eth0").stdout
            if node is holder:
                lab.wait_serving(by=other)
        # What says that the last holder closed its fence belongs to the VIP, not to a machine (docs/adr/0004, 0031).
        assert other.run("etcdctl get govip/ --prefix --keys-only").stdout.split() == [
            "govip/claims/192.0.2.100",
            "govip/claims/2001:db8::100",
            "govip/released/api",
        ]


def test_the_rpm_holds_what_the_deb_holds() -> None:
    """The same files, where Fedora wants them; the Python that the environment was made for; scripts that sh reads."""
    rpm = package(OLDER, "govip-*.rpm")
    listed = set(run("rpm", "-qp", "--list", str(rpm)).split())
    deb = run("dpkg-deb", "--contents", str(package(OLDER, "govip_*+deb13_*.deb"))).splitlines()
    paths = {line.split()[5].lstrip(".").rstrip("/") for line in deb if not line.startswith("d")}
    paths = {path.replace("/zsh/vendor-completions/", "/zsh/site-functions/") for path in paths}
    assert paths <= listed
    assert {path for path in listed - paths if not path.startswith("/usr/lib/govip")} == {
        "/etc/govip", "/usr/share/doc/govip",
    }  # fmt: skip
    assert run("rpm", "-qp", "--configfiles", str(rpm)).split() == [
        "/etc/govip/govip.toml", "/etc/govip/haproxy-govip.cfg",
    ]  # fmt: skip
    assert "/usr/bin/python3.13" in run("rpm", "-qp", "--requires", str(rpm)).split()
    for scriptlet in ("POSTIN", "PREUN", "POSTUN", "POSTTRANS"):
        run("sh", "-n", stdin=run("rpm", "-qp", "--queryformat", f"%{{{scriptlet}}}", str(rpm)))


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's /usr/share."""
    directory = tmp_path_factory.mktemp("package")
    run("dpkg-deb", "--extract", str(package(OLDER, "govip_*+deb12_*.deb")), str(directory))
    return directory / "usr/share"


@pytest.mark.parametrize("page", ["man8/govipd.8", "man8/govipctl.8", "man5/govip.toml.5"])
def test_the_manual_can_be_read(page: str, share: Path) -> None:
    """man(1) prints no warning, and apropos(1) finds the page by the words under NAME."""
    path = share / f"man/{page}.gz"
    shown = subprocess.run(
        ["man", "--warnings", "--local-file", str(path)],
        capture_output=True, text=True, timeout=30, check=True, env={**os.environ, "MANWIDTH": "80"},
    )  # fmt: skip
    assert shown.stderr == ""
    assert run("lexgrog", str(path)).startswith(f'{path}: "{path.name[:-5]} - ')


@pytest.mark.parametrize("program", ["govipd", "govipctl"])
def test_a_shell_completes_the_options(program: str, share: Path) -> None:
    """Bash, with the completion that the package brings; zsh and fish have theirs where these look."""
    script = f"""
        source {share}/bash-completion/completions/{program}
        COMP_WORDS=({program} --) COMP_CWORD=1
        $(complete -p {program} | sed -E 's/.* -F ([^ ]+) .*/\\1/')
        echo "${{COMPREPLY[@]}}"
    """
    assert "--config" in run("bash", "-c", script).split()
    assert (share / f"zsh/vendor-completions/_{program}").read_text().startswith(f"#compdef {program}\n")
    assert f"complete -c {program} " in (share / f"fish/vendor_completions.d/{program}.fish").read_text()
