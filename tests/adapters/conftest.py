"""What the adapters' tests share: the real clock, an event sink one can wait for, network namespaces."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.fence_tables import FenceTables
from govipd.adapters.kernel.nftables import NfTables
from govipd.core.events import Event
from tests.adapters.etcd_cluster import Cluster
from tests.adapters.fencing import OPENED, OWN4, OWN6, V4, V6, Asker
from tests.adapters.namespaces import Namespace, wire


class BootClock:
    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeapingClock(BootClock):
    """Leaps ahead as a test says, as a process sees it that was stopped."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.leaps: list[float] = []  # before each of the next readings

    def now(self) -> float:
        if self.leaps:
            self.ahead += self.leaps.pop(0)
        return super().now() + self.ahead


class Events(list[Event]):
    """Collects events; a test waits until they satisfy it."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.append(event)
        self._more.set()

    async def until(self, satisfied: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not satisfied():
                self._more.clear()
                await self._more.wait()

    async def first(self, wanted: Callable[[Event], bool], since: int = 0) -> Event:
        """The first event from position `since` on that is wanted."""
        await self.until(lambda: any(map(wanted, self[since:])))
        return next(filter(wanted, self[since:]))


@pytest.fixture(autouse=True)
def sockets_closed() -> Iterator[None]:
    """Those of fencing.own_tables()."""
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture
def clock() -> LeapingClock:
    return LeapingClock()


@pytest.fixture
async def events() -> Events:
    return Events()


class Wire:
    """Two machines on one wire, eth0 to eth0. The test itself runs on `host`."""

    def __init__(self) -> None:
        self.host = Namespace()
        self.peer = Namespace()
        wire(self.host, self.peer)


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Cluster]:
    """A new etcd with one member, for each test."""
    with Cluster(tmp_path).running() as cluster:
        yield cluster


@pytest.fixture
def net() -> Iterator[Wire]:
    pair = Wire()
    with pair.host.inside():
        yield pair
    pair.host.close()
    pair.peer.close()


@pytest.fixture
def machines(net: Wire) -> Wire:
    """The host has its own addresses and the VIP's; the peer is in the same networks."""
    for address in (OWN4, V4):
        net.host.ip(f"address add {address} dev eth0")
    for address in (OWN6, V6):
        net.host.ip(f"address add {address} dev eth0 nodad")
    net.peer.ip("address add 192.0.2.1/24 dev eth0")
    net.peer.ip("address add 2001:db8::1/64 dev eth0 nodad")
    net.peer.run("sysctl", "-q", "net.ipv4.ping_group_range=0 0")
    return net


@pytest.fixture(params=[V4, V6], ids=["IPv4", "IPv6"])
def vip(machines: Wire, request: pytest.FixtureRequest) -> Iterator[Asker]:
    asker = Asker(machines.host, machines.peer, request.param)
    yield asker
    asker.close()


@pytest.fixture
async def fence(net: Wire, clock: LeapingClock) -> AsyncIterator[NftFence]:
    """As it is on kernels whose tables have no owners: everybody may change it."""
    kernel = NfTables(owns=False)
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=FenceTables("eth0", kernel))
    yield fence
    await fence.remove()
    kernel.close()
