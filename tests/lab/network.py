"""The wires: a switch in a namespace of its own, a namespace for each machine and for the client.

A lab may have a second network: another bridge, and an eth1 in each namespace.

Only documentation addresses (RFC 5737, RFC 3849), and nothing in the host's own namespace.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tests.lab.host import NETNS, run

VIP4 = IPv4Address("192.0.2.100")
VIP6 = IPv6Address("2001:db8::100")
INNER4 = IPv4Address("198.51.100.100")  # a VIP on the second network
INNER6 = IPv6Address("2001:db8:1::100")
CUT = "lab_cut"


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a wire: a namespace with an interface, eth0; `second`: the same machine's eth1."""

    name: str
    number: int
    second: bool = False

    @property
    def interface(self) -> str:
        return "eth1" if self.second else "eth0"

    @property
    def v4(self) -> IPv4Address:
        return IPv4Address("198.51.100.0" if self.second else "192.0.2.0") + self.number

    @property
    def v6(self) -> IPv6Address:
        return IPv6Address(f"2001:db8:{'1' if self.second else '0'}::{self.number}")

    @property
    def mac(self) -> bytes:
        return bytes([2, 0, 0, 0, int(self.second), self.number])

    @property
    def inner(self) -> "Port":
        return Port(self.name, self.number, second=True)

    @property
    def plug(self) -> str:
        """The switch's end of the wire."""
        return f"{self.name}b" if self.second else self.name


class Network:
    """The switch and what is plugged into it. `two`: there is a second network."""

    def __init__(self, prefix: str, *, two: bool = False) -> None:
        self.two = two
        self._prefix = prefix
        self._switch = self.namespace("switch")
        run("ip", "netns", "add", self._switch)
        for bridge in ("br0", "br1"):
            self._ip(self._switch, f"link add {bridge} type bridge forward_delay 0 mcast_snooping 0",
                     f"link set {bridge} up")  # fmt: skip

    def namespace(self, name: str) -> str:
        """The network namespace's name on this host."""
        return f"{self._prefix}-{name}"

    def enter(self, name: str) -> list[str]:
        """The command prefix that runs a command in a machine's network (not in the machine)."""
        return ["nsenter", f"--net={NETNS / self.namespace(name)}", "--"]

    def plug(self, port: Port) -> None:
        """A new namespace for a machine, wired to the switch."""
        run("ip", "netns", "add", self.namespace(port.name))
        self.rewire(port)

    def rewire(self, port: Port) -> None:
        """A new wire, to a machine whose namespace has none (any more); wires to both networks where there are two."""
        if self.two and not port.second and not self._has(port.inner):
            self.rewire(port.inner)
        ns, eth = self.namespace(port.name), port.interface
        self._ip(self._switch, f"link add {port.plug} type veth peer name {eth} address {port.mac.hex(':')} netns {ns}",
                 f"link set {port.plug} master {'br1' if port.second else 'br0'} up")  # fmt: skip
        # The last two are in conf/90-govip.sysctl.conf, which a machine in a container may not apply itself.
        sysctls = (f"net.ipv6.conf.{eth}.accept_dad=0", f"net.ipv6.conf.{eth}.accept_ra=0",
                   "net.ipv4.ip_nonlocal_bind=1", "net.ipv6.ip_nonlocal_bind=1")  # fmt: skip
        run(*self.enter(port.name), "sysctl", "-qw", *sysctls)
        self._ip(ns, "link set lo up", f"link set {eth} up", f"addr add {port.v4}/24 dev {eth}",
                 f"addr add {port.v6}/64 dev {eth} nodad")  # fmt: skip

    def wires(self, port: Port) -> tuple[Port, ...]:
        """The machine's ends of its wires."""
        return (port, port.inner) if self.two else (port,)

    def _has(self, port: Port) -> bool:
        return run("ip", "-n", self._switch, "link", "show", port.plug, check=False) != ""

    def unplug(self, port: Port) -> None:
        """The machine's end of the wire, its addresses and its firewall vanish, as with its power."""
        run("ip", "netns", "del", self.namespace(port.name), check=False)
        for wire in self.wires(port):
            run("ip", "-n", self._switch, "link", "del", wire.plug, check=False)

    def port_down(self, port: Port) -> None:
        """Pull the cable."""
        self._ip(self._switch, f"link set {port.plug} down")

    def port_up(self, port: Port) -> None:
        """Plug it in again."""
        self._ip(self._switch, f"link set {port.plug} up")

    def cut(self, port: Port, others: Sequence[Port], direction: str = "both") -> None:
        """Drop every packet between a machine and others; direction "in", "out" or "both", seen from it."""
        v4 = ", ".join(str(o.v4) for o in others)
        v6 = ", ".join(str(o.v6) for o in others)
        rules = [f"table inet {CUT} {{"]
        if direction in {"in", "both"}:
            rules.append(f"chain in {{ type filter hook input priority -300; ip saddr {{ {v4} }} drop;"
                         f" ip6 saddr {{ {v6} }} drop; }}")  # fmt: skip
        if direction in {"out", "both"}:
            rules.append(f"chain out {{ type filter hook output priority -300; ip daddr {{ {v4} }} drop;"
                         f" ip6 daddr {{ {v6} }} drop; }}")  # fmt: skip
        run(*self.enter(port.name), "nft", "-f", "-", stdin="\n".join([*rules, "}"]))

    def heal(self, port: Port) -> None:
        """Undo cut()."""
        run(*self.enter(port.name), "nft", "delete", "table", "inet", CUT, check=False)

    @staticmethod
    def _ip(namespace: str, *commands: str) -> None:
        run("ip", "-n", namespace, "-batch", "-", stdin="\n".join(commands))
