"""The decisions: what gates, addresses, the kernel and the clock do to a candidate and to a holder."""

from ipaddress import IPv4Interface

import pytest

from govipd.core import events as ev
from govipd.core.actions import (
    Alarm,
    Announce,
    Campaign,
    CloseFence,
    Hold,
    RemoveAddresses,
    Resign,
    Verify,
)
from govipd.core.fence_deadline import PATIENCE_S
from govipd.core.settings import Settings
from govipd.core.state import State, Trigger
from govipd.core.state_machine import LOSSES_MAX, TAKE_TRIES
from tests.core.driver import FAILED, LEASE, PASSED, RUNNING, UP, Driver

VIP = IPv4Interface("192.0.2.100/32")


def test_never_resigns_while_the_kernel_may_answer() -> None:
    """A fence that cannot be closed closes itself at its deadline; until then the key is kept."""
    d = Driver().to(State.LEADER)
    held_until = d.now + 2.5
    d.step(ev.UnitState("failed", "failed"))
    while d.state is State.DEACTIVATING:
        d.step(ev.Failed(CloseFence(), "refused"))
        d.tick()
        assert d.resigned() == (d.state is State.RESIGNING)
    assert d.now == pytest.approx(held_until + PATIENCE_S)


@pytest.mark.parametrize(
    "event",
    [
        ev.UnitState("inactive", "dead"),
        ev.UnitState("deactivating", "stopping"),
        ev.LinkState(present=False, admin_up=False, carrier=False, mac=""),
        ev.ClusterFault(refused="name taken"),
    ],
)
@pytest.mark.parametrize("state", [State.ACTIVATING, State.LEADER])
def test_unhealthy_means_resign(event: ev.Event, state: State) -> None:
    """FIELD 10, 13, 19: no weights; one gate is enough."""
    d = Driver().to(state)
    assert d.step(event) == [CloseFence()]
    assert d.state is State.DEACTIVATING
    assert d.reports[-1].trigger is Trigger.INELIGIBLE


def test_an_unhealthy_candidate_leaves_the_queue() -> None:
    """The queue holds only nodes that can serve."""
    d = Driver().to(State.CANDIDATE)
    assert d.step(ev.UnitState("failed", "failed")) == [Resign(d.campaign), RemoveAddresses()]


def test_a_reload_of_the_proxy_does_not_release() -> None:
    """FIELD 11's sibling: ActiveState reloading is serving."""
    d = Driver().to(State.LEADER)
    assert d.step(ev.UnitState("reloading", "reload")) == []
    assert d.state is State.LEADER


def test_fall_failures_in_a_row_release() -> None:
    """One failed probe is noise, `fall` in a row are not."""
    d = Driver().to(State.LEADER)
    assert d.step(FAILED) == []
    d.step(PASSED)
    assert d.step(FAILED) == []
    assert d.step(FAILED) == [CloseFence()]


def test_unknown_keeps_a_holder_for_one_lease_and_lets_no_candidate_in() -> None:
    """A restart of D-Bus does not move the VIP; a lasting silence does."""
    d = Driver().to(State.LEADER)
    d.step(ev.UnitState(None, "D-Bus is away"))
    gone_at = d.now
    assert d.state is State.LEADER
    while d.state is State.LEADER:
        d.renew()
        d.step(ev.Tick(), after=0.125)
    assert d.now == pytest.approx(gone_at + d.settings.unknown_limit)
    c = Driver().to(State.CANDIDATE)
    c.step(ev.UnitState(None, "D-Bus is away"))
    assert c.state is State.RESIGNING


def test_healthy_again_campaigns_again_at_once_after_a_first_fall() -> None:
    """For ever: unhealthy leaves, healthy comes back."""
    d = Driver().to(State.RESIGNING)
    old = d.campaign
    d.step(ev.Resigned(old))
    assert d.state is State.INELIGIBLE
    assert d.step(RUNNING) == [Campaign(old + 1)]


def test_flapping_lengthens_the_wait_up_to_a_bound() -> None:
    """Each further fall within the window doubles the time healthy before the next campaign."""
    d = Driver(Settings(flap_window=1000.0, flap_wait=1.0, flap_wait_max=4.0)).to(State.CANDIDATE)
    waits = []
    for _ in range(5):
        d.step(ev.UnitState("failed", "failed"))
        d.step(ev.Resigned(d.campaign))
        d.step(RUNNING)
        healthy_at = d.now
        if d.state is State.INELIGIBLE:
            assert d.state_machine.wait(d.now) > 0
            d.tick()
        waits.append(d.now - healthy_at)
        assert d.state is State.CANDIDATE
    assert waits == pytest.approx([0, 1, 2, 4, 4])


def test_a_removed_address_is_put_back_and_announced() -> None:
    """FIELD 8: networkd takes the VIP away; it is back at once."""
    d = Driver().to(State.LEADER)
    assert d.step(ev.AddressLost(VIP)) == [Hold(d.now + 2.5)]
    assert d.step(ev.Done(Hold(d.now + 2.5))) == [Announce()]


def test_an_address_that_is_removed_again_and_again_is_given_up() -> None:
    """FIELD 8: a program that keeps removing the address wins here; govipd can serve on another node."""
    d = Driver().to(State.LEADER)
    for _ in range(LOSSES_MAX):
        d.step(ev.AddressLost(VIP))
    assert d.step(ev.AddressLost(VIP)) == [CloseFence()]
    assert d.reports[-1].trigger is Trigger.KERNEL_FAILED


def test_an_address_that_vanishes_while_not_leader_is_fine() -> None:
    """It is our own removal."""
    assert Driver().to(State.INELIGIBLE).step(ev.AddressLost(VIP)) == []


def test_an_address_that_another_program_added_is_removed_with_an_alarm() -> None:
    """FIELD 15: not leader means absent; the alarm names who is ahead. Once per addition."""
    d = Driver().to(State.CANDIDATE)
    d.step(ev.Queued(d.campaign, "node1"))
    alarm, removal = d.step(ev.AddressFound(VIP))
    assert isinstance(alarm, Alarm)
    assert "192.0.2.100/32" in alarm.text
    assert "node1 is ahead" in alarm.text
    assert removal == RemoveAddresses()
    assert d.step(ev.AddressFound(VIP)) == []
    d.step(ev.Done(RemoveAddresses()))
    assert d.step(ev.AddressFound(VIP))[1] == RemoveAddresses()
    assert Driver().to(State.LEADER).step(ev.AddressFound(VIP)) == []


def test_a_kernel_that_refuses_to_hold_is_tried_again_then_left_to_another() -> None:
    """A node that cannot add the address must not keep the key."""
    d = Driver().to(State.ACTIVATING)
    for _ in range(TAKE_TRIES - 1):
        d.step(ev.Failed(Hold(d.now), "refused"))
        assert d.tick() == [Hold(102.5)]
    d.step(ev.Failed(Hold(d.now), "refused"))
    assert d.state is State.DEACTIVATING
    assert d.reports[-1].trigger is Trigger.KERNEL_FAILED


def test_a_failed_removal_is_tried_again() -> None:
    """Not leader means absent, always."""
    d = Driver().to(State.RESIGNING)
    d.step(ev.Failed(RemoveAddresses(), "refused"))
    assert d.tick() == [RemoveAddresses()]
    d.step(ev.Done(RemoveAddresses()))
    d.step(ev.Failed(Hold(1.0), "an old one"))
    assert d.tick() == []


def test_a_late_closing_is_no_news_after_the_deadline() -> None:
    """The deadline has closed the fence; the acknowledgement comes afterwards."""
    d = Driver().to(State.RESIGNING)
    assert d.step(ev.Done(CloseFence())) == []


def test_a_stall_makes_a_holder_verify_and_announce() -> None:
    """FIELD 7: after a stall the deadline first, then the proof, then the announcement."""
    d = Driver().to(State.LEADER)
    assert d.step(ev.Stalled(1.0), after=1.0) == [Verify(), Hold(102.5)]
    assert d.step(ev.Done(Hold(102.5))) == [Announce()]
    assert Driver().to(State.INELIGIBLE).step(ev.Stalled(1.0)) == []
    assert Driver().to(State.LEADER).step(ev.Stalled(9.0), after=9.0)[0] == CloseFence()


def test_a_new_mac_is_announced() -> None:
    """FIELD 14: a bond fails over; the neighbours must learn the new address."""
    d = Driver().to(State.LEADER)
    assert d.step(ev.LinkState(present=True, admin_up=True, carrier=True, mac="02:00:00:00:00:02")) == [Hold(102.5)]
    assert d.step(ev.Done(Hold(102.5))) == [Announce()]
    assert d.step(UP) != []


def test_new_settings_apply_without_letting_go() -> None:
    """A reload moves nothing: the margin counts from now on."""
    d = Driver().to(State.LEADER)
    assert d.step(ev.Reconfigured(Settings(margin=1.0))) == [Hold(102.0)]
    assert d.state is State.LEADER


def test_a_taken_name_keeps_out_of_the_queue_until_it_is_free() -> None:
    """A second machine with our member's name: we stay out of the queue, and report it."""
    d = Driver().to(State.INELIGIBLE)
    d.step(ev.ClusterFault(refused="the member name a is taken"))
    d.healthy()
    assert d.state is State.INELIGIBLE
    assert d.state_machine.blockers(d.now) == ("the member name a is taken",)
    d.step(ev.ClusterFault())
    assert d.state is State.CANDIDATE


def test_an_old_removal_that_is_confirmed_late_does_not_hide_a_newer_address() -> None:
    """The removal was asked for before the node won; the fence must not go while the address may be there."""
    d = Driver().to(State.CANDIDATE)
    d.step(ev.AddressFound(VIP))
    d.step(ev.Elected(d.campaign, LEASE, d.now))
    d.step(ev.Done(RemoveAddresses()))
    d.step(ev.Done(Hold(d.now + 2.5)))
    d.step(ev.Stop(by=d.now))
    d.step(ev.Done(CloseFence()))
    assert d.state_machine.present


def test_a_drained_node_leaves_and_stays_out_until_it_is_undrained() -> None:
    """A drain counts like a gate, and is reported like one."""
    d = Driver().to(State.LEADER)
    d.step(ev.Drain(wanted=True))
    assert d.reports[-1].detail == "drained by the operator"
    d.done()
    d.step(ev.SuccessorReady(d.campaign))
    d.step(ev.Done(CloseFence()))
    d.step(ev.Done(RemoveAddresses()))
    d.step(ev.Resigned(d.campaign))
    assert d.state is State.INELIGIBLE
    assert Campaign(d.campaign + 1) in d.step(ev.Drain(wanted=False))


def test_only_a_leader_hands_over() -> None:
    """Who holds nothing has nothing to give."""
    d = Driver().to(State.CANDIDATE)
    assert d.step(ev.Handover("node3")) == []
    assert d.state is State.CANDIDATE
