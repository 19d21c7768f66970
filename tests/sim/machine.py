"""One machine: kernel, haproxy, runtime directory, and a systemd that runs the real daemon on all of them."""

import asyncio
import math
import signal
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from govipd.cli import CONFIG_RETRY_S, clean_up
from govipd.core.settings import Settings
from govipd.daemon import Daemon
from govipd.errors import ConfigError, RefusedError
from tests.sim import adapters as sim
from tests.sim.clockwork import Process, Timer, World
from tests.sim.compose import VIP, plan
from tests.sim.etcd import Cluster
from tests.sim.kernel import Clock, Kernel
from tests.sim.network import Network
from tests.sim.oracle import UNHEALTHY_S, Oracle

if TYPE_CHECKING:
    from govipd.adapters.election import EtcdElection
    from govipd.core.events import Address
    from tests.sim.client import SimStore

WATCHDOG_S = 1.0
RESTART_S = 0.05
STOP_S = 5.0
_PYTHON_S = (0.25, 0.5)  # from exec to the daemon's first step


class Machine:
    """A node and everything on it.

    `job` is what systemd is doing to the unit ("stop", "restart", or "" when nobody asked for anything).
    """

    def __init__(
        self,
        index: int,
        world: World,
        random: Random,
        *,
        network: Network,
        cluster: Cluster,
        oracle: Oracle,
        margin: float,
        pact: float,
        watchdog: bool,
        rate: float,
    ) -> None:
        self.index = index
        self.name = f"node{index}"
        self.world, self.network, self.cluster, self.oracle = world, network, cluster, oracle
        self.clock = Clock(rate)
        self.pact = pact
        self.kernel = Kernel(
            world,
            self.name,
            self.clock,
            moves_timeouts=random.random() < 0.5,
            changed=lambda: oracle.look(self),
        )
        self.proxy = sim.Proxy()
        self.proxy_changed: list[Callable[[], object]] = []
        self.directory = sim.Directory()
        self.drain_mark = sim.SimDrainMark()
        self.drained_since: float | None = None
        self.settings = Settings(margin=margin, flap_wait=0.5, flap_wait_max=2.0)
        self.addresses: tuple[Address, ...] = (VIP,)
        self.file_is_bad = False
        self.wanted = False  # the unit is started, and nobody has stopped it
        self.powered = True
        self.job = ""
        self.job_type_hangs = False
        self._disturbances = 0  # that last
        self._disturbed_until = 0.0
        self.lost_processor = 0.0  # seconds that the next transactions may be late by
        self.process: Process | None = None
        self.daemon: Daemon | None = None
        self.store: SimStore | None = None
        self.elections: list[EtcdElection] = []
        self.task_broken = False  # by break_task
        self._watchdog = WATCHDOG_S if watchdog else None
        self.random = random
        self._timers: list[Timer] = []
        self._lapse: Timer | None = None

    # The operator

    def start(self) -> None:
        """systemctl start."""
        self.wanted = True
        if self.process is None and self.powered:
            self._exec()

    def stop(self) -> None:
        """systemctl stop."""
        self.wanted = False
        self.job = "stop"
        self._terminate()

    def restart(self) -> None:
        """systemctl restart, or an upgrade."""
        if not self.powered or not self.wanted:
            return
        self.job = "restart"
        if self.process is None:
            self._exec()
        else:
            self._terminate()

    def reload(self) -> None:
        """systemctl reload."""
        if self.process is not None and signal.SIGHUP in self.process.signals:
            self.process.signal(signal.SIGHUP)

    def drain(self, *, wanted: bool) -> None:
        """govipctl drain, or undrain; where no daemon runs it can only be kept."""
        process, daemon = self.process, self.daemon

        def confirmed() -> None:
            self.drained_since = self.world.now if wanted else None
            if wanted:
                self.world.after(UNHEALTHY_S, self.oracle.drained, self, self.world.now)

        def ask(process: Process, daemon: Daemon) -> None:
            daemon.drain("", wanted=wanted)
            process.do(confirmed)

        if process is None or daemon is None:
            self.drain_mark.drained = wanted
            confirmed()
        else:
            process.call_soon(ask, process, daemon)

    def undrain(self) -> None:
        """govipctl undrain, typed again until a daemon has heard it, which may not have heard of the drain yet."""
        if self.drain_mark.drained or (self.process is not None and self.process.frozen):
            self.drain(wanted=False)
            self.world.after(1.0, self.undrain)

    def hand_over(self, to: str) -> None:
        """govipctl handover."""
        if self.process is not None and self.daemon is not None:
            self.process.call_soon(self.process.create_task, self._hand_over(self.daemon, to))

    async def _hand_over(self, daemon: Daemon, to: str) -> None:
        try:
            await daemon.handover("", to)
        except RefusedError as e:
            self.world.note(self.name, f"handover refused: {e}")

    def set_proxy(self, active_state: str | None = None, answers: str | None = None) -> None:
        """Change haproxy; not on a machine without power."""
        if not self.powered:
            return
        if active_state is not None:
            self.proxy.active_state = active_state
        if answers is not None:
            self.proxy.answers = answers
        self.oracle.look(self)
        for changed in self.proxy_changed:
            changed()

    # What befalls the machine

    def kill(self) -> None:
        """The daemon's process dies, without a word."""
        if self.process is not None:
            self._exited("killed")

    def power_off(self) -> None:
        """Everything stops, and nothing of it was ever in the kernel."""
        if not self.powered:
            return
        self.powered = False
        self.world.note(self.name, "power off")
        self._forget_process()
        self.directory = sim.Directory()
        self.kernel.reboot()
        self.proxy.active_state = "inactive"
        self.oracle.look(self)

    def power_on(self) -> None:
        """Boot."""
        if self.powered:
            return
        self.powered = True
        self.clock.reboot(self.world.now)
        self.world.note(self.name, "power on")
        self.job = ""
        self.set_proxy("active", "yes")
        if self.wanted:
            self._exec()

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
        """A disturbance begins; several may last at once."""
        self._disturbances += 1

    def disturbed(self) -> None:
        """It ends, and what it has delayed is over soon."""
        self._disturbances -= 1
        self._disturbed_until = max(self._disturbed_until, self.world.now + 1.0)

    def break_task(self) -> None:
        """A fault in the program: the monitor's task ends with an exception."""
        process = self.process
        if process is None:
            return
        self.task_broken = True
        for task in asyncio.all_tasks(process):
            if task.get_name().endswith("netlink monitor"):
                process.call_soon(task.cancel)

    def shut_down(self) -> None:
        """The world ends."""
        if self.process is not None:
            self.process.kill()

    # systemd

    def _exec(self) -> None:
        process = self._new_process()
        self.process = process
        self.world.note(self.name, "govipd is started")
        self._later(self.random.uniform(*_PYTHON_S), process.call_soon, self._main, process)

    def _main(self, process: Process) -> None:
        """What `govipd.cli.main` does."""
        self.proxy_changed.clear()
        try:
            configured = plan(self, process)
        except ConfigError:
            self._later(CONFIG_RETRY_S, self._exited, "failed")
            return
        notifier = sim.SimNotifier(lambda: self._pinged(process))
        self.daemon = Daemon(
            configured,
            load=lambda: plan(self, process),
            clock=process,
            journal=sim.SimJournal(self.world, self.name),
            notifier=notifier,
            watchdog=self._watchdog,
            job_type=self._job_type,
        )
        self.job = "" if self.job == "restart" else self.job
        task = process.create_task(self.daemon.run(), name="main")
        task.add_done_callback(lambda t: self._returned(process, t))

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
            self.world.note(self.name, "watchdog")
            if self.world.now > self.disturbed_until:
                self.oracle.broken(self, "the watchdog lapsed without a stall")
            self._exited("killed")

    def _terminate(self) -> None:
        process = self.process
        if process is None:
            self._stopped()
            return
        self.world.note(self.name, f"SIGTERM ({self.job})")
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
        self.world.note(self.name, f"govipd {how}")
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
        if self.process is None and self.wanted and self.powered:
            self._exec()

    def _clean_up(self) -> None:
        """ExecStopPost=."""
        process = self._new_process()

        def main() -> None:
            try:
                configured = plan(self, process)
            except ConfigError:
                process.do(self._stopped)
                return
            task = process.create_task(clean_up(configured), name="clean-up")
            task.add_done_callback(lambda _: self._stopped())

        self._later(self.random.uniform(*_PYTHON_S), process.call_soon, main)

    def _stopped(self) -> None:
        """RuntimeDirectoryPreserve=restart."""
        if self.job == "stop":
            self.directory = sim.Directory()
            self.job = ""
        if self.wanted:
            self._again()

    def _forget_process(self) -> None:
        if self.process is not None:
            self.process.kill()
        self.process = self.daemon = self.store = None
        self.elections = []
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
