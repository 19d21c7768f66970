"""Asking the neighbours, on a real wire between two namespaces."""

import time
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from govipd.adapters.frames import arp_probe, neighbor_solicitation
from govipd.adapters.neighbours import who_has, wire
from govipd.errors import KernelError
from tests.adapters.conftest import Wire

V4, V6 = ip_address("192.0.2.100"), ip_address("2001:db8::100")
MAC = bytes.fromhex("020000000001")


def mac_of(net: Wire) -> bytes:
    return bytes.fromhex(net.peer.ip("-br link show eth0").split()[2].replace(":", ""))


def test_arp_probe() -> None:
    """RFC 5227: a request whose sender address is 0."""
    assert arp_probe(MAC, IPv4Address("192.0.2.100")).hex(" ", 2) == (
        "ffff ffff ffff 0200 0000 0001 0806 0001 0800 0604 0001 0200 0000 0001 0000 0000 0000 0000 0000 c000 0264"
    )


def test_neighbor_solicitation() -> None:
    """RFC 4861: to the solicited-node group, hop limit 255, with the source link-layer address option."""
    frame = neighbor_solicitation(MAC, IPv6Address("2001:db8::1"), IPv6Address("2001:db8::100"))
    assert frame.hex(" ", 2) == (
        "3333 ff00 0100 0200 0000 0001 86dd "
        "6000 0000 0020 3aff "
        "2001 0db8 0000 0000 0000 0000 0000 0001 "
        "ff02 0000 0000 0000 0000 0001 ff00 0100 "
        "8700 1a2b 0000 0000 "
        "2001 0db8 0000 0000 0000 0000 0000 0100 "
        "0101 0200 0000 0001"
    )


@pytest.mark.root
async def test_whoever_has_the_address_is_found_by_its_hardware_address(net: Wire) -> None:
    """Both families; an address that nobody has is answered by nobody; this host's own answers do not count."""
    net.peer.ip("addr add 192.0.2.100/32 dev eth0")
    net.peer.ip("addr add 2001:db8::100/128 dev eth0 nodad")
    net.host.ip("addr add 192.0.2.1/24 dev eth0")
    free = ip_address("192.0.2.101")
    found = await who_has(await wire("eth0", avoid=()), {V4, V6, free}, listen_s=1.0)
    assert found == {V4: {mac_of(net)}, V6: {mac_of(net)}, free: set()}


@pytest.mark.root
async def test_asking_changes_no_cache(net: Wire) -> None:
    """The neighbour that answers has learnt nothing about an IPv4 address of ours; RFC 5227's probe has none."""
    net.host.ip("addr add 192.0.2.1/24 dev eth0")
    net.peer.ip("addr add 192.0.2.100/24 dev eth0")
    found = await who_has(await wire("eth0", avoid=()), {V4}, listen_s=0.5)
    assert found[V4]
    assert "192.0.2." not in net.peer.ip("neigh show")
    assert "192.0.2." not in net.host.ip("neigh show")


@pytest.mark.root
async def test_no_wire_no_question(net: Wire) -> None:
    """An interface that is down, or does not exist, is told of at once."""
    net.host.ip("link set eth0 down")
    began = time.monotonic()
    for interface in ("eth0", "nosuch"):
        with pytest.raises(KernelError, match=interface):
            await wire(interface, avoid=())
    assert time.monotonic() - began < 5
