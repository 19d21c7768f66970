"""Serves varlink on a socket, with limits on everything that a peer can do.

No peer can hold the process up. Every message, reply, connection and pause has a limit. The calls of all connections
take turns, and leave half of the event loop's time to the other tasks.
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
"""Answers one user's call (user id); may raise varlink.ErrorReply. Any other error is a fault of the process."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for peers.

    Attributes:
        message: bytes of a request; govipctl's requests have less than 1 KiB.
        patience_s: seconds until the next request must be complete, and until a reply must be read.
        of_one_user: connections of one user.
        of_others: connections of all users but root: other users must not keep root out.
        backlog: connections that wait in the kernel, and that the loop accepts at once.
        slice_s: seconds of work on calls, after which the loop's other tasks get as much time undisturbed.
        check_s: seconds between two checks that the socket's file is in its place, and between tries to listen.
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
    """One socket. If the server cannot listen, it reports that once, and tries again.

    Args:
        path: the socket's path; the directory's mode and group say who may connect. A file that an earlier process
            left is replaced.
        answer: answers a call.
        report: called with a text when the server cannot listen.
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
        """Serve until the socket's file is not in its place any more. Raises a fault that a call has caused."""
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
            server.close()  # open connections stay

    async def _listen(self) -> asyncio.Server:
        """Listen on a new socket, which replaces an old file. Raises OSError."""
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
        """Accept the connection, or close it where its user has too many, or all users but root have."""
        try:
            uid = _peer(writer)
        except OSError:  # the peer is gone
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
        """Answer calls until the peer closes, is too slow, or sends a message that is no call."""
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
            writer.transport.abort()  # drops the bytes that the peer has not read by now

    async def _receive(self, reader: asyncio.StreamReader) -> bytes | None:
        """The next message, without its NUL byte; None when the peer has closed, is too slow, or sends too much."""
        try:
            async with asyncio.timeout(self._limits.patience_s):
                return (await reader.readuntil(varlink.END))[:-1]
        except (OSError, EOFError, asyncio.LimitOverrunError):
            return None

    async def _send(self, writer: asyncio.StreamWriter, answer: bytes) -> bool:
        """Send a reply. Returns whether the peer has read fast enough."""
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
        """The reply's bytes: empty for a call that wants no reply; None for a message that is no call.

        Any error that is raised here ends `run()`.
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
