"""A rule that schedules cannot test alone: a renewal and its proof must be of one term of raft."""

import asyncio

from govipd.adapters.etcd.api import Renewal
from govipd.core.events import EtcdState, LeaseRenewed
from tests.candidate import candidate
from tests.fakes import FakeClock
from tests.fuzz.memory_store import Collected, MemoryStore


class DeposedRenewer(MemoryStore):
    """Keep-alives are answered by the leader of term 0, transactions in term 1."""

    async def renew(self, lease: int) -> Renewal:
        return Renewal(3.0, term=0)


async def test_a_renewal_by_a_deposed_leader_does_not_count() -> None:
    """Only the grant is reported. The renewals are repeated, and the trouble is reported."""
    store, events = DeposedRenewer(), Collected()
    running = asyncio.ensure_future(candidate(store, events, FakeClock(), "a").run())
    try:
        async with asyncio.timeout(10):
            while not any(isinstance(e, EtcdState) and "changed its leader" in e.detail for e in events):
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sum(isinstance(e, LeaseRenewed) for e in events) == 1
