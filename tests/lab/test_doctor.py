"""`govipctl doctor` on healthy and on faulty machines."""

import json
import re
from functools import partial

from tests.lab.host import run, until
from tests.lab.lab import CLIENT, DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.network import VIP4, VIP6

Findings = dict[str, tuple[str, str, str]]


def doctor(node: Machine) -> Findings:
    """Verdict, detail and remedy of each check that is not ok. Both output formats agree."""
    done = node.run("govipctl doctor --json", check=False)
    assert done.stdout, done.stderr
    findings = json.loads(done.stdout)
    shown = {f["check"]: (f["verdict"], f["detail"], f["remedy"]) for f in findings if f["verdict"] != "ok"}
    failed = any(f["verdict"] == "failed" for f in findings)
    assert done.returncode == int(failed)
    return shown


def failures(node: Machine) -> dict[str, str]:
    return {check: detail for check, (verdict, detail, _) in doctor(node).items() if verdict == "failed"}


def test_a_healthy_leader_and_a_healthy_candidate_have_nothing_to_mend(lab: Lab) -> None:
    """No warning, nothing left out, and one line for each check."""
    holder = lab.wait_serving()
    for node in lab.nodes:
        assert doctor(node) == {}
        lines = node.run("govipctl doctor").stdout.splitlines()
        assert len(lines) > 15
        assert all(line.startswith("ok ") for line in lines[:-1]), lines
        assert re.fullmatch(r"\d+ ok", lines[-1])
    assert lab.serving() == holder.name


def test_haproxy_is_dead(lab: Lab) -> None:
    """The doctor names the unit, the page, and the consequence: this member is not in the queue."""
    holder = lab.wait_serving()
    holder.run("systemctl stop haproxy")
    lab.wait_serving(but=holder)
    until(lambda: "api: this member" in doctor(holder), 10, "it has told etcd")
    found = failures(holder)
    assert found["unit haproxy.service"] == "inactive (dead)"
    assert found["probe http://127.0.0.1:8404/healthz"] == "connection refused"
    assert "does not stand for election" in found["api: this member"]
    assert len(found) == 3


def test_a_machine_that_is_drained(lab: Lab) -> None:
    """A drain is no failure: the operator wants it."""
    holder = lab.wait_serving()
    holder.run("govipctl drain --wait")
    try:
        assert doctor(holder) == {
            "api: this member": (
                "warning",
                f"{holder.name} is drained by the operator: it does not stand for election",
                "govipctl undrain, when the work is done",
            )
        }
    finally:
        holder.run("govipctl undrain")


def test_etcd_is_down(lab: Lab) -> None:
    """An endpoint without an answer is named. Without a majority, the other checks of etcd are skipped."""
    first, *rest = lab.nodes
    first.run("systemctl stop etcd")
    endpoint = f"etcd http://{first.port.v4}:2379"
    until(lambda: failures(rest[0]).keys() == {endpoint}, 15, "only the stopped one fails")
    for node in rest:
        node.run("systemctl stop etcd")
    lab.wait_silent()
    found = doctor(first)
    assert [check for check, (verdict, _, _) in found.items() if verdict == "failed"] == [
        f"etcd http://{node.port.v4}:2379" for node in lab.nodes
    ]
    assert found["answers"] == ("skipped", "without etcd it is not known which machine should answer", "")


def test_a_foreign_host_answers_for_the_vip(lab: Lab) -> None:
    """Beside the leader, as the leader and a candidate see it; and while no member leads."""
    holder = lab.wait_serving()
    other = lab.others(holder)[0]
    ip = [*lab.network.enter(CLIENT.name), "ip", "address"]
    mac = CLIENT.mac.hex(":")
    try:
        run(*ip, "add", f"{VIP4}/32", "dev", "eth0")
        run(*ip, "add", f"{VIP6}/128", "dev", "eth0", "nodad")
        for check in (f"api: {VIP4}", f"api: {VIP6}"):
            assert failures(holder)[check] == f"a foreign host answers for it, {mac}, though this member leads"
            seen = failures(other)[check]
            assert seen == f"a foreign host answers for it, {mac}, beside {holder.name}, which leads"
        for node in lab.nodes:
            node.run("systemctl stop haproxy")
        until(partial(_nobody_leads, other), 15, "no member leads")
        assert failures(other)[f"api: {VIP4}"] == f"a foreign host answers for it, {mac}, though no member leads"
    finally:
        run(*ip, "del", f"{VIP4}/32", "dev", "eth0", check=False)
        run(*ip, "del", f"{VIP6}/128", "dev", "eth0", check=False)


def _nobody_leads(node: Machine) -> bool:
    return json.loads(node.run("govipctl status --json", check=False).stdout)["cluster"]["api"]["leader"] is None


def test_what_was_changed_in_the_unit(lab: Lab) -> None:
    """A drop-in that would make a restart move the VIP; a file that systemd has not read; not started at boot."""
    node = lab.nodes[0]
    drop_in = f"/run/systemd/system/{DAEMON}.service.d"
    node.run(f"mkdir -p {drop_in} && printf '[Service]\\nRestart=no\\n' > {drop_in}/test.conf")
    unit = f"unit {DAEMON}.service"
    try:
        node.run("systemctl daemon-reload")
        verdict, detail, _ = doctor(node)[unit]
        assert verdict == "failed"
        assert detail.startswith(f"Restart=no in {drop_in}/test.conf: ")
    finally:
        node.run(f"rm -r {drop_in} && systemctl daemon-reload")
    node.run(f"systemctl disable {DAEMON}")
    try:
        assert doctor(node)[unit][:2] == ("warning", "is not started at boot")
    finally:
        node.run(f"systemctl enable {DAEMON}")
    installed = "/etc/systemd/system/govipd@.service"
    shipped = node.read(installed)
    try:
        node.write(installed, shipped.replace("Nice=-10", "Nice=0"))
        assert doctor(node)[unit] == (
            "warning", "its file was changed since systemd read it", "systemctl daemon-reload"
        )  # fmt: skip
        node.run("systemctl daemon-reload")
        assert doctor(node)[f"unit file {installed}"][:2] == (
            "warning", "differs from the one that came with this version",
        )  # fmt: skip
    finally:
        node.write(installed, shipped)
        node.run("systemctl daemon-reload")


def test_no_file_of_the_daemon_is_for_every_user(lab: Lab) -> None:
    """The files that the daemon writes are not readable for every user."""
    assert lab.wait_serving().run("find /run/govipd /var/lib/govipd -mindepth 2 -perm /007").stdout == ""


def test_a_user_that_is_not_root_sees_what_it_may(lab: Lab) -> None:
    """Checks that need root are skipped, and none fails for lack of rights."""
    done = lab.nodes[0].run("setpriv --reuid=65534 --regid=65534 --clear-groups govipctl doctor --json", check=False)
    findings = json.loads(done.stdout)
    assert {f["verdict"] for f in findings} == {"ok", "skipped"}
    assert {f["check"] for f in findings if f["verdict"] == "skipped"} == {"firewall", "answers", "haproxy's limits"}
