"""Reads of several groups in one transaction: few transactions, and each group gets its own answer or error."""

import asyncio
from collections.abc import Sequence

import pytest

from govipd.adapters.election.reads import GETS_MAX, CollectedReads
from govipd.adapters.etcd.api import Get, KeyValue, TxnResult
from govipd.errors import EtcdError, EtcdRefusedError, EtcdUnavailableError


class Etcd:
    """Answers each Get with its own key; refuses, or does not answer, where a key says so."""

    def __init__(self) -> None:
        self.sent: list[Sequence[Get]] = []

    async def send(self, gets: Sequence[Get]) -> TxnResult:
        self.sent.append(gets)
        await asyncio.sleep(0)
        keys = {get.key for get in gets}
        if "refused" in keys:
            raise EtcdRefusedError("permission denied")
        if "silent" in keys:
            raise EtcdUnavailableError("no answer")
        return TxnResult(True, 7, tuple((KeyValue(get.key, b"", 1, 0),) for get in gets), term=3)


async def test_what_is_asked_for_at_the_same_time_goes_out_together() -> None:
    etcd = Etcd()
    reads = CollectedReads(etcd.send)
    answers = await asyncio.gather(*(reads.read([Get(f"{n}a"), Get(f"{n}b")]) for n in range(10)))
    assert len(etcd.sent) == 1
    for n, answer in enumerate(answers):
        assert [found[0].key for found in answer.gets] == [f"{n}a", f"{n}b"]
        assert (answer.revision, answer.term) == (7, 3)


async def test_a_read_goes_out_after_it_was_asked_for() -> None:
    """An answer that was under way before proves nothing about now."""
    etcd = Etcd()
    reads = CollectedReads(etcd.send)
    first = asyncio.ensure_future(reads.read([Get("a")]))
    while not etcd.sent:
        await asyncio.sleep(0)
    await asyncio.gather(first, reads.read([Get("b")]))
    assert [[get.key for get in gets] for gets in etcd.sent] == [["a"], ["b"]]


async def test_no_transaction_has_more_operations_than_etcd_allows() -> None:
    """A single read is never divided, also if it is longer than GETS_MAX."""
    etcd = Etcd()
    reads = CollectedReads(etcd.send)
    sizes = [40, 40, 40, GETS_MAX + 1, 1]
    answers = await asyncio.gather(*(reads.read([Get("x")] * size) for size in sizes))
    assert [len(answer.gets) for answer in answers] == sizes
    assert [len(gets) for gets in etcd.sent] == [80, 40, GETS_MAX + 1, 1]


@pytest.mark.parametrize(("key", "error", "alone"), [
    ("refused", EtcdRefusedError, True), ("silent", EtcdUnavailableError, False),
])  # fmt: skip
async def test_a_refused_read_fails_alone(key: str, error: type[EtcdError], *, alone: bool) -> None:
    """One group's missing right is its own trouble. Without an answer, all of them have none."""
    reads = CollectedReads(Etcd().send)
    bad, good = await asyncio.gather(reads.read([Get(key)]), reads.read([Get("a")]), return_exceptions=True)
    assert isinstance(bad, error)
    assert isinstance(good, TxnResult if alone else error)
    assert good is not bad


async def test_a_fault_reaches_each_task_that_asked() -> None:
    """A task that waits for ever would look like an etcd that is silent, while the lease is renewed."""

    async def broken(_: Sequence[Get]) -> TxnResult:
        raise RuntimeError("a fault")

    reads = CollectedReads(broken)
    ended = await asyncio.gather(*(reads.read([Get(key)]) for key in "ab"), return_exceptions=True)
    assert [str(error) for error in ended] == ["a fault", "a fault"]


async def test_a_reader_that_goes_away_takes_nothing_from_the_others() -> None:
    reads = CollectedReads(Etcd().send)
    gone = asyncio.ensure_future(reads.read([Get("a")]))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await reads.read([Get("b")])).gets[0][0].key == "b"
