"""govipd and its host: the haproxy unit, the host's name, a full haproxy, addresses from before."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.lab import host
from tests.lab.host import until
from tests.lab.lab import CLIENT, DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.network import VIP4

NGINX = "[Service]\nExecStart=/bin/sleep infinity\n"
LOADED_S = 8.0
LOAD = """
import socket, sys, time
peers = []
for _ in range(150):
    peer = socket.socket()
    peer.setblocking(False)
    peer.connect_ex((sys.argv[1], 80))
    peers.append(peer)
time.sleep(float(sys.argv[2]))
"""


def standing(node: Machine) -> str:
    """The name under which the node's daemon is a member; empty while none answers."""
    shown = json.loads(node.run("govipctl status --json", check=False).stdout or '{"nodes": {}}')["nodes"]
    return str(shown["eth0"]["member"]) if shown else ""


def stays_inactive(node: Machine, unit: str, seconds: float = 2.5) -> None:
    """Watch the unit for so long: it is never active."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert not node.active(unit)
        time.sleep(0.1)


def a_new_process(node: Machine, before: str) -> bool:
    """Whether a process other than `before` has sent READY."""
    shown = node.run(f"systemctl show -p MainPID,SubState {DAEMON}").stdout
    return "SubState=running" in shown and f"MainPID={before}\n" not in shown


@contextmanager
def edited(node: Machine, path: str, text: str) -> Iterator[None]:
    """Replace a file of a machine until the body ends."""
    good = node.read(path)
    node.write(path, text)
    try:
        yield
    finally:
        node.write(path, good)


# The unit beside it


@pytest.mark.parametrize(
    "how", ["restart", *(pytest.param(how, marks=pytest.mark.long) for how in ("kill", "upgrade", "reload"))]
)
def test_a_haproxy_that_was_stopped_stays_stopped(lab: Lab, how: str) -> None:
    """Neither a restart, a crash, the package's upgrade (try-restart), nor a reload undoes the operator's stop."""
    node = lab.others(lab.wait_serving())[0]
    node.run("systemctl stop haproxy")
    before = node.run(f"systemctl show -P MainPID {DAEMON}").stdout.strip()
    match how:
        case "restart":
            node.run(f"systemctl restart {DAEMON}")
        case "upgrade":
            node.run("systemctl try-restart 'govipd@*.service'")
        case "kill":
            node.signal_unit(f"{DAEMON}.service", signal.SIGKILL)
        case _:
            node.run(f"systemctl reload {DAEMON}")
    if how != "reload":
        until(partial(a_new_process, node, before), 20, "a new process")
    stays_inactive(node, "haproxy")


def test_enable_now_starts_haproxy_too(lab: Lab) -> None:
    """As in README.md; also if haproxy was stopped before."""
    node = lab.others(lab.wait_serving())[0]
    node.run(f"systemctl disable --now {DAEMON}; systemctl stop haproxy")
    stays_inactive(node, "haproxy", 0.5)
    node.run(f"systemctl enable --now {DAEMON}")
    until(partial(node.active, "haproxy"), 10, "haproxy")
    until(lambda: node.name in lab.queue(), 20, "it stands")


def test_a_boot_starts_haproxy_too(lab: Lab) -> None:
    """Also if haproxy itself is not enabled."""
    node = lab.others(lab.wait_serving())[0]
    node.run("systemctl disable haproxy")
    try:
        node.power_off()
        node.boot()
        until(partial(node.active, "haproxy"), 30, "haproxy")
        until(lambda: node.name in lab.queue(), 60, "it stands")
    finally:
        node.run("systemctl enable haproxy")


def test_the_unit_that_is_named_is_the_one_that_counts(lab: Lab) -> None:
    """With health.unit = "nginx.service" an installed haproxy is left alone."""
    node = lab.others(lab.wait_serving())[0]
    node.write("/etc/systemd/system/nginx.service", NGINX)
    path = "/etc/govip/govip.toml"
    node.run(f"systemctl daemon-reload; systemctl stop {DAEMON} haproxy")
    try:
        with edited(node, path, node.read(path) + '\n[health]\nunit = "nginx.service"\nurl = ""\n'):
            node.run(f"systemctl start {DAEMON}")
            until(partial(node.active, "nginx"), 10, "nginx")
            until(lambda: node.name in lab.queue(), 20, "it stands")
            stays_inactive(node, "haproxy")
            node.run(f"systemctl stop {DAEMON}")
    finally:
        node.run("systemctl stop nginx; rm /etc/systemd/system/nginx.service; systemctl daemon-reload")
    node.run(f"systemctl start {DAEMON}")


# The host's name


@contextmanager
def renaming(lab: Lab) -> Iterator[None]:
    """Afterwards, restore every host's name, and let its daemon use it."""
    try:
        yield
    finally:
        for node in lab.others():
            node.run(f"systemctl stop {DAEMON}; hostname {node.name}; systemctl reset-failed")
        for node in lab.others():
            node.run(f"systemctl start {DAEMON}")


def test_a_holder_that_is_renamed_keeps_the_vip_over_a_restart(lab: Lab) -> None:
    """No move, no lost request, and the old name until the daemon is stopped."""
    holder = lab.wait_serving()
    with renaming(lab):
        with lab.observe() as watching:
            holder.run("hostname another-name")
            holder.run(f"systemctl reload {DAEMON}")
            holder.run(f"systemctl restart {DAEMON}")
            time.sleep(1.0)
            assert "this member: " + holder.name + " leads" in holder.run("govipctl doctor", check=False).stdout
        assert (watching.report.moves, watching.report.lost) == (0, 0)
        assert set(watching.report.holders) == {holder.name}
        assert standing(holder) == holder.name
        holder.run(f"systemctl stop {DAEMON}; systemctl start {DAEMON}")
        until(lambda: "another-name" in lab.queue(), 20, "the new name")


@pytest.mark.parametrize("template", ["localhost", pytest.param("debian", marks=pytest.mark.long)])
def test_machines_that_get_their_names_late_sort_themselves_out(lab: Lab, template: str) -> None:
    """Three start under one name, and get their own 5 s later. "localhost" is none; of another one keeps it."""
    with renaming(lab):
        for node in lab.nodes:
            node.run(f"systemctl stop {DAEMON}; hostname {template}")
        for node in lab.nodes:
            node.run(f"systemctl start --no-block {DAEMON}")
        time.sleep(5.0)
        queue = lab.queue()
        assert len(queue) == (0 if template == "localhost" else 1), queue
        for node in lab.nodes:
            node.run(f"hostname {node.name}")
        named = time.monotonic()
        until(lambda: len(lab.queue()) == len(lab.nodes), 20, "all of them stand")
        took = time.monotonic() - named
        print(f"{template}: all stand {took:.1f} s after they had their names: {lab.queue()}")
        assert took < 8.0
        lab.wait_serving()


# A haproxy that is full


def configured(node: Machine, *, reserve: bool) -> str:
    """haproxy's configuration with a global limit; with the guide's reserve for the page, or without."""
    text = node.read("/etc/haproxy/haproxy.cfg").replace("    maxconn 2000\n", "    maxconn 60\n")
    if reserve:
        return text.replace("    maxconn 1900\n", "    maxconn 50\n")
    return text.replace("    maxconn 1900\n", "").replace("    maxconn 10\n", "")


@contextmanager
def loaded(lab: Lab) -> Iterator[None]:
    """Open more idle connections than haproxy accepts."""
    command = [*lab.network.enter(CLIENT.name), "python3", "-c", LOAD, str(VIP4), str(LOADED_S)]
    load = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        load.kill()
        load.wait()


def holds(node: Machine) -> bool:
    return node.run("govipctl is-leader", check=False).returncode == 0


@pytest.mark.parametrize("reserve", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_haproxy_at_its_limit(lab: Lab, reserve: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """With the guide's reserve the VIP stays, without it the VIP moves. The doctor finds the difference."""
    full = lab.others(lab.wait_serving())[0]
    try:
        with edited(full, "/etc/haproxy/haproxy.cfg", configured(full, reserve=reserve)):
            full.run("systemctl restart haproxy")
            until(lambda: full.name in lab.queue(), 20, "it stands")
            lab.wait_serving().run(f"govipctl handover --to {full.name} --wait")
            said = full.run("govipctl doctor", check=False).stdout
            assert ("ok       haproxy's limits" in said) is reserve, said
            with loaded(lab):
                end = time.monotonic() + LOADED_S - 3
                kept = True
                while kept and time.monotonic() < end:
                    kept = holds(full)
                    time.sleep(0.1)
                assert kept is reserve
                if reserve:
                    print(full.run("govipctl doctor | grep limits", check=False).stdout)
    finally:
        full.run("systemctl restart haproxy")


# The guides


def test_the_guide_for_a_vip_that_was_static(lab: Lab) -> None:
    """docs/migration.md: served by that machine before and after."""
    for node in lab.nodes:
        node.run(f"systemctl disable --now {DAEMON}")
    node = lab.nodes[0]
    node.run(f"ip address add {VIP4}/24 dev eth0")
    try:
        host.run(*lab.network.enter(CLIENT.name), "ip", "neigh", "flush", "all")  # it has been there for long
        lab.wait_serving(by=node)
        refused = node.run("govipd --interface eth0 --check-config", check=False)
        assert "is an address of this host" in refused.stderr
    except BaseException:
        node.run(f"ip address del {VIP4}/24 dev eth0")
        raise
    node.run(f"ip address del {VIP4}/24 dev eth0 && systemctl enable --now {DAEMON}")
    lab.wait_serving(by=node)
    for other in lab.others(node):
        other.run(f"govipd --interface eth0 --check-config && systemctl enable --now {DAEMON}")
    until(lambda: len(lab.queue()) == len(lab.nodes), 30, "all stand")
    assert lab.serving() == node.name
    assert f"{VIP4}/32" in node.run("ip -br address show eth0").stdout


def test_the_guide_for_a_clone(lab: Lab) -> None:
    """docs/operations.md: a copy of another machine becomes a member of its own."""
    original, node = lab.nodes[0], lab.nodes[2]
    identity = node.read("/etc/machine-id")
    with renaming(lab):
        node.run(f"systemctl disable --now {DAEMON}; hostname {original.name}")
        node.write("/etc/machine-id", original.read("/etc/machine-id"))
        try:
            # As the guide has it.
            node.run("rm -f /etc/machine-id /var/lib/dbus/machine-id && systemd-machine-id-setup")
            node.run("echo clone1 > /etc/hostname && hostname clone1")
            node.run("rm -rf /var/lib/govipd")
            node.run("govipd --interface eth0 --check-config")
            node.run(f"systemctl enable --now {DAEMON}")
            until(lambda: "clone1" in lab.queue(), 20, "it stands under its own name")
            assert node.read("/etc/machine-id") != original.read("/etc/machine-id")
        finally:
            node.write("/etc/machine-id", identity)
            node.write("/etc/hostname", f"{node.name}\n")
    until(lambda: sorted(lab.queue()) == sorted(n.name for n in lab.nodes), 30, "all stand")
