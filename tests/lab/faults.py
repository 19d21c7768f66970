"""More faults than the demo plays. The tests play all of them, the soak draws from them."""

import json
import signal
import time
from functools import partial

from tests.lab.host import LabError, until
from tests.lab.lab import CLIENT, DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.network import VIP4
from tests.lab.play import Outcome, Scenario
from tests.lab.scenarios import Act, signalled, typed

UNIT = f"{DAEMON}.service"
DROP_IN = f"/run/systemd/system/{UNIT}.d"
TIMES = 20


def _main_pid(node: Machine) -> int:
    """The daemon's process id after READY; 0 before."""
    show = node.run(f"systemctl show -p MainPID,SubState {DAEMON}").stdout
    return int(show.split("MainPID=")[1].split()[0]) if "SubState=running" in show else 0


def _again_and_again(act: Act) -> Act:
    """Twenty times in a row, each time after the daemon has started again."""

    def acts(lab: Lab, holder: Machine) -> None:
        for _ in range(TIMES):
            before = _main_pid(holder)
            act(lab, holder)
            until(lambda before=before: _main_pid(holder) not in (0, before), 20, "a new process")  # type: ignore[misc]

    return acts


def _stopped_for(unit: str, seconds: float) -> Act:
    """Send SIGSTOP, and after a while SIGCONT to the processes that still exist."""

    def act(_lab: Lab, holder: Machine) -> None:
        pids = holder.unit_pids(unit)
        holder.signal_unit(unit, signal.SIGSTOP)
        time.sleep(seconds)
        if set(holder.unit_pids(unit)) & set(pids):
            holder.signal_unit(unit, signal.SIGCONT)

    return act


def _without_watchdog(lab: Lab, holder: Machine) -> None:
    holder.run(f"mkdir -p {DROP_IN} && printf '[Service]\\nWatchdogSec=0\\n' > {DROP_IN}/test.conf")
    holder.run(f"systemctl daemon-reload && systemctl restart {DAEMON}")
    lab.wait_serving(by=holder)
    holder.signal_unit(UNIT, signal.SIGSTOP)
    lab.wait_serving(but=holder)
    time.sleep(2.0)
    holder.signal_unit(UNIT, signal.SIGCONT)


def _with_watchdog(_lab: Lab, holder: Machine) -> None:
    holder.run(f"rm -rf {DROP_IN} && systemctl daemon-reload && systemctl restart {DAEMON}")


def _upgraded(_lab: Lab, holder: Machine) -> None:
    """Replace the running virtual environment, as `make install` of a newer version does."""
    holder.run("cp -a /opt/govip /opt/govip.new && mv /opt/govip /opt/govip.old && mv /opt/govip.new /opt/govip")
    holder.run(f"systemctl restart {DAEMON} && rm -rf /opt/govip.old")


def _slow_proxy(lab: Lab, holder: Machine) -> None:
    """haproxy runs for a moment every 1.2 s, as on a machine that swaps, until the VIP has moved."""
    for _ in range(20):
        holder.signal_unit("haproxy.service", signal.SIGSTOP)
        time.sleep(1.2)
        holder.signal_unit("haproxy.service", signal.SIGCONT)
        if lab.serving() not in (None, holder.name):
            return


def _powered_off(_lab: Lab, holder: Machine) -> None:
    holder.power_off()


def _frozen_machine(lab: Lab, holder: Machine) -> None:
    holder.freeze()
    try:
        lab.wait_serving(but=holder)
        time.sleep(1.0)
    finally:
        holder.thaw()


def _cut(direction: str, *, client_too: bool = False) -> Act:
    return lambda lab, holder: lab.isolate(holder, direction=direction, client_too=client_too)


def _cut_from_client(lab: Lab, holder: Machine) -> None:
    lab.network.cut(holder.port, [CLIENT])


def _healed(lab: Lab, holder: Machine) -> None:
    lab.heal(holder)
    lab.wait_serving(by=holder)


def etcd_leader(lab: Lab) -> Machine:
    """The machine whose etcd leads."""
    for node in lab.others():
        status = json.loads(node.run("etcdctl endpoint status -w json").stdout)[0]["Status"]
        if status["leader"] == status["header"]["member_id"]:
            return node
    raise LabError("etcd has no leader")


def _etcd_of(choose: str, number: signal.Signals) -> Act:
    """Send a signal to one member of etcd: the "leader", or a "follower" on another machine than the holder."""

    def act(lab: Lab, holder: Machine) -> None:
        leader = etcd_leader(lab)
        node = leader if choose == "leader" else lab.others(leader, holder)[0]
        node.signal_unit("etcd.service", number)

    return act


def _all_etcd_stopped(lab: Lab, _holder: Machine) -> None:
    for node in lab.others():
        node.run("systemctl stop etcd")


def _compacted(_lab: Lab, holder: Machine) -> None:
    status = json.loads(holder.run("etcdctl endpoint status -w json").stdout)[0]["Status"]
    holder.run(f"etcdctl compact {status['header']['revision']}")
    time.sleep(3.0)


def _lease_revoked(_lab: Lab, holder: Machine) -> None:
    kvs = json.loads(holder.run("etcdctl get --prefix govip/election/api/ -w json").stdout)["kvs"]
    lease = min(kvs, key=lambda kv: int(kv["create_revision"]))["lease"]
    holder.run(f"etcdctl lease revoke {lease:x}")


def _key_deleted(_lab: Lab, holder: Machine) -> None:
    kvs = json.loads(holder.run("etcdctl get --prefix govip/election/api/ -w json").stdout)["kvs"]
    lease = min(kvs, key=lambda kv: int(kv["create_revision"]))["lease"]
    holder.run(f"etcdctl del govip/election/api/{lease:x}")


def _runtime_directory_full(_lab: Lab, holder: Machine) -> None:
    holder.run("mount -t tmpfs -o size=4k tmpfs /run/govipd/eth0 && "
               "dd if=/dev/zero of=/run/govipd/eth0/filler bs=4k count=1 status=none")  # fmt: skip
    until(lambda: "a restart will move the VIP" in holder.run("journalctl -u govipd -o cat").stdout, 10, "a warning")


def _runtime_directory_free(_lab: Lab, holder: Machine) -> None:
    holder.run("umount --lazy /run/govipd/eth0")  # the control socket is there


def _clock_stepped(lab: Lab, holder: Machine) -> None:
    """Step the daemon's wall clock by hours, both ways. The real clock is the host's, which all machines share."""
    preload = "/usr/lib/*/faketime/libfaketime.so.1"
    holder.run(f"mkdir -p {DROP_IN} && echo +0 > /run/offset && printf '[Service]\\nEnvironment=LD_PRELOAD=%s "
               f"FAKETIME_TIMESTAMP_FILE=/run/offset FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\\n' {preload} "
               f"> {DROP_IN}/test.conf && systemctl daemon-reload && systemctl restart {DAEMON}")  # fmt: skip
    lab.wait_serving(by=holder)
    for offset in ("+5h", "-5h", "+0"):
        holder.write_live("/run/offset", f"{offset}\n")
        time.sleep(1.5)


def _added_elsewhere(lab: Lab, holder: Machine) -> None:
    other = lab.node(lab.queue()[1])
    other.run(f"ip address add {VIP4}/32 dev eth0")
    alarm = f"another program added {VIP4}/32 here, while {holder} is ahead of us"
    until(lambda: alarm in other.run("journalctl -u govipd -o cat").stdout, 10, "an alarm that names both")
    until(lambda: str(VIP4) not in other.run("ip -br address show eth0").stdout, 10, "it is removed")


def _link_up(_lab: Lab, holder: Machine) -> None:
    holder.run(f"ip link set eth0 up; ip address replace {holder.port.v6}/64 dev eth0 nodad")


def _renamed_back(_lab: Lab, holder: Machine) -> None:
    holder.run(f"ip link set eth9 down; ip link set eth9 name eth0; ip link set eth0 up; "
               f"ip address replace {holder.port.v6}/64 dev eth0 nodad")  # fmt: skip


def _rewired(lab: Lab, holder: Machine) -> None:
    lab.network.rewire(holder.port)


def _flushed(_lab: Lab, holder: Machine) -> None:
    holder.run("nft flush ruleset")
    until(lambda: "govipd" in holder.run("nft list tables").stdout, 10, "the fence is back")


def _is_up(_lab: Lab, holder: Machine) -> None:
    until(partial(holder.active, "dbus.service"), 20, "D-Bus")


FAULTS = (
    Scenario("haproxy-slow", "haproxy is starved: it answers late", Outcome.MOVES, _slow_proxy),
    Scenario("govipd-killed", "govipd is killed 20 times in a row", Outcome.STAYS,
             _again_and_again(signalled(UNIT, signal.SIGKILL)), lossless=True),
    Scenario("govipd-restarted", "govipd is restarted 20 times in a row", Outcome.STAYS,
             _again_and_again(typed(f"systemctl restart {DAEMON}")), lossless=True),
    Scenario("govipd-upgraded", "govipd's environment is replaced, and it is restarted", Outcome.STAYS, _upgraded,
             lossless=True),
    Scenario("govipd-frozen-1s", "govipd hangs for a second", Outcome.STAYS, _stopped_for(UNIT, 1.0), lossless=True),
    Scenario("govipd-frozen-5s", "govipd hangs for 5 s", Outcome.STAYS, _stopped_for(UNIT, 5.0), lossless=True),
    Scenario("govipd-frozen-30s", "govipd hangs for 30 s", Outcome.STAYS, _stopped_for(UNIT, 30.0), lossless=True),
    Scenario("govipd-frozen-unwatched", "govipd hangs, without a watchdog", Outcome.MOVES,
             _without_watchdog, _with_watchdog),
    Scenario("power-off", "the holder is shut down", Outcome.MOVES, _powered_off),
    Scenario("machine-frozen", "every process of the holder hangs, then goes on", Outcome.MOVES, _frozen_machine),
    Scenario("cut-from-all", "the holder is cut off from everything", Outcome.MOVES, _cut("both", client_too=True)),
    Scenario("cut-from-client", "the holder is cut off from the client only", Outcome.UNSEEN,
             _cut_from_client, _healed),
    Scenario("deaf", "the holder can send to the others, but not receive", Outcome.MOVES, _cut("in")),
    Scenario("mute", "the holder can receive from the others, but not send", Outcome.MOVES, _cut("out")),
    Scenario("etcd-follower-killed", "a member of etcd is killed", Outcome.STAYS, _etcd_of("follower", signal.SIGKILL)),
    Scenario("etcd-follower-frozen", "a member of etcd hangs", Outcome.STAYS, _etcd_of("follower", signal.SIGSTOP)),
    Scenario("etcd-leader-killed", "etcd's leader is killed", Outcome.ONE, _etcd_of("leader", signal.SIGKILL)),
    Scenario("etcd-leader-frozen", "etcd's leader hangs", Outcome.ONE, _etcd_of("leader", signal.SIGSTOP)),
    Scenario("etcd-all-lost", "all of etcd is stopped, and comes back", Outcome.RETURNS, _all_etcd_stopped),
    Scenario("etcd-compacted", "etcd's history is compacted", Outcome.STAYS, _compacted),
    Scenario("lease-revoked", "the holder's lease is revoked", Outcome.MOVES, _lease_revoked),
    Scenario("key-deleted", "the holder's key is deleted", Outcome.MOVES, _key_deleted),
    Scenario("runtime-directory-full", "the runtime directory is full", Outcome.STAYS,
             _runtime_directory_full, _runtime_directory_free),
    Scenario("clock-stepped", "the holder's wall clock is stepped by hours both ways", Outcome.STAYS,
             _clock_stepped, _with_watchdog),
    Scenario("vip-removed", "somebody removes the VIP on the holder", Outcome.STAYS,
             typed(f"ip address del {VIP4}/32 dev eth0")),
    Scenario("vip-added", "somebody adds the VIP on another machine", Outcome.STAYS, _added_elsewhere),
    Scenario("link-down", "the holder's interface is set down", Outcome.MOVES,
             typed("ip link set eth0 down"), _link_up),
    Scenario("link-renamed", "the holder's interface is renamed", Outcome.MOVES,
             typed("ip link set eth0 down; ip link set eth0 name eth9; ip link set eth9 up"), _renamed_back),
    Scenario("link-deleted", "the holder's interface is deleted, and created anew", Outcome.MOVES,
             typed("ip link del eth0"), _rewired),
    Scenario("nft-flushed", "somebody flushes the holder's nftables", Outcome.STAYS, _flushed, lossless=True),
    Scenario("dbus-killed", "the holder's D-Bus is killed", Outcome.STAYS,
             signalled("dbus.service", signal.SIGKILL), _is_up, lossless=True),
    Scenario("systemd-reexecuted", "the holder's systemd executes itself anew", Outcome.STAYS,
             typed("systemctl daemon-reexec"), lossless=True),
)  # fmt: skip
