"""Faults from outside the daemons: changed files, other machines' files, NAT, a full etcd, a clone.

`tests.lab.test_edges_*` play them all, the soak draws from `EDGES`.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from tests.lab import etcds
from tests.lab.files import API, set_key, set_vips
from tests.lab.guides import typed
from tests.lab.host import LabError, run, until
from tests.lab.lab import CLIENT, DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.network import VIP4, VIP6
from tests.lab.play import LEASE_BOUND_S, Outcome, Scenario
from tests.lab.scenarios import Act

AFTER_S = 1.5  # from one machine's reload to the next one's
WEB, MORE = "192.0.2.101", "192.0.2.102"
BOTH = {"api": API, "web": (f"{WEB}/32",)}
MOVED = {"api": API[1:], "web": (f"{WEB}/32", API[0])}
CLONE = "twin"
NAT = "lab_nat"
PORT, BEHIND = 443, 80  # of the machines' NAT, and where their haproxy listens

Edit = Callable[[Machine], None]


def journal(node: Machine) -> str:
    """The machine's journal of govipd, also of another machine-id."""
    return node.run("journalctl --merge -u govipd -o cat --no-pager").stdout


def reachable(lab: Lab, address: object) -> str:
    """The machine that a client reaches at an address; "" when none answers."""
    url = f"http://[{address}]/" if ":" in str(address) else f"http://{address}/"
    return run(*lab.network.enter(CLIENT.name), "curl", "-gfsS", "-m", "0.3", url, check=False).strip()


def wait_reachable(lab: Lab, *addresses: object) -> None:
    """Wait until a machine answers at each of the addresses."""
    for address in addresses:
        until(partial(reachable, lab, address), 20, f"{address} is served")


def leader(lab: Lab, vip: str) -> Machine:
    """The machine that leads a group."""
    ask = f"govipctl is-leader --vip {vip}"
    for _ in range(100):
        for node in lab.others():
            if node.run(ask, check=False).returncode == 0:
                return node
        time.sleep(0.1)
    raise LabError(f"no machine leads {vip}")


def in_turn(nodes: Sequence[Machine], edit: Edit, apply: str = "reload") -> None:
    """Edit and apply the file on one machine after the other."""
    for node in nodes:
        edit(node)
        typed(node, f"systemctl {apply} {DAEMON}")
        time.sleep(AFTER_S)


def files_back(lab: Lab, _holder: Machine) -> None:
    """Restore every file, and apply it on one machine after the other without a pause."""
    for node in lab.others():
        _as_provisioned(node)
        node.run(f"systemctl reset-failed {DAEMON}; systemctl reload-or-restart {DAEMON}", check=False)
    wait_reachable(lab, VIP4, VIP6)


def _as_provisioned(node: Machine) -> None:
    set_vips(node, api=API)
    set_key(node, "election", "member", None)
    set_key(node, "etcd", "prefix", None)


# One address, two names


def _renamed(*, holder_first: bool, apply: str = "reload") -> Act:
    def act(lab: Lab, holder: Machine) -> None:
        others = lab.others(holder)
        in_turn([holder, *others] if holder_first else [*others, holder], partial(set_vips, service=API), apply)
        wait_reachable(lab, VIP4, VIP6)
        typed(holder, "etcdctl del govip/released/NAME", NAME="api")
        if apply == "restart":
            for node in lab.others():
                _no_table_of(node, "api")

    return act


def _no_table_of(node: Machine, group: str) -> None:
    tables = node.run("nft list tables").stdout.splitlines()
    if orphans := [table for table in tables if table.endswith(f"_{group}")]:
        raise LabError(f"{node} has {orphans}")


def _second_group(lab: Lab, holder: Machine) -> Machine:
    """Add a second group to each machine, led by another machine than the first group's. Returns that machine."""
    for node in lab.others():
        set_vips(node, **BOTH)
        node.run(f"systemctl reload {DAEMON}")
    wait_reachable(lab, WEB)
    other = leader(lab, "web")
    if other is holder:
        ready = partial(_stands_behind, lab, holder)
        until(ready, 20, "another machine stands for web")
        holder.run("govipctl handover --vip web --wait")
        other = leader(lab, "web")
    return other


def _stands_behind(lab: Lab, holder: Machine) -> bool:
    return len(holder.run("etcdctl get --prefix --keys-only govip/election/web/").stdout.split()) == len(lab.others())


def _move(node: Machine) -> None:
    set_vips(node, **MOVED)


def _address_moved(*, giver_first: bool, apply: str = "reload") -> Act:
    def act(lab: Lab, holder: Machine) -> None:
        taker = _second_group(lab, holder)
        order = [holder, taker] if giver_first else [taker, holder]
        in_turn([*order, *lab.others(*order)], _move, apply)
        wait_reachable(lab, VIP4, VIP6, WEB)
        until(lambda: reachable(lab, VIP4) == reachable(lab, WEB) != "", 20, "the leader of web has the address")
        if '"vip": "web"' not in typed(taker, "etcdctl get govip/claims/ --prefix").split(f"/{VIP4}\n")[1]:
            raise LabError(f"web does not claim {VIP4}")
        if str(VIP4) in holder.run("ip -br address").stdout and leader(lab, "web") is not holder:
            raise LabError(f"{holder} has {VIP4} still")

    return act


def _address_added(lab: Lab, holder: Machine) -> None:
    in_turn([*lab.others(holder), holder], partial(set_vips, api=(*API, f"{MORE}/32")))
    until(lambda: reachable(lab, MORE) == holder.name, 20, "the address is served")


def _address_taken_out_and_put_back(lab: Lab, holder: Machine) -> None:
    in_turn(lab.others(), partial(set_vips, api=API[1:]))
    lab.wait_silent()
    in_turn([*lab.others(holder), holder], partial(set_vips, api=API))
    wait_reachable(lab, VIP4, VIP6)


def _typo(lab: Lab, holder: Machine) -> None:
    other = lab.others(holder)[0]
    set_vips(other, apii=API)
    other.run(f"systemctl reload {DAEMON}")
    claimed = f"{VIP4} is claimed by group api of {holder}"
    until(lambda: claimed in " ".join(other.run("govipctl why", check=False).stdout.split()), 20, "why names the claim")
    time.sleep(LEASE_BOUND_S)


def _another_prefix(lab: Lab, holder: Machine) -> None:
    other = lab.others(holder)[0]
    set_key(other, "etcd", "prefix", "another/")
    other.run(f"systemctl restart {DAEMON}")
    claimed = f"{VIP4} is claimed by group api of {holder}"
    until(lambda: claimed in " ".join(other.run("govipctl why", check=False).stdout.split()), 20, "why names the claim")
    time.sleep(LEASE_BOUND_S)


def _group_removed(lab: Lab, holder: Machine) -> None:
    other = _second_group(lab, holder)
    in_turn([other, *lab.others(other)], partial(set_vips, api=API), "restart")
    for node in lab.others():
        _no_table_of(node, "web")
        if WEB in node.run("ip -br address").stdout:
            raise LabError(f"{node} has {WEB} still")
    if reachable(lab, WEB):
        raise LabError(f"{WEB} is served still")


# NAT


def redirect(lab: Lab, port: int = PORT) -> None:
    """A NAT rule of the machine: packets to this port go to its haproxy, for any destination address."""
    for node in lab.others():
        chain = f"type nat hook prerouting priority dstnat; tcp dport {port} redirect to :{BEHIND};"
        node.run(f"nft 'table inet {NAT} {{ chain in {{ {chain} }}; }}'")


def redirect_no_more(lab: Lab, _holder: Machine) -> None:
    """Undo redirect()."""
    for node in lab.others():
        node.run(f"nft delete table inet {NAT}", check=False)


def _redirected_and_isolated(lab: Lab, holder: Machine) -> None:
    redirect(lab)
    lab.isolate(holder)


# etcd and clones


def _etcd_full(lab: Lab, _holder: Machine) -> None:
    etcds.fill(lab)
    time.sleep(LEASE_BOUND_S)


def _etcd_freed(lab: Lab, _holder: Machine) -> None:
    etcds.empty(lab)


def cloned(lab: Lab, original: Machine) -> Machine:
    """Give another machine the original's machine-id and member name, and start it. Returns that machine."""
    clone = lab.others(original)[0]
    clone.run(f"systemctl stop {DAEMON}")
    clone.write("/etc/machine-id", original.read("/etc/machine-id"))
    set_key(clone, "election", "member", original.name)
    clone.run(f"systemctl start {DAEMON}")
    return clone


def clone_no_more(lab: Lab, _original: Machine) -> None:
    """Undo cloned(), for any machine."""
    for node in lab.others():
        identity = f"{node.port.number:032x}\n"
        if node.read("/etc/machine-id") != identity:
            node.run(f"systemctl stop {DAEMON}")
            node.write("/etc/machine-id", identity)
            set_key(node, "election", "member", None)
            node.run(f"systemctl reset-failed {DAEMON}; systemctl start {DAEMON}", check=False)


def _clone(lab: Lab, holder: Machine) -> None:
    clone = cloned(lab, holder)
    until(lambda: f"the member name {holder} is taken by" in journal(clone), 20, "the clone is refused")
    time.sleep(LEASE_BOUND_S)


# On another machine


def _static_with_another_prefix(lab: Lab, holder: Machine) -> None:
    other = lab.others(holder)[0]
    other.run(f"ip address add {VIP4}/24 dev eth0")
    until(lambda: str(VIP4) not in other.run("ip -br address show eth0").stdout, 10, "it is removed")


def _on_lo(lab: Lab, holder: Machine) -> None:
    other = lab.others(holder)[0]
    other.run(f"ip address add {VIP4}/32 dev lo")
    time.sleep(AFTER_S)


def _not_on_lo(lab: Lab, _holder: Machine) -> None:
    for node in lab.others():
        node.run(f"ip address delete {VIP4}/32 dev lo 2>/dev/null", check=False)


FILES = (
    Scenario("group-renamed-standbys-first", "a group is renamed by reload, machine after machine, the holder last",
             Outcome.SERVED, _renamed(holder_first=False), files_back),
    Scenario("group-renamed-holder-first", "a group is renamed by reload, machine after machine, the holder first",
             Outcome.SERVED, _renamed(holder_first=True), files_back),
    Scenario("group-renamed-by-restart", "a group is renamed by restart, machine after machine", Outcome.SERVED,
             _renamed(holder_first=False, apply="restart"), files_back),
    Scenario("address-moved-taker-first", "an address moves to another group, whose leader is reloaded first",
             Outcome.SERVED, _address_moved(giver_first=False), files_back),
    Scenario("address-moved-giver-first", "an address moves to another group, whose leader is reloaded second",
             Outcome.SERVED, _address_moved(giver_first=True), files_back),
    Scenario("address-removed-then-restart", "an address moves to another group, by restart", Outcome.SERVED,
             _address_moved(giver_first=False, apply="restart"), files_back),
    Scenario("address-added-by-reload", "an address is added, machine after machine", Outcome.STAYS, _address_added,
             files_back, lossless=True),
    Scenario("address-taken-out-and-put-back", "the address is taken out by reload, and put back", Outcome.SERVED,
             _address_taken_out_and_put_back, files_back),
    Scenario("name-typo-on-one-machine", "a standby has another name for the group", Outcome.STAYS, _typo, files_back,
             lossless=True),
    Scenario("another-prefix-on-one-machine", "a standby has another etcd.prefix", Outcome.STAYS, _another_prefix,
             files_back, lossless=True),
    Scenario("group-removed-by-restart", "a second group is removed from the files, and govipd restarted",
             Outcome.STAYS, _group_removed, files_back, lossless=True),
    Scenario("clone-beside-its-original", "a machine has the machine-id and the member's name of the holder",
             Outcome.STAYS, _clone, clone_no_more, lossless=True),
)  # fmt: skip

EDGES = (
    *FILES,
    Scenario("isolated-with-redirect", "the holder turns VIP:443 to another port, and is cut off", Outcome.MOVES,
             _redirected_and_isolated, redirect_no_more),
    Scenario("static-vip-with-another-prefix", "somebody adds the VIP with /24 on another machine", Outcome.STAYS,
             _static_with_another_prefix),
    Scenario("vip-on-lo", "somebody adds the VIP to lo on another machine", Outcome.STAYS, _on_lo, _not_on_lo),
    Scenario("etcd-full-then-freed", "etcd is full for some seconds", Outcome.SERVED, _etcd_full, _etcd_freed),
)  # fmt: skip
