"""The fence and NAT: what a machine would turn elsewhere is dropped with the rest; what it only passes on, is not."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_interface

import pytest

from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.rtnetlink import RouteSocket
from govipd.core.events import Address
from govipd.core.placement import Placement
from tests.adapters.conftest import LeapingClock, Wire
from tests.adapters.fencing import OWN4, V4, V6, own_tables
from tests.adapters.namespaces import Namespace

pytestmark = pytest.mark.root

PORT, BEHIND = 443, 8443
INSIDE, BACKEND = "198.51.100.1/24", "198.51.100.2"
PATIENCE_S = 0.6  # a lost SYN is sent again after a second
NAT = {
    "redirect": f"ip daddr {V4.ip} tcp dport {PORT} redirect to :{BEHIND}",
    "dnat": f"ip daddr {V4.ip} tcp dport {PORT} dnat to {BACKEND}:{BEHIND}",
    "published": f"fib daddr type local tcp dport {PORT} dnat to {BACKEND}:{BEHIND}",  # as docker -p, a NodePort
    "masquerade": f"ip daddr {V4.ip} tcp dport {PORT} dnat to {BACKEND}:{BEHIND}",
}


@contextmanager
def echoing(namespace: Namespace) -> Iterator[None]:
    """A server behind NAT that sends back what it gets."""
    with namespace.inside():
        server = socket.create_server(("", BEHIND))

    def echo(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(100):
                connection.sendall(data)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def connect(peer: Namespace) -> socket.socket | None:
    with peer.inside():
        client = socket.socket()
    client.settimeout(PATIENCE_S)
    try:
        client.connect((str(V4.ip), PORT))
    except OSError:
        client.close()
        return None
    return client


def echoes(client: socket.socket) -> bool:
    try:
        client.sendall(b"x")
        return bool(client.recv(1))
    except TimeoutError:
        return False


def pinned(host: Namespace, peer: Namespace, address: Address, interface: str = "eth0") -> None:
    """A client that keeps sending to this machine, as with an old neighbour entry."""
    (link,) = json.loads(host.ip(f"-json link show dev {interface}"))
    peer.ip(f"neigh replace {address.ip} lladdr {link['address']} dev eth0 nud permanent")


def guarding(clock: LeapingClock, interface: str = "eth0", second: str = "") -> NftFence:
    route = RouteSocket()
    macs = {name: route.mac(name) for name in (interface, second) if name}
    route.close()
    inner = ip_interface("198.51.100.77/24")
    placement = Placement(interface, {inner.ip: second} if second else {})
    addresses = (V4, V6, inner) if second else (V4, V6)
    return NftFence(addresses=addresses, clock=clock, tables=own_tables(interface, macs.get), placement=placement)


@pytest.mark.parametrize("kind", list(NAT))
async def test_closed_fence_passes_no_redirected_connection(machines: Wire, clock: LeapingClock, kind: str) -> None:
    """Neither a new one nor an established one, on either side of NAT; open, it passes both."""
    host, pod = machines.host, Namespace()
    host.ip(f"link add pods type veth peer name eth0 netns {pod.path}")
    host.ip("link set pods up")
    host.ip(f"address add {INSIDE} dev pods")
    pod.ip("link set eth0 up")
    pod.ip(f"address add {BACKEND}/24 dev eth0")
    pod.ip(f"route add default via {INSIDE.partition('/')[0]}")
    host.run("sysctl", "-q", "net.ipv4.ip_forward=1")
    host.run("nft", "add table ip nat; add chain ip nat pre { type nat hook prerouting priority dstnat; }; "
             f"add rule ip nat pre {NAT[kind]}")  # fmt: skip
    if kind == "masquerade":
        host.run("nft", "add chain ip nat post { type nat hook postrouting priority srcnat; }; "
                 "add rule ip nat post masquerade")  # fmt: skip
    pinned(host, machines.peer, V4)
    fence = guarding(clock)
    with echoing(host if kind == "redirect" else pod):
        await fence.open(clock.now() + 60)
        established = await asyncio.to_thread(connect, machines.peer)
        assert established is not None
        assert await asyncio.to_thread(echoes, established)
        await fence.close()
        assert not await asyncio.to_thread(echoes, established)
        assert await asyncio.to_thread(connect, machines.peer) is None
        host.ip(f"address del {V4} dev eth0")  # the frames still come
        assert await asyncio.to_thread(connect, machines.peer) is None
        host.ip(f"address add {V4} dev eth0")
        await fence.open(clock.now() + 0.3)  # and ends by itself
        again = await asyncio.to_thread(connect, machines.peer)
        assert again is not None
        await asyncio.sleep(0.35)
        assert not await asyncio.to_thread(echoes, again)
        await fence.open(clock.now() + 60)
        established.settimeout(10)  # until TCP sends again
        assert await asyncio.to_thread(echoes, established)
        established.close()
        again.close()
    await fence.remove()
    pod.close()


async def test_closed_fence_lets_nothing_out_that_nat_sends_in_the_vips_name(
    machines: Wire, clock: LeapingClock
) -> None:
    """As with `snat to VIP` for what runs behind this machine."""
    host, pod = machines.host, Namespace()
    host.ip(f"link add pods type veth peer name eth0 netns {pod.path}")
    host.ip("link set pods up")
    host.ip(f"address add {INSIDE} dev pods")
    pod.ip("link set eth0 up")
    pod.ip(f"address add {BACKEND}/24 dev eth0")
    pod.ip(f"route add default via {INSIDE.partition('/')[0]}")
    host.run("sysctl", "-q", "net.ipv4.ip_forward=1")
    host.run("nft", "add table ip nat; add chain ip nat post { type nat hook postrouting priority srcnat; }; "
             f"add rule ip nat post ip saddr {BACKEND} snat to {V4.ip}")  # fmt: skip
    with machines.peer.inside():
        seen = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    seen.bind(("192.0.2.1", BEHIND))
    seen.settimeout(PATIENCE_S)
    with pod.inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fence = guarding(clock)
    for opened in (True, False):
        if opened:
            await fence.open(clock.now() + 60)
        else:
            await fence.close()
        sender.sendto(b"x", ("192.0.2.1", BEHIND))
        try:
            found = await asyncio.to_thread(seen.recvfrom, 10)
        except TimeoutError:
            assert not opened
        else:
            assert opened
            assert found[1][0] == str(V4.ip)
    seen.close()
    sender.close()
    await fence.remove()
    pod.close()


class Standby:
    """The holder of the VIP, and a standby between it and a guest: their wires meet in the standby's bridge."""

    def __init__(self) -> None:
        self.holder, self.host, self.guest = Namespace(), Namespace(), Namespace()
        self.host.ip("link add br0 type bridge")
        for name, other in (("wire", self.holder), ("tap", self.guest)):
            self.host.ip(f"link add {name} type veth peer name eth0 netns {other.path}")
            self.host.ip(f"link set {name} master br0 up")
            other.ip("link set eth0 up")
        self.host.ip("link set br0 up")
        self.host.ip(f"address add {OWN4} dev br0")
        self.holder.ip("address add 192.0.2.1/24 dev eth0")
        self.holder.ip(f"address add {V4} dev eth0")
        self.holder.ip("address add 2001:db8::1/64 dev eth0 nodad")
        self.holder.ip(f"address add {V6} dev eth0 nodad")
        self.guest.ip("address add 192.0.2.30/24 dev eth0")
        self.guest.ip("address add 2001:db8::30/64 dev eth0 nodad")

    def close(self) -> None:
        for namespace in (self.holder, self.host, self.guest):
            namespace.close()


@pytest.fixture
def standby() -> Iterator[Standby]:
    made = Standby()
    with made.host.inside():
        yield made
    made.close()


@pytest.mark.parametrize("filtered", [False, True], ids=["bridge", "br_netfilter"])
async def test_a_guest_reaches_the_vip_through_a_standbys_bridge(
    standby: Standby, clock: LeapingClock, *, filtered: bool
) -> None:
    """Bridged frames pass the hooks of IP, too, where br_netfilter is on: they are neither to nor from this machine."""
    for family in ("ip", "ip6"):
        standby.host.run("sysctl", "-q", f"net.bridge.bridge-nf-call-{family}tables={int(filtered)}")
    fence = guarding(clock, "br0")
    await fence.close()
    for address in (V4, V6):
        standby.guest.run("ping", "-c", "2", "-i", "0.2", "-w", "5", str(address.ip))
    standby.host.run("ping", "-c", "1", "-w", "5", str(V4.ip))  # and the standby itself
    # A frame to the standby's own hardware address is an old neighbour entry's: it gets no answer.
    pinned(standby.host, standby.guest, V4, "br0")
    standby.host.run("nft", "add table ip nat; add chain ip nat pre { type nat hook prerouting priority dstnat; }; "
                     f"add rule ip nat pre ip daddr {V4.ip} redirect")  # fmt: skip
    lost = standby.guest.run("ping", "-c", "2", "-i", "0.2", "-W", "1", str(V4.ip), check=False)
    assert "100% packet loss" in lost
    await fence.remove()


@pytest.mark.parametrize("second", ["", "pods"])
async def test_a_pod_reaches_the_vip_through_a_standby_that_routes_it(
    standby: Standby, clock: LeapingClock, second: str
) -> None:
    """With its own address, and behind masquerading; also where the fence guards an address on the pods' interface."""
    pod = Namespace()
    standby.host.ip(f"link add pods type veth peer name eth0 netns {pod.path}")
    standby.host.ip("link set pods up")
    standby.host.ip(f"address add {INSIDE} dev pods")
    pod.ip("link set eth0 up")
    pod.ip(f"address add {ip_interface(BACKEND + '/24')} dev eth0")
    pod.ip(f"route add default via {INSIDE.partition('/')[0]}")
    standby.host.run("sysctl", "-q", "net.ipv4.ip_forward=1")
    standby.holder.ip(f"route add 198.51.100.0/24 via {OWN4.ip}")
    fence = guarding(clock, "br0", second)
    await fence.close()
    assert "1 received" in pod.run("ping", "-c", "1", "-w", "5", str(V4.ip))
    standby.host.run("nft", "add table ip nat; add chain ip nat post { type nat hook postrouting priority srcnat; }; "
                     "add rule ip nat post oifname br0 masquerade")  # fmt: skip
    assert "1 received" in pod.run("ping", "-c", "1", "-w", "5", str(V4.ip))
    await fence.remove()
    pod.close()
