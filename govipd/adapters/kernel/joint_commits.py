"""Commits the renewals of several fences in one transaction of nf_tables."""

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from govipd.adapters.kernel.nft_table import Message
from govipd.adapters.kernel.nftables import BUFFER, NfTables
from govipd.errors import KernelError

_SIZE_MAX = BUFFER // 2  # bytes of messages in one transaction

# The epoch in which it was asked for, what makes the messages, a clock, and who waits.
_Part = tuple[int, Callable[[], Iterable[Message]], Callable[[], float], asyncio.Future[float]]


class JointCommits:
    """Collects what is asked for in one turn of the event loop."""

    def __init__(self, kernel: NfTables) -> None:
        self._kernel = kernel
        self._asked: list[_Part] = []

    async def commit(self, make: Callable[[], Iterable[Message]], now: Callable[[], float]) -> float:
        """Commit messages in one transaction with all others that are asked for in this turn of the event loop.

        The transaction is `undisturbed`, see NfTables.commit(). Where the kernel refuses it, each part is committed
        alone.

        Args:
            make: makes the messages, just before the transaction.
            now: a clock; its instant after the transaction is returned.

        Raises:
            KernelError: as NfTables.commit().
        """
        done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        if not self._asked:
            asyncio.get_running_loop().call_soon(self._commit)
        self._asked.append((self._kernel.epoch, make, now, done))
        return await done

    def _commit(self) -> None:
        asked, self._asked = [part for part in self._asked if not part[-1].done()], []
        waiting = deque(asked)
        try:
            while waiting:
                parts, messages, size = list[_Part](), list[Message](), 0
                while waiting and size < _SIZE_MAX:
                    epoch, make, _, done = part = waiting.popleft()
                    try:
                        made = tuple(make()) if epoch == self._kernel.epoch else ()
                    except KernelError as error:
                        done.set_exception(error)
                        continue
                    parts.append(part)
                    messages += made
                    size += sum(map(len, made))
                self._commit_parts(parts, messages)
        except Exception as error:  # noqa: BLE001  # a fault: the tasks that wait get it
            for *_, done in asked:
                if not done.done():
                    done.set_exception(error)

    def _commit_parts(self, parts: Sequence[_Part], messages: Sequence[Message]) -> None:
        try:
            self._commit_undisturbed(parts, messages)
        except KernelError as error:
            if len(parts) == 1:
                parts[0][-1].set_exception(error)
                return
            for epoch, make, now, done in parts:
                try:
                    made = [*make()] if epoch == self._kernel.epoch else []
                except KernelError as of_this_part:
                    done.set_exception(of_this_part)
                else:
                    self._commit_parts([(epoch, make, now, done)], made)
        else:
            for _, _, now, done in parts:
                done.set_result(now())

    def _commit_undisturbed(self, parts: Sequence[_Part], messages: Sequence[Message]) -> None:
        if any(epoch != self._kernel.epoch for epoch, *_ in parts):
            raise KernelError("nf_tables: another program has changed tables meanwhile", errno.ERESTART)
        if any(messages):
            self._kernel.commit(messages, undisturbed=True)
