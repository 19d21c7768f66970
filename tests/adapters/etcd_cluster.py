"""A real etcd cluster on loopback, for the tests of the election. Members can be stopped, frozen and started."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on right now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


class Member:
    """One etcd process."""

    def __init__(self, name: str, directory: Path, client: int, peer: int, scheme: str, extra: Sequence[str]) -> None:
        self.name = name
        self.endpoint = f"{scheme}://127.0.0.1:{client}"
        self.peer = f"http://127.0.0.1:{peer}"
        self._directory = directory
        self._extra = tuple(extra)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, cluster: str, token: str) -> None:
        with (self._directory / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "etcd", "--name", self.name, "--data-dir", str(self._directory / self.name),
                    "--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint,
                    "--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer,
                    "--initial-cluster", cluster, "--initial-cluster-token", token, "--unsafe-no-fsync", *self._extra,
                ],
                stdout=log, stderr=log,
                env={**os.environ, "ETCD_UNSUPPORTED_ARCH": "arm64"},
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        while number is signal.SIGSTOP and ") T " not in Path(f"/proc/{self._process.pid}/stat").read_text():
            time.sleep(0.001)  # its threads stop one after the other; one that runs yet may answer

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def data(self) -> Path:
        return self._directory / self.name

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Cluster:
    """Members that know each other."""

    def __init__(self, directory: Path, size: int = 1, scheme: str = "http", extra: Sequence[str] = ()) -> None:
        ports = free_ports(2 * size)
        self.members = [Member(f"m{i}", directory, ports[2 * i], ports[2 * i + 1], scheme, extra) for i in range(size)]
        self._token = "first"
        self._initial = ",".join(f"{m.name}={m.peer}" for m in self.members)

    @property
    def endpoints(self) -> list[str]:
        return [m.endpoint for m in self.members]

    @contextlib.contextmanager
    def running(self, flags: Sequence[str] = ()) -> Iterator[Self]:
        """Healthy for as long as the body runs; `flags` are etcdctl's."""
        self.start()
        try:
            self.wait_healthy(flags)
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        for member in self.members:
            member.start(self._initial, self._token)

    def rebuild(self, token: str, snapshot: Path | None = None) -> None:
        """Stop, lose everything or go back to a snapshot, and be another cluster; not started."""
        self.stop()
        self._token = token
        for member in self.members:
            shutil.rmtree(member.data)
            if snapshot:
                self.ctl(
                    "snapshot", "restore", str(snapshot), "--name", member.name, "--data-dir", str(member.data),
                    "--initial-cluster", self._initial, "--initial-cluster-token", token,
                    "--initial-advertise-peer-urls", member.peer,
                )  # fmt: skip

    def secede(self, member: Member) -> None:
        """One member loses its data and is started as a cluster of its own."""
        member.stop()
        shutil.rmtree(member.data)
        member.start(f"{member.name}={member.peer}", "seceded")

    def stop_all_but(self, member: Member) -> None:
        for other in self.members:
            if other is not member:
                other.stop()

    def restart(self, member: Member) -> None:
        member.start(self._initial, self._token)

    def stop(self) -> None:
        for member in self.members:
            member.stop()

    def snapshot(self, path: Path) -> None:
        """What is in it, as one member has it."""
        command = ["etcdctl", "--endpoints", self.endpoints[0], "snapshot", "save", str(path)]
        subprocess.run(command, env=CTL_ENV, capture_output=True, timeout=20, check=True)

    def fill(self) -> None:
        """Write until etcd refuses to, with the alarm NOSPACE; for a small --quota-backend-bytes."""
        block = "x" * 100_000
        for i in range(200):
            self.ctl("put", f"fill/{i}", block, check=False)
            if "NOSPACE" in self.ctl("alarm", "list"):
                return
        raise AssertionError("etcd is not full")

    def ctl(self, *args: str, flags: Sequence[str] = (), check: bool = True) -> str:
        """Run etcdctl to its end and return what it printed."""
        command = self.ctl_command(*args, flags=flags)
        done = subprocess.run(command, env=CTL_ENV, capture_output=True, timeout=20, check=False)
        if check and done.returncode:
            raise AssertionError(done.stderr.decode())
        return done.stdout.decode()

    def ctl_command(self, *args: str, flags: Sequence[str] = ()) -> list[str]:
        return ["etcdctl", "--endpoints", ",".join(self.endpoints), *flags, *args]

    def wait_healthy(self, flags: Sequence[str] = ()) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            done = subprocess.run(
                self.ctl_command("get", "x", flags=flags), env=CTL_ENV, capture_output=True, timeout=20, check=False
            )
            if done.returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError("etcd did not come up")


CTL_ENV = {**os.environ, "ETCDCTL_API": "3"}
