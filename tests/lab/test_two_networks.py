"""One group with both families on two networks: it moves as a whole, and on neither network two machines answer."""

from collections.abc import Iterator

import pytest

from tests.lab.edges import reachable
from tests.lab.faults import FAULTS
from tests.lab.files import API, set_vips
from tests.lab.host import until
from tests.lab.lab import Lab
from tests.lab.network import INNER4, INNER6, VIP4, VIP6
from tests.lab.play import Scenario, play
from tests.lab.scenarios import SCENARIOS
from tests.lab.two_networks import OF_TWO

EVERY = (VIP4, VIP6, INNER4, INNER6)
BY_NAME = {scenario.name: scenario for scenario in (*SCENARIOS, *FAULTS)}


OF_ONE = ("power-loss", "haproxy-killed", "govipd-frozen-5s", "govipd-frozen-unwatched", "isolated", "nft-flushed",
          "govipd-upgraded")  # fmt: skip


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    """Machines with two interfaces, and a group on both."""
    with Lab(two_networks=True) as lab:
        for node in lab.nodes:
            set_vips(node, api=(*API, f"{INNER4}/24@eth1", f"{INNER6}/64@eth1"))
        lab.start_daemons()
        yield lab


@pytest.mark.parametrize("scenario", [*OF_TWO, *map(BY_NAME.__getitem__, OF_ONE)], ids=lambda scenario: scenario.name)
def test_a_group_on_two_networks(two: Lab, scenario: Scenario) -> None:
    """All its addresses are on the machine that serves, and were at no moment on two machines."""
    two.make_whole()
    for address in EVERY:
        until(lambda address=address: reachable(two, address), 20, f"{address} is served")  # type: ignore[misc]
    result = play(two, scenario)
    assert result.faults == (), "\n".join([*result.faults, *result.report.overlaps])
    assert {answer.kind for answer in result.report.answers} == {
        kind + leg for kind in ("arp", "icmp", "ns", "icmp6") for leg in ("", "@eth1")
    }
    assert result.report.divided == 0, "\n".join(result.report.overlaps)
    served = {str(address): reachable(two, address) for address in EVERY}
    assert len(set(served.values())) == 1, served


def test_the_doctor_looks_at_both_networks(two: Lab) -> None:
    """No finding is wrong on the holder; an address on the wrong interface is one."""
    two.make_whole()
    holder = two.wait_serving()
    told = holder.run("govipctl doctor", check=False).stdout
    for words in ("api: on eth0", "api: on eth1", f"api: {INNER4}", f"api: {INNER6}", "interface eth1"):
        assert words in told, told
    assert "FAIL" not in told, told
    other = two.others(holder)[0]
    other.run(f"ip address add {INNER4}/32 dev eth0")
    until(lambda: f"{INNER4}/32 on eth0: this machine is ineligible" in
          other.run("journalctl -u govipd -o cat").stdout, 10, "an alarm")  # fmt: skip
    other.run(f"ip address del {INNER4}/32 dev eth0")
