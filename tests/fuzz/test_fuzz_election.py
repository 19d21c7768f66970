"""What others write into etcd, into the members' records and the queue: events in good form, and no crash."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govipd.adapters.etcd.api import KeyValue
from govipd.core.events import ClusterFault, Elected, EtcdState, LeaseRenewed, Queued
from tests.candidate import candidate
from tests.fakes import FakeClock
from tests.fuzz.memory_store import Collected, MemoryStore
from tests.fuzz.strategies import (
    LARGE_EXAMPLES,
    finish,
    fuzz,
    is_line,
    json_values,
    key_values,
    mutated,
    nested,
    raw,
    texts,
)

pytestmark = LARGE_EXAMPLES

MEMBERS = "govip/members/api/"
QUEUE = "govip/election/api"
MARK = "govip/released/api"
OURS = {"addresses": ["192.0.2.100/32"]}
HONEST = json.dumps({"machine": "m2", "node": "node2", "state": "leader", "addresses": ["192.0.2.101/32"]}).encode()

anything = json_values()
records = st.fixed_dictionaries(
    {},
    optional={
        "machine": st.just("m1") | anything,
        "node": texts | anything,
        "addresses": st.lists(texts | anything, max_size=5) | anything,
        "state": anything,
    },
)
encodings = st.sampled_from(("utf-8", "utf-16", "utf-32-le", "latin-1"))
values = (
    st.builds(lambda r, e: json.dumps(r, ensure_ascii=False).encode(e, "replace"), records, encodings)
    | records.map(lambda r: json.dumps(r).encode())  # with \ud800, which JSON allows
    | mutated(HONEST)
    | nested
    | raw
)


async def take_a_turn(members: list[KeyValue]) -> list[ClusterFault]:
    """One registration and one look, as the election does them; what it had to say."""
    told = Collected()
    store = MemoryStore(*members)
    identity = {"machine": "m1", "node": "node1"}
    membership = candidate(store, told, FakeClock(), "node1", identity=identity).membership
    membership.publish(OURS)
    await membership.register(77)
    turn = asyncio.create_task(membership.run(77))
    for _ in range(5):  # the store answers at once
        await asyncio.sleep(0)
    turn.cancel()
    await asyncio.wait([turn])
    assert turn.cancelled(), turn.exception()
    assert MEMBERS + "node1" in store.content
    faults = [event for event in told if isinstance(event, ClusterFault)]
    assert len(faults) == len(told)
    return faults


@given(st.lists(key_values(MEMBERS, values), max_size=4), st.none() | values)
@fuzz(300)
def test_no_record_of_another_member_breaks_ours(others: list[KeyValue], namesake: bytes | None) -> None:
    members = others if namesake is None else [*others, KeyValue(MEMBERS + "node1", namesake, 7, 5)]
    finish(take_a_turn(members))


@given(st.lists(key_values(MEMBERS, values), max_size=4), st.none() | values)
@fuzz(200)
def test_a_report_on_other_members_is_one_bounded_line(others: list[KeyValue], namesake: bytes | None) -> None:
    """It goes to the journal, to the status line, and into our own record."""
    members = others if namesake is None else [*others, KeyValue(MEMBERS + "node1", namesake, 7, 5)]

    async def work() -> None:
        for fault in await take_a_turn(members):
            assert is_line(fault.refused), fault.refused[:300]
            assert is_line(fault.warning), fault.warning[:300]

    finish(work())


def test_a_warning_about_many_members_is_bounded() -> None:
    """However many records there are."""

    async def work() -> None:
        members = [KeyValue(f"{MEMBERS}other{i}", HONEST, i, i) for i in range(1, 500)]
        assert all(is_line(fault.warning) for fault in await take_a_turn(members))

    finish(work())


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_record_at_the_edge_of_the_recursion_limit_is_shown(opening: str) -> None:
    """Where json can read it, str() must be able to write it."""

    async def work() -> None:
        closing = "]" if opening == "[" else "}"
        for depth in range(850, 1000):
            record = f'{{"addresses": [{opening * depth}1{closing * depth}]}}'.encode()
            await take_a_turn([KeyValue(f"{MEMBERS}node2", record, 3, 4)])

    finish(work())


async def campaign(store: MemoryStore) -> Collected:
    """Stand for election until there is a place; what it had to say."""
    told = Collected()
    identity = {"machine": "m1", "node": "node1"}
    ours = candidate(store, told, FakeClock(), "node1", election=QUEUE, identity=identity)
    ours.election.campaign(1)
    session = asyncio.create_task(ours.run())
    placed = asyncio.create_task(told.until(Queued | Elected))  # type: ignore[arg-type]  # isinstance takes unions
    await asyncio.wait({session, placed}, return_when=asyncio.FIRST_COMPLETED)
    assert not session.done(), session.exception()
    for _ in range(3):
        ours.election.verify()
        await asyncio.sleep(0)
    session.cancel()
    await asyncio.wait([session])
    assert session.cancelled(), session.exception()
    return told


candidates = st.lists(
    key_values(f"{QUEUE}/", raw | texts.map(lambda t: t.encode(errors="replace")) | values), max_size=4
)
marks = st.none() | raw | st.integers().map(lambda n: str(n).encode())


def contents(queue: list[KeyValue], mark: bytes | None) -> list[KeyValue]:
    """No other has the key that our lease names: its revision decides, and it would be ours."""
    others = [kv for kv in queue if kv.key != f"{QUEUE}/4d"]
    return others if mark is None else [*others, KeyValue(MARK, mark, 2, 0)]


@given(candidates, marks)
@fuzz(250)
def test_no_queue_breaks_the_election(queue: list[KeyValue], mark: bytes | None) -> None:
    async def work() -> None:
        told = await campaign(MemoryStore(*contents(queue, mark)))
        assert {type(event) for event in told} <= {ClusterFault, Elected, EtcdState, LeaseRenewed, Queued}
        assert any(isinstance(event, Queued) for event in told) == bool(contents(queue, None))

    finish(work())


@given(candidates, marks)
@fuzz(150)
def test_the_name_of_the_one_ahead_is_one_bounded_line(queue: list[KeyValue], mark: bytes | None) -> None:
    """It goes to the status line and into our own record."""

    async def work() -> None:
        for event in await campaign(MemoryStore(*contents(queue, mark))):
            if isinstance(event, Queued):
                assert is_line(event.ahead, 300), event.ahead[:300]

    finish(work())
