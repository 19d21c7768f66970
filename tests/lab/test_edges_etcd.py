"""Faults of etcd itself: rebuilt, restored, with authentication, beside another cluster; and the guides for these."""

import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.lab import etcds
from tests.lab.figures import edge, served_after
from tests.lab.guides import typed
from tests.lab.host import until
from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.observe import Report
from tests.lab.play import UNASKED_SHARE, Outcome, Scenario, parameters, play
from tests.lab.scenarios import typed as typed_on_holder

LEFT_WITHIN_S = 1.0  # of a move for a haproxy that was stopped: tens of milliseconds on an idle host
SERVED_WITHIN_S = 14.0  # of the last fault, as the simulation asks it


def pids(lab: Lab) -> list[str]:
    """The process id of every daemon."""
    return [node.run(f"systemctl show -P MainPID {DAEMON}").stdout for node in lab.nodes]


def never_two(report: Report) -> None:
    """At no moment two machines answered, and the observers ran."""
    assert report.two_answering == 0, report.overlaps
    assert report.unasked < UNASKED_SHARE * (report.ended - report.began)


@pytest.fixture
def etcd_lab(lab: Lab) -> Iterator[Lab]:
    """A lab whose etcd and govip.toml are restored after the test."""
    yield lab
    etcds.disable_authentication(lab)
    etcds.stop_other(lab.nodes[2])
    etcds.reload(lab)


@pytest.mark.parametrize("token", ["at-leisure", pytest.param("at-once", marks=pytest.mark.long)])
def test_etcd_is_rebuilt_empty(etcd_lab: Lab, token: str) -> None:
    """An empty etcd with another cluster id: served again without a restart of govipd, and never by two."""
    lab, before = etcd_lab, pids(etcd_lab)
    lab.wait_serving()
    with lab.observe() as watching:
        etcds.rebuild(lab, token)
        if token == "at-leisure":
            lab.wait_silent()
        etcds.start(lab)
        watching.mark("back")
        lab.wait_serving()
        until(lambda: len(lab.queue()) == len(lab.nodes), 30, "every machine stands in the queue")
    never_two(watching.report)
    edge(f"etcd-rebuilt-{token}", watching.report, "back", end="")
    assert served_after(watching.report, "back") < SERVED_WITHIN_S
    assert pids(lab) == before
    for node in lab.nodes:
        assert "etcd is another cluster now" in node.run("journalctl -u govipd -o cat").stdout


def test_the_guide_to_restoring_etcd(etcd_lab: Lab) -> None:
    """From a snapshot: another cluster id, and the old keys."""
    lab, before = etcd_lab, pids(etcd_lab)
    first = lab.nodes[0]
    first.run(f"rm -f {etcds.SNAPSHOT}")
    typed(first, "etcdctl snapshot save FILE", FILE=etcds.SNAPSHOT)
    etcds.copy_snapshot(lab)
    with lab.observe() as watching:
        etcds.every(lab, "systemctl stop etcd && rm -r /var/lib/etcd/default")
        for node in lab.nodes:
            typed(
                node,
                "etcdctl snapshot restore FILE --name NAME --data-dir /var/lib/etcd/default --initial-cluster CLUSTER "
                "--initial-cluster-token TOKEN --initial-advertise-peer-urls PEER",
                FILE=etcds.SNAPSHOT, NAME=node.name, CLUSTER=etcds.initial_cluster(lab), TOKEN="restored",
                PEER=f"http://{node.port.v4}:2380",
            )  # fmt: skip
            typed(node, "chown -R etcd:etcd /var/lib/etcd/default")
        etcds.start(lab)
        watching.mark("back")
        lab.wait_serving()
        until(lambda: len(lab.queue()) == len(lab.nodes), 30, "every machine stands in the queue")
    never_two(watching.report)
    edge("etcd-restored", watching.report, "back", end="")
    assert served_after(watching.report, "back") < SERVED_WITHIN_S
    assert pids(lab) == before


def _hiccup_beside_another(lab: Lab, _holder: Machine) -> None:
    """Every machine's list has an endpoint of another cluster; the right endpoints are silent for a second."""
    other = etcds.start_other(lab.nodes[2])
    etcds.reload(lab, more=[other])
    time.sleep(1.0)
    for node in lab.nodes:
        node.signal_unit("etcd.service", signal.SIGSTOP)
    time.sleep(0.9)
    for node in lab.nodes:
        node.signal_unit("etcd.service", signal.SIGCONT)
    time.sleep(3.0)


def _guarded_and_not(lab: Lab, holder: Machine) -> None:
    """First the user in the files, then authentication on, and off again."""
    etcds.add_users(lab)
    etcds.reload(lab, user=True)
    time.sleep(1.0)
    typed(lab.nodes[0], "etcdctl auth enable")
    refused = holder.run("etcdctl get x", check=False)
    assert "user name is empty" in refused.stderr
    time.sleep(4.0)
    holder.run("govipctl doctor", check=False)
    typed(lab.nodes[0], "etcdctl --user root auth disable", root="root:root")
    time.sleep(4.0)
    etcds.reload(lab)
    time.sleep(2.0)


def _enabled_first(lab: Lab, holder: Machine) -> None:
    """First authentication on; within the lease the user into the holder's file, then into the others'.

    One command does the holder's part: a lease is short for three commands on a busy host.
    """
    etcds.add_users(lab)
    before = holder.read(etcds.TOML)
    etcds.configure(holder, lab, user=True)
    edited = f"{etcds.TOML}.edited"
    holder.run(f"mv {etcds.TOML} {edited}")
    holder.write(etcds.TOML, before)
    holder.run(f"etcdctl auth enable && mv {edited} {etcds.TOML} && systemctl reload {DAEMON}")
    for node in lab.others(holder):
        etcds.configure(node, lab, user=True)
        node.run(f"systemctl reload {DAEMON}")
    time.sleep(4.0)


SCENARIOS = (
    Scenario("etcd-hiccup-beside-another", "an endpoint of another cluster, and a hiccup of the right ones",
             Outcome.STAYS, _hiccup_beside_another, lossless=True),
    Scenario("etcd-auth-on-and-off", "authentication is enabled, later disabled", Outcome.STAYS,
             _guarded_and_not, lossless=True),
    Scenario("etcd-auth-before-the-files", "authentication is enabled, then the files are edited", Outcome.STAYS,
             _enabled_first, lossless=True),
)  # fmt: skip


@pytest.mark.parametrize("scenario", parameters(SCENARIOS, long={"etcd-auth-on-and-off"}))
def test_scenario(etcd_lab: Lab, scenario: Scenario) -> None:
    """The VIP stays, and no request is lost."""
    result = play(etcd_lab, scenario)
    edge(scenario.name, result.report)
    assert result.faults == (), "\n".join([*result.faults, *result.report.overlaps])


@pytest.mark.long
def test_the_guide_to_other_endpoints(etcd_lab: Lab) -> None:
    """A member is removed from the list and added again, by reloads: no request is lost."""
    lab = etcd_lab
    holder = lab.wait_serving()
    with lab.observe() as watching:
        for only in (f"http://{lab.nodes[2].port.v4}:2379", ""):
            for node in lab.nodes:
                etcds.configure(node, lab, only=only)
                typed(node, "systemctl reload govipd@eth0")
            time.sleep(2.0)
    never_two(watching.report)
    assert watching.report.lost == 0
    assert watching.report.holders == [holder.name]
    assert pids(lab)


def test_the_guide_to_another_etcd(etcd_lab: Lab) -> None:
    """One machine at a time would be two leaders; as the guide has it, never two, and a short gap."""
    lab = etcd_lab
    holder = lab.wait_serving()
    other = etcds.start_other(lab.nodes[2])
    with lab.observe() as watching:
        for node in lab.others(holder):
            typed(node, "systemctl stop govipd@eth0")
        etcds.configure(holder, lab, only=other)
        watching.mark("moved")
        typed(holder, "systemctl restart govipd@eth0")
        lab.wait_serving(by=holder)
        for node in lab.others(holder):
            etcds.configure(node, lab, only=other)
            typed(node, "systemctl start govipd@eth0")
        until(lambda: len(lab.queue()) == len(lab.nodes), 30, "every machine stands in the new queue")
        time.sleep(1.0)
    never_two(watching.report)
    edge("moved-to-another-etcd", watching.report, "moved", end="")
    assert watching.report.since("moved").gap < 5.0
    for node in lab.others(holder):  # and back
        node.run("systemctl stop govipd@eth0")
    for node in (holder, *lab.others(holder)):
        etcds.configure(node, lab)
        node.run("systemctl restart govipd@eth0")


@pytest.fixture
def full(etcd_lab: Lab) -> Iterator[Lab]:
    """An etcd that refuses every write."""
    etcd_lab.wait_serving()
    try:
        etcds.fill(etcd_lab)
        yield etcd_lab
    finally:
        etcds.empty(etcd_lab)


def test_the_guide_to_a_full_etcd(full: Lab) -> None:
    """The holder keeps the VIP, the doctor shows the alarm, and the guide's commands make etcd write again."""
    first, holder = full.nodes[0], full.wait_serving()
    assert "alarm NOSPACE: etcd refuses to write" in holder.run("govipctl doctor", check=False).stdout
    with full.observe() as watching:
        time.sleep(4.0)
        revision = etcds.remove_filling(full)
        typed(first, "etcdctl compact REVISION", REVISION=revision)
        typed(first, "etcdctl defrag --cluster")
        typed(first, "etcdctl alarm disarm")
        first.run("etcdctl put x y && etcdctl del x")
    never_two(watching.report)
    assert watching.report.holders == [holder.name]


@pytest.mark.long
def test_endpoints_of_another_etcd_are_refused_while_the_old_one_answers(etcd_lab: Lab) -> None:
    """Reload one machine after the other: a reloaded machine is ineligible, and two never answer."""
    lab = etcd_lab
    lab.wait_serving()
    other = etcds.start_other(lab.nodes[2])
    with lab.observe() as watching:
        for node in lab.nodes:
            etcds.configure(node, lab, only=other)
            node.run(f"systemctl reload {DAEMON}")
            time.sleep(5.0)
            shown = node.run("journalctl -u govipd -o cat").stdout
            assert re.search(r"is of another cluster \([0-9a-f]+\) than before \([0-9a-f]+\)", shown)
    never_two(watching.report)


def test_a_full_etcd_does_not_keep_the_vip_on_a_machine_that_must_leave(full: Lab) -> None:
    """haproxy is stopped on the holder while every Put is refused: another machine serves, as soon as otherwise."""
    scenario = Scenario("haproxy-stopped-etcd-full", "haproxy is stopped on the holder, etcd is full", Outcome.MOVES,
                        typed_on_holder("systemctl stop haproxy"))  # fmt: skip
    result = play(full, scenario)
    edge(scenario.name, result.report)
    assert result.faults == (), "\n".join([*result.faults, *result.report.overlaps])
    assert result.seen.gap < LEFT_WITHIN_S


def test_a_planned_move_is_refused_while_etcd_takes_no_writes(full: Lab) -> None:
    """The refusal comes before the move, with the remedy. The leader stays, and no request is lost."""
    holder = full.wait_serving()
    try:
        with full.observe() as watching:
            watching.mark("begun")
            for command in ("drain --wait", "drain", "handover --wait", "handover"):
                refused = holder.run(f"govipctl {command}", check=False)
                assert refused.returncode != 0, command
                assert "etcd takes no writes" in refused.stderr
                assert "so nothing was done" in refused.stderr
            time.sleep(2.0)
    finally:
        holder.run("govipctl undrain")
    never_two(watching.report)
    edge("drain-and-handover-etcd-full", watching.report, "begun", end="")
    assert (watching.report.lost, watching.report.holders) == (0, [holder.name])
