"""The modelled kernel, with the transactions of the real fence."""

import asyncio
from ipaddress import ip_interface

import pytest

from govipd.adapters.kernel import fence_rules
from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.fence_tables import FenceTables
from govipd.core.events import Address
from tests.sim.clockwork import Process, World
from tests.sim.kernel import Clock, Kernel
from tests.sim.kernel_adapters import SimNfTables

VIP: Address = ip_interface("192.0.2.100/32")


def make() -> tuple[World, Kernel, NftFence]:
    """A machine that has the VIP, and a fence around it."""
    world, clock = World(), Clock(1.0)
    kernel = Kernel(world, "node", clock, moves_timeouts=True, changed=lambda: None)
    kernel.add_address(VIP, 1e6, 0.0)
    process = Process(world, clock, pytest.fail)  # type: ignore[abstract]
    transactions = SimNfTables(process, kernel, lambda: 0.0)
    fence = NftFence(addresses=(VIP,), clock=process, tables=FenceTables("eth0", transactions))
    return world, kernel, fence


def after(world: World, *steps: object) -> None:
    for step in steps:
        asyncio.run(step)  # type: ignore[arg-type]  # the fence's coroutines wait for nothing
        world.run(world.now + 0.01)


def test_what_nat_turns_elsewhere_is_held_back_with_the_rest() -> None:
    """And answers where the address is there, nothing else holding it back."""
    world, kernel, fence = make()
    kernel.redirect(VIP.ip)
    after(world, fence.close())
    assert kernel.answers() == set()
    after(world, fence.open(world.now + 5))
    assert kernel.answers() == {VIP.ip}
    world.run(world.now + 6)
    assert kernel.answers() == set()
    kernel.delete_address(VIP)
    kernel.flush()
    assert kernel.answers() == set()


def test_a_guard_that_does_not_stand_before_nat_is_seen_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was before: input and output alone."""
    real = fence_rules._closed
    monkeypatch.setattr(
        fence_rules, "_closed", lambda t, hook, *rest: () if "routing" in hook else real(t, hook, *rest)
    )
    world, kernel, fence = make()
    after(world, fence.close())
    assert kernel.answers() == set()
    kernel.redirect(VIP.ip)
    assert kernel.answers() == {VIP.ip}


def test_what_is_missing_is_refused() -> None:
    """A renewal after a flush states everything, and the fence is open again."""
    world, kernel, fence = make()
    after(world, fence.open(world.now + 5))
    kernel.flush()
    assert kernel.tables("govipd_", (1, 3)) == set()
    after(world, fence.open(world.now + 5))
    assert kernel.answers() == {VIP.ip}
    after(world, fence.close())
    assert kernel.answers() == set()
