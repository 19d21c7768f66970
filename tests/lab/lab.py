"""The lab: machines, a client, a switch. A context manager that leaves nothing behind."""

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Self

from tests.lab import host, image
from tests.lab.host import LabError, until
from tests.lab.machine import Machine
from tests.lab.network import VIP4, Network, Port
from tests.lab.observe import FIRST, FIRST_INNER, Observation, Report, Vips
from tests.lab.provision import configure, provision

CLIENT = Port("client", 50)
DAEMON = "govipd@eth0"


class Lab:
    """Three (or more) machines that run what the README tells a user to install.

    `with Lab() as lab:` boots them and waits until etcd and haproxy serve; govipd is not started. `bare` names a Debian
    release: machines of that one, without govipd, for a test that installs it. `extra`: Debian packages beside govipd;
    their services are not started. `two_networks`: every machine has a second interface, eth1, on a network of its own.
    """

    def __init__(
        self,
        nodes: int = 3,
        say: Callable[[str], None] = print,
        bare: str | None = None,
        extra: Sequence[str] = (),
        *,
        two_networks: bool = False,
    ) -> None:
        self._prefix = f"govip{os.getpid()}"
        self._directory = host.RUN / str(os.getpid())
        self.say = say
        self._bare = bare
        self._extra = extra
        self._two_networks = two_networks
        self._ports = [Port(f"node{i}", 10 + i) for i in range(1, nodes + 1)]
        self.client = CLIENT
        self.nodes: list[Machine] = []

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise LabError("the lab needs root: it makes namespaces and boots machines in them")
        host.remove_dead_labs()
        atexit.register(self.close)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda n, _: sys.exit(128 + n))  # SIGINT raises KeyboardInterrupt already
        try:
            layers = [image.base(self._bare, self.say)] if self._bare else image.layers(self.say, self._extra)
            self._directory.mkdir(parents=True)
            host.run("mount", "-t", "tmpfs", "-o", "mode=755", "govip-lab", str(self._directory))
            self.network = Network(self._prefix, two=self._two_networks)
            self.network.plug(self.client)
            for port in self._ports:
                node = Machine(port, self.network, layers, self._directory / port.name, f"{self._prefix}-{port.name}")
                provision(node.root, port, self._ports)
                if not self._bare:
                    configure(node.root, self._ports)
                self.nodes.append(node)
            for node in self.nodes:
                node.boot()
            if not self._bare:
                self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything; safe to call again."""
        atexit.unregister(self.close)
        for node in self.nodes:
            if node.running:
                node.power_loss()
        self.nodes = []
        host.remove_lab(os.getpid())

    # Asking

    def node(self, name: str) -> Machine:
        """The machine of that name."""
        return next(n for n in self.nodes if n.name == name)

    def others(self, *but: Machine) -> list[Machine]:
        """The machines that are switched on, without some."""
        return [n for n in self.nodes if n not in but and n.running]

    def wait_ready(self) -> None:
        """Until etcd has a leader that every running machine sees, and every haproxy serves."""
        for node in self.others():
            until(partial(self._ready, node), 30, f"{node} serves")

    @staticmethod
    def _ready(node: Machine) -> bool:
        etcd = f"ETCDCTL_ENDPOINTS=http://{node.port.v4}:2379 etcdctl get x"
        return node.run(f"{etcd} && curl -fsS -o /dev/null localhost:8404/healthz", check=False).returncode == 0

    def serving(self) -> str | None:
        """Which machine a client reaches through the VIP now; None when no machine answers."""
        done = subprocess.run(
            [*self.network.enter(CLIENT.name), "curl", "-fsS", "-m", "0.3", f"http://{VIP4}/"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
        return done.stdout.strip() or None

    def wait_serving(self, by: Machine | None = None, but: Machine | None = None, timeout: float = 20.0) -> Machine:
        """Until a client is served (by one machine, or by any other than one); that machine."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            name = self.serving()
            if name and (by is None or name == by.name) and (but is None or name != but.name):
                return self.node(name)
            time.sleep(0.05)
        states = "\n".join(f"{n}: {_status(n)}" for n in self.others())
        raise LabError(f"the VIP is not served within {timeout:g} s (last: {self.serving()})\n{states}")

    def wait_silent(self, timeout: float = 20.0) -> None:
        """Wait until no machine serves the VIP."""
        until(lambda: self.serving() is None, timeout, "nobody serves the VIP")

    # Acting

    def start_daemons(self) -> None:
        """What a user types on every machine."""
        for node in self.others():
            node.run(f"systemctl enable --now {DAEMON}")

    def configure(self, more: str) -> None:
        """Append to every machine's govip.toml."""
        for node in self.nodes:
            node.write("/etc/govip/govip.toml", node.read("/etc/govip/govip.toml") + more)

    def isolate(self, node: Machine, *, direction: str = "both", client_too: bool = False) -> None:
        """Cut a machine off from the others, and from the client only when asked."""
        ports = [n.port for n in self.nodes if n is not node]
        self.network.cut(node.port, [*ports, CLIENT] if client_too else ports, direction)

    def heal(self, node: Machine) -> None:
        """Undo isolate()."""
        self.network.heal(node.port)

    def make_whole(self) -> None:
        """Undo every fault: all machines are on, connected, and run every unit."""
        for node in self.nodes:
            if not node.running:
                node.boot()
            node.thaw()
            for wire in self.network.wires(node.port):
                self.network.port_up(wire)
            self.heal(node)
        for node in self.nodes:
            for unit in ("haproxy.service", "etcd.service", f"{DAEMON}.service"):
                for pid in node.unit_pids(unit):
                    host.kill(pid, signal.SIGCONT)
            node.run(f"systemctl reset-failed; systemctl start --no-block etcd haproxy {DAEMON}")
        self.wait_ready()
        self.wait_serving()
        until(lambda: len(self.queue()) == len(self.nodes), 60, "every machine stands in the queue")

    def queue(self) -> list[str]:
        """The members in the election, the leader first; empty when etcd does not tell."""
        for node in self.others():
            done = node.run("govipctl status --json", check=False)
            cluster = json.loads(done.stdout)["cluster"] if done.stdout else None
            if cluster:
                return list(cluster.get("api", {}).get("queue", []))
        return []

    @contextmanager
    def observe(self, *, vips: Vips = FIRST, inner: Vips = FIRST_INNER) -> Iterator["Watching"]:
        """Observe while the body runs; `report` holds what was seen once it has ended."""
        ports = [n.port for n in self.nodes if n.running]
        watching = Watching(Observation(self.network, CLIENT, ports, vips=vips, inner=inner))
        time.sleep(0.3)  # the observers start up
        try:
            yield watching
        finally:
            watching.end()


class Watching:
    """An observation under way, then its report."""

    def __init__(self, observation: Observation) -> None:
        self._observation = observation
        self._report: Report | None = None

    def mark(self, name: str) -> None:
        """Remember this instant by name, for Report.since()."""
        self._observation.mark(name)

    def again(self, node: Machine) -> None:
        """A machine was switched on again: observe its new network's addresses."""
        self._observation.watch_addresses(node.port)

    def end(self) -> None:
        """End the observers."""
        if self._report is None:
            self._report = self._observation.stop()

    @property
    def report(self) -> Report:
        """What was seen; only after the observation."""
        assert self._report is not None, "still observing"
        return self._report


def _status(node: Machine) -> str:
    """What systemd tells of the daemon, or that it does not."""
    try:
        return node.run(f"systemctl status {DAEMON}", check=False, timeout=5).stdout
    except LabError as e:
        return str(e)
