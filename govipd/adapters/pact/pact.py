"""The pact between the leader and its successor (implements ports.Pact). The rules are in core.pact.

The keys of a pact stand beside the election, attached to the leader's lease:

- `<prefix>pact/<vip>/<lease>/offer`: to which member the leader offers a pact (pact.records.Offer);
- `<prefix>pact/<vip>/<lease>/force`: the pact is in force. A take-over compares its create revision.

A pact begins with the leader's datagrams, which the member named in the offer acknowledges. The leader writes `force`
only when its fence is short. A take-over is one transaction that deletes the leader's key, if `force`, the leader's key
and the successor's key are unchanged.
"""

import asyncio
import secrets
from collections.abc import Callable

from govipd.adapters.datagrams import Endpoint, id_of, unpacked
from govipd.adapters.election.claims import Claims
from govipd.adapters.etcd.api import Get, KeyValue, Store
from govipd.adapters.pact.leader import PactLeader
from govipd.adapters.pact.successor import PAUSE_S, PactSuccessor
from govipd.errors import EtcdError
from govipd.keys import GroupKeys
from govipd.runtime.ports import Clock, Datagrams, Sink

LOOK_S = 1.0  # seconds between two reads of the queue and of the offers


class EtcdPact:
    """One member's pacts in one election, as the leader or as its successor.

    Args:
        store: the etcd client.
        sink: where events go.
        clock: CLOCK_BOOTTIME.
        datagrams: the UDP port.
        timeout: T in seconds, of the pacts that this member offers.
        keys: where the group's keys are.
        claims: this member's claims (adapters.election.claims).
        own_key: this member's key in the queue, as last confirmed.
        queue_changed: called when this member has taken over, or lost its place by a take-over.
        token: makes a secret of that many bytes.
    """

    def __init__(
        self,
        *,
        store: Store,
        sink: Sink,
        clock: Clock,
        datagrams: Datagrams,
        timeout: float,
        keys: GroupKeys,
        claims: Claims,
        own_key: Callable[[], KeyValue | None],
        queue_changed: Callable[[], None],
        token: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._datagrams = datagrams
        self._keys = keys
        self._claims = claims
        self._own_key = own_key
        self._changed = asyncio.Event()  # wakes the negotiation
        self.leader = PactLeader(
            store=store, sink=sink, clock=clock, datagrams=datagrams, timeout=timeout, keys=keys, own_key=own_key,
            deposed=queue_changed, changed=self._changed.set, token=token,
        )  # fmt: skip
        self.successor = PactSuccessor(
            store=store, clock=clock, datagrams=datagrams, keys=keys, claims=claims, own_key=own_key,
            taken=queue_changed,
        )  # fmt: skip

    def lead(self) -> None:
        """See ports.Pact."""
        self.leader.lead()

    def stop(self) -> None:
        """See ports.Pact. The pact's keys may stay in etcd: without the leader's key they have no effect."""
        self.leader.stop()
        self.successor.stop()

    def enforce(self, pact: str) -> None:
        """See ports.Pact."""
        self.leader.enforce(pact)

    def end(self, pact: str) -> None:
        """See ports.Pact."""
        self.leader.end(pact)

    async def run(self) -> None:
        """See ports.Pact."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._datagrams.run(self._received))
            tasks.create_task(self._negotiate())
            tasks.create_task(self.leader.speak())
            tasks.create_task(self.successor.guard())

    async def _negotiate(self) -> None:
        """Do what the pact needs from etcd, one step after the other, until cancelled."""
        while True:
            self._changed.clear()
            pause = LOOK_S
            try:
                if not await self.leader.negotiate_once():
                    await self._look()
            except EtcdError:
                pause = PAUSE_S  # the election reports that etcd does not answer
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        """Read the queue and the offers. As the leader, offer a pact; as the successor, follow the leader's pact."""
        own = self._own_key()
        if own is None:
            return
        keys = self._keys
        gets = (Get(keys.queue, prefix=True), Get(keys.records, prefix=True), Get(keys.pacts, prefix=True))
        claims = self._claims.reads(self._claims.wanted)
        queue, records, offers, *claimed = (await self._store.txn((), (*gets, *claims))).gets
        first, *others = sorted(queue, key=lambda kv: kv.create_revision)[:2] or (own,)
        if first.create_revision == own.create_revision and others and self.leader.offers:
            await self.leader.offer(own, others[0], records)
        elif others and others[0].create_revision == own.create_revision:
            self.successor.follow(own, first, offers, tuple(kv for found in claimed for kv in found))

    def _received(self, data: bytes, source: Endpoint) -> None:
        pact = id_of(data)
        if secret := self.leader.secret_of(pact):
            if datagram := unpacked(data, secret):
                self.leader.received(datagram)
        elif (secret := self.successor.secret_of(pact)) and (datagram := unpacked(data, secret)):
            self.successor.received(datagram, source)


class NoPact:
    """Pacts are off (implements ports.Pact)."""

    async def run(self) -> None:
        """Wait until cancelled."""
        await asyncio.Event().wait()

    def lead(self) -> None:
        """See ports.Pact."""

    def stop(self) -> None:
        """See ports.Pact."""

    def enforce(self, pact: str) -> None:
        """See ports.Pact."""

    def end(self, pact: str) -> None:
        """See ports.Pact."""
