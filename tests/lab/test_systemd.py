"""systemctl and journalctl, on a machine installed as README.md says."""

import json
import re
import signal
import time

from tests.lab.host import until
from tests.lab.lab import DAEMON, Lab

SECURITY_AT_MOST = 2.2


def journal(lab: Lab, name: str) -> str:
    return lab.node(name).run("journalctl -u govipd --no-pager -o cat").stdout


def test_status_says_role_vip_gates_and_lease(lab: Lab) -> None:
    """`systemctl status govipd@eth0` on the holder and on a candidate."""
    holder = lab.wait_serving()
    status = holder.run(f"systemctl status {DAEMON}").stdout
    assert 'Status: "api: leader of 192.0.2.100, 2001:db8::100; ' in status
    assert "gates: unit healthy, probe healthy, link healthy; lease renewed" in status
    other = lab.others(holder)[0].run(f"systemctl status {DAEMON}").stdout
    assert 'Status: "api: candidate for 192.0.2.100, 2001:db8::100, behind node' in other


def test_the_journal_by_the_name_that_users_type(lab: Lab) -> None:
    """`journalctl -u govipd` shows the template's instance, one line per transition with what, why, what next."""
    lines = journal(lab, lab.wait_serving().name)
    assert re.search(r"api: leader \(the kernel answers for the VIP\); next: hold it", lines)


def test_an_invalid_edit_changes_nothing_and_says_why(lab: Lab) -> None:
    """`systemctl reload` fails, the reason is in the journal, the VIP stays."""
    holder = lab.wait_serving()
    good = holder.read("/etc/govip/govip.toml")
    try:
        holder.write("/etc/govip/govip.toml", good + "\n[health]\nrize = 3\n")
        assert holder.run(f"systemctl reload {DAEMON}", check=False).returncode != 0
        until(lambda: "health.rize = 3: no such key; did you mean rise?" in journal(lab, holder.name), 10, "the reason")
        assert lab.serving() == holder.name
        # The daemon itself refuses it too, when it is asked without systemctl.
        holder.run(f"systemctl kill -s HUP {DAEMON}")
        until(lambda: "configuration not applied, nothing changed" in journal(lab, holder.name), 10, "the refusal")
        assert lab.serving() == holder.name
        assert holder.run("govipd --interface eth0 --check-config", check=False).returncode == 78
        assert holder.run(f"systemctl is-active {DAEMON}").stdout.strip() == "active"
    finally:
        holder.write("/etc/govip/govip.toml", good)
    holder.run(f"systemctl reload {DAEMON}")


def test_a_valid_edit_applies_without_moving_the_vip(lab: Lab) -> None:
    """A new probe interval and a new address are applied, also after a restart; no request is lost to a move."""
    holder = lab.wait_serving()
    good = holder.read("/etc/govip/govip.toml")
    try:
        with lab.observe() as watching:
            edited = good.replace('"192.0.2.100/32"', '"192.0.2.100/32", "192.0.2.101/32"')
            holder.write("/etc/govip/govip.toml", f"{edited}\n[health]\ninterval = 0.25\n")
            holder.run(f"systemctl reload {DAEMON}")
            until(lambda: "192.0.2.101/32" in holder.run("ip -br address show eth0").stdout, 10, "the new address")
            holder.run(f"systemctl restart {DAEMON}")
            holder.write("/etc/govip/govip.toml", good)
            holder.run(f"systemctl reload {DAEMON}")
            until(lambda: "192.0.2.101/32" not in holder.run("ip -br address show eth0").stdout, 10, "it is gone")
        assert watching.report.moves == 0
        assert set(watching.report.holders) == {holder.name}
        assert "configuration applied" in journal(lab, holder.name)
    finally:
        holder.write("/etc/govip/govip.toml", good)


def test_sigterm_releases_and_exits_0_within_a_second(lab: Lab) -> None:
    """`systemctl stop`: released, resigned, exit status 0; no address, no key, no table left."""
    holder = lab.wait_serving()
    began = time.monotonic()
    holder.run(f"systemctl stop {DAEMON}")
    assert time.monotonic() - began < 2.0  # of which the daemon itself may take one
    show = holder.run(f"systemctl show -p Result,ExecMainStatus {DAEMON}").stdout
    assert show.splitlines() == ["Result=success", "ExecMainStatus=0"]
    assert "192.0.2.100" not in holder.run("ip -br address show eth0").stdout
    assert holder.run("nft list tables").stdout == ""
    cluster = json.loads(lab.others(holder)[0].run("govipctl status --json").stdout)["cluster"]["api"]
    assert holder.name not in cluster["queue"]
    assert holder.name not in cluster["members"]


def test_a_daemon_that_must_be_killed_while_it_stops_leaves_nothing(lab: Lab) -> None:
    """ExecStopPost= cleans up after a stop that ended badly (FIELD 22); after a crash there is an adoption instead."""
    holder = lab.wait_serving()
    drop_in = f"/run/systemd/system/{DAEMON}.service.d"
    holder.run(f"mkdir -p {drop_in} && printf '[Service]\\nKillSignal=SIGKILL\\n' > {drop_in}/test.conf")
    holder.run("systemctl daemon-reload")
    try:
        holder.run(f"systemctl stop {DAEMON}")
        assert holder.run(f"systemctl show -P Result {DAEMON}").stdout == "signal\n"
        assert "192.0.2.100" not in holder.run("ip -br address show eth0").stdout
        assert holder.run("nft list tables").stdout == ""
    finally:
        holder.run(f"rm -r {drop_in} && systemctl daemon-reload")


def test_a_daemon_that_hangs_still_stops_in_order(lab: Lab) -> None:
    """systemd continues a stopped process so that it can end (SIGCONT after SIGTERM): it releases as always."""
    holder = lab.wait_serving()
    holder.signal_unit(f"{DAEMON}.service", signal.SIGSTOP)
    holder.run(f"systemctl stop {DAEMON}")
    assert "192.0.2.100" not in holder.run("ip -br address show eth0").stdout
    assert holder.run("nft list tables").stdout == ""


def test_expected_faults_leave_no_stack_trace(lab: Lab) -> None:
    """etcd down, haproxy down, interface missing: the journal has messages, no traces, and the daemon runs on."""
    holder = lab.wait_serving()
    holder.run("systemctl stop etcd haproxy")
    for node in lab.others(holder):
        node.run("systemctl stop etcd")
    time.sleep(4)
    for node in lab.nodes:
        assert node.run(f"systemctl show -P NRestarts {DAEMON}").stdout.strip() == "0"
        assert "Traceback" not in journal(lab, node.name)
    assert "etcd does not answer usefully" in journal(lab, holder.name)
    assert "gate unit unhealthy" in journal(lab, holder.name)


def test_the_sandbox(lab: Lab) -> None:
    """`systemd-analyze security`: the unit's exposure level."""
    line = lab.nodes[0].run(f"systemd-analyze security --no-pager {DAEMON} | tail -1").stdout
    level = float(re.search(r"level for \S+: ([0-9.]+)", line)[1])  # type: ignore[index]  # the assertion below
    assert level <= SECURITY_AT_MOST, line
