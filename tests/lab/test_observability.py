"""The operator's own systems: Prometheus, `journalctl -x`, hooks."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.host import until
from tests.lab.lab import DAEMON, Lab
from tests.lab.prometheus import PORT, prometheus

HOOK = "/usr/local/sbin/vip-changed"
SCRIPT = """\
#!/bin/sh
echo "$GOVIP_STATE of $GOVIP_VIP on $GOVIP_MEMBER because of $GOVIP_REASON"
[ "$GOVIP_STATE" != leader ] || ip -br address show dev "$GOVIP_INTERFACE" | grep -o 192.0.2.100
"""


@contextmanager
def configured(lab: Lab, more: str) -> Iterator[None]:
    """Add lines to every machine's govip.toml, and apply them."""
    good = {node.name: node.read("/etc/govip/govip.toml") for node in lab.nodes}
    try:
        for node in lab.nodes:
            node.write("/etc/govip/govip.toml", f"{good[node.name]}\n{more}")
            node.run(f"systemctl reload {DAEMON}")
        yield
    finally:
        for node in lab.nodes:
            node.write("/etc/govip/govip.toml", good[node.name])
            node.run(f"systemctl reload-or-restart {DAEMON}")


def test_prometheus_scrapes_the_machines_and_an_alert_fires(lab: Lab) -> None:
    """haproxy stops everywhere: no leader; it starts again: quiet."""
    holder = lab.wait_serving()
    enter, targets = lab.network.enter(lab.client.name), [node.port.v4 for node in lab.nodes]
    with configured(lab, f'[metrics]\nlisten = "0.0.0.0:{PORT}"\n'), prometheus(enter, targets) as seen:
        until(lambda: seen.value("sum(up)") == 3, 20, "every machine is scraped")
        until(lambda: seen.value("sum(govip_leader)") == 1, 10, "one leader")
        assert seen.value(f'govip_leader{{instance="{holder.port.v4}:{PORT}"}}') == 1
        until(lambda: (seen.value("sum(govip_lease_renewal_seconds_count)") or 0) > 10, 20, "renewals are counted")
        until(lambda: (seen.value('govip_probe_checks_total{result="passed"}') or 0) > 10, 20, "checks are counted")
        assert seen.firing() <= {"GovipFlapping"}  # earlier tests moved it
        for node in lab.nodes:
            node.run("systemctl stop haproxy")
        until(lambda: {"GovipNoLeader", "GovipGateUnhealthy"} <= seen.firing(), 20, "the alerts fire")
        for node in lab.nodes:
            node.run("systemctl start haproxy")
        until(lambda: not {"GovipNoLeader", "GovipGateUnhealthy"} & seen.firing(), 40, "the alerts end")
        assert (seen.value('sum(govip_transitions_total{reason="ineligible"})') or 0) >= 3


def test_hooks_run_inside_the_sandbox(lab: Lab) -> None:
    """A hook runs for every role, in order, after the change. Its output is in the journal."""
    for node in lab.nodes:
        node.write(HOOK, SCRIPT)
        node.run(f"chmod 755 {HOOK}")
    hooks = "\n".join(f'{role} = ["{HOOK}"]' for role in ("leader", "standby", "fault"))
    with configured(lab, f"[hooks]\n{hooks}\n"):
        holder = lab.wait_serving()
        holder.run("systemctl stop haproxy")
        successor = lab.wait_serving(but=holder)
        successor.run(f"systemctl stop {DAEMON}")  # the last hook runs though the daemon ends
        lab.wait_serving(but=successor)
        told = {node.name: node.run("journalctl -u govipd -o cat --no-pager").stdout for node in (holder, successor)}
        assert f"api: fault hook: fault of api on {holder.name} because of ineligible" in told[holder.name]
        lines = [line for line in told[successor.name].splitlines() if " hook: " in line and "done after" not in line]
        assert lines[-3:] == [
            f"api: leader hook: leader of api on {successor.name} because of activated",
            "api: leader hook: 192.0.2.100",
            f"api: standby hook: standby of api on {successor.name} because of withdrawn",
        ]
        assert "api: standby hook: done after" in told[successor.name].rpartition(lines[-1])[2]


def test_journalctl_x_explains_an_entry(lab: Lab) -> None:
    """As installed by `make install`: cause and remedy, with the VIP's name filled in."""
    holder = lab.wait_serving()
    text = holder.run("journalctl -x -u govipd --no-pager GOVIP_STATE=leader").stdout
    assert "Subject: VIP api: this machine is the leader" in text
    assert "Defined-By: govipd" in text
