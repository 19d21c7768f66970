"""The lab's observers report exactly what was done by hand, without govipd."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.lab import host
from tests.lab.host import LabError, until
from tests.lab.lab import DAEMON, Lab, Watching
from tests.lab.observe import Answer, _enclosed


def test_two_answering_machines_are_found(lab: Lab) -> None:
    """One machine with the VIP, then two, then one, then none."""
    for node in lab.nodes:
        node.run(f"systemctl stop {DAEMON}")
    one, two = lab.nodes[:2]
    add, delete = (f"ip address {verb} 192.0.2.100/32 dev eth0" for verb in ("add", "del"))
    with lab.observe() as watching:
        one.run(add)
        time.sleep(0.5)
        two.run(add)
        time.sleep(0.5)
        two.run(delete)
        time.sleep(0.3)
        one.run(delete)
        watching.mark("gone")
        time.sleep(0.3)
    report = watching.report
    assert 0.3 < report.two_answering < 1.5
    assert set(report.holders) == {"node1", "node2"}
    assert report.since("gone").holders == []
    assert any("192.0.2.100" in event and event.startswith("node1") for event in report.address_events)


def test_a_handover_is_not_two_answering() -> None:
    """Only answers of one that enclose another's count, and only when they are close together."""

    def answers(text: str, step: float) -> list[Answer]:
        return [Answer(i * step, "arp", by) for i, by in enumerate(text)]

    assert _enclosed(answers("aaabbb", 0.005)) == []
    assert _enclosed(answers("aabbbbbbbbbbbbbaa", 0.005)) == []
    assert _enclosed(answers("aababb", 1 / 128)) == [(1 / 128, 4 / 128)]


def test_control_groups_that_vanish_while_they_are_read(tmp_path: Path) -> None:
    """As on a busy host with control groups of version 2, when a machine ends: they are passed over."""
    done = Event()

    def come_and_go() -> None:
        while not done.is_set():
            group = tmp_path / "a/b/haproxy.service/c"
            group.mkdir(parents=True)
            (group / "cgroup.procs").write_text("1\n")
            shutil.rmtree(tmp_path / "a")

    thread = Thread(target=come_and_go)
    thread.start()
    try:
        found: set[frozenset[int]] = set()
        began = time.monotonic()
        while time.monotonic() < began + (1 if len(found) == 2 else 20):
            found |= {frozenset(host.members(group)) for group in host.groups_below(tmp_path)}
    finally:
        done.set()
        thread.join()
    assert found == {frozenset(), frozenset({1})}
    assert host.members(tmp_path / "gone") == set()
    host.thaw(tmp_path / "gone")


def test_partitions_and_power(lab: Lab) -> None:
    """A cut holds in the directions asked for; a machine without power does not answer and boots again."""
    one, two = lab.nodes[:2]
    ping = f"ping -c 1 -W 1 {two.port.v4}"
    lab.isolate(one)
    assert one.run(ping, check=False).returncode != 0
    lab.heal(one)
    assert one.run(ping, check=False).returncode == 0
    two.power_loss()
    assert one.run(ping, check=False).returncode != 0
    two.boot()
    assert one.run(ping, check=False).returncode == 0


def _asking(watching: Watching) -> subprocess.Popen[str]:
    """The process that asks every machine directly."""
    return next(process for name, process, _ in watching._observation._observers if name == "machines")


def test_an_observer_that_ended_is_an_error(lab: Lab) -> None:
    """An observer that does not run sees no machine; this proves nothing."""
    with ExitStack() as observing:
        watching = observing.enter_context(lab.observe())
        process = _asking(watching)
        process.kill()
        process.wait()
        with pytest.raises(LabError, match="machines"):
            observing.close()


def test_time_in_which_nothing_was_asked_is_reported(lab: Lab) -> None:
    """Without a question for 0.3 s, the report says that 0.3 s were not observed."""
    with lab.observe() as watching:
        watching.mark("busy")
        os.kill(_asking(watching).pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(_asking(watching).pid, signal.SIGCONT)
        time.sleep(0.2)
    assert 0.25 < watching.report.since("busy").unasked < 0.6


def test_an_outage_of_ipv6_only_is_seen(lab: Lab) -> None:
    """IPv4 is served on, IPv6 is not."""
    for node in lab.nodes:
        node.run(f"systemctl stop {DAEMON}")
    one = lab.nodes[0]
    v6 = "2001:db8::100/128 dev eth0"
    one.run(f"ip address add 192.0.2.100/32 dev eth0; ip address add {v6} nodad")
    # No machine announced it: the client may still send to the machine that had it before.
    host.run(*lab.network.enter(lab.client.name), "ip", "neighbour", "flush", "all")
    lab.wait_serving(by=one)
    with lab.observe() as watching:
        watching.mark("event")
        one.run(f"ip address del {v6}")
        time.sleep(0.5)
    one.run("ip address del 192.0.2.100/32 dev eth0")
    seen = watching.report.since("event")
    assert seen.gap < 0.3 < seen.gap6


def test_a_frozen_machine_does_not_keep_the_lab_from_telling(lab: Lab) -> None:
    """The message says that no machine serves, and what the reachable machines report."""
    for node in lab.nodes:
        node.run(f"systemctl stop {DAEMON}")
    frozen, *_ = lab.nodes
    frozen.freeze()
    try:
        with pytest.raises(LabError, match=f"(?s)not served within 1 s.*{frozen}: .*no answer within 5 s"):
            lab.wait_serving(timeout=1)
    finally:
        frozen.thaw()


def test_a_killed_lab_is_removed_by_the_next() -> None:
    """No namespace, control group, mount or process stays."""
    code = "from tests.lab.lab import Lab\nwith Lab(nodes=1) as lab, lab.observe(): print('up', flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert any(line == "up\n" for line in other.stdout)
        inside = {p.stat().st_ino for p in host.NETNS.glob(f"govip{other.pid}-*")}
        assert len(inside) == 3
        other.kill()
    host.remove_dead_labs()
    assert not list(host.NETNS.glob(f"govip{other.pid}-*"))
    assert not list(host.CGROUP.glob(f"*/govip{other.pid}-*"))
    assert not (host.RUN / str(other.pid)).exists()
    until(lambda: not inside & set(_networks()), 5, "its observers have ended")


def _networks() -> Iterator[int]:
    """The network namespaces that processes of this host are in."""
    for namespace in Path("/proc").glob("[0-9]*/ns/net"):
        with suppress(OSError):  # it has ended meanwhile, or hides from root
            yield namespace.stat().st_ino
