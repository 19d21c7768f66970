"""The tasks of the process: some must not end, others end by themselves."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any


class ProcessTasks:
    """The tasks of the process.

    Args:
        ended: called with the name of a task that must not end, after its end.

    Attributes:
        fault: why a task has ended that must not end, or another fault of the process; None without one.
    """

    def __init__(self, ended: Callable[[str], None]) -> None:
        self.fault: BaseException | None = None
        self._ended = ended
        self._lasting: dict[asyncio.Task[None], object] = {}  # with the owner of each
        self._beside: set[asyncio.Future[None]] = set()

    def spawn(self, name: str, work: Coroutine[Any, Any, None], owner: object = None) -> asyncio.Task[None]:
        """Start a task that must not end: its end is a fault of the whole process."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._lasting[task] = owner
        task.add_done_callback(self._note_end)
        return task

    def beside(self, work: Awaitable[None]) -> None:
        """Start a task that ends by itself."""
        task = asyncio.ensure_future(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def cancel(self, task: asyncio.Task[None]) -> None:
        """Cancel a task of spawn()."""
        del self._lasting[task]
        task.cancel()

    def cancel_of(self, owner: object) -> None:
        """Cancel the tasks of one owner."""
        for task in [task for task, its_owner in self._lasting.items() if its_owner is owner]:
            self.cancel(task)

    async def cancel_all(self, but: Collection[asyncio.Task[None]]) -> None:
        """Cancel the tasks of spawn(), and wait until they have ended; leave some."""
        tasks = [task for task in self._lasting if task not in but]
        self._lasting.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def wait_beside(self, seconds: float) -> None:
        """Wait for the tasks of beside(), but `seconds` at most."""
        if self._beside:
            await asyncio.wait(self._beside, timeout=seconds)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if task not in self._lasting:  # it was cancelled on purpose
            return
        if self.fault is None:
            error = None if task.cancelled() else task.exception()
            self.fault = error or RuntimeError(f"the task {task.get_name()!r} ended")
        self._ended(task.get_name())
