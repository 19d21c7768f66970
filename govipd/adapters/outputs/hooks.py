"""Hooks: the operator's commands for the roles leader, standby and fault. They run one at a time, beside the daemon.

A hook starts after the change of role. So it is not guaranteed that the role still lasts while its command runs.
"""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from govipd.core.actions import Action, Report
from govipd.core.events import Event
from govipd.core.journal_kinds import JournalKind
from govipd.core.sanitize import sanitize_line
from govipd.core.state import State, Trigger
from govipd.runtime.ports import Clock
from govipd.runtime.process_ports import Journal, Operator

WAITING_MAX = 16  # hooks in the queue; one more drops the oldest, since the newest has the present role
FINISH_S = 0.5  # seconds for the waiting hooks when the daemon ends
OUTPUT_MAX = 8192  # bytes of a command's output that are shown
LINES_MAX = 50
LINGER_S = 0.1  # seconds for the rest of the output, after the command has ended
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_FAULTS = frozenset({Trigger.EXPIRED, Trigger.LOST, Trigger.KERNEL_FAILED})


@dataclass(frozen=True, slots=True)
class _Call:
    vip: str
    role: str
    environment: Mapping[str, str]


class Hooks:
    """Runs a command when a VIP group's role on this node changes (implements process_ports.Service).

    - leader: this kernel answers for the VIP.
    - standby: this node is in the queue, or the operator (a drain, a handover, a stop) took the VIP off it.
    - fault: this node may not hold the VIP: a gate is not healthy, the lease is gone, or the kernel refused. Where it
      held the VIP, the kernel has stopped answering by then.

    Args:
        commands: for each role, a program's absolute path and its arguments.
        timeout_s: seconds after which a command is killed, with its process group.
        operator: answers with addresses and gates.
        journal: where output and exit status go.
        clock: CLOCK_BOOTTIME.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        timeout_s: float,
        operator: Operator,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self._commands = commands
        self._timeout_s = timeout_s
        self._operator = operator
        self._journal = journal
        self._clock = clock
        self._roles: dict[str, str] = {}  # by VIP group: the role last reported
        self._falling: dict[str, tuple[str, Report]] = {}  # while a VIP is released: the next role, and why
        self._addresses: dict[str, str] = {}
        self._queue: asyncio.Queue[_Call] = asyncio.Queue(WAITING_MAX)

    def stepped(self, vip: str, event: Event, actions: Sequence[Action], now: float) -> None:  # noqa: ARG002  # the port
        """See process_ports.Service. Only queues hooks; run() executes them."""
        for report in actions:
            if isinstance(report, Report):
                self._note(vip, report)
        if vip not in self._roles:
            self._begin(vip, now)

    def _begin(self, vip: str, now: float) -> None:
        """Report the first role: a node that was never healthy is at fault as soon as a gate is unhealthy."""
        for group in self._operator.status().groups:
            bad = [f"{gate.gate} {gate.verdict} ({gate.detail})" for gate in group.gates if gate.verdict == "unhealthy"]
            if group.vip == vip and group.state == State.INELIGIBLE.value and bad:
                self._queue_hook(vip, "fault", Report(State.INELIGIBLE, Trigger.INELIGIBLE, "; ".join(bad), now))

    def _note(self, vip: str, report: Report) -> None:
        match report.state:
            case State.LEADER:
                self._queue_hook(vip, "leader", report)
            case State.CANDIDATE:
                self._queue_hook(vip, "standby", report)
            case State.HANDING_OVER:  # its hook waits until the kernel has stopped answering
                self._falling[vip] = "standby", report
            case State.DEACTIVATING if report.trigger is not Trigger.SUCCESSOR_READY:
                self._falling[vip] = self._fallen(vip, report), report
            case State.RESIGNING:
                self._queue_hook(vip, *self._falling.pop(vip, (self._fallen(vip, report), report)))
            case _:
                pass  # the role does not change

    def _fallen(self, vip: str, report: Report) -> str:
        """The role of a node that leaves the queue."""
        bad = report.trigger in _FAULTS
        if report.trigger is Trigger.INELIGIBLE:  # because of a gate, or of the operator
            groups = [group for group in self._operator.status().groups if group.vip == vip]
            bad = any(gate.verdict != "healthy" for group in groups for gate in group.gates)
        return "fault" if bad else "standby"

    def _queue_hook(self, vip: str, role: str, report: Report) -> None:
        if role == self._roles.get(vip):
            return
        self._roles[vip] = role
        if not self._commands.get(role):
            return
        node = self._operator.status()
        for group in node.groups:  # lacks a group that a reload removed; its last addresses are kept
            self._addresses[group.vip] = " ".join(group.addresses)
        environment = {
            "PATH": PATH,
            "GOVIP_VIP": vip,
            "GOVIP_STATE": role,
            "GOVIP_REASON": report.trigger.value,
            "GOVIP_DETAIL": sanitize_line(report.detail),
            "GOVIP_ADDRESSES": self._addresses.get(vip, ""),
            "GOVIP_INTERFACE": node.interface,
            "GOVIP_MEMBER": node.member,
        }
        if self._queue.full():
            self._line(JournalKind.HOOK_DROPPED, self._queue.get_nowait(), f"left out: {WAITING_MAX} more wait")
            self._queue.task_done()
        self._queue.put_nowait(_Call(vip, role, environment))

    async def run(self) -> None:
        """See process_ports.Service. After a cancellation, the task ends when no hook waits, or after FINISH_S."""
        worker = asyncio.create_task(self._work())
        try:
            await asyncio.shield(worker)
        finally:
            idle = asyncio.create_task(self._queue.join())
            await asyncio.wait({idle, worker}, timeout=FINISH_S, return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
            worker.cancel()
            await asyncio.gather(idle, worker, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            call = await self._queue.get()
            output = bytearray()
            read, write = os.pipe()
            reading = asyncio.create_task(_read(read, output))
            try:
                kind, ending = await self._execute(call, write)
                await asyncio.wait({reading}, timeout=LINGER_S)  # a background process may keep the pipe open
            finally:
                reading.cancel()
            for text in output.decode(errors="replace").splitlines()[:LINES_MAX]:
                self._line(JournalKind.HOOK_OUTPUT, call, sanitize_line(text))
            self._line(kind, call, ending)
            self._queue.task_done()

    async def _execute(self, call: _Call, output: int) -> tuple[JournalKind, str]:
        """Run a command to its end. Returns how the command ended."""
        began = self._clock.now()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._commands[call.role],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=call.environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as e:
            return JournalKind.HOOK_FAILED, f"not started: {e.strerror}"
        finally:
            os.close(output)
        try:
            async with asyncio.timeout(self._timeout_s):
                status = await process.wait()
        except TimeoutError:
            return JournalKind.HOOK_FAILED, f"killed: took longer than {self._timeout_s:g} s"
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        took = f"after {self._clock.now() - began:.1f} s"
        if status == 0:
            return JournalKind.HOOK_ENDED, f"done {took}"
        return JournalKind.HOOK_FAILED, f"{f'exit status {status}' if status > 0 else f'signal {-status}'} {took}"

    def _line(self, kind: JournalKind, call: _Call, text: str) -> None:
        fields = {"GOVIP_VIP": call.vip, "GOVIP_HOOK": call.role}
        self._journal.write(kind, f"{call.vip}: {call.role} hook: {text}", fields)


async def _read(descriptor: int, output: bytearray) -> None:
    """Read until the end or until cancelled. Keeps the first OUTPUT_MAX bytes, and drops the rest."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    try:
        while chunk := await reader.read(4096):
            output += chunk[: OUTPUT_MAX - len(output)]
    finally:
        transport.close()
