"""Serves varlink at a socket, with a bound on everything that a peer can do.

Nobody who talks to it, or does not, can hold the process up: every message, reply, connection and pause has a bound,
and the calls of all connections take turns and leave half of the loop's time to everything else.
"""

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from govipd.adapters.control import varlink

Answer = Callable[[varlink.Call, int], Awaitable[object]]
"""The result of one user's call; raises varlink.ErrorReply. What else it raises is a fault of the process's own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer can take.

    Attributes:
        message: bytes of a request; one of ours has less than 1 KiB.
        patience_s: for the next request to be whole, and for a reply to be read.
        of_one_user: connections.
        of_others: connections of all users but root, who must not be kept out.
        backlog: connections that wait to be let in, and that the loop lets in at once.
        slice_s: after so much work on calls, the loop's other tasks have as much time undisturbed.
        check_s: how often the socket's place is looked at, or tried again.
    """

    message: int = 64 * 1024
    patience_s: float = 5.0
    of_one_user: int = 16
    of_others: int = 64
    backlog: int = 16
    slice_s: float = 0.002
    check_s: float = 2.0


LIMITS = Limits()


class VarlinkServer:
    """One socket. Where none can be made, that is reported once, and tried again.

    Args:
        path: where; its directory's mode and group say who may come near. A file that an earlier process left is
            replaced.
        answer: does what is asked.
        report: takes the report about that.
    """

    def __init__(self, *, path: Path, answer: Answer, report: Callable[[str], None], limits: Limits = LIMITS) -> None:
        self._path = path
        self._answer_call = answer
        self._report = report
        self._limits = limits
        self._connections: Counter[int] = Counter()  # by user id
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turn = asyncio.Lock()
        self._worked_s = 0.0  # on calls, since the last pause
        self._reported = ""

    async def run(self) -> None:
        """Serve until cancelled. Where the socket's file is removed, or no socket can be made, try again."""
        try:
            while True:
                await self._serve()
        finally:
            self._fault.cancel()
            for task in self._tasks:
                task.cancel()

    async def _serve(self) -> None:
        """Until the socket is not in its place any more. Raises what a call has broken in the daemon."""
        try:
            server = await self._listen()
        except OSError as e:
            if str(e) != self._reported:
                self._reported = str(e)
                self._report(f"no control socket, tried again: {e}")
            await self._pause()
            return
        self._reported = ""
        inode = self._inode()
        try:
            while inode and self._inode() == inode:
                await self._pause()
        finally:
            server.close()  # connections go on

    async def _listen(self) -> asyncio.Server:
        """A new socket in its place. Raises OSError."""
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(
            self._connected, self._path, limit=self._limits.message, backlog=self._limits.backlog
        )
        try:
            self._path.chmod(0o660)  # independent of the umask; until here the directory's mode protected the socket
        except OSError:
            server.close()
            raise
        return server

    def _inode(self) -> int | None:
        try:
            return self._path.stat().st_ino
        except OSError:
            return None

    async def _pause(self) -> None:
        await asyncio.wait([self._fault], timeout=self._limits.check_s)
        if self._fault.done():
            self._fault.result()

    # Connections

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let the connection in, or close it: too many of its kind are open."""
        try:
            uid = _peer(writer)
        except OSError:  # it is gone
            writer.transport.abort()
            return
        others = self._connections.total() - self._connections[0]
        limits = self._limits
        if self._connections[uid] >= limits.of_one_user or (uid and others >= limits.of_others):
            writer.transport.abort()
            return
        self._connections[uid] += 1
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer, uid))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(task, uid))

    def _ended(self, task: asyncio.Task[None], uid: int) -> None:
        self._tasks.discard(task)
        self._connections[uid] -= 1
        if not task.cancelled() and (error := task.exception()) and not self._fault.done():
            self._fault.set_exception(error)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, uid: int) -> None:
        """Answer until the peer closes, is too slow, or says what is no call."""
        try:
            while (message := await self._receive(reader)) is not None:
                await self._take_turn()
                answer = await self._answer(message, uid)
                if answer is None or not await self._send(writer, answer):
                    break
        finally:
            writer.close()
            with suppress(OSError):
                async with asyncio.timeout(self._limits.patience_s):
                    await writer.wait_closed()
            writer.transport.abort()  # what it has not read by now, it never will

    async def _receive(self, reader: asyncio.StreamReader) -> bytes | None:
        """The next message, without its end; None when the peer has closed, is too slow, or sends too much."""
        try:
            async with asyncio.timeout(self._limits.patience_s):
                return (await reader.readuntil(varlink.END))[:-1]
        except (OSError, EOFError, asyncio.LimitOverrunError):
            return None

    async def _send(self, writer: asyncio.StreamWriter, answer: bytes) -> bool:
        """Whether the peer takes it."""
        try:
            writer.write(answer)
            async with asyncio.timeout(self._limits.patience_s):
                await writer.drain()
        except OSError:
            return False
        return True

    async def _take_turn(self) -> None:
        """Serve one call per loop iteration across all connections; after slice_s of work, sleep as long."""
        async with self._turn:
            pause = self._worked_s if self._worked_s >= self._limits.slice_s else 0.0
            if pause:
                self._worked_s = 0.0
            await asyncio.sleep(pause)

    async def _answer(self, message: bytes, uid: int) -> bytes | None:
        """The reply's bytes: empty for a call that wants no reply; None for bytes that are no call.

        What it raises ends `run()`.
        """
        began = time.thread_time()
        try:
            call = varlink.parse(message)
        except ValueError:
            return None
        try:
            answer = varlink.reply(await self._answer_call(call, uid))
        except varlink.ErrorReply as e:
            answer = varlink.error(e)
        self._worked_s += time.thread_time() - began
        return b"" if call.oneway else answer


def _peer(writer: asyncio.StreamWriter) -> int:
    """The user id of the process that connected (SO_PEERCRED, unix(7))."""
    connection = writer.get_extra_info("socket")
    credentials = struct.Struct("iII")  # pid, uid, gid
    _, uid, _ = credentials.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size))
    return int(uid)
