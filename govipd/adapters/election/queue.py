"""A member's place in an election's queue, and how it waits for the queue to change."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from govipd.adapters.etcd.api import KeyValue, Store


class Wake(Enum):
    """Why a wait has ended."""

    KEY = "the key changed"
    EVENT = "something else is wanted"
    TIME = "the time has passed"


@dataclass(slots=True)
class Place:
    """One member's place in the queue.

    Attributes:
        key: our key, as etcd confirmed it; None where we are not in the queue.
        put_unanswered: a put of our key got no answer: the put may take effect as long as the lease lives.
        ahead: create revision of the last key that we saw ahead of ours.
        not_before: when we may activate the VIP, in seconds of CLOCK_BOOTTIME; None while we are not first.
        adopted: the key is an earlier process's. A pact of that process must end first.
    """

    key: KeyValue | None = None
    put_unanswered: bool = False
    ahead: int | None = None
    not_before: float | None = None
    adopted: bool = False


def ahead_of(queue: Sequence[KeyValue], key: KeyValue) -> Sequence[KeyValue]:
    """The key just ahead of `key`; empty where `key` is first."""
    before = (kv for kv in queue if kv.create_revision < key.create_revision)
    return sorted(before, key=lambda kv: kv.create_revision)[-1:]


class KeyWatch:
    """Waits until a key changes. One watch serves all waits for the same key, until the key changes.

    A watch starts one after the revision just read. A watch that starts at that revision is "unsynced" for etcd, and
    etcd serves it in a loop that runs every 100 ms (etcd, server/storage/mvcc/watchable_store.go). A watch that an
    earlier wait has started also reports a change that the present caller has read already: it looks once more.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key = ""
        self._watch: asyncio.Future[Any] | None = None

    async def wait(self, key: str, revision: int, or_event: asyncio.Event, seconds: float) -> Wake:
        """Wait until `key` changes after `revision`, or the event is set, or `seconds` have passed.

        Raises:
            EtcdError: the watch was lost.
        """
        watch = self._watch
        if watch is None or self._key != key:
            self.close()
            watch = asyncio.ensure_future(self._store.wait_changed(key, revision + 1))
            watch.add_done_callback(_retrieve)
            self._key, self._watch = key, watch
        event: asyncio.Future[Any] = asyncio.ensure_future(or_event.wait())
        try:
            done, _ = await asyncio.wait([watch, event], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:  # does not wait until the event's task has ended: a resignation may be due
            event.cancel()
        if watch.done():
            self._watch = None
            watch.result()
            return Wake.KEY
        return Wake.EVENT if done else Wake.TIME

    def close(self) -> None:
        """End the watch. Does not wait until it has ended."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None


async def sleep(seconds: float, or_event: asyncio.Event) -> None:
    """Wait until the event is set, but `seconds` at most. Then clear the event."""
    try:
        async with asyncio.timeout(seconds):
            await or_event.wait()
    except TimeoutError:
        pass
    or_event.clear()


def _retrieve(done: asyncio.Future[Any]) -> None:
    """Take the result of an abandoned wait, so that asyncio does not warn."""
    if not done.cancelled():
        done.exception()
