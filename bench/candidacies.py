"""What many groups cost etcd: one etcd, and three processes with the product's candidacies, without a kernel side.

`python -m bench.candidacies GROUPS` measures and prints. bench.scale puts the figures among its own.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import requests

from bench.idle import cpu_seconds, rss_mb
from bench.records import ScaleFigure
from govipd.adapters.etcd.client import EtcdClient
from govipd.core.events import Elected, Event, Queued
from tests.adapters.etcd_cluster import Cluster
from tests.candidate import Candidate, candidate

MEMBERS = ("node1", "node2", "node3")
FIRST_ADDRESS = IPv6Address("2001:db8::1")  # only names in etcd here; no interface has them
SETTLE_S = 5.0
REST_S = 20.0
PATIENCE_S = 180.0


class Clock:
    """CLOCK_MONOTONIC, which is the same for all processes of a machine."""

    def now(self) -> float:
        """Seconds."""
        return time.monotonic()


# One member: a process of its own


async def stand(endpoint: str, member: str, groups: int) -> None:
    """Stand in each group's queue for ever. Prints [group, "queued" or "leads", when] for each change of place."""
    store = EtcdClient([endpoint], timeout=0.5)
    first: Candidate | None = None
    said: dict[str, str] = {}
    candidates = []
    for number in range(groups):
        group, address = f"g{number:04}", f"{FIRST_ADDRESS + number}/128"

        def sink(event: Event, group: str = group) -> None:
            if isinstance(event, Elected | Queued):
                place = "leads" if isinstance(event, Elected) else "queued"
                when = max(time.monotonic(), event.not_before) if isinstance(event, Elected) else time.monotonic()
                if said.get(group) != place:
                    said[group] = place
                    print(json.dumps([group, place, when]), flush=True)

        made = candidate(
            store, sink, Clock(), member,
            vip=group, addresses=address, reachable=ip_address("127.0.0.1"), beside=first,
        )  # fmt: skip
        made.membership.publish({"addresses": [address]})
        made.election.campaign(1)
        candidates.append(made)
        first = first or made
    async with asyncio.TaskGroup() as tasks:
        for each in candidates:
            tasks.create_task(each.run())


# The measurement


class Members:
    """The processes, and what they have printed."""

    def __init__(self, endpoint: str, groups: int, directory: Path) -> None:
        self._endpoint, self._groups, self._directory = endpoint, groups, directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, member: str) -> None:
        """Start one, and wait until it stands in every queue."""
        command = [sys.executable, "-m", "bench.candidacies", member, self._endpoint, str(self._groups)]
        with self._printed(member).open("wb") as out:
            self._running[member] = subprocess.Popen(command, stdout=out)
        self.wait(lambda: len(self.places(member)) == self._groups, f"{member} stands in every queue")

    def places(self, member: str) -> dict[str, tuple[str, float]]:
        """By group: "queued" or "leads", and since when."""
        lines = self._printed(member).read_text().splitlines(keepends=True)
        said = (json.loads(line) for line in lines if line.endswith("\n"))
        return {group: (place, when) for group, place, when in said}

    def leads(self, member: str) -> dict[str, float]:
        """The groups that it leads, and since when."""
        return {group: when for group, (place, when) in self.places(member).items() if place == "leads"}

    def kill(self, member: str) -> float:
        """End it as a loss of power does. Returns when."""
        process, at = self._running.pop(member), time.monotonic()
        process.kill()
        process.wait()
        return at

    def close(self) -> None:
        """End all."""
        for member in tuple(self._running):
            self.kill(member)

    def pid(self, member: str) -> int:
        """The process."""
        return self._running[member].pid

    def _printed(self, member: str) -> Path:
        return self._directory / f"{member}.out"

    @staticmethod
    def wait(reached: Callable[[], bool], what: str) -> None:
        """Wait until it is reached, PATIENCE_S at most."""
        until = time.monotonic() + PATIENCE_S
        while not reached():
            if time.monotonic() > until:
                raise TimeoutError(what)
            time.sleep(0.2)


def metrics(endpoint: str) -> dict[str, float]:
    """Etcd's metrics, with their labels."""
    lines = requests.get(f"{endpoint}/metrics", timeout=5).text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def measure(groups: int) -> Iterator[ScaleFigure]:
    """Every figure for so many groups with three members."""
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory)).running() as cluster:
        (endpoint,) = cluster.endpoints
        members = Members(endpoint, groups, Path(directory))
        try:
            for member in MEMBERS:
                members.start(member)
            yield from _at_rest(cluster, members, groups)
            yield from _one_dies(members, groups)
        finally:
            members.close()


def _at_rest(cluster: Cluster, members: Members, groups: int) -> Iterator[ScaleFigure]:
    (endpoint,), (etcd,) = cluster.endpoints, cluster.members
    pids = {"etcd": etcd.pid, "leader": members.pid(MEMBERS[0]), "standby": members.pid(MEMBERS[1])}
    time.sleep(SETTLE_S)
    before, began = metrics(endpoint), time.monotonic()
    used = {what: cpu_seconds([pid]) for what, pid in pids.items()}
    time.sleep(REST_S)
    after, seconds = metrics(endpoint), time.monotonic() - began
    for what, name in (("writes", "etcd_mvcc_put_total"), ("deletions", "etcd_mvcc_delete_total")):
        yield ScaleFigure(groups, f"etcd alone: {what}", round((after[name] - before[name]) / seconds, 2), "per s")
    kept = 'grpc_server_msg_received_total{grpc_method="LeaseKeepAlive"'
    renewals = sum(value - before.get(name, 0.0) for name, value in after.items() if name.startswith(kept))
    yield ScaleFigure(groups, "etcd alone: keep-alives of three members", round(renewals / seconds, 2), "per s")
    for what, pid in pids.items():
        percent = round(100 * (cpu_seconds([pid]) - used[what]) / seconds, 2)
        yield ScaleFigure(groups, f"etcd alone: processor, {what}", percent, "%")
        yield ScaleFigure(groups, f"etcd alone: resident, {what}", rss_mb(pid), "MB")


def _one_dies(members: Members, groups: int) -> Iterator[ScaleFigure]:
    at = members.kill(MEMBERS[0])
    others = MEMBERS[1:]
    members.wait(lambda: sum(len(members.leads(m)) for m in others) == groups, "every group has moved")
    taken = [when for m in others for when in members.leads(m).values()]
    yield ScaleFigure(groups, "etcd alone: a member dies: the first group moved after", round(min(taken) - at, 3), "s")
    yield ScaleFigure(groups, "etcd alone: a member dies: the last group moved after", round(max(taken) - at, 3), "s")


def main(arguments: Sequence[str]) -> int:
    """Be a member (MEMBER ENDPOINT GROUPS), or measure (GROUPS)."""
    if len(arguments) == 3:
        asyncio.run(stand(arguments[1], arguments[0], int(arguments[2])))
        return 0
    for figure in measure(int(arguments[0])):
        print(figure, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
