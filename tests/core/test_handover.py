"""A healthy leader that leaves: the next one is made ready while it answers."""

import pytest

from govipd.adapters.election.claimant import UNORDERLY_S
from govipd.core import events as ev
from govipd.core.actions import CloseFence, HandOver, Hold, RemoveAddresses, Resign
from govipd.core.lease import HANDOVER_S, KERNEL_S, SLEW
from govipd.core.settings import Settings
from govipd.core.state import State, Trigger
from tests.core.driver import FAILED, LEASE, Driver


def test_the_successor_waits_for_longer_than_the_fence_lasts() -> None:
    """Of all that passes the VIP on, safety is this, and what proves who is next."""
    # Two clocks, slewed in opposite directions, and the kernel's timer.
    assert (HANDOVER_S + KERNEL_S) / (1 - SLEW) < UNORDERLY_S / (1 + SLEW)


def test_a_handover_releases_in_order_and_names_the_successor() -> None:
    """First a short fence, then the successor leads, then the fence closes; then this node joins the queue again."""
    d = Driver().to(State.LEADER)
    soon = Hold(d.now + HANDOVER_S)
    assert d.step(ev.Handover("node3")) == [soon]
    assert d.step(ev.Done(soon)) == [HandOver(d.campaign, "node3")]
    assert d.step(ev.SuccessorReady(d.campaign)) == [CloseFence()]
    d.step(ev.Done(CloseFence()))
    assert d.told == [Resign(d.campaign, "node3"), RemoveAddresses()]
    d.step(ev.Done(RemoveAddresses()))
    d.step(ev.Resigned(d.campaign))
    assert d.state is State.CANDIDATE
    d.step(FAILED)
    assert Resign(d.campaign) in d.step(FAILED)


@pytest.mark.parametrize("event", [ev.Drain(wanted=True), ev.Stop(by=200.0), ev.Handover("")])
def test_a_healthy_leader_answers_until_the_next_one_is_ready(event: ev.Event) -> None:
    """But no longer than its fence, which is short before the key is deleted."""
    d = Driver().to(State.LEADER)
    soon = Hold(d.now + HANDOVER_S)
    assert d.step(event) == [soon]
    assert d.state is State.HANDING_OVER
    assert d.step(ev.Done(Hold(d.now + 2.5))) == []  # an earlier one, which was under way
    assert d.step(ev.Done(soon)) == [HandOver(d.campaign)]
    assert d.renew() == []
    assert d.tick() == [CloseFence()]
    assert d.now == soon.until
    report = d.reports[-1]
    assert (report.trigger, report.detail) == (Trigger.SUCCESSOR_READY, "the successor was not ready in time")


@pytest.mark.parametrize("event", [ev.UnitState("failed", "x"), ev.LeaseLost(LEASE, "x"), ev.Failed(Hold(9.0), "x")])
def test_a_leader_that_hands_over_drops_the_vip_when_it_may_not_answer(event: ev.Event) -> None:
    """What befalls a leader befalls it too; and a kernel that does not shorten the fence must close it."""
    d = Driver().to(State.LEADER)
    d.step(ev.Handover(""))
    d.step(event)
    assert d.state is State.DEACTIVATING
    assert d.told == [CloseFence()]


def test_a_fence_that_is_not_precise_is_closed_before_etcd_is_asked() -> None:
    """Lifetimes of addresses are whole seconds: nothing is passed on by them."""
    d = Driver(Settings(fenced=False)).to(State.LEADER)
    assert d.step(ev.Handover("")) == [CloseFence()]
    assert [r.state for r in d.reports[-2:]] == [State.HANDING_OVER, State.DEACTIVATING]


@pytest.mark.parametrize("state", [State.ADOPTING, State.ACTIVATING])
def test_who_has_not_begun_to_serve_passes_nothing_on(state: State) -> None:
    """There is nothing that must go on."""
    d = Driver().to(state)
    assert d.step(ev.Drain(wanted=True)) == [CloseFence()]
    assert d.reports[-1].trigger is Trigger.INELIGIBLE
