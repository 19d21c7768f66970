"""One machine: an overlay of the image, a network namespace, and systemd as its PID 1."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.lab import host
from tests.lab.host import LabError, until
from tests.lab.network import Network, Port

CAPABILITIES = "CAP_NET_ADMIN,CAP_NET_RAW,CAP_SYS_NICE,CAP_IPC_LOCK"
POWER_OFF = int(signal.SIGRTMIN) + 4  # systemd(1): start poweroff.target


class Machine:
    """A machine that can be booted, asked, hurt and switched off. Its disk outlives a power loss."""

    def __init__(self, port: Port, network: Network, layers: Sequence[Path], directory: Path, full_name: str) -> None:
        self.port = port
        self.name = port.name
        self.root = directory / "root"
        self._network = network
        self._full_name = full_name
        self._directory = directory
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        for part in ("root", "upper", "work"):
            (directory / part).mkdir(parents=True)
        lower = ":".join(map(str, layers))
        host.run("mount", "-t", "overlay", "overlay", "-o",
                 f"lowerdir={lower},upperdir={directory}/upper,workdir={directory}/work", str(self.root))  # fmt: skip

    def __repr__(self) -> str:
        return self.name

    # Power

    @property
    def running(self) -> bool:
        """Whether it is switched on."""
        return self._pid is not None

    def boot(self) -> None:
        """Switch on, and wait for systemd and D-Bus; etcd starts when enough of its members have."""
        self._network.plug(self.port)
        with (self._directory / "console.log").open("ab") as console:
            self._nspawn = subprocess.Popen(
                [
                    *host.launcher(self._full_name), "systemd-nspawn", "--quiet", "-D", str(self.root),
                    "-M", self._full_name, "--hostname", self.name, "--boot", "--register=no", "--keep-unit",
                    "--console=pipe", "--link-journal=no", f"--capability={CAPABILITIES}",
                    f"--network-namespace-path={host.NETNS / self._network.namespace(self.name)}",
                ],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            )  # fmt: skip
        until(self._find_init, 30, f"{self.name} has a PID 1")
        until(self._booted, 60, f"{self.name} has booted")

    def _find_init(self) -> bool:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            raise LabError(f"{self.name} did not boot:\n{self.console()}")
        todo = [self._nspawn.pid]
        while todo:
            pid = todo.pop()
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            except FileNotFoundError:
                continue
            namespaces = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
            if len(namespaces) > 2 and namespaces[-1] == "1" and Path(f"/proc/{pid}/exe").readlink().name == "systemd":
                self._pid = pid
                return True
            todo += map(int, children)
        return False

    def _booted(self) -> bool:
        return self.run("systemctl is-active basic.target dbus.service", check=False).returncode == 0

    def console(self) -> str:
        """What it printed while booting."""
        return (self._directory / "console.log").read_text(errors="replace")

    def power_loss(self) -> None:
        """The plug is pulled: no process gets to do anything more."""
        if self._pid is not None:
            for wire in self._network.wires(self.port):
                self._network.port_down(wire)
            self.thaw()
            host.kill(self._pid, signal.SIGKILL)
            self._gone()

    def power_off(self) -> None:
        """An orderly shutdown."""
        assert self._pid is not None
        os.kill(self._pid, POWER_OFF)
        self._gone()

    def _gone(self) -> None:
        assert self._nspawn is not None
        self._nspawn.wait(timeout=90)
        self._pid = None
        host.remove_machine(self._full_name)
        self._network.unplug(self.port)

    def freeze(self) -> None:
        """Stop every process of the machine; its kernel keeps running."""
        host.freeze(self._full_name, frozen=True)

    def thaw(self) -> None:
        """Continue them."""
        host.freeze(self._full_name, frozen=False)

    # Inside

    def run(self, command: str, *, check: bool = True, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a shell command in the machine, as its root, as a person would type it.

        Raises:
            LabError: it failed (with `check`), or took longer than `timeout` seconds, as in a frozen machine.
        """
        typed = [
            *self.enter(), "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root", "LANG=C.UTF-8", "ETCDCTL_API=3", "SYSTEMD_PAGER=", "sh", "-c", command,
        ]  # fmt: skip
        try:
            done = subprocess.run(
                typed, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired as e:
            raise LabError(f"{self.name}: {command}: no answer within {timeout:g} s") from e
        if check and done.returncode:
            raise LabError(f"{self.name}: {command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def active(self, unit: str) -> bool:
        """Whether a unit is active."""
        return self.run(f"systemctl is-active {unit}", check=False).returncode == 0

    def enter(self) -> list[str]:
        """The command prefix that runs a command in the machine."""
        if self._pid is None:
            raise LabError(f"{self.name} is switched off")
        return ["nsenter", "-t", str(self._pid), "-a", "--"]

    def write(self, path: str, text: str) -> None:
        """Write a file of the machine."""
        (self.root / path.lstrip("/")).write_text(text)

    def write_live(self, path: str, text: str) -> None:
        """Write a file below /run or /tmp, which only the running machine sees."""
        subprocess.run([*self.enter(), "tee", path], input=text, text=True, check=True, capture_output=True, timeout=10)

    def read(self, path: str) -> str:
        """Read a file of the machine."""
        return (self.root / path.lstrip("/")).read_text()

    def unit_pids(self, unit: str) -> list[int]:
        """A unit's processes, by the host's process ids."""
        return host.unit_pids(self._full_name, unit)

    def signal_unit(self, unit: str, number: signal.Signals) -> None:
        """Send a signal to exactly a unit's processes, without its systemd's help."""
        pids = self.unit_pids(unit)
        if not pids:
            raise LabError(f"{self.name}: {unit} has no process")
        for pid in pids:
            host.kill(pid, number)
