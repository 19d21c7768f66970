"""systemd, as far as the unit needs it: it starts the real daemon, watches it, ends it, and restarts it."""

import asyncio
import itertools
import math
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

from govipd.cli import CONFIG_RETRY_S
from govipd.errors import ConfigError, KernelError
from govipd.leftovers import clean_up
from govipd.runtime.daemon import Daemon
from govipd.runtime.parts import Plan
from tests.sim import adapters as sim
from tests.sim.clockwork import Process, Timer, World
from tests.sim.kernel import Clock, Kernel
from tests.sim.oracle import Oracle

if TYPE_CHECKING:
    from tests.sim.client import SimStore
    from tests.sim.files import File

WATCHDOG_S = 1.0
RESTART_S = 0.05
STOP_S = 5.0
_PYTHON_S = (0.25, 0.5)  # from exec to the daemon's first step


class Unit(ABC):
    """govipd's unit on one machine.

    `job` is what systemd is doing to the unit ("stop", "restart", or "" without a job).
    """

    def __init__(
        self, name: str, world: World, random: Random, *, oracle: Oracle, clock: Clock, kernel: Kernel, watchdog: bool
    ) -> None:
        self.name = name
        self.world, self.random, self.oracle = world, random, oracle
        self.clock, self.kernel = clock, kernel
        self.proxy_changed: list[Callable[[], object]] = []
        self.directory = sim.Directory()
        self.wanted = False  # the unit was started, and not stopped since
        self.powered = True
        self.job = ""
        self.job_type_hangs = False
        self.task_broken = False  # by break_task
        self.process: Process | None = None
        self._cleaner: Process | None = None  # ExecStopPost=; until it has ended, systemd starts nothing
        self.daemon: Daemon | None = None
        self.postboxes = itertools.count(sim.POSTBOXES)  # their ports
        self.stores: list[SimStore] = []  # the daemon's clients of etcd
        self.read: File | None = None  # what the daemon has read of the file
        self.last_read: File | None = None  # the same, also after its end: the kernel may answer for the next process
        self._disturbances = 0  # that last
        self._disturbed_until = 0.0
        self._watchdog = WATCHDOG_S if watchdog else None
        self._timers: list[Timer] = []
        self._lapse: Timer | None = None

    @abstractmethod
    def plan(self, process: Process) -> Plan:
        """What the configuration says now, for a process.

        Raises:
            ConfigError: it is refused.
        """

    @abstractmethod
    async def clear_fences(self, process: Process, configured: Plan) -> None:
        """Remove the fences of an earlier process that no group owns."""

    # The operator: systemctl

    def start(self) -> None:
        """systemctl start."""
        self.wanted = True
        self._again()

    def stop(self) -> None:
        """systemctl stop."""
        self.wanted = False
        self.job = "stop"
        self._terminate()

    def restart(self) -> None:
        """systemctl restart, or an upgrade."""
        if not self.powered or not self.wanted:
            return
        if self._cleaner is not None:
            return  # it is started when that has ended
        self.job = "restart"
        if self.process is None:
            self._exec()
        else:
            self._terminate()

    def reload(self) -> None:
        """systemctl reload."""
        if self.process is not None and signal.SIGHUP in self.process.signals:
            self.process.signal(signal.SIGHUP)

    # What happens to its process

    def kill(self) -> None:
        """Kill the daemon's process (SIGKILL)."""
        if self.process is not None:
            self._exited("killed")

    def freeze(self, seconds: float) -> None:
        """Stop the process for a while."""
        process = self.process
        if process is not None:
            self._disturbed_until = max(self._disturbed_until, self.world.now + seconds + 0.5)
            process.freeze()
            self.world.after(seconds, process.thaw)

    @property
    def disturbed_until(self) -> float:
        """Freezes and slowness up to here excuse a watchdog's lapse."""
        return math.inf if self._disturbances else self._disturbed_until

    def disturb(self) -> None:
        """A disturbance begins. Several may last at once."""
        self._disturbances += 1

    def disturbed(self) -> None:
        """A disturbance ends. Its delays are over soon."""
        self._disturbances -= 1
        self._disturbed_until = max(self._disturbed_until, self.world.now + 1.0)

    def break_task(self) -> None:
        """A fault of the program: the task of the link monitor ends."""
        process = self.process
        if process is None:
            return
        self.task_broken = True
        for task in asyncio.all_tasks(process):
            if task.get_name() == "link":
                process.call_soon(task.cancel)

    def shut_down(self) -> None:
        """The world ends."""
        if self.process is not None:
            self.process.kill()

    # What it does by itself

    def _exec(self) -> None:
        process = self._new_process()
        self.process = process
        self.world.note(self.name, "govipd is started", "govipd started")
        self._later(self.random.uniform(*_PYTHON_S), process.call_soon, self._main, process)

    def _main(self, process: Process) -> None:
        """The entry point of the process, as in `govipd.cli`."""
        self.proxy_changed.clear()
        try:
            configured = self.plan(process)
        except ConfigError:
            self._later(CONFIG_RETRY_S, self._exited, "failed")
            return
        notifier = sim.SimNotifier(lambda: self._pinged(process))
        self.daemon = Daemon(
            configured,
            load=lambda: self.plan(process),
            clock=process,
            journal=sim.SimJournal(self.world, self.name),
            notifier=notifier,
            watchdog=self._watchdog,
            job_type=self._job_type,
        )
        self.job = "" if self.job == "restart" else self.job
        task = process.create_task(self._run(process, configured, self.daemon), name="main")
        task.add_done_callback(lambda t: self._returned(process, t))

    async def _run(self, process: Process, configured: Plan, daemon: Daemon) -> int:
        try:
            await self.clear_fences(process, configured)
        except KernelError:
            self.task_broken = True  # systemd starts it again
            return 1
        return await daemon.run()

    async def _clear(self, process: Process, configured: Plan) -> None:
        with suppress(KernelError):
            await self.clear_fences(process, configured)
            await clean_up(configured)

    async def _job_type(self) -> str:
        await asyncio.sleep(10.0 if self.job_type_hangs else 0.003)
        return self.job

    def _returned(self, process: Process, task: "asyncio.Task[int]") -> None:
        if process is not self.process:
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.oracle.broken(self, f"the daemon raised {error!r}")
        elif task.result() != 0:
            self.oracle.exited(self, task.result())
        elif not self.job:
            self.oracle.broken(self, "the daemon ended though nobody asked it to")
        self._exited("ended" if error is None and task.result() == 0 else "failed")

    def _pinged(self, process: Process) -> None:
        if self._watchdog is not None and process is self.process:
            if self._lapse is not None:
                self._lapse.cancel()
            self._lapse = self.world.after(self._watchdog, self._lapsed, process)

    def _lapsed(self, process: Process) -> None:
        if process is self.process:
            self.world.note(self.name, "watchdog", "watchdog")
            if self.world.now > self.disturbed_until:
                self.oracle.broken(self, "the watchdog lapsed without a stall")
            self._exited("killed")

    def _terminate(self) -> None:
        process = self.process
        if process is None:
            if self._cleaner is None:
                self._stopped()
            return
        self.world.note(self.name, f"SIGTERM ({self.job})", "govipd told to stop")
        if signal.SIGTERM in process.signals:
            process.signal(signal.SIGTERM)
            self._later(STOP_S, self._stop_timeout, process)
        else:
            self._exited("killed")

    def _stop_timeout(self, process: Process) -> None:
        if process is self.process:
            self._disturbed_until = max(self._disturbed_until, self.world.now)
            self._exited("killed")

    def _exited(self, how: str) -> None:
        self.world.note(self.name, f"govipd {how}", f"govipd {how}")
        self._forget_process()
        if not self.powered:
            return
        if self.job == "stop" and how != "ended":
            self._clean_up()
        elif self.job == "stop":
            self._stopped()
        elif self.wanted:
            self._later(RESTART_S, self._again)

    def _again(self) -> None:
        if self.process is None and self._cleaner is None and self.wanted and self.powered:
            self._exec()

    def _clean_up(self) -> None:
        """ExecStopPost=."""
        process = self._cleaner = self._new_process()

        def main() -> None:
            try:
                configured = self.plan(process)
            except ConfigError:
                process.do(self._stopped)
                return
            task = process.create_task(self._clear(process, configured), name="clean-up")
            task.add_done_callback(lambda _: self._stopped())

        self._later(self.random.uniform(*_PYTHON_S), process.call_soon, main)

    def _stopped(self) -> None:
        """RuntimeDirectoryPreserve=restart."""
        self._cleaner = None
        if self.job == "stop":
            self.directory = sim.Directory()
            self.job = ""
        if self.wanted:
            self._again()

    def _forget_process(self) -> None:
        if self.process is not None:
            self.process.kill()
        if self._cleaner is not None:
            self._cleaner.kill()
        self.process = self._cleaner = self.daemon = self.read = None
        self.stores.clear()
        self.kernel.listeners.clear()
        self.proxy_changed.clear()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _new_process(self) -> Process:
        # asyncio asks for sockets and subprocesses too; there are none here
        return Process(self.world, self.clock, lambda what: self.oracle.broken(self, what))  # type: ignore[abstract]

    def _later(self, seconds: float, call: Callable[..., object], *args: object) -> None:
        self._timers.append(self.world.after(seconds, call, *args))
