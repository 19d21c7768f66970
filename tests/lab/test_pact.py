"""The pact on three machines: the successor of a silent leader takes over early, and two never answer."""

import signal
from collections.abc import Iterator

import pytest

from tests.lab.faults import FAULTS, UNIT
from tests.lab.host import until
from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.play import Outcome, Scenario, play
from tests.lab.scenarios import SCENARIOS, signalled

PACT = "\n[pact]\ntimeout = 0.2\n"
BY_NAME = {scenario.name: scenario for scenario in (*SCENARIOS, *FAULTS)}
# Its successor starts too late to adopt.
KILLED = Scenario("govipd-killed-once", "govipd is killed", Outcome.ONE, signalled(UNIT, signal.SIGKILL))


def in_pact(node: Machine) -> bool:
    """Whether the machine's newest journal entry about pacts says that one is in force."""
    lines = node.run(f"journalctl -u {DAEMON} -o cat --no-pager").stdout.splitlines()
    words = ("pact with the successor", "no pact any more", "deactivating")
    told = [line for line in lines if any(word in line for word in words)]
    return bool(told) and "pact with the successor" in told[-1]


@pytest.fixture
def pacts(lab: Lab) -> Iterator[Lab]:
    """Three machines with pacts."""
    before = {node: node.read("/etc/govip/govip.toml") for node in lab.nodes}
    try:
        for node, text in before.items():
            node.write("/etc/govip/govip.toml", text + PACT)
            node.run(f"systemctl restart {DAEMON}")
        lab.make_whole()
        until(lambda: in_pact(lab.wait_serving()), 60, "a pact")
        yield lab
    finally:
        lab.make_whole()
        for node, text in before.items():
            node.write("/etc/govip/govip.toml", text)
            node.run(f"systemctl restart {DAEMON}")


@pytest.mark.parametrize(
    "scenario",
    [BY_NAME["power-loss"], BY_NAME["isolated"], BY_NAME["haproxy-killed"], BY_NAME["nft-flushed"], KILLED],
    ids=lambda s: s.name,
)
def test_with_a_pact(pacts: Lab, scenario: Scenario) -> None:
    """The right machine serves afterwards, and at no moment two machines answered."""
    result = play(pacts, scenario)
    print(f"{scenario.name}: gap {1000 * result.seen.gap:.0f} ms")
    assert result.faults == (), "\n".join([*result.faults, *result.report.overlaps])


def test_a_planned_restart_ends_the_pact_and_moves_nothing(pacts: Lab) -> None:
    """With the shortest pact, too, the next process finds the whole lease."""
    for _ in range(3):
        result = play(pacts, BY_NAME["govipd-upgraded"])
        assert result.faults == ()
        until(lambda: in_pact(pacts.wait_serving()), 60, "a pact again")
