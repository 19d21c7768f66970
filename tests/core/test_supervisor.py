"""The decisions: what each event leads to in each state, and in which order things are asked for."""

from ipaddress import IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govipd.core import events as ev
from govipd.core.actions import (
    Adopt,
    Alarm,
    Announce,
    Campaign,
    CloseFence,
    Forget,
    Hold,
    Holding,
    Remember,
    RemoveAddresses,
    Resign,
    Verify,
)
from govipd.core.settings import Settings
from govipd.core.state import ANSWERING, HOLDING, State, Trigger
from govipd.core.supervisor import LOSSES_MAX, PATIENCE_S, RETRY_S, TAKE_TRIES
from tests.core.driver import FAILED, LEASE, PASSED, RUNNING, UP, Driver, left_at

VIP = IPv4Interface("192.0.2.100/32")


def test_a_start_first_removes_what_a_dead_process_left() -> None:
    """Not leader means absent (FIELD 6, 15): fence and addresses go before anything else."""
    d = Driver()
    assert d.told == [CloseFence()]
    assert d.step(ev.Done(CloseFence())) == [RemoveAddresses()]
    d.healthy()
    assert d.state is State.STARTING
    d.step(ev.Done(RemoveAddresses()))
    assert d.state is State.CANDIDATE


def test_a_start_whose_cleaning_fails_tries_again_for_ever() -> None:
    """Nothing gives up, and nothing campaigns before the kernel is clean."""
    d = Driver()
    d.healthy()
    for _ in range(50):
        d.step(ev.Failed(CloseFence(), "refused"))
        assert d.tick() == [CloseFence()]
    assert d.state is State.STARTING


def test_taking_opens_the_fence_then_announces_then_tells() -> None:
    """Take: proof, fence and addresses (one Hold), announcement, report."""
    d = Driver().to(State.CANDIDATE)
    sent = d.now
    assert d.step(ev.Elected(d.campaign, LEASE, d.now)) == [Hold(sent + 3.0 - 0.5)]
    assert d.state is State.TAKING
    assert d.step(ev.Done(Hold(sent + 2.5))) == [Announce()]
    assert d.state is State.LEADER
    assert [r.state for r in d.reports[-2:]] == [State.TAKING, State.LEADER]


def test_a_renewal_holds_on_without_announcing() -> None:
    """The neighbours know already."""
    d = Driver().to(State.LEADER)
    d.now += 0.5
    assert d.renew() == [Hold(d.now + 2.5)]
    assert d.step(ev.Done(Hold(d.now + 2.5))) == []


def test_releasing_closes_the_fence_before_it_resigns() -> None:
    """Release: the fence first, acknowledged; only then the key and the addresses (FIELD 12, 21)."""
    d = Driver().to(State.LEADER)
    assert d.step(ev.UnitState("failed", "failed")) == [CloseFence()]
    assert d.step(ev.Done(CloseFence())) == [Resign(d.campaign), RemoveAddresses()]
    d.step(ev.Done(RemoveAddresses()))
    assert d.state is State.LEAVING
    d.step(ev.Resigned(d.campaign))
    assert d.state is State.ASIDE


def test_never_resigns_while_the_kernel_may_answer() -> None:
    """A fence that cannot be closed closes itself at its deadline; until then the key is kept."""
    d = Driver().to(State.LEADER)
    held_until = d.now + 2.5
    d.step(ev.UnitState("failed", "failed"))
    while d.state is State.CLOSING:
        d.step(ev.Failed(CloseFence(), "refused"))
        d.tick()
        assert d.resigned() == (d.state is State.LEAVING)
    assert d.now == pytest.approx(held_until + PATIENCE_S)


def test_a_fence_that_refuses_to_close_is_asked_again() -> None:
    """Between the tries lie RETRY_S seconds."""
    d = Driver().to(State.CLOSING)
    before = d.now
    d.step(ev.Failed(CloseFence(), "refused"))
    assert d.tick() == [CloseFence()]
    assert d.now == pytest.approx(before + RETRY_S)


def test_the_deadline_counts_from_the_sending_of_the_last_confirmed_renewal() -> None:
    """FIELD 1: not from its answer, and never from a renewal that failed."""
    d = Driver().to(State.LEADER)
    sent_at = d.now
    d.now += 1.0  # the answer took a second
    assert d.step(ev.LeaseRenewed(LEASE, sent_at, 3.0)) == [Hold(sent_at + 2.5)]
    d.step(ev.EtcdState(usable=False, detail="no answer"))
    assert d.tick() == [CloseFence()]
    assert d.state is State.CLOSING
    assert d.now == pytest.approx(sent_at + 2.5)
    assert d.reports[-1].trigger is Trigger.EXPIRED


def test_a_renewal_that_is_too_old_to_hold_by_does_not_hold() -> None:
    """Its answer took longer than the lease lasts: nothing is opened, and the deadline is over at once."""
    d = Driver().to(State.LEADER)
    d.now += 1.0
    assert d.step(ev.LeaseRenewed(LEASE, d.now - 2.5, 3.0)) == []
    assert d.tick() == [CloseFence()]


def test_what_waited_in_the_queue_does_not_revive_an_expired_holder() -> None:
    """FIELD 7: after a stall the deadline comes first, even before a renewal that would have been in time."""
    d = Driver().to(State.LEADER)
    d.now += 10
    assert d.step(ev.LeaseRenewed(LEASE, d.now - 0.1, 3.0))[0] == CloseFence()
    assert d.state is not State.LEADER


def test_a_failed_call_is_no_reason_to_release() -> None:
    """FIELD 2: etcd's hiccup changes nothing before the deadline."""
    d = Driver().to(State.LEADER)
    assert d.step(ev.EtcdState(usable=False, detail="no answer")) == []
    assert d.state is State.LEADER


def test_a_lost_lease_releases_at_once_and_campaigns_again() -> None:
    """FIELD 24, 16: lease not found is a lost lease; afterwards a new campaign under the next lease."""
    d = Driver().to(State.LEADER)
    old = d.campaign
    assert d.step(ev.LeaseLost(LEASE, "not found")) == [CloseFence()]
    d.step(ev.Done(CloseFence()))
    assert d.step(ev.Resigned(old)) == [Campaign(old + 1)]
    d.renew(lease=8)
    assert d.step(ev.Elected(old + 1, 8, d.now)) == [Hold(d.now + 2.5)]


def test_the_loss_of_another_lease_is_not_ours() -> None:
    """Only the lease that holds the VIP counts."""
    d = Driver().to(State.LEADER)
    assert d.step(ev.LeaseLost(LEASE + 1, "not found")) == []
    assert d.state is State.LEADER
    d = Driver().to(State.ASIDE)
    assert d.step(ev.LeaseLost(LEASE, "not found")) == []


def test_a_lost_lease_aside_changes_nothing() -> None:
    """Out of the queue there is nothing to lose."""
    d = Driver().to(State.LEAVING)
    assert d.step(ev.LeaseLost(LEASE, "not found")) == []
    assert d.supervisor.deadline() is None


def test_a_candidate_that_lost_its_key_stands_again() -> None:
    """FIELD 4: deposed candidates come back, for ever."""
    d = Driver().to(State.CANDIDATE)
    for _ in range(20):
        assert d.step(ev.Deposed(d.campaign, "gone"))[0] == Resign(d.campaign)
        d.step(ev.Resigned(d.campaign))
        assert d.state is State.CANDIDATE


def test_a_deposed_leader_closes_the_fence_first() -> None:
    """The key is gone in etcd: the next may already be leading, so this is urgent, and in order."""
    d = Driver().to(State.LEADER)
    assert d.step(ev.Deposed(d.campaign, "gone")) == [CloseFence()]


@pytest.mark.parametrize(
    "stale", [ev.Queued(0, "x"), ev.Elected(0, LEASE, 100.0), ev.Deposed(0, "x"), ev.Resigned(0)]
)
@pytest.mark.parametrize("state", [State.ASIDE, State.CANDIDATE, State.LEADER, State.CLOSING])
def test_answers_to_an_old_campaign_change_nothing(stale: ev.Event, state: State) -> None:
    """What an earlier campaign still has to say is stale."""
    d = Driver().to(state)
    assert d.step(stale) == []
    assert d.state is state


def test_a_win_without_a_fresh_lease_waits_for_one() -> None:
    """FIELD 17: the proof and the lease must both be younger than a lease."""
    d = Driver().to(State.CANDIDATE)
    d.now += 5
    d.step(ev.Elected(d.campaign, LEASE, d.now))
    assert d.state is State.CANDIDATE
    d.renew()
    assert d.state is State.TAKING


def test_a_win_after_an_unorderly_predecessor_waits_for_its_fence() -> None:
    """Nothing is opened before the instant that the election names."""
    d = Driver().to(State.CANDIDATE)
    assert d.step(ev.Elected(d.campaign, LEASE, d.now, 5, not_before=100.1)) == []
    assert d.tick() == [Hold(102.5)]
    assert d.now == 100.1


def test_an_old_proof_does_not_take() -> None:
    """A fresh lease is no proof of the place in the queue."""
    d = Driver().to(State.CANDIDATE)
    proved_at = d.now
    d.now += 5
    d.renew()
    d.step(ev.Elected(d.campaign, LEASE, proved_at))
    assert d.state is State.CANDIDATE
    d.step(ev.Elected(d.campaign, LEASE, d.now))
    assert d.state is State.TAKING


def test_a_win_under_another_lease_does_not_take() -> None:
    """The proof names the lease; it must be the one that is renewed."""
    d = Driver().to(State.CANDIDATE)
    d.step(ev.Elected(d.campaign, LEASE + 1, d.now))
    assert d.state is State.CANDIDATE


@pytest.mark.parametrize(
    "event",
    [
        ev.UnitState("inactive", "dead"),
        ev.UnitState("deactivating", "stopping"),
        ev.LinkState(present=False, admin_up=False, carrier=False, mac=""),
        ev.ClusterFault(refused="name taken"),
        ev.Stop(by=200.0),
    ],
)
@pytest.mark.parametrize("state", [State.TAKING, State.LEADER])
def test_unhealthy_means_resign(event: ev.Event, state: State) -> None:
    """FIELD 10, 13, 19: no weights; one gate is enough."""
    d = Driver().to(state)
    assert d.step(event) == [CloseFence()]
    assert d.state is State.CLOSING
    assert d.reports[-1].trigger is Trigger.UNFIT


def test_what_the_election_was_asked_for_is_asked_again() -> None:
    """FIELD 3, 4: neither a request nor its answer is trusted to arrive."""
    d = Driver().to(State.CANDIDATE)
    for _ in range(3):
        assert d.tick() == [Campaign(d.campaign)]
    d = Driver().to(State.LEAVING)
    d.step(ev.Done(RemoveAddresses()))
    for _ in range(3):
        assert d.tick() == [Resign(d.campaign)]


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


def test_unknown_keeps_a_holder_for_one_lease_and_lets_nobody_in() -> None:
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
    assert c.state is State.LEAVING


def test_healthy_again_campaigns_again_at_once_after_a_first_fall() -> None:
    """For ever: unhealthy leaves, healthy comes back."""
    d = Driver().to(State.LEAVING)
    old = d.campaign
    d.step(ev.Resigned(old))
    assert d.state is State.ASIDE
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
        if d.state is State.ASIDE:
            assert d.supervisor.wait(d.now) > 0
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
    """FIELD 8: whoever fights for it wins; another node may be left in peace."""
    d = Driver().to(State.LEADER)
    for _ in range(LOSSES_MAX):
        d.step(ev.AddressLost(VIP))
    assert d.step(ev.AddressLost(VIP)) == [CloseFence()]
    assert d.reports[-1].trigger is Trigger.KERNEL_FAILED


def test_an_address_that_vanishes_while_not_leader_is_fine() -> None:
    """It is our own removal."""
    assert Driver().to(State.ASIDE).step(ev.AddressLost(VIP)) == []


def test_an_address_that_somebody_added_is_removed_with_an_alarm() -> None:
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
    d = Driver().to(State.TAKING)
    for _ in range(TAKE_TRIES - 1):
        d.step(ev.Failed(Hold(d.now), "refused"))
        assert d.tick() == [Hold(102.5)]
    d.step(ev.Failed(Hold(d.now), "refused"))
    assert d.state is State.CLOSING
    assert d.reports[-1].trigger is Trigger.KERNEL_FAILED


def test_a_failed_removal_is_tried_again() -> None:
    """Not leader means absent, always."""
    d = Driver().to(State.LEAVING)
    d.step(ev.Failed(RemoveAddresses(), "refused"))
    assert d.tick() == [RemoveAddresses()]
    d.step(ev.Done(RemoveAddresses()))
    d.step(ev.Failed(Hold(1.0), "an old one"))
    assert d.tick() == []


def test_a_late_acknowledgement_of_a_hold_does_not_stop_the_release() -> None:
    """The refresh that was under way when the fence had to close."""
    d = Driver().to(State.CLOSING)
    assert d.step(ev.Done(Hold(d.now + 1))) == []
    assert d.state is State.CLOSING


def test_a_late_closing_is_no_news_after_the_deadline() -> None:
    """The deadline has closed the fence; the acknowledgement comes afterwards."""
    d = Driver().to(State.LEAVING)
    assert d.step(ev.Done(CloseFence())) == []


def test_a_stall_makes_a_holder_verify_and_announce() -> None:
    """FIELD 7: after a stall the deadline first, then the proof, then the announcement."""
    d = Driver().to(State.LEADER)
    assert d.step(ev.Stalled(1.0), after=1.0) == [Verify(), Hold(102.5)]
    assert d.step(ev.Done(Hold(102.5))) == [Announce()]
    assert Driver().to(State.ASIDE).step(ev.Stalled(1.0)) == []
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


def test_a_stop_ends_from_every_state() -> None:
    """SIGTERM: release, resign, end; whatever the state was."""
    for state in State:
        d = Driver().to(state)
        if d.state is State.STOPPED:
            continue
        d.step(ev.Stop(by=d.now + 0.7))
        for _ in range(20):
            if d.state is State.STOPPED:
                break
            d.done()
            for action in d.told:
                if isinstance(action, Resign):
                    d.step(ev.Resigned(action.campaign))
            if d.state is not State.STOPPED and d.supervisor.next_deadline(d.now) is not None:
                d.tick()
        assert d.state is State.STOPPED, state


def test_a_stop_does_not_wait_for_etcd_beyond_its_time() -> None:
    """The VIP is dropped; the key would end with its lease."""
    d = Driver().to(State.LEAVING)
    d.step(ev.Stop(by=d.now + 0.7))
    assert d.state is State.LEAVING
    d.tick()
    assert d.state is State.STOPPED


def test_a_stop_waits_for_the_addresses_to_be_gone() -> None:
    """etcd may confirm before the kernel does: a process that ended then would leave the address behind."""
    d = Driver().to(State.LEAVING)
    d.step(ev.Stop(by=d.now + 0.7))
    d.step(ev.Resigned(d.campaign))
    assert d.state is State.ASIDE
    d.step(ev.Done(RemoveAddresses()))
    assert d.state is State.STOPPED


def test_a_stop_still_never_resigns_before_the_fence_is_closed() -> None:
    """Even when it has no time."""
    d = Driver().to(State.LEADER)
    d.step(ev.Stop(by=d.now))
    assert d.state is State.CLOSING
    assert not d.resigned()


def test_a_taken_name_keeps_out_of_the_queue_until_it_is_free() -> None:
    """A second machine with our member's name: not in the queue, and it says so."""
    d = Driver().to(State.ASIDE)
    d.step(ev.ClusterFault(refused="the member name a is taken"))
    d.healthy()
    assert d.state is State.ASIDE
    assert d.supervisor.blockers(d.now) == ("the member name a is taken",)
    d.step(ev.ClusterFault())
    assert d.state is State.CANDIDATE


def test_what_the_last_process_held_is_adopted_once_it_is_proven() -> None:
    """No action touches the kernel before; then the fence is opened anew, under the same lease (FIELD 11)."""
    d = Driver(left=left_at(100.0))
    assert d.told == [Adopt(1, left_at(100.0))]
    assert d.state is State.ADOPTING
    d.step(ev.Elected(1, LEASE, d.now, 5))
    assert d.state is State.ADOPTING
    assert d.renew() == [Hold(102.5)]
    assert d.step(ev.Done(Hold(102.5))) == [Announce()]
    assert d.state is State.LEADER
    assert d.kept == [Remember(Holding(LEASE, 5, 102.5))]


def test_a_confirmed_lease_alone_does_not_adopt() -> None:
    """The key must be proven too."""
    d = Driver(left=left_at(100.0))
    assert d.renew() == []
    assert d.state is State.ADOPTING


def test_what_is_not_proven_in_time_is_dropped() -> None:
    """The last process's deadline counts, whatever this one has renewed."""
    d = Driver(left=left_at(100.0))
    d.renew()
    d.tick()
    assert (d.now, d.state) == (102.5, State.CLOSING)


@pytest.mark.parametrize(
    "event",
    [ev.LeaseLost(LEASE, "not found"), ev.Deposed(1, "gone"), ev.UnitState("failed", "failed"), ev.Stop(by=200.0)],
)
def test_what_is_disproved_or_not_wanted_is_dropped(event: ev.Event) -> None:
    """In the order of every release: the fence first."""
    d = Driver(left=left_at(100.0))
    assert d.step(event) == [CloseFence()]
    assert d.step(ev.Done(CloseFence())) == [Resign(1), RemoveAddresses()]
    assert d.kept == [Forget()]


def test_what_has_ended_is_not_adopted() -> None:
    """The kernel has closed that fence: a clean start."""
    d = Driver(left=left_at(97.0))
    assert d.told == [CloseFence()]
    assert d.state is State.STARTING


def test_a_holder_keeps_what_the_next_process_needs() -> None:
    """Renewed with each Hold, and gone once the fence is closed."""
    d = Driver().to(State.LEADER)
    d.now += 1
    d.renew()
    assert d.kept[-1] == Remember(Holding(LEASE, 0, 103.5))
    d.step(ev.Stop(by=200.0))
    d.step(ev.Done(CloseFence()))
    assert d.kept[-1] == Forget()


_states = st.sampled_from(list(State))
_events = st.one_of(
    st.sampled_from([
        PASSED, FAILED, RUNNING, UP, ev.Tick(), ev.Stalled(1.0), ev.AddressLost(VIP), ev.AddressFound(VIP),
        ev.ClusterFault(),
        ev.ClusterFault(refused="taken"), ev.UnitState("failed", "x"), ev.UnitState(None, "x"),
        ev.LinkState(present=True, admin_up=False, carrier=False, mac=""),
        ev.LinkState(present=True, admin_up=True, carrier=False, mac="02:00:00:00:00:02"),
        ev.LinkState(present=False, admin_up=False, carrier=False, mac=""),
        ev.Done(CloseFence()), ev.Done(RemoveAddresses()), ev.Done(Hold(101.0)), ev.Failed(CloseFence(), "x"),
        ev.Failed(RemoveAddresses(), "x"), ev.Failed(Hold(101.0), "x"), ev.LeaseLost(LEASE, "x"),
        ev.Reconfigured(Settings(margin=1.0)), ev.EtcdState(usable=False, detail="x"), ev.Stop(by=110.0),
    ]),
    st.builds(ev.Elected, st.integers(0, 4), st.sampled_from([LEASE, 8]), st.floats(95, 110)),
    st.builds(ev.Queued, st.integers(0, 4), st.just("x")),
    st.builds(ev.Deposed, st.integers(0, 4), st.just("x")),
    st.builds(ev.Resigned, st.integers(0, 4)),
    st.builds(ev.LeaseRenewed, st.sampled_from([LEASE, 8]), st.floats(95, 110), st.just(3.0)),
)  # fmt: skip


@given(start=_states, events=st.lists(st.tuples(_events, st.floats(0, 2)), max_size=40))
def test_no_sequence_of_events_breaks_the_contract(start: State, events: list[tuple[ev.Event, float]]) -> None:
    """Any events in any state, at any time.

    No illegal transition; Hold only while holding and never beyond the lease; Resign only after the fence is
    known to be closed; the next deadline never lies in the past without being dealt with.
    """
    d = Driver().to(start)
    held_until, closed = 0.0, d.state not in ANSWERING
    for event, after in events:
        d.step(event, after)
        if event == ev.Done(CloseFence()):
            closed = True
        for action in d.told:
            match action:
                case Hold(until=until):
                    assert d.state in HOLDING
                    deadline = d.supervisor.deadline()
                    assert deadline is not None
                    assert d.now < until <= deadline
                    held_until, closed = max(held_until, until), False
                case Resign():
                    assert closed or d.now >= held_until
        for _ in range(3):  # time alone settles at this instant: no busy timer
            deadline = d.supervisor.next_deadline(d.now)
            if deadline is None or deadline > d.now:
                break
            d.step(ev.Tick())
        else:
            raise AssertionError(f"the timer spins in {d.state}")
