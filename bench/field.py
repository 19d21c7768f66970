"""The lab with one tool at a time, on the same machines, with the same etcd and haproxy."""

import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bench.tools import TOOLS, Tool
from tests.lab import host
from tests.lab.host import until
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.network import VIP4

PACKAGES = ("keepalived", "vip-manager")
UNITS = sorted({unit for tool in TOOLS.values() for unit in tool.units})


class Field:
    """Changes the tool that runs on the machines of a lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._written: set[str] = set()
        # vip-manager speaks version 2 of etcd's API, which costs the others nothing.
        for node in lab.nodes:
            node.write("etc/default/etcd", node.read("etc/default/etcd") + "ETCD_ENABLE_V2=true\n")
        self.everywhere("systemctl restart etcd")

    def everywhere(self, command: str) -> None:
        """Run a command on all machines at once."""
        self._each(lambda node: node.run(command, timeout=60))

    def _each(self, act: Callable[[Machine], object]) -> None:
        with ThreadPoolExecutor(len(self.lab.nodes)) as pool:
            list(pool.map(act, self.lab.nodes))

    def play_with(self, tool: Tool) -> Machine:
        """Repair everything, start the tool on every machine, and wait for a holder. Returns the holder."""
        self._repair()
        self._clear()
        self._install(tool)
        self.everywhere("systemctl daemon-reload; systemctl restart haproxy")
        self.lab.wait_ready()
        self.lab.wait_silent()
        self.everywhere(f"systemctl start {' '.join(reversed(tool.units))}")
        until(lambda: tool.ready(self.lab), 60, f"{tool.name} is ready on every machine")
        return self.lab.wait_serving()

    def _repair(self) -> None:
        for node in self.lab.nodes:
            if not node.running:
                node.boot()
            self.lab.network.port_up(node.port)
            self.lab.heal(node)
            for unit in ("haproxy.service", "etcd.service", *UNITS):
                for pid in node.unit_pids(unit):
                    host.kill(pid, signal.SIGCONT)

    def _clear(self) -> None:
        """Stop every tool, and remove what the tools left in the kernel and in etcd."""
        self.everywhere(f"systemctl stop {' '.join(UNITS)} 2> /dev/null; systemctl reset-failed; "
                        f"ip address flush dev eth0 to {VIP4}/32; nft flush ruleset; systemctl start etcd")  # fmt: skip

    def _install(self, tool: Tool) -> None:
        for node in self.lab.nodes:
            for path in self._written:
                (node.root / path).unlink(missing_ok=True)
            for path, text in tool.files(self.lab, node):
                (node.root / path).parent.mkdir(parents=True, exist_ok=True)
                (node.root / path).write_text(text)
                self._written.add(path)


def versions(lab: Lab) -> dict[str, str]:
    """The compared programs and their versions."""
    dpkg = "dpkg-query -W -f '${Package} ${Version}\\n' keepalived vip-manager etcd-server haproxy systemd"
    found = dict(line.split() for line in lab.nodes[0].run(dpkg).stdout.splitlines())
    found["govipd"] = lab.nodes[0].run("govipd --version").stdout.split()[-1]
    checkout = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {**found, "commit": checkout.stdout.strip()}
