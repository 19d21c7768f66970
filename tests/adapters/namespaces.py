"""Network namespaces without a name: the kernel removes them when the test process ends, however it ends."""

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Namespace:
    """A network namespace, held by a file descriptor."""

    def __init__(self) -> None:
        self.fd = -1
        thread = threading.Thread(target=self._create)
        thread.start()
        thread.join()
        self.ip("link set lo up")

    def _create(self) -> None:
        _checked(_libc.unshare(_CLONE_NEWNET))  # of this thread only, which ends at once
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets, threads and processes made by this thread belong to this namespace."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _checked(_libc.setns(self.fd, _CLONE_NEWNET))
            yield
        finally:
            _checked(_libc.setns(before, _CLONE_NEWNET))
            os.close(before)

    def run(self, *command: str, check: bool = True) -> str:
        with self.inside():
            return subprocess.run(command, check=check, stdout=subprocess.PIPE, text=True, timeout=20).stdout

    def ip(self, arguments: str) -> str:
        return self.run("ip", *arguments.split())

    def close(self) -> None:
        os.close(self.fd)


def wire(one: Namespace, other: Namespace) -> None:
    """Connect two namespaces: eth0 here, eth0 there."""
    one.ip(f"link add eth0 type veth peer name eth0 netns {other.path}")
    for namespace in (one, other):
        namespace.ip("link set eth0 up")
