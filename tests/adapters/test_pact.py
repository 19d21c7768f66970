"""The pact over real UDP and a real etcd: offered, in force, ended, and what the leader's silence leads to."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from govipd.adapters.datagrams import SIZE, Datagram, Kind, UdpPort, id_of, unpacked
from govipd.adapters.etcd.client import EtcdClient
from govipd.adapters.pact.leader import ANSWERS_FIRST
from govipd.adapters.pact.pact import EtcdPact
from govipd.core.events import Deposed, Elected, Event, PactAnswered, PactEnded, Queued
from tests.adapters.conftest import BootClock, Events
from tests.adapters.etcd_cluster import Cluster, free_ports
from tests.candidate import candidate

T = 1.0  # long enough for a slow machine
SECRET = b"0123456789abcdef"


class Member:
    """One candidate with its half of the pact, and everything it reported."""

    def __init__(self, etcd: Cluster, name: str) -> None:
        self.events = Events()
        self.port = UdpPort(("127.0.0.1", free_ports(1)[0]))
        store = EtcdClient(etcd.endpoints, timeout=0.5)
        parts = candidate(
            store, self.events, BootClock(), name, ttl=10.0,
            identity={"machine": name, "pact": ":".join(map(str, self.port.endpoint))},
        )  # fmt: skip
        self.run, self.election = parts.run, parts.election
        self.pact = EtcdPact(
            store=store, sink=self.events, clock=BootClock(), datagrams=self.port, timeout=T,
            keys=parts.keys, claims=parts.claims, own_key=self.election.own_key, queue_changed=self.election.verify,
        )  # fmt: skip
        self.store = store

    async def until(self, wanted: Callable[[Event], bool], since: int = 0) -> Event:
        return await self.events.first(wanted, since)

    async def sees(self, kind: type[Event], since: int = 0) -> Event:
        return await self.until(lambda e: isinstance(e, kind), since)


@asynccontextmanager
async def in_force(etcd: Cluster) -> AsyncIterator[tuple[Member, Member, str]]:
    """A leader and its successor with a pact that etcd says is in force, and its id."""
    one, two = Member(etcd, "node1"), Member(etcd, "node2")
    tasks = [asyncio.ensure_future(work) for m in (one, two) for work in (m.run(), m.pact.run())]
    try:
        one.election.campaign(1)
        await one.sees(Elected)
        one.pact.lead()
        two.election.campaign(1)
        await two.sees(Queued)
        answered = await one.sees(PactAnswered)
        assert isinstance(answered, PactAnswered)
        one.pact.enforce(answered.pact)
        async with asyncio.timeout(20):
            while two.pact.successor._following is None or not two.pact.successor._following.half.revision:
                await asyncio.sleep(0.01)
        yield one, two, answered.pact
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in (one, two):
            await member.store.close()


def pact_keys(etcd: Cluster) -> list[str]:
    keys = etcd.ctl("get", "--prefix", "--keys-only", "govip/pact/").split()
    return [key.rpartition("/")[2] for key in keys]


async def test_a_pact_is_offered_answered_and_in_force(etcd: Cluster) -> None:
    """The acknowledged instant is the one that was sent. etcd has two keys, under the leader's lease."""
    async with in_force(etcd) as (one, _two, _pact):
        assert pact_keys(etcd) == ["force", "offer"]
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        answered = await one.until(lambda e: isinstance(e, PactAnswered) and e.sent_at > before)
        assert isinstance(answered, PactAnswered)
        assert answered.sent_at < time.clock_gettime(time.CLOCK_BOOTTIME)
        assert answered.timeout == T


async def test_a_silent_leader_is_succeeded_within_the_pact_not_the_lease(etcd: Cluster) -> None:
    """The successor leads at once: the mark says that nobody has to be waited for. The leader learns it."""
    async with in_force(etcd) as (one, two, _pact):
        one.port.send = lambda data, to: None  # type: ignore[method-assign]  # its cable is pulled, for datagrams
        elected = await two.sees(Elected)
        assert isinstance(elected, Elected)
        assert elected.not_before <= time.clock_gettime(time.CLOCK_BOOTTIME)
        await one.sees(Deposed)
        assert not any(isinstance(event, PactEnded) for event in one.events)
        assert pact_keys(etcd) == []


async def test_an_ended_pact_gives_no_member_the_right_to_take_over(etcd: Cluster) -> None:
    """Confirmed to the leader; the successor stays where it is, however silent the leader is afterwards."""
    async with in_force(etcd) as (one, two, pact):
        one.pact.end(pact)
        assert await one.sees(PactEnded) == PactEnded(pact)
        one.pact.stop()
        await asyncio.sleep(1.5 * T)
        assert not any(isinstance(event, Elected) for event in two.events)
        assert pact_keys(etcd) == []


async def test_a_resignation_ends_the_pact(etcd: Cluster) -> None:
    """In the same transaction."""
    async with in_force(etcd) as (one, two, _pact):
        one.pact.stop()
        one.election.resign(1)
        await two.sees(Elected)
        assert pact_keys(etcd) == []


async def test_a_successor_that_does_not_answer_gets_no_right(etcd: Cluster) -> None:
    """A firewall, or pacts that are off there: the offer is withdrawn, and the leader is not bound."""
    one, two = Member(etcd, "node1"), Member(etcd, "node2")
    tasks = [asyncio.ensure_future(work) for work in (one.run(), one.pact.run(), two.run())]
    try:
        one.election.campaign(1)
        await one.sees(Elected)
        two.election.campaign(1)
        await two.sees(Queued)
        one.pact.lead()
        ended = await one.sees(PactEnded)
        assert isinstance(ended, PactEnded)
        assert not any(isinstance(event, PactAnswered) for event in one.events)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in (one, two):
            await member.store.close()


async def test_foreign_offers_and_records_are_passed_over(etcd: Cluster) -> None:
    """Any other value in place of an offer or of a UDP port is ignored."""
    async with in_force(etcd) as (one, two, pact):
        own = one.election.own_key()
        assert own is not None
        for value in ("", "{}", "[]", json.dumps({"leader": "x"}), json.dumps({"pact": 7, "timeout": -1})):
            etcd.ctl("put", f"govip/pact/api/{own.lease:x}/offer", value)
            two.pact._changed.set()
            await asyncio.sleep(0.05)
        answered = await one.until(lambda e: isinstance(e, PactAnswered), len(one.events))
        assert isinstance(answered, PactAnswered)
        assert answered.pact == pact


def test_a_datagram_is_what_it_was_or_nothing() -> None:
    """Any other secret, length, magic or bit is refused."""
    datagram = Datagram(Kind.LIVES, b"abcdefgh", 7, 8)
    data = datagram.packed(SECRET)
    assert len(data) == SIZE
    assert id_of(data) == b"abcdefgh"
    assert unpacked(data, SECRET) == datagram
    assert unpacked(data, b"another") is None
    for own_key in range(len(data)):
        assert unpacked(data[:own_key] + bytes([data[own_key] ^ 1]) + data[own_key + 1 :], SECRET) is None
    for other in (b"", data[:-1], data + b"x", b"gvp2" + data[4:]):
        assert id_of(other) is None


async def test_a_port_that_is_taken_is_reported_once() -> None:
    """The VIP is held by the lease alone; another program may yet let go of it."""
    told: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = UdpPort(other.getsockname(), told.append)
        task = asyncio.ensure_future(port.run(lambda _data, _source: None))
        while not told:
            await asyncio.sleep(0.01)
        port.send(b"lost", ("127.0.0.1", 9))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(told) == 1
    assert "Address already in use" in told[0]


async def test_hostile_datagrams_are_dropped(etcd: Cluster) -> None:
    """Noise, a wrong code, a sequence number that was never sent: ignored, and the pact stays."""
    async with in_force(etcd) as (one, two, _pact):
        leading = one.pact.leader._leading
        assert leading is not None
        here = one.port.endpoint
        for data in (
            b"", b"x" * SIZE, Datagram(Kind.HEARD, leading.pact, 1 << 40).packed(leading.secret),
            Datagram(Kind.HEARD, leading.pact, leading.sequence).packed(b"another"),
        ):  # fmt: skip
            two.port.send(data, here)
        answers = leading.answers
        await one.until(lambda e: isinstance(e, PactAnswered), len(one.events))
        assert ANSWERS_FIRST <= answers < leading.answers
