"""The cost of a daemon without events, and the time from its start until it is ready."""

import time
from collections.abc import Iterable
from pathlib import Path

from bench.field import Field
from bench.records import Idle
from bench.tools import Tool
from tests.lab.machine import Machine

SECONDS = 60.0
QUICK_SECONDS = 15.0
SETTLE_S = 2.0
STARTS = 5
QUICK_STARTS = 3
TICKS = 100  # per second, in /proc/PID/stat (USER_HZ, which is 100 everywhere Debian runs)


def idle(field: Field, tool: Tool, *, quick: bool) -> list[Idle]:
    """The cost on the holder, and on another machine."""
    holder = field.play_with(tool)
    nodes = (holder, field.lab.others(holder)[0])
    time.sleep(SETTLE_S)
    began = time.monotonic()
    before = [cpu_seconds(node.unit_pids(tool.unit)) for node in nodes]
    time.sleep(QUICK_SECONDS if quick else SECONDS)
    after = [cpu_seconds(node.unit_pids(tool.unit)) for node in nodes]
    seconds = time.monotonic() - began
    return [
        Idle(
            tool.name,
            node is holder,
            round(seconds, 1),
            round(100 * (b - a) / seconds, 2),
            resident_mb(node, tool.unit),
        )
        for node, a, b in zip(nodes, before, after, strict=True)
    ]


def ready_times(field: Field, tool: Tool, *, quick: bool) -> list[float]:
    """Seconds from exec to READY, measured by systemd, on a machine that does not hold the VIP."""
    node = field.lab.others(field.play_with(tool))[0]
    times = []
    for _ in range(QUICK_STARTS if quick else STARTS):
        node.run(f"systemctl restart {tool.unit}", timeout=60)
        show = node.run(f"systemctl show -p ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic {tool.unit}")
        at = dict(line.split("=") for line in show.stdout.split())
        times.append((int(at["ActiveEnterTimestampMonotonic"]) - int(at["ExecMainStartTimestampMonotonic"])) / 1e6)
        time.sleep(SETTLE_S)
    return times


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU seconds of the processes, and of their children that have ended."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue  # a check that has ended since: its parent counts it
        total += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return total / TICKS


def resident_mb(node: Machine, unit: str) -> float:
    """Resident memory of the unit's processes."""
    return round(sum(map(rss_mb, node.unit_pids(unit))), 1)


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)
