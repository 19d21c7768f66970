"""The lab tells the truth: what it observes is what is done by hand, without govipd."""

import time

from tests.lab.lab import DAEMON, Lab
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
