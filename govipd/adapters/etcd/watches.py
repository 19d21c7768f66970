"""Many watches over one stream of etcd's Watch service: a stream for each watch costs more than the watch."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import grpc.aio
from etcd3.etcdrpc import rpc_pb2 as pb

from govipd.errors import WatchLostError


class Watch:
    """One watch of a key.

    Attributes:
        created: done when etcd has confirmed the watch; its result is the header of etcd's answer.
        changed: done when the key has changed, or with WatchLostError.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.created: asyncio.Future[Any] = loop.create_future()
        self.changed: asyncio.Future[None] = loop.create_future()
        self.id: int | None = None  # etcd's; known once the watch is created

    def lose(self, reason: str, error: Exception | None = None) -> None:
        """End the watch with WatchLostError. `error`: gRPC's, for the caller that waits for the creation."""
        lost = WatchLostError(reason)
        for future, why in ((self.created, error or lost), (self.changed, lost)):
            if not future.done():
                future.set_exception(why)
                future.exception()  # a watch that nothing waits for any more is no fault


class WatchStream:
    """The watches of one connection.

    etcd answers the creations of one stream in the order of the requests, and gives each watch an id (recvLoop and
    sendLoop in etcd's server/etcdserver/api/v3rpc/watch.go).

    Args:
        stream: the call of the Watch service, not used before.
        metadata: with which the call was made; names the user's token.
        aside: starts a task.

    Attributes:
        metadata: as given.
        over: the stream has ended, and takes no watch any more.
    """

    def __init__(
        self,
        stream: Any,
        metadata: tuple[tuple[str, str], ...],
        aside: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.metadata = metadata
        self.over = False
        self._stream = stream
        self._aside = aside
        self._writing = asyncio.Lock()  # gRPC takes one message at a time
        self._creating: deque[Watch] = deque()  # in the order of the requests
        self._watches: dict[int, Watch] = {}
        aside(self._read())

    def close(self) -> None:
        """End every watch."""
        self.over = True
        self._stream.cancel()

    async def create(self, key: str, from_revision: int, believe: Callable[[Any], None]) -> Watch:
        """Watch `key` for a change at or after a revision. Returns the watch once etcd has confirmed it.

        `believe`: checks the header of etcd's answer; what it raises is raised.

        Raises:
            WatchLostError: the stream has ended.
            grpc.aio.AioRpcError: etcd cannot be reached, or refuses.
        """
        watch = Watch()
        create = pb.WatchCreateRequest(key=key.encode(), start_revision=from_revision)
        self._aside(self._write(pb.WatchRequest(create_request=create), watch))
        try:
            believe(await asyncio.shield(watch.created))
        except BaseException:
            self._forget(watch)
            raise
        return watch

    async def wait(self, watch: Watch) -> None:
        """Wait until the key has changed, without a time limit.

        Raises:
            WatchLostError: the watch ended without an answer.
        """
        try:
            await watch.changed
        finally:
            self._forget(watch)

    def _forget(self, watch: Watch) -> None:
        """End a watch. Nothing waits for it any more."""
        watch.changed.cancel()
        if watch.id is not None and self._watches.pop(watch.id, None) is not None:
            cancel = pb.WatchCancelRequest(watch_id=watch.id)
            self._aside(self._write(pb.WatchRequest(cancel_request=cancel)))

    async def _write(self, request: Any, creates: Watch | None = None) -> None:
        """Send a request, in a task of its own: gRPC ends the stream of a task that is cancelled while it writes."""
        async with self._writing:
            if creates is not None:
                self._creating.append(creates)
            error: Exception | None = None
            try:
                if not self.over:
                    await self._stream.write(request)
                    return
            except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as e:
                error = e
            except asyncio.CancelledError:  # the channel was closed
                pass
            self.over = True  # _read() ends, too
            if creates is not None:
                creates.lose("watch stream ended", error)

    async def _read(self) -> None:
        """Take etcd's answers, until the stream ends."""
        reason, error = "watch stream ended", None
        try:
            while (reply := await self._stream.read()) is not grpc.aio.EOF:
                self._take(reply)
        except grpc.aio.AioRpcError as e:
            reason, error = str(e.details()), e
        except (grpc.aio.UsageError, asyncio.InvalidStateError, asyncio.CancelledError) as e:
            reason = str(e) or "connection closed"
        finally:
            self.over = True
            for watch in (*self._creating, *self._watches.values()):
                watch.lose(reason, error)
            self._creating.clear()
            self._watches.clear()
            self._stream.cancel()

    def _take(self, reply: Any) -> None:
        if reply.created and self._creating:
            watch = self._creating.popleft()
            watch.id = reply.watch_id
            self._watches[reply.watch_id] = watch
            if not watch.created.done():
                watch.created.set_result(reply.header)
            if watch.changed.cancelled():
                self._forget(watch)
        watch_or_none = self._watches.get(reply.watch_id)
        if watch_or_none is None:
            return
        if reply.canceled:
            del self._watches[reply.watch_id]
            watch_or_none.lose(reply.cancel_reason or f"compacted at {reply.compact_revision}")
        elif reply.events and not watch_or_none.changed.done():
            watch_or_none.changed.set_result(None)
