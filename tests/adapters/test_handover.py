"""Passing the VIP on, against a real etcd and over real UDP."""

import asyncio
import json
from ipaddress import ip_address

import pytest

from govipd.adapters.datagrams import SIZE, Datagram, Endpoint, Kind, UdpSocket
from govipd.adapters.election.claimant import UNORDERLY_S
from govipd.adapters.election.handover import HandoverOffer
from govipd.core.events import Elected, Queued, Resigned, SuccessorReady
from tests.adapters.etcd_cluster import Cluster
from tests.adapters.member import Member, running

OFFER = HandoverOffer(7, 8, b"abcdefgh", b"0123456789abcdef", ("192.0.2.11", 4711))
OFFERS, MARK = "govip/handover/api/", "govip/released/api"


async def stand(etcd: Cluster, *members: Member) -> None:
    """In this order in the queue, and the first one may have taken the VIP."""
    for member in members:
        member.election.publish({"state": "candidate", "addresses": ["192.0.2.1/32"]})
        member.election.campaign(1)
        await member.until(lambda e: isinstance(e, Queued | Elected))
    await asyncio.sleep(UNORDERLY_S)


async def test_the_next_one_is_first_and_ready_while_the_old_one_still_answers(etcd: Cluster) -> None:
    """Then a datagram ends its wait, long before the time does; mark and note are as after a resignation."""
    a, b = Member(etcd.endpoints, "a"), Member(etcd.endpoints, "b")
    async with running(a, b):
        await stand(etcd, a, b)
        a.election.hand_over(1)
        first = await b.sees(Elected)
        assert await a.sees(SuccessorReady) == SuccessorReady(1)
        assert isinstance(first, Elected)
        key = json.loads(etcd.ctl("get", "--prefix", "govip/election/", "-w", "json"))["kvs"]
        assert [kv["lease"] for kv in key] == [first.lease_id]
        assert etcd.ctl("get", MARK) == ""
        since = len(b.events)
        await a.election.fence_closed()  # resign() follows, but the successor need not wait for it
        freed = await b.sees(Elected, since)
        a.election.resign(1)
        assert isinstance(freed, Elected)
        assert freed.not_before < first.not_before
        assert await a.sees(Resigned) == Resigned(1)
        assert etcd.ctl("get", MARK) != ""
        assert etcd.ctl("get", "--prefix", OFFERS) == ""


async def test_those_between_are_passed_over(etcd: Cluster) -> None:
    """As a handover to a named member does."""
    a, b, c = (Member(etcd.endpoints, name) for name in "abc")
    async with running(a, b, c):
        await stand(etcd, a, b, c)
        assert await a.election.successors() == ["b", "c"]
        a.election.hand_over(1, "c")
        await a.sees(SuccessorReady)
        a.election.resign(1, "c")
        await a.sees(Resigned)
        await c.until(lambda e: isinstance(e, Elected))


async def test_without_datagrams_the_mark_ends_the_wait(etcd: Cluster) -> None:
    """A firewall costs some milliseconds."""
    a, b = Member(etcd.endpoints, "a"), Member(etcd.endpoints, "b")
    b.election._contender.receiver._udp_socket = UdpSocket(None)
    async with running(a, b):
        await stand(etcd, a, b)
        a.election.hand_over(1)
        first = await b.sees(Elected)
        since = len(b.events)
        a.election.resign(1)
        assert isinstance(first, Elected)
        await b.until(lambda e: isinstance(e, Elected) and e.not_before < first.not_before, since)


@pytest.mark.parametrize("how", ["alone", "no address", "behind a foreign candidate", "etcd is away"])
async def test_where_no_member_can_be_made_ready_that_is_reported_at_once(etcd: Cluster, how: str) -> None:
    """And the key stays until the resignation, which is an ordinary one."""
    a, b = Member(etcd.endpoints, "a"), Member(etcd.endpoints, "b")
    async with running(a, b):
        await stand(etcd, a)
        if how == "behind a foreign candidate":  # it would take at once when our key goes
            lease = etcd.ctl("lease", "grant", "60").split()[1]
            etcd.ctl("put", f"--lease={lease}", f"govip/election/api/{lease}", "other")
        if how != "alone":
            await stand(etcd, b)
        if how == "no address":
            a.election._contender.sender._udp_socket = UdpSocket(None)
        if how == "etcd is away":
            etcd.stop()
        a.election.hand_over(1)
        assert await a.sees(SuccessorReady) == SuccessorReady(1)
        if how != "etcd is away":
            assert "\na\n" in etcd.ctl("get", "--prefix", "govip/election/")
            a.election.resign(1)
            await a.sees(Resigned)
            assert etcd.ctl("get", MARK) != ""


async def test_a_successor_of_a_leader_that_dies_in_a_handover_waits(etcd: Cluster) -> None:
    """For longer than the other's fence may last."""
    a, b = Member(etcd.endpoints, "a"), Member(etcd.endpoints, "b")
    async with running(a, b):
        await stand(etcd, a, b)
        before = asyncio.get_running_loop().time()
        a.election.hand_over(1)
        first = await b.sees(Elected)
        assert isinstance(first, Elected)
        assert first.not_before >= before + UNORDERLY_S


async def test_only_the_offers_secret_opens(etcd: Cluster) -> None:
    """Datagrams of others, of another passing, of the wrong kind, or of any bytes, are nothing."""
    a, b = Member(etcd.endpoints, "a"), Member(etcd.endpoints, "b")
    b.election._contender.receiver._udp_socket = UdpSocket(None)  # so that no READY is sent
    stranger, heard = UdpSocket(ip_address("127.0.0.1")), asyncio.Queue[bytes]()
    async with running(a, b):
        await stand(etcd, a, b)
        a.election.hand_over(1)
        await b.sees(Elected)
        kvs = etcd.ctl("get", "--prefix", OFFERS, "--print-value-only")
        note = HandoverOffer.parsed(kvs.encode())
        assert note is not None
        stranger.open(lambda data, _: heard.put_nowait(data))
        ready = Datagram(Kind.READY, note.id).packed(note.secret)
        for data in (
            b"", b"x" * SIZE, ready + b"x", Datagram(Kind.READY, note.id).packed(b"another"),
            Datagram(Kind.READY, b"12345678").packed(note.secret), Datagram(Kind.CLOSED, note.id).packed(note.secret),
        ):  # fmt: skip
            stranger.send(data, note.to)
        await asyncio.sleep(0.05)
        assert not any(isinstance(e, SuccessorReady) for e in a.events)
        stranger.send(ready, note.to)
        await a.sees(SuccessorReady)
        assert heard.empty()  # its fence is not closed
        a.election.resign(1)
        assert await asyncio.wait_for(heard.get(), 10) == Datagram(Kind.CLOSED, note.id).packed(note.secret)
    stranger.close()


def test_a_note_is_read_as_it_was_written() -> None:
    assert HandoverOffer.parsed(OFFER.packed()) == OFFER


@pytest.mark.parametrize(
    "change",
    [
        {"left": None},
        {"id": "00"},
        {"id": "x"},
        {"secret": ""},
        {"to": "a:1"},
        {"to": ["a"]},
        {"to": ["a", 0]},
        {"to": ["a", 65536]},
    ],
)
def test_a_note_that_makes_no_sense_is_none(change: dict[str, object]) -> None:
    """A user that may write below the prefix can write anything."""
    fields = json.loads(OFFER.packed())
    assert HandoverOffer.parsed(json.dumps({**fields, **change}).encode()) is None
    assert HandoverOffer.parsed(b"x") is None
    assert HandoverOffer.parsed(b"[]") is None


async def test_a_postbox_without_a_usable_address_is_none() -> None:
    """No machine has 192.0.2.1 here."""
    assert UdpSocket(None).open(lambda _data, _source: None) is None
    box = UdpSocket(ip_address("192.0.2.1"))
    assert box.open(lambda _data, _source: None) is None
    box.send(b"x", ("127.0.0.1", 1))
    box.close()


async def test_a_postbox_survives_what_is_refused() -> None:
    """No process listens there: the kernel reports that by an error on the socket."""
    box, heard = UdpSocket(ip_address("127.0.0.1")), asyncio.Queue[tuple[bytes, Endpoint]]()
    own = box.open(lambda data, source: heard.put_nowait((data, source)))
    assert own is not None
    box.send(b"x", ("127.0.0.1", 1))
    box.send(b"x", ("no address", 1))
    box.send(b"y", own)
    assert await asyncio.wait_for(heard.get(), 10) == (b"y", own)
    box.close()
