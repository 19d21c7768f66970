"""A candidate at a real etcd, and everything it reported."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

from govipd.adapters.etcd.client import EtcdClient
from govipd.core.events import Event
from tests.adapters.conftest import Events
from tests.candidate import Candidate, candidate


class MonotonicClock:
    def now(self) -> float:
        return time.monotonic()


class Member:
    """One candidate and everything it reported."""

    def __init__(
        self,
        endpoints: list[str],
        name: str,
        machine: str = "",
        addresses: str = "192.0.2.1/32",
        *,
        vip: str = "api",
        runtime: Path | None = None,
        store: type[EtcdClient] = EtcdClient,
        beside: "Member | None" = None,
    ) -> None:
        self.events = Events()
        self.on_event: Callable[[Event], object] = lambda _: None
        self.store: EtcdClient = beside.store if beside else store(endpoints, timeout=0.5)
        self.parts: Candidate = candidate(
            self.store,
            self._sink,
            MonotonicClock(),
            name,
            vip=vip,
            identity={"machine": machine or name, "node": f"192.0.2.{len(name)}"},
            addresses=addresses,
            reachable=ip_address("127.0.0.1"),
            runtime=runtime,
            beside=beside.parts if beside else None,
        )
        self.parts.membership.publish({"addresses": addresses.split()})
        self.election, self.claims = self.parts.election, self.parts.claims

    def _sink(self, event: Event) -> None:
        self.events(event)
        self.on_event(event)

    async def until(self, wanted: Callable[[Event], bool], since: int = 0) -> Event:
        return await self.events.first(wanted, since)

    async def sees(self, kind: type[Event], since: int = 0) -> Event:
        return await self.until(lambda e: isinstance(e, kind), since)


@asynccontextmanager
async def running(*members: Member) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(m.parts.run()) for m in members]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for member in members:
            await member.parts.close()
            await member.store.close()
        assert all(isinstance(e, asyncio.CancelledError) for e in ended), ended
