"""Collects reads that groups ask for at the same time, and sends them in one transaction."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

from govipd.adapters.etcd.api import Get, TxnResult
from govipd.errors import EtcdRefusedError

GETS_MAX = 100  # in one transaction; etcd allows 128 operations by default (--max-txn-ops)

_Asked = tuple[Sequence[Get], asyncio.Future[TxnResult]]


class CollectedReads:
    """Reads of several groups in few transactions.

    A read goes out in the turn of the event loop after it was asked for, together with all others that were asked for
    until then. A read that etcd refuses fails alone.

    Args:
        send: sends one transaction of these reads.
    """

    def __init__(self, send: Callable[[Sequence[Get]], Awaitable[TxnResult]]) -> None:
        self._send = send
        self._asked: list[_Asked] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def read(self, gets: Sequence[Get]) -> TxnResult:
        """Read. The transaction begins after this call.

        Raises:
            EtcdError: as Store.txn().
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[TxnResult] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._flush)
        self._asked.append((gets, answer))
        return await answer

    def _flush(self) -> None:
        asked, self._asked = self._asked, []
        for part in _parts(asked):
            task = asyncio.get_running_loop().create_task(self._answer(part))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _answer(self, part: Sequence[_Asked]) -> None:
        try:
            reply = await self._send([get for gets, _ in part for get in gets])
        except EtcdRefusedError as e:
            if len(part) == 1:
                _settle(part[0][1], e)
            else:
                await asyncio.gather(*(self._answer([each]) for each in part))
        except Exception as e:  # noqa: BLE001  # each task that asked gets it, also where it is a fault of the process
            for _, answer in part:
                _settle(answer, type(e)(*e.args))
        else:
            found = iter(reply.gets)
            for gets, answer in part:
                _settle(answer, replace(reply, gets=tuple(next(found) for _ in gets)))


def _parts(asked: Sequence[_Asked]) -> Iterator[Sequence[_Asked]]:
    """Divide the reads into parts of at most GETS_MAX Gets. A single read is never divided, also if it is longer."""
    part: list[_Asked] = []
    for each in asked:
        if part and sum(len(gets) for gets, _ in (*part, each)) > GETS_MAX:
            yield part
            part = []
        part.append(each)
    if part:
        yield part


def _settle(answer: asyncio.Future[TxnResult], result: TxnResult | Exception) -> None:
    if answer.done():  # nothing waits for it any more
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
