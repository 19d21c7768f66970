"""`make bench-renewals`: what the fence's renewals cost the host, beside 20,000 rules of another program.

Transactions of nf_tables are counted by the kernel (NFTA_GEN_ID). Each makes a record for each table that it changes
where the host's audit is on: the fence changes two, one in inet and one in arp. `nft list ruleset` begins again
whenever a transaction comes while it reads.

`--tree PATH` measures the sources in another directory.
"""

import argparse
import asyncio
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

VIP = ip_interface("192.0.2.100/32")
RULES = 20_000
RATES = {"default": (0.5, 2.5), "fast": (0.04, 0.18)}  # seconds: between two renewals, and the fence's length
COUNTED_S = 8.0
PATIENCE_S = 10.0  # with `nft list ruleset`
TABLES = 2
OFTEN = (0.005, 2.5)  # so that one comes while another program's transaction is under way
WAITS_FOR = (5_000, 30_000)  # rules in one transaction of another program
_GETGEN = struct.pack("=LHHLLBBH", 20, 10 << 8 | 16, 1, 0, 0, 0, 0, 0)  # NFT_MSG_GETGEN, NLM_F_REQUEST


class Clock:
    """CLOCK_BOOTTIME."""

    def now(self) -> float:
        """Seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def transactions() -> int:
    """The number of nf_tables transactions that this namespace has seen."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        netlink.send(_GETGEN)
        answer = netlink.recv(4096)
    return int.from_bytes(answer[24:28])  # after nlmsghdr, nfgenmsg and nlattr


def rules(number: int, table: str) -> str:
    """Rules for nft(8)."""
    matches = (f"ip saddr 198.51.100.{n % 250} tcp dport {n % 60000}" for n in range(number))
    lines = (f"add rule inet {table} c {match} accept" for match in matches)
    return "\n".join((f"add table inet {table}", f"add chain inet {table} c", *lines))


@contextmanager
def renewing(fence: object, pause_s: float, length_s: float) -> Iterator[tuple[asyncio.AbstractEventLoop, list[float]]]:
    """An event loop that renews, and the time of each renewal so far."""
    loop, clock, took = asyncio.new_event_loop(), Clock(), list[float]()

    async def renew() -> None:
        while True:
            began = clock.now()
            await fence.open(began + length_s)  # type: ignore[attr-defined]  # of whichever tree
            took.append(clock.now() - began)
            await asyncio.sleep(pause_s - (clock.now() - began))

    task = loop.create_task(renew())
    yield loop, took
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()


async def listing() -> str:
    """The time that `nft list ruleset` takes."""
    began = time.monotonic()
    nft = await asyncio.create_subprocess_exec("nft", "list", "ruleset", stdout=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await nft.wait()
    except TimeoutError:
        nft.kill()
        await nft.wait()
        return f"not within {PATIENCE_S:.0f} s"
    return f"{time.monotonic() - began:.1f} s"


async def loading(number: int) -> None:
    """A transaction of another program, and its end."""
    for text in (rules(number, "loaded"), "delete table inet loaded"):
        nft = await asyncio.create_subprocess_exec("nft", "-f", "-", stdin=subprocess.PIPE)
        await nft.communicate(text.encode())


def measure(fence: object) -> None:
    """Print the figures."""
    print("| profile | transactions per s | audit records per s, reckoned | `nft list ruleset` | renewal, median |")
    print("|---|---|---|---|---|")
    print(f"| no fence | 0 | 0 | {asyncio.run(listing())} | |")
    for name, (pause_s, length_s) in RATES.items():
        with renewing(fence, pause_s, length_s) as (loop, took):
            loop.run_until_complete(asyncio.sleep(1.0))
            before, began = transactions(), time.monotonic()
            loop.run_until_complete(asyncio.sleep(COUNTED_S))
            rate = (transactions() - before) / (time.monotonic() - began)
            listed = loop.run_until_complete(listing())
            middle = sorted(took)[len(took) // 2]
        print(f"| {name} | {rate:.1f} | {rate * TABLES:.0f} | {listed} | {middle * 1000:.2f} ms |")
    for number in WAITS_FOR:
        with renewing(fence, *OFTEN) as (loop, took):
            loop.run_until_complete(asyncio.sleep(0.5))
            loop.run_until_complete(loading(number))
        print(f"\nlongest renewal beside `nft -f` of {number} rules and their deletion: {max(took) * 1000:.0f} ms")


def main() -> int:
    """Measure. Returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tree", type=Path, metavar="PATH")
    tree = parser.parse_args().tree
    if tree:
        here = Path(__file__).resolve()
        os.environ["PYTHONPATH"] = str(tree.resolve())
        return subprocess.run([sys.executable, str(here)], check=False).returncode
    from govipd.adapters.kernel.fence import NftFence  # noqa: PLC0415  # of whichever tree
    from tests.adapters.namespaces import Namespace  # noqa: PLC0415

    host = Namespace()
    with host.inside():
        subprocess.run(["nft", "-f", "-"], input=rules(RULES, "foreign").encode(), check=True)
        tables: dict[str, Any] = {"table": "govipd_bench"}
        with suppress(ImportError):  # an earlier tree
            from govipd.adapters.kernel.fence_tables import FenceTables  # noqa: PLC0415
            from govipd.adapters.kernel.nftables import NfTables  # noqa: PLC0415

            tables = {"tables": FenceTables("bench", NfTables())}
        fence = NftFence(addresses=(VIP,), clock=Clock(), **tables)
        measure(fence)
    host.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
