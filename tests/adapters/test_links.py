"""The fence on other kinds of links than a plain one, as far as this kernel has them: a bridge, a macvlan."""

from ipaddress import ip_interface

import pytest

from govipd.adapters.kernel.addresses import KernelAddresses, PresentAddresses
from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.rtnetlink import RouteSocket
from govipd.core.placement import Placement
from tests.adapters.conftest import LeapingClock, Wire
from tests.adapters.fencing import own_tables

pytestmark = pytest.mark.root

V4 = ip_interface("192.0.2.100/32")
V6 = ip_interface("2001:db8::100/128")
LINKS = {
    "bridge": ("link add vip0 type bridge forward_delay 0", "link set eth0 master vip0"),
    "macvlan": ("link add vip0 link eth0 type macvlan mode bridge",),
}


@pytest.mark.parametrize("kind", LINKS)
async def test_the_fence_holds_on(kind: str, net: Wire, clock: LeapingClock) -> None:
    """Neighbours learn of the VIP and reach it while the fence is open, and neither while it is closed."""
    for command in (*LINKS[kind], "link set vip0 up", "address add 192.0.2.10/24 dev vip0",
                    "address add 2001:db8::10/64 dev vip0 nodad"):  # fmt: skip
        net.host.ip(command)
    net.peer.ip("address add 192.0.2.1/24 dev eth0")
    net.peer.ip("address add 2001:db8::1/64 dev eth0 nodad")
    route = RouteSocket()
    addresses = KernelAddresses(
        placement=Placement("vip0"),
        addresses=(V4, V6),
        clock=clock,
        fenced=True,
        route=route,
        present=PresentAddresses(),
    )
    fence = NftFence(addresses=(V4, V6), clock=clock, tables=own_tables("vip0"))

    def reached() -> list[bool]:
        """By a neighbour that knows nothing yet: it must ask by ARP or neighbour solicitation first."""
        net.peer.ip("neigh flush all")
        return ["1 received" in net.peer.run("ping", "-c", "1", "-W", "1", str(a.ip), check=False) for a in (V4, V6)]

    await fence.open(clock.now() + 60)
    await addresses.add(clock.now() + 60)
    assert reached() == [True, True]
    await fence.close()
    assert reached() == [False, False]
    await fence.open(clock.now() + 60)
    assert reached() == [True, True]
    await fence.close()
    await addresses.remove()
    await fence.remove()
    route.close()
