"""Addresses and links, against the kernel, in network namespaces."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_interface
from typing import Any

import pytest

from govipd.adapters.kernel.addresses import KernelAddresses, PresentAddresses
from govipd.adapters.kernel.link_monitor import LinkMonitor
from govipd.adapters.kernel.rtnetlink import RouteSocket
from govipd.core.events import Address, AddressesElsewhere, AddressFound, AddressLost, Elsewhere, LinkState
from govipd.core.placement import Placement
from govipd.errors import InterfaceMissingError, KernelError
from tests.adapters.conftest import BootClock, Events, Wire
from tests.adapters.namespaces import Namespace, wire

pytestmark = pytest.mark.root

V4: Address = ip_interface("192.0.2.100/32")
V6: Address = ip_interface("2001:db8::100/128")


def shown(namespace: Namespace) -> dict[str, dict[str, Any]]:
    """What `ip` says of eth0, without the kernel's own link-local address."""
    (link,) = json.loads(namespace.ip("-json address show dev eth0"))
    return {f"{a['local']}/{a['prefixlen']}": a for a in link["addr_info"] if not a["local"].startswith("fe80")}


@pytest.fixture
async def addresses(net: Wire, clock: BootClock) -> AsyncIterator[KernelAddresses]:
    route = RouteSocket()
    yield KernelAddresses(
        placement=Placement("eth0"), addresses=(V4, V6), clock=clock, route=route, present=PresentAddresses()
    )
    route.close()


async def test_added_address_is_bounded_deprecated_and_without_dad(
    net: Wire, addresses: KernelAddresses, clock: BootClock
) -> None:
    """Both families carry a lifetime within the lease, preferred lifetime 0; IPv6 skips its own detection."""
    await addresses.add(clock.now() + 10.5)
    found = shown(net.host)
    assert set(found) == {str(V4), str(V6)}
    for address in found.values():
        assert address["preferred_life_time"] == 0
        assert 5 <= address["valid_life_time"] <= 10
    assert found[str(V6)]["nodad"]
    assert "tentative" not in found[str(V6)]


async def test_adding_again_renews_the_lifetime(net: Wire, addresses: KernelAddresses, clock: BootClock) -> None:
    """A renewal moves the lifetime, in both directions."""
    await addresses.add(clock.now() + 10)
    await addresses.add(clock.now() + 1000)
    assert all(a["valid_life_time"] > 900 for a in shown(net.host).values())
    await addresses.add(clock.now() + 10)
    assert all(a["valid_life_time"] <= 10 for a in shown(net.host).values())


async def test_unrenewed_address_vanishes_by_itself(
    net: Wire, addresses: KernelAddresses, clock: BootClock, events: Events
) -> None:
    """The kernel removes an address that is not renewed, and the monitor reports that."""
    async with monitoring(clock, events):
        await addresses.add(clock.now() + 1.5)
        await events.until(lambda: {e.address for e in events if isinstance(e, AddressLost)} == {V4, V6})
    assert shown(net.host) == {}


async def test_renewed_address_does_not_flicker(
    net: Wire, addresses: KernelAddresses, clock: BootClock, events: Events
) -> None:
    """Renewed every half second under a remaining lease of 2.5 s, no address is ever lost."""
    async with monitoring(clock, events):
        for _ in range(8):
            await addresses.add(clock.now() + 2.5)
            await asyncio.sleep(0.5)
    assert not [e for e in events if isinstance(e, AddressLost)]


async def test_expired_lease_adds_nothing(net: Wire, addresses: KernelAddresses, clock: BootClock) -> None:
    """An instant that has passed is refused."""
    with pytest.raises(KernelError, match="run out"):
        await addresses.add(clock.now())
    assert shown(net.host) == {}


async def test_remove_is_exact_and_idempotent(net: Wire, addresses: KernelAddresses, clock: BootClock) -> None:
    """Neighbours in number stay; the same address with another prefix, which the kernel answers for, goes."""
    others = {"192.0.2.10/24", "192.0.2.101/32", "2001:db8::10/64", "2001:db8::1001/128"}
    for other in others:
        net.host.ip(f"address add {other} dev eth0 nodad" if ":" in other else f"address add {other} dev eth0")
    await addresses.add(clock.now() + 60)
    assert set(shown(net.host)) == {*others, str(V4), str(V6)}
    net.host.ip("address add 192.0.2.100/24 dev eth0")
    await addresses.remove()
    assert set(shown(net.host)) == others
    await addresses.remove()
    assert set(shown(net.host)) == others


async def test_a_twin_with_another_prefix_is_replaced(net: Wire, addresses: KernelAddresses, clock: BootClock) -> None:
    """A twin has no lifetime. The kernel keeps one of two IPv6 twins, so a renewal would act on the foreign one."""
    net.host.ip("address add 2001:db8::100/64 dev eth0 nodad")
    net.host.ip("address add 192.0.2.100/24 dev eth0")
    await addresses.add(clock.now() + 60)
    assert set(shown(net.host)) == {str(V4), str(V6)}


async def test_addresses_are_found_on_every_interface_with_any_prefix(net: Wire, addresses: KernelAddresses) -> None:
    """A kernel answers for an address on whichever interface it has it."""
    assert await addresses.anywhere() == ()
    net.host.ip("address add 192.0.2.100/24 dev eth0")
    net.host.ip("address add 2001:db8::100/64 dev lo nodad")
    found = {str(where) for where in await addresses.anywhere()}
    assert found == {"192.0.2.100/24 on eth0", "2001:db8::100/64 on lo"}
    await addresses.remove()
    assert [str(where) for where in await addresses.anywhere()] == ["2001:db8::100/64 on lo"]


class CountingRoute(RouteSocket):
    """Counts how often the addresses of an interface were read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def addresses(self, index: int) -> dict[Address, int]:
        self.reads += 1
        return super().addresses(index)


async def test_groups_that_renew_together_read_the_interface_once(net: Wire, clock: BootClock) -> None:
    """A host with many VIPs has many addresses. A twin is found at the next renewal, too."""
    present, route = PresentAddresses(), CountingRoute()
    groups = [
        KernelAddresses(placement=Placement("eth0"), addresses=(address,), clock=clock, route=route, present=present)
        for address in (V4, V6)
    ]
    for reads in (1, 2, 3):
        for group in groups:
            await group.add(clock.now() + 60)
        assert route.reads == reads
        await asyncio.sleep(2 * PresentAddresses.MAX_AGE_S)
    net.host.ip("address add 192.0.2.100/24 dev eth0")
    for group in groups:
        await group.add(clock.now() + 60)
    assert set(shown(net.host)) == {str(V4), str(V6)}
    route.close()


async def test_ipv6_address_that_failed_dad_is_replaced(
    net: Wire, addresses: KernelAddresses, clock: BootClock
) -> None:
    """An address muted by duplicate address detection is made to work."""
    net.peer.ip(f"address add {V6} dev eth0 nodad")
    net.host.ip(f"address add {V6} dev eth0")
    async with asyncio.timeout(15):
        while not shown(net.host)[str(V6)].get("dadfailed"):
            await asyncio.sleep(0.1)
    await addresses.add(clock.now() + 60)
    assert not {"dadfailed", "tentative"} & shown(net.host)[str(V6)].keys()


async def test_interface_may_vanish_and_return(net: Wire, addresses: KernelAddresses, clock: BootClock) -> None:
    """Adding to a missing interface fails, removing succeeds; a new interface of that name is used."""
    route = RouteSocket()
    await addresses.add(clock.now() + 60)
    net.host.ip("link delete eth0")
    with pytest.raises(InterfaceMissingError):
        await addresses.add(clock.now() + 60)
    await addresses.remove()
    assert route.mac("eth0") is None
    wire(net.host, net.peer)
    await addresses.add(clock.now() + 60)
    assert set(shown(net.host)) == {str(V4), str(V6)}
    (link,) = json.loads(net.host.ip("-json link show dev eth0"))
    assert route.mac("eth0") == bytes.fromhex(link["address"].replace(":", ""))
    route.close()


async def test_replaced_addresses_are_removed(net: Wire, addresses: KernelAddresses, clock: BootClock) -> None:
    """What is no longer in the group goes at once; later operations are about the new group."""
    new: Address = ip_interface("192.0.2.200/32")
    await addresses.add(clock.now() + 60)
    await addresses.replace((V6, new))
    assert set(shown(net.host)) == {str(V6)}
    await addresses.add(clock.now() + 60)
    assert set(shown(net.host)) == {str(V6), str(new)}


@asynccontextmanager
async def monitoring(clock: BootClock, events: Events, poll_s: float = 60.0) -> AsyncIterator[LinkMonitor]:
    """A monitor that has had its first look."""
    monitor = LinkMonitor(clock=clock, poll_s=poll_s)
    monitor.watch(Placement("eth0"), (V4, V6), events)
    task = asyncio.create_task(monitor.run())
    try:
        await events.until(lambda: bool(events))
        yield monitor
    finally:
        task.cancel()
        await asyncio.wait([task])


def links(events: Events) -> list[LinkState]:
    return [e for e in events if isinstance(e, LinkState)]


async def test_monitor_reports_every_change_of_the_link(net: Wire, clock: BootClock, events: Events) -> None:
    """Carrier, administrative state, hardware address, renaming, deletion and return."""
    async with monitoring(clock, events):
        assert links(events)[-1].carrier
        net.peer.ip("link set eth0 down")
        await events.until(lambda: links(events)[-1].admin_up and not links(events)[-1].carrier)
        net.peer.ip("link set eth0 up")
        await events.until(lambda: links(events)[-1].carrier)
        net.host.ip("link set eth0 address 02:00:00:00:00:09")
        await events.until(lambda: links(events)[-1].mac == "02:00:00:00:00:09")
        net.host.ip("link set eth0 down")
        await events.until(lambda: not links(events)[-1].admin_up)
        net.host.ip("link set eth0 name eth1")
        await events.until(lambda: not links(events)[-1].present)
        net.host.ip("link set eth1 name eth0")
        await events.until(lambda: links(events)[-1].present)
        net.host.ip("link delete eth0")
        await events.until(lambda: not links(events)[-1].present)


async def test_monitor_reports_a_removed_address_and_no_other(
    net: Wire, addresses: KernelAddresses, clock: BootClock, events: Events
) -> None:
    """Exact: not the same address with another prefix, not a neighbour in number."""
    await addresses.add(clock.now() + 60)
    net.host.ip("address add 192.0.2.100/24 dev eth0")
    async with monitoring(clock, events):
        net.host.ip("address delete 192.0.2.100/24 dev eth0")
        net.host.ip(f"address delete {V4} dev eth0")
        await events.until(lambda: AddressLost(V4) in events)
        net.host.ip(f"address delete {V6} dev eth0")
        await events.until(lambda: AddressLost(V6) in events)
    assert [e for e in events if isinstance(e, AddressLost)] == [AddressLost(V4), AddressLost(V6)]


async def test_monitor_reports_of_twins_and_of_other_interfaces(net: Wire, clock: BootClock, events: Events) -> None:
    """With the prefix of the twin. An address on another interface is reported until it is gone."""
    twin, v6_twin = ip_interface("192.0.2.100/24"), ip_interface("2001:db8::100/64")
    async with monitoring(clock, events):
        net.host.ip(f"address add {twin} dev eth0")
        await events.until(lambda: AddressFound(twin) in events)
        net.host.ip("address add 192.0.2.100/32 dev lo")
        await events.until(lambda: AddressesElsewhere((Elsewhere(V4, "lo"),)) in events)
        net.host.ip("link add br0 type bridge")
        net.host.ip(f"address add {v6_twin} dev br0 nodad")
        both = {Elsewhere(V4, "lo"), Elsewhere(v6_twin, "br0")}
        await events.until(lambda: any(isinstance(e, AddressesElsewhere) and set(e.found) == both for e in events))
        net.host.ip("address delete 192.0.2.100/32 dev lo")
        net.host.ip("link delete br0")
        await events.until(lambda: [e for e in events if isinstance(e, AddressesElsewhere)][-1].found == ())


async def test_a_group_that_joins_later_gets_its_look_at_once(net: Wire, clock: BootClock, events: Events) -> None:
    """A change of one group's addresses is no event for another group."""
    more: Address = ip_interface("192.0.2.101/32")
    late = Events()
    async with monitoring(clock, events) as monitor:
        watch = monitor.watch(Placement("eth0"), (more,), late)
        await late.until(lambda: bool(links(late)))
        before = len(events)
        net.host.ip(f"address add {more} dev eth0")
        await late.until(lambda: AddressFound(more) in late)
        net.host.ip(f"address delete {more} dev eth0")
        await late.until(lambda: AddressLost(more) in late)
        assert len(events) == before
        watch.close()
        net.host.ip(f"address add {V4} dev eth0")
        await events.until(lambda: AddressFound(V4) in events)
        assert late[-1] == AddressLost(more)


async def test_monitor_looks_again_at_every_poll(net: Wire, clock: BootClock, events: Events) -> None:
    """Without any change, the link's state is repeated."""
    async with monitoring(clock, events, poll_s=0.1):
        await events.until(lambda: len(links(events)) > 3)


async def test_monitor_survives_an_overrun_socket(
    net: Wire, addresses: KernelAddresses, clock: BootClock, events: Events
) -> None:
    """What happened while events were lost is found by looking."""
    await addresses.add(clock.now() + 60)
    async with monitoring(clock, events):
        # The loop stands still while the kernel signals more than the socket can hold.
        batch = "".join(
            f"address {verb} 198.51.100.{n}/32 dev eth0\n" for n in range(1, 251) for verb in ("add", "delete")
        )
        flood = f"for i in 1 2 3 4 5 6 7 8; do ip -batch - <<'END'\n{batch}END\ndone"
        net.host.run("sh", "-c", f"{flood}\nip address delete {V4} dev eth0")
        await events.until(lambda: AddressLost(V4) in events)
        net.host.ip("link set eth0 down")
        await events.until(lambda: not links(events)[-1].admin_up)
