"""A member's place in an election's queue, and how it waits for the queue to change."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

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


async def wait_for_change(store: Store, key: str, revision: int, or_event: asyncio.Event, seconds: float) -> Wake:
    """Wait until `key` changes after `revision`, or the event is set, or `seconds` have passed.

    The watch starts one after the revision just read. A watch that starts at that revision is "unsynced" for etcd, and
    etcd serves it in a loop that runs every 100 ms (etcd, server/storage/mvcc/watchable_store.go).

    Raises:
        EtcdError: the watch was lost.
    """
    watch: asyncio.Future[object] = asyncio.ensure_future(store.wait_changed(key, revision + 1))
    event: asyncio.Future[object] = asyncio.ensure_future(or_event.wait())
    try:
        done, _ = await asyncio.wait({watch, event}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            watch.result()
            return Wake.KEY
    finally:  # does not wait until both have ended: a resignation may be due
        for waiting in (watch, event):
            waiting.add_done_callback(_retrieve)
            waiting.cancel()
    return Wake.EVENT if done else Wake.TIME


async def sleep(seconds: float, or_event: asyncio.Event) -> None:
    """Wait until the event is set, but `seconds` at most. Then clear the event."""
    try:
        async with asyncio.timeout(seconds):
            await or_event.wait()
    except TimeoutError:
        pass
    or_event.clear()


def _retrieve(done: asyncio.Future[object]) -> None:
    """Take the result of an abandoned wait, so that asyncio does not warn."""
    if not done.cancelled():
        done.exception()
