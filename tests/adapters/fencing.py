"""What the tests of the fence share: who asks for the VIP, and processes that end or ask between two transactions."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_interface

from govipd.adapters.kernel.fence_tables import FenceTables
from govipd.adapters.kernel.nft_table import Message
from govipd.adapters.kernel.nftables import NfTables
from govipd.core.events import Address
from govipd.runtime.ports import Clock
from tests.adapters.namespaces import Namespace

V4: Address = ip_interface("192.0.2.100/32")
V6: Address = ip_interface("2001:db8::100/128")
OWN4: Address = ip_interface("192.0.2.10/24")
OWN6: Address = ip_interface("2001:db8::10/64")
TABLE = "govipd_eth0"


class Asker:
    """Sends echo requests from the peer and notes when answers come. The VIP's neighbour entry is fixed."""

    def __init__(self, host: Namespace, peer: Namespace, address: Address) -> None:
        self.answers: list[float] = []
        self.asked = 0
        self._to = (str(address.ip), 0)
        self._v6 = address.version == 6
        family, protocol = (
            (socket.AF_INET6, socket.IPPROTO_ICMPV6) if self._v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
        )
        with peer.inside():
            self._socket = socket.socket(family, socket.SOCK_DGRAM, protocol)  # icmp(7): the kernel adds id and sum
        self._socket.setblocking(False)
        (link,) = json.loads(host.ip("-json link show dev eth0"))
        peer.ip(f"neigh replace {address.ip} lladdr {link['address']} dev eth0 nud permanent")

    def ask(self) -> None:
        self._socket.sendto((b"\x80" if self._v6 else b"\x08") + bytes(7), self._to)
        self.asked += 1

    def listen(self, now: float) -> int:
        while True:
            try:
                self._socket.recv(1000)
            except BlockingIOError:
                return len(self.answers)
            self.answers.append(now)

    async def answered(self, clock: Clock) -> bool:
        """Ask until there is an answer, or twenty questions found none."""
        before = self.listen(clock.now())
        for _ in range(20):
            self.ask()
            await asyncio.sleep(0.01)
            if self.listen(clock.now()) > before:
                return True
        return False

    def close(self) -> None:
        self._socket.close()


def slot_in_use(host: Namespace, table: str = TABLE) -> set[str]:
    """The slots that count for an address."""
    listing = json.loads(host.run("nft", "--json", "list", "table", "inet", table))["nftables"]
    sets = [entry["set"] for entry in listing if "set" in entry]
    return {s["name"][-1] for s in sets if s["name"].startswith("used") and s.get("elem")}


OPENED: list[NfTables] = []  # closed when the test ends


def own_tables(interface: str = "eth0", mac: Callable[[str], bytes | None] = lambda _: None) -> FenceTables:
    """Tables with a socket of their own."""
    OPENED.append(NfTables())
    return FenceTables(interface, OPENED[-1], mac)


class KilledError(Exception):
    """The process ends here."""


class Killing(NfTables):
    """A process that is killed after its first transaction."""

    def commit(self, messages: Iterable[Message], *, undisturbed: bool = False) -> None:
        super().commit(messages, undisturbed=undisturbed)
        raise KilledError


class Asking(NfTables):
    """Asks for the VIP after each transaction."""

    def __init__(self, vip: Asker) -> None:
        super().__init__(owns=False)
        self._vip = vip

    def commit(self, messages: Iterable[Message], *, undisturbed: bool = False) -> None:
        super().commit(messages, undisturbed=undisturbed)
        self._vip.ask()
