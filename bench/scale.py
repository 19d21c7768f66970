"""`make bench-scale`: what many VIP groups of one daemon cost, and how fast all of them move.

Three machines run the product. Every machine has the same groups, each with one address; one machine leads them all.
Then its daemon is restarted and killed, its haproxy is stopped, and the machine loses power. The journal of the machine
that takes a group says when. The machines of the lab share the host's clock.

Then three processes with a thousand candidacies each stand at one etcd (bench.candidacies).

Records go to docs/benchmarks/scale.json: a list of {groups, what, value, unit}. The picture is scale.svg.
"""

import argparse
import base64
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from signal import SIGKILL

from bench import candidacies
from bench.charts import scale_chart
from bench.idle import cpu_seconds, resident_mb
from bench.records import ScaleFigure
from tests.lab.files import set_vips
from tests.lab.host import LabError, until
from tests.lab.lab import DAEMON, Lab
from tests.lab.machine import Machine
from tests.lab.network import VIP4

OUT = Path(__file__).resolve().parents[1] / "docs/benchmarks"
UNIT = f"{DAEMON}.service"
GROUPS = (1, 16, 64, 256)
CANDIDACIES = 1000  # groups of one etcd, without a kernel side
IDLE_S = 20.0
SETTLE_S = 3.0
PATIENCE_S = 60.0


def names(groups: int) -> list[str]:
    """The names of so many groups. The first one's name and address are the lab's."""
    return ["api", *(f"g{n:03}" for n in range(1, groups))]


def configure(lab: Lab, groups: int) -> None:
    """Give every machine's file these groups, with one address each."""
    others = (f"{network}.{host}/32" for network in ("203.0.113", "198.51.100") for host in range(1, 255))
    addresses = [f"{VIP4}/32", *(next(others) for _ in range(1, groups))]
    for node in lab.nodes:
        set_vips(node, **{name: [address] for name, address in zip(names(groups), addresses, strict=True)})


def queues(lab: Lab) -> dict[str, list[tuple[int, str]]]:
    """For each group the create revisions and members of the candidates, the leader first; empty without an answer."""
    node = lab.others()[0]
    done = node.run("etcdctl get govip/election/ --prefix -w json", check=False)
    found: dict[str, list[tuple[int, str]]] = {}
    with suppress(json.JSONDecodeError):
        for kv in json.loads(done.stdout).get("kvs", ()):
            group = base64.b64decode(kv["key"]).decode().split("/")[2]
            found.setdefault(group, []).append((kv["create_revision"], base64.b64decode(kv["value"]).decode()))
    return {group: sorted(queue) for group, queue in found.items()}


def arrange(lab: Lab, groups: int) -> Machine:
    """Let one machine lead every group, with the others behind it. Returns that machine."""
    for node in lab.nodes:
        if not node.running:
            node.boot()
    for node in lab.nodes:
        node.run(f"systemctl start haproxy; systemctl stop {DAEMON}; systemctl reset-failed", timeout=90)
    lab.wait_ready()
    until(lambda: not queues(lab), PATIENCE_S, "no candidate is left")
    for count, node in enumerate(lab.nodes, 1):
        node.run(f"systemctl start {DAEMON}", timeout=90)

        def stand(count: int = count) -> bool:
            found = queues(lab)
            return len(found) == groups and all(len(queue) == count for queue in found.values())

        until(stand, PATIENCE_S, f"{node} stands in {groups} queues")
    holder = lab.nodes[0]
    until(lambda: len(leading(holder)) == groups, PATIENCE_S, f"{holder} leads {groups} groups")
    time.sleep(SETTLE_S)
    return holder


def leading(node: Machine) -> set[str]:
    """The groups that a machine leads, as its daemon says."""
    with suppress(json.JSONDecodeError, KeyError):
        groups = json.loads(node.run("govipctl status --json", check=False).stdout)["nodes"]["eth0"]["groups"]
        return {group["vip"] for group in groups if group["state"] == "leader"}
    return set()


def at_rest(lab: Lab, holder: Machine, groups: int) -> Iterator[ScaleFigure]:
    """The cost without events."""
    nodes = {"holder": holder, "standby": lab.others(holder)[0]}
    calls, began = etcd_calls(lab), time.monotonic()
    before = {role: cpu_seconds(node.unit_pids(UNIT)) for role, node in nodes.items()}
    time.sleep(IDLE_S)
    seconds = time.monotonic() - began
    for role, node in nodes.items():
        used = cpu_seconds(node.unit_pids(UNIT)) - before[role]
        yield ScaleFigure(groups, f"processor, {role}", round(100 * used / seconds, 2), "%")
        yield ScaleFigure(groups, f"resident, {role}", resident_mb(node, UNIT), "MB")
        files = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in node.unit_pids(UNIT))
        yield ScaleFigure(groups, f"file descriptors, {role}", files, "")
    yield ScaleFigure(groups, "calls of etcd, three machines", round((etcd_calls(lab) - calls) / seconds, 1), "per s")


def etcd_calls(lab: Lab) -> int:
    """Calls that etcd's members have answered so far: unary calls, and messages of keep-alive streams."""
    total = 0.0
    for node in lab.others():
        for line in node.run("curl -fsS localhost:2379/metrics").stdout.splitlines():
            unary = line.startswith("grpc_server_handled_total{") and 'grpc_type="unary"' in line
            if unary or (line.startswith("grpc_server_msg_received_total{") and '"LeaseKeepAlive"' in line):
                total += float(line.rpartition(" ")[2])
    return int(total)


def disturbed(
    lab: Lab, holder: Machine, groups: int, what: str, act: Callable[[Machine], object]
) -> Iterator[ScaleFigure]:
    """Disturb only the daemon of the holder: no group may move, and each must be led again."""
    before = {group: queue[0] for group, queue in queues(lab).items()}
    act(holder)
    time.sleep(SETTLE_S)
    with suppress(LabError):
        until(lambda: len(leading(holder)) == groups, PATIENCE_S, "the groups are led again")
    after = {group: queue[0] for group, queue in queues(lab).items()}
    yield ScaleFigure(
        groups, f"{what}: groups that moved", sum(after.get(g) != first for g, first in before.items()), ""
    )


def moved(lab: Lab, holder: Machine, groups: int, what: str, act: Callable[[Machine], float]) -> Iterator[ScaleFigure]:
    """Let every group move; `act` returns when it happened, in seconds of CLOCK_MONOTONIC."""
    others = lab.others(holder)
    at = act(holder)
    taken: dict[str, float] = {}

    def all_taken() -> bool:
        for node in others:
            # Without an entry, journalctl fails.
            for line in node.run("journalctl -q -o json GOVIP_STATE=leader", check=False).stdout.splitlines():
                entry = json.loads(line)
                if (when := int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6) >= at:
                    taken.setdefault(entry["GOVIP_VIP"], when)
        return len(taken) == groups

    with suppress(LabError):
        until(all_taken, PATIENCE_S, "every group has moved")
    yield ScaleFigure(groups, f"{what}: groups that were taken", len(taken), "")
    yield ScaleFigure(groups, f"{what}: the first was taken after", round(min(taken.values(), default=at) - at, 3), "s")
    yield ScaleFigure(groups, f"{what}: the last was taken after", round(max(taken.values(), default=at) - at, 3), "s")


def _stop_haproxy(holder: Machine) -> float:
    holder.run("systemctl stop haproxy")
    shown = holder.run("systemctl show -p ActiveExitTimestampMonotonic haproxy").stdout
    return int(shown.partition("=")[2]) / 1e6


def _power_off(holder: Machine) -> float:
    at = time.monotonic()
    holder.power_loss()
    return at


def measure(lab: Lab, groups: int) -> Iterator[ScaleFigure]:
    """Every figure for so many groups."""
    configure(lab, groups)
    holder = arrange(lab, groups)
    yield from at_rest(lab, holder, groups)
    yield from disturbed(lab, holder, groups, "restart", lambda n: n.run(f"systemctl restart {DAEMON}", timeout=90))
    yield from disturbed(lab, holder, groups, "crash", lambda n: n.signal_unit(UNIT, SIGKILL))
    yield from moved(lab, arrange(lab, groups), groups, "haproxy stopped", _stop_haproxy)
    yield from moved(lab, arrange(lab, groups), groups, "power-off", _power_off)


def main(arguments: Sequence[str]) -> int:
    """Measure, and write the records and the picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="Many VIP groups of one daemon.")
    parser.add_argument("groups", nargs="*", type=int, help=f"how many groups ({' '.join(map(str, GROUPS))})")
    parser.add_argument(
        "--candidacies", type=int, default=CANDIDACIES, help="groups of one etcd (%(default)s); 0: none"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="directory of the records (%(default)s)")
    args = parser.parse_args(arguments)
    figures: list[ScaleFigure] = []
    with Lab() as lab:
        for groups in args.groups or GROUPS:
            for figure in measure(lab, groups):
                print(figure, flush=True)
                figures.append(figure)
    for figure in candidacies.measure(args.candidacies) if args.candidacies else ():
        print(figure, flush=True)
        figures.append(figure)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "scale.json").write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    (args.out / "scale.svg").write_text(scale_chart([(f.groups, f.what, f.value, f.unit) for f in figures]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
