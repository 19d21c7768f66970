"""One group with both families on two networks: it moves as a whole, and on neither network two machines answer."""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import pytest

from tests.lab.edges import leader, reachable
from tests.lab.faults import FAULTS
from tests.lab.files import API, set_vips
from tests.lab.host import until
from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.network import INNER4, INNER6, VIP4, VIP6
from tests.lab.play import Scenario, parameters, play
from tests.lab.scenarios import SCENARIOS
from tests.lab.two_networks import OF_TWO, configure_groups, name, wait_all_served, watched

EVERY = (VIP4, VIP6, INNER4, INNER6)
BY_NAME = {scenario.name: scenario for scenario in (*SCENARIOS, *FAULTS)}


OF_ONE = ("power-loss", "haproxy-killed", "govipd-frozen-5s", "govipd-frozen-unwatched", "isolated", "nft-flushed",
          "govipd-upgraded")  # fmt: skip
LONG = {"govipd-frozen-5s", "govipd-frozen-unwatched", "govipd-upgraded", "inner-network-parted"}
ONE_ON_BOTH, OTHERS = 1, 4  # groups
PAUSE_S = 0.5  # a longer time without an answer is an interruption, not this host's lack of time


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    """Machines with two interfaces, and a group on both."""
    with Lab(two_networks=True) as lab:
        for node in lab.nodes:
            set_vips(node, api=(*API, f"{INNER4}/24@eth1", f"{INNER6}/64@eth1"))
        lab.start_daemons()
        yield lab


@pytest.mark.parametrize("scenario", parameters((*OF_TWO, *map(BY_NAME.__getitem__, OF_ONE)), long=LONG))
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


# Independence: faults of one group among others


@pytest.fixture
def many(two: Lab) -> Iterator[Lab]:
    """The first group is on both networks, the others are on the first one. Applied by a reload."""
    try:
        configure_groups(two, ONE_ON_BOTH, OTHERS)
        _reload(two)
        two.make_whole()
        wait_all_served(two, ONE_ON_BOTH, OTHERS)
        yield two
    finally:
        two.make_whole()
        for node in two.nodes:
            set_vips(node, api=(*API, f"{INNER4}/24@eth1", f"{INNER6}/64@eth1"))
        _reload(two)
        two.make_whole()


def _reload(lab: Lab) -> None:
    for node in lab.nodes:
        node.run(f"systemctl reload {DAEMON}")


def _key_deleted(holder: Machine) -> None:
    keys = holder.run("etcdctl get --prefix govip/election/api/ --keys-only --sort-by=CREATE").stdout.split()
    holder.run(f"etcdctl del {keys[0]}")


OF_THE_FIRST: Mapping[str, Callable[[Lab, Machine], object]] = {
    "drained": lambda _, holder: holder.run("govipctl drain --vip api"),
    "handed over": lambda _, holder: holder.run("govipctl handover --vip api"),
    "address removed": lambda _, holder: holder.run(f"ip address del {VIP4}/32 dev eth0"),
    "key deleted": lambda _, holder: _key_deleted(holder),
    "claim deleted": lambda _, holder: holder.run(f"etcdctl del govip/claims/{VIP4}"),
    "added elsewhere": lambda lab, holder: lab.others(holder)[0].run(f"ip address add {VIP4}/32 dev eth0"),
    "second cable pulled": lambda lab, holder: lab.network.port_down(holder.port.inner),
}


def test_what_befalls_one_group_does_not_touch_the_others(many: Lab) -> None:
    """One fault after the other of the first group. No other group moves, or stops answering."""
    groups = ONE_ON_BOTH + OTHERS
    vips, inner = watched(groups)
    for fault, strike in OF_THE_FIRST.items():
        holder = leader(many, "api")
        with many.observe(vips=vips, inner=inner[:1]) as watching:
            watching.mark("fault")
            strike(many, holder)
            time.sleep(2.5)
        seen = watching.report.since("fault")
        assert seen.two_answering == 0, (fault, seen.overlaps)
        for group in range(1, groups):
            for kind in ("arp", "icmp", "ns", "icmp6"):
                answers = [answer for answer in seen.answers if answer.kind == f"{kind}#{group}"]
                assert len({answer.by for answer in answers}) == 1, (fault, name(group), kind)
                pauses = [b.at - a.at for a, b in pairwise(answers)]
                assert max(pauses) < PAUSE_S + seen.unasked, (fault, name(group), kind)
        many.network.port_up(holder.port.inner)
        holder.run("govipctl undrain --vip api")
        wait_all_served(many, ONE_ON_BOTH, OTHERS)
