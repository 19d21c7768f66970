"""The control socket: what `govipctl` and `varlinkctl` ask this process (implements ports.Service).

Whoever may open the socket may read; what changes something is root's. Nobody who talks to it, or does not, can
hold the daemon up: every message, reply, connection and pause has a bound, and the calls of all connections take
turns and leave most of the loop's time to the VIP.
"""

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from govipd.adapters import varlink
from govipd.core.actions import Action
from govipd.core.events import Event
from govipd.core.text import line
from govipd.errors import RefusedError
from govipd.ports import Journal, Operator

NAME = "org.govipd.Node"

DESCRIPTION = """\
# One process of govipd: the VIPs of one interface. Times are seconds since 1970 (UTC), durations are seconds.
interface org.govipd.Node

type Gate (gate: string, verdict: string, detail: string, since: float)

type Transition (at: float, state: string, trigger: string, detail: string)

# lease_left: until the VIP is dropped if etcd confirms nothing more; null without a lease.
type Group (
  vip: string,
  addresses: []string,
  state: string,
  since: float,
  trigger: string,
  detail: string,
  next: string,
  ahead: string,
  drained: bool,
  gates: []Gate,
  lease_left: ?float,
  campaigns_in: float,
  blockers: []string,
  etcd: string,
  warning: string,
  transitions: []Transition
)

method Status() -> (version: string, member: string, interface: string, groups: []Group)

# Stay out of the queue of this VIP, or of every one, also over a reboot. Root only.
method Drain(vip: ?string) -> ()

# Root only.
method Undrain(vip: ?string) -> ()

# Give this VIP, or every one, to the next in the queue, or to the member `to`. Begun when the reply comes. Root only.
method Handover(vip: ?string, to: ?string) -> ()

error Refused (reason: string)
"""



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
_OF_ROOT = frozenset({f"{NAME}.Drain", f"{NAME}.Undrain", f"{NAME}.Handover"})
_DESCRIPTIONS = {NAME: DESCRIPTION, varlink.SERVICE: varlink.DESCRIPTION}
_Name = Annotated[str, msgspec.Meta(max_length=64)]


class _Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vip: _Name | None = None


class _Handover(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vip: _Name | None = None
    to: _Name | None = None


class ControlSocket:
    """Serves one process's socket. A place where none can be made is told once, and tried again for ever.

    Args:
        path: where; its directory's mode and group say who may come near. A file that an earlier process left is
            replaced.
        version: of this program.
    """

    def __init__(
        self, *, path: Path, operator: Operator, journal: Journal, version: str, limits: Limits = LIMITS
    ) -> None:
        self._path = path
        self._operator = operator
        self._journal = journal
        self._limits = limits
        self._info: Mapping[str, object] = {
            "vendor": "govipd",
            "product": "govipd",
            "version": version,
            "url": "",
            "interfaces": sorted(_DESCRIPTIONS),
        }
        self._methods: Mapping[str, Callable[[varlink.Call], Awaitable[object]]] = {
            f"{varlink.SERVICE}.GetInfo": self._get_info,
            f"{varlink.SERVICE}.GetInterfaceDescription": self._describe,
            f"{NAME}.Status": self._status,
            f"{NAME}.Drain": self._drain,
            f"{NAME}.Undrain": self._undrain,
            f"{NAME}.Handover": self._handover,
        }
        self._connections: Counter[int] = Counter()  # by user id
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turn = asyncio.Lock()
        self._worked_s = 0.0  # on calls, since the last pause
        self._told = ""

    async def run(self) -> None:
        """See ports.Service."""
        try:
            while True:
                await self._serve()
        finally:
            self._fault.cancel()
            for task in self._tasks:
                task.cancel()

    def stepped(self, vip: str, event: Event, actions: Sequence[Action], now: float) -> None:
        """See ports.Service: nothing is told unasked."""

    async def _serve(self) -> None:
        """Until the socket is not in its place any more. Raises what a call has broken in the daemon."""
        try:
            self._path.unlink(missing_ok=True)
            server = await asyncio.start_unix_server(
                self._connected, self._path, limit=self._limits.message, backlog=self._limits.backlog
            )
            self._path.chmod(0o660)  # whatever the umask; the directory has let nobody else in meanwhile
            inode = self._path.stat().st_ino
        except OSError as e:
            if str(e) != self._told:
                self._told = str(e)
                self._tell(f"no control socket, tried again: {e}")
            await self._pause()
            return
        self._told = ""
        try:
            while self._inode() == inode:
                await self._pause()
        finally:
            server.close()  # connections go on

    def _inode(self) -> int | None:
        try:
            return self._path.stat().st_ino
        except OSError:
            return None

    async def _pause(self) -> None:
        await asyncio.wait([self._fault], timeout=self._limits.check_s)
        if self._fault.done():
            self._fault.result()

    def _tell(self, text: str) -> None:
        self._journal.write(4, f"control: {line(text)}", {})

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
            # A peer that closes, stalls, sends too much or no calls: each ends its own connection, and nothing else.
            with suppress(OSError, TimeoutError, EOFError, ValueError, asyncio.LimitOverrunError):
                while True:
                    async with asyncio.timeout(self._limits.patience_s):
                        message = await reader.readuntil(varlink.END)
                    await self._take_turn()
                    writer.write(await self._answer(message[:-1], uid))
                    async with asyncio.timeout(self._limits.patience_s):
                        await writer.drain()
        finally:
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._limits.patience_s):
                    await writer.wait_closed()
            writer.transport.abort()  # what it has not read by now, it never will

    async def _take_turn(self) -> None:
        """One call of all connections for each round of the loop, and a pause after some work."""
        async with self._turn:
            pause = self._worked_s if self._worked_s >= self._limits.slice_s else 0.0
            if pause:
                self._worked_s = 0.0
            await asyncio.sleep(pause)

    # Calls

    async def _answer(self, message: bytes, uid: int) -> bytes:
        """The reply's bytes; none to a call that wants none.

        Raises:
            ValueError: the message is no call.
        """
        began = time.thread_time()
        call = varlink.parse(message)
        try:
            answer = varlink.reply(await self._method(call, uid)(call))
        except varlink.ErrorReply as e:
            answer = varlink.error(e)
        except RefusedError as e:
            answer = varlink.error(varlink.ErrorReply(f"{NAME}.Refused", reason=str(e)))
        self._worked_s += time.thread_time() - began
        return b"" if call.oneway else answer

    def _method(self, call: varlink.Call, uid: int) -> Callable[[varlink.Call], Awaitable[object]]:
        """What does it.

        Raises:
            ErrorReply: there is no such method, or it is not this user's.
        """
        interface = call.method.rpartition(".")[0]
        if interface not in _DESCRIPTIONS:
            raise varlink.interface_not_found(interface)
        if call.method not in self._methods:
            raise varlink.method_not_found(call)
        if uid and call.method in _OF_ROOT:
            raise varlink.ErrorReply(f"{varlink.SERVICE}.PermissionDenied")
        return self._methods[call.method]

    async def _get_info(self, call: varlink.Call) -> object:
        varlink.parameters(call, varlink.NoParameters)
        return self._info

    async def _describe(self, call: varlink.Call) -> object:
        name = varlink.parameters(call, varlink.Interface).interface
        if name not in _DESCRIPTIONS:
            raise varlink.interface_not_found(name)
        return {"description": _DESCRIPTIONS[name]}

    async def _status(self, call: varlink.Call) -> object:
        varlink.parameters(call, varlink.NoParameters)
        return self._operator.status()

    async def _drain(self, call: varlink.Call) -> object:
        self._operator.drain(varlink.parameters(call, _Which).vip or "", wanted=True)
        return {}

    async def _undrain(self, call: varlink.Call) -> object:
        self._operator.drain(varlink.parameters(call, _Which).vip or "", wanted=False)
        return {}

    async def _handover(self, call: varlink.Call) -> object:
        wanted = varlink.parameters(call, _Handover)
        await self._operator.handover(wanted.vip or "", wanted.to or "")
        return {}


def _peer(writer: asyncio.StreamWriter) -> int:
    """The user id of the process that connected (SO_PEERCRED, unix(7))."""
    connection = writer.get_extra_info("socket")
    credentials = struct.Struct("3i")  # pid, uid, gid
    _, uid, _ = credentials.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size))
    return int(uid)
