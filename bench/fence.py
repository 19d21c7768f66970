"""`make bench-fence`: how precisely the kernel ends a lease, and whether a renewal costs packets.

A host with the VIP behind NftFence and a peer, in two network namespaces. The peer asks by echo requests, one
each millisecond, from a process of its own; it sees when the last answer came, by the clock of `until`.
"""

import asyncio
import multiprocessing as mp
import socket
import statistics
import sys
import time
from ipaddress import ip_interface
from multiprocessing.connection import Connection

from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.fence_tables import FenceTables
from govipd.adapters.kernel.nftables import NfTables
from tests.adapters.namespaces import Namespace, wire

VIP = ip_interface("192.0.2.100/32")
RUNS = 100
TIMEOUTS_S = (0.1, 0.5, 2.0)
RENEWALS = 1000


class Clock:
    """CLOCK_BOOTTIME."""

    def now(self) -> float:
        """Seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def ask(peer: Namespace, pipe: Connection, pause_s: float) -> None:
    """Ask until the pipe says so. Send the times of the answers, and the number of questions.

    A question stamps itself: the answer brings the stamp back, so that an answer is counted at the time at which it
    was asked for and given, not at the one at which this process came to read it.
    """
    with peer.inside():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    s.setblocking(False)
    clock = Clock()
    while pipe.recv():
        answers: list[float] = []
        asked = 0
        while not pipe.poll():
            stamp = clock.now()
            s.sendto(b"\x08" + bytes(7) + f"{stamp:.6f}".encode(), (str(VIP.ip), 0))
            asked += 1
            until = stamp + pause_s
            while True:
                try:
                    answers.append(float(s.recv(1000)[8:]))
                except BlockingIOError:
                    if clock.now() >= until:
                        break
        pipe.recv()
        time.sleep(0.05)
        while True:
            try:
                answers.append(float(s.recv(1000)[8:]))
            except BlockingIOError:
                break
        pipe.send((answers, asked))


async def measure(fence: NftFence, pipe: Connection) -> bool:
    """Print the figures. Returns whether no packet was lost and no answer came after the deadline."""
    clock = Clock()
    good = True
    print(f"| time-out | last answer before the end, median of {RUNS} | earliest | latest |")
    print("|---|---|---|---|")
    for timeout in TIMEOUTS_S:
        early = []
        for _ in range(RUNS):
            pipe.send(True)
            until = clock.now() + timeout
            await fence.open(until)
            await asyncio.sleep(timeout + 0.05)
            pipe.send(False)
            answers, _ = await asyncio.to_thread(pipe.recv)
            early.append(until - max(answers))
        good = good and min(early) >= 0
        print(f"| {timeout * 1000:.0f} ms | {statistics.median(early) * 1000:.1f} ms | {max(early) * 1000:.1f} ms "
              f"| {min(early) * 1000:.1f} ms |")  # fmt: skip
    await fence.open(clock.now() + 5)
    pipe.send(True)
    for _ in range(RENEWALS):
        await fence.open(clock.now() + 5)
        await asyncio.sleep(0.002)
    pipe.send(False)
    answers, asked = await asyncio.to_thread(pipe.recv)
    good = good and len(answers) == asked
    print(f"\n{RENEWALS} renewals under flood: {asked} asked, {asked - len(answers)} lost")
    return good


def main() -> int:
    """Measure. Returns the exit status."""
    host, peer = Namespace(), Namespace()
    wire(host, peer)
    host.ip("address add 192.0.2.10/24 dev eth0")
    host.ip(f"address add {VIP} dev eth0")
    peer.ip("address add 192.0.2.1/24 dev eth0")
    peer.run("sysctl", "-q", "net.ipv4.ping_group_range=0 0")
    mac = host.ip("-o link show dev eth0").partition("link/ether ")[2].split()[0]
    peer.ip(f"neigh replace {VIP.ip} lladdr {mac} dev eth0 nud permanent")
    ours, theirs = mp.Pipe()
    asker = mp.get_context("fork").Process(target=ask, args=(peer, theirs, 0.001), daemon=True)
    asker.start()
    with host.inside():
        fence = NftFence(addresses=(VIP,), clock=Clock(), tables=FenceTables("bench", NfTables()))
        good = asyncio.run(measure(fence, ours))
    asker.terminate()
    asker.join()
    print(f"fence: {'ok' if good else 'FAULT'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
