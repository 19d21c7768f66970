"""The operator's govipctl commands, on machines installed as README.md says."""

import json

from tests.lab.handovers import hand_over
from tests.lab.host import until
from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine


def state(node: Machine) -> str:
    """The VIP's state as the node's own daemon reports it; empty without an answer."""
    nodes = json.loads(node.run("govipctl status --json", check=False).stdout or '{"nodes": {}}')["nodes"]
    return str(nodes["eth0"]["groups"][0]["state"]) if nodes else ""


def test_a_drained_node_stays_out_over_a_restart_and_a_reboot(lab: Lab) -> None:
    """`drain --wait` moves the VIP; only `undrain` lets the node in again."""
    holder = lab.wait_serving()
    try:
        holder.run("govipctl drain --wait")
        assert state(holder) == "ineligible"
        lab.wait_serving(but=holder)
        holder.run(f"systemctl restart {DAEMON}")
        until(lambda: state(holder) == "ineligible", 20, "ineligible after a restart")
        holder.power_off()
        holder.boot()
        until(lambda: state(holder) == "ineligible", 60, "ineligible after a reboot")
        until(
            lambda: "because: drained by the operator" in " ".join(holder.run("govipctl why").stdout.split()),
            20,
            "nothing but the drain keeps it out, once every gate has been looked at",
        )
        assert holder.name not in lab.queue()
    finally:
        holder.run("govipctl undrain")
    until(lambda: holder.name in lab.queue(), 30, "in the queue again")


def test_handovers_while_clients_are_served(lab: Lab) -> None:
    """Ten handovers between three machines: at no moment two answered."""
    seen = hand_over(lab, 10)
    print(seen)
    assert seen.two_answering == 0
    assert seen.moves == 10


def test_a_handover_that_cannot_be_is_refused_with_its_reason(lab: Lab) -> None:
    """To an unknown member, or from a node that does not lead: the VIP stays."""
    holder = lab.wait_serving()
    refused = holder.run("govipctl handover --to nobody", check=False)
    assert refused.returncode == 1
    assert "nobody does not stand in the queue, but node" in refused.stderr
    refused = lab.others(holder)[0].run("govipctl handover", check=False)
    assert refused.returncode == 1
    assert "this node does not lead" in refused.stderr
    assert "type it on the one that does" in refused.stderr
    assert lab.serving() == holder.name


def test_is_leader_and_history(lab: Lab) -> None:
    """Exit statuses for scripts: 0, 1, and 69 without a daemon."""
    holder = lab.wait_serving()
    other = lab.others(holder)[0]
    assert holder.run("govipctl is-leader", check=False).returncode == 0
    assert other.run("govipctl is-leader --vip api", check=False).returncode == 1
    assert json.loads(holder.run("govipctl history --vip api --json").stdout)[-1]["state"] == "leader"
    other.run(f"systemctl stop {DAEMON}")
    assert other.run("govipctl is-leader", check=False).returncode == 69
    shown = other.run("govipctl status")
    assert "no govipd runs on this machine" in shown.stdout
    assert holder.name in shown.stdout


def test_a_member_of_the_group_may_read_and_change_nothing(lab: Lab) -> None:
    """status and why are allowed, drain is not. Any other user sees nothing of the node."""
    holder = lab.wait_serving()
    holder.run("id watcher || useradd --groups govip watcher; id stranger || useradd stranger")
    shown = holder.run("runuser -u watcher -- govipctl status").stdout
    assert "gate unit" in shown
    assert "answers for" in holder.run("runuser -u watcher -- govipctl why").stdout
    denied = holder.run("runuser -u watcher -- govipctl drain", check=False)
    assert (denied.returncode, denied.stderr) == (77, "govipd@eth0: only root may do that\n")
    denied = holder.run("runuser -u stranger -- govipctl is-leader", check=False)
    assert (denied.returncode, denied.stderr) == (77, "govipd@eth0: only root and the group govip may ask it\n")
    assert lab.serving() == holder.name


def test_the_status_while_etcd_is_down(lab: Lab) -> None:
    """The status shows what this node knows, and says that the rest is missing."""
    holder = lab.wait_serving()
    for node in lab.nodes:
        node.run("systemctl stop etcd")
    shown = " ".join(holder.run("govipctl status", check=False).stdout.split())
    assert "gate probe healthy" in shown
    assert "the cluster is not shown, etcd does not answer" in shown
    lab.wait_silent()
    why = holder.run("govipctl why")
    assert "etcd does not answer usefully" in " ".join(why.stdout.split())
    assert holder.run("govipctl status", check=False).returncode == 1
