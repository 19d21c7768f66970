"""`make bench-probe`: the cost of a check of haproxy, and how often it would fail a healthy haproxy.

A real haproxy on the loopback of a network namespace, asked by HttpProbe with the niceness that govipd's unit has. A
check is timed as its deadline sees it: from its beginning to its result, with its thread and the event loop's turn.
Meanwhile the machine does nothing, or as many processes as are named keep each processor busy.
"""

import argparse
import asyncio
import mmap
import multiprocessing as mp
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from govipd.adapters.checks.http_probe import HttpProbe
from tests.adapters.conftest import BootClock
from tests.adapters.namespaces import Namespace

URL = "http://127.0.0.1:8404/healthz"
HAPROXY = f"""
defaults
  mode http
  timeout client 10s
  timeout server 10s
  timeout connect 2s
{(Path(__file__).resolve().parents[1] / "conf/haproxy-govip.cfg").read_text()}
"""
NICE = -10  # of units/govipd@.service
MEMORY = 4 << 30  # bytes, of all processes that touch memory
PAUSE_S = 0.01
TIMEOUTS_S = (0.05, 0.07, 0.1, 0.2, 0.5)
PER_SECOND = (2, 14)


@contextmanager
def haproxy() -> Iterator[None]:
    """Run haproxy until the body ends."""
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        file.write(HAPROXY)
        file.flush()
        process = subprocess.Popen(["haproxy", "-db", "-q", "-f", file.name])
        try:
            time.sleep(0.5)
            yield
        finally:
            process.kill()
            process.wait()


def spin() -> None:
    """Use the processor."""
    while True:
        pass


def touch() -> None:
    """Use every page of this process's share of MEMORY, give all back, and repeat."""
    memory = mmap.mmap(-1, MEMORY // PROCESSORS, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    while True:
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1
        memory.madvise(mmap.MADV_DONTNEED)


PROCESSORS = os.cpu_count() or 1
# What keeps each processor busy: in words, how many processes, and what they do.
LOADS: tuple[tuple[str, int, Callable[[], None]], ...] = (
    ("0", 0, spin),
    ("1", 1, spin),
    ("4", 4, spin),
    (f"1, touching {MEMORY // PROCESSORS >> 30} GB", 1, touch),
)


def as_usual(work: Callable[[], None]) -> None:
    """Work with haproxy's niceness; this process's niceness is inherited."""
    os.nice(-NICE)
    work()


@contextmanager
def busy(each: int, work: Callable[[], None]) -> Iterator[None]:
    """Run so many busy processes for each processor, until the body ends."""
    fork = mp.get_context("fork")
    spinners = [fork.Process(target=as_usual, args=(work,), daemon=True) for _ in range(each * PROCESSORS)]
    for spinner in spinners:
        spinner.start()
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.join()


async def ask(seconds: float, pause_s: float) -> tuple[list[float], float]:
    """Repeat the check. Returns the time of each, and this process's CPU seconds for one."""
    probe = HttpProbe(url=URL, interval_s=pause_s, timeout_s=10.0, sink=lambda _: None, clock=BootClock())
    took = []
    cpu, until = time.process_time(), time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        result = await probe.check()
        took.append(time.monotonic() - began)
        assert result.passed, result.detail
        await asyncio.sleep(pause_s)
    probe.close()
    return took, (time.process_time() - cpu) / len(took)


def row(name: str, took: Sequence[float]) -> str:
    """One line of the table."""
    ranked = sorted(took)
    at = [ranked[min(len(ranked) - 1, int(len(ranked) * share))] for share in (0.5, 0.99, 0.999)]
    cells = [f"{1000 * seconds:.1f}" for seconds in (*at, ranked[-1])]
    for limit in TIMEOUTS_S:
        once = sum(t > limit for t in took)
        twice = sum(min(pair) > limit for pair in pairwise(took))
        cells.append(f"{once}, {twice}")
    return f"| {name} | {len(took)} | {' | '.join(cells)} |"


def main() -> int:
    """Measure. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each load (default: %(default)g)")
    seconds = parser.parse_args().seconds
    namespace = Namespace()
    with namespace.inside(), haproxy():
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        print("A check's cost in the daemon, the machine being idle:\n")
        for rate in PER_SECOND:
            _, cpu = asyncio.run(ask(seconds / 4, 1 / rate))
            print(f"- {rate} in a second: {1000 * cpu:.2f} ms each, {100 * cpu * rate:.2f} % of a processor")
        limits = " | ".join(f"over {1000 * limit:g} ms: once, twice in a row" for limit in TIMEOUTS_S)
        print(f"\nUntil the answer of a haproxy that is well, in ms ({PROCESSORS} processors):\n")
        print(f"| busy processes for each processor | checks | p50 | p99 | p99.9 | max | {limits} |")
        print(f"|{'---|' * (6 + len(TIMEOUTS_S))}")
        for name, each, work in LOADS:
            with busy(each, work):
                took, _ = asyncio.run(ask(seconds, PAUSE_S))
            print(row(name, took), flush=True)
    namespace.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
