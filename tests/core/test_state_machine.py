"""The decisions: winning, taking, holding, losing, releasing, and the order in which things are asked for."""

from ipaddress import IPv4Interface

import pytest

from govipd.core import events as ev
from govipd.core.actions import (
    Announce,
    AskWire,
    Campaign,
    CloseFence,
    Hold,
    Prepare,
    Prepared,
    RemoveAddresses,
    Resign,
    SeekPact,
)
from govipd.core.settings import Settings
from govipd.core.state import State, Trigger
from govipd.core.state_machine import RETRY_S
from tests.core.driver import LEASE, Driver

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


def test_an_activation_opens_the_fence_then_announces_then_reports() -> None:
    """Take: proof, fence and addresses (one Hold), announcement, report."""
    d = Driver().to(State.CANDIDATE)
    sent = d.now
    assert d.step(ev.Elected(d.campaign, LEASE, d.now)) == [Hold(sent + 3.0 - 0.5)]
    assert d.state is State.ACTIVATING
    assert d.step(ev.Done(Hold(sent + 2.5))) == [Announce(), SeekPact()]
    assert d.state is State.LEADER
    assert [r.state for r in d.reports[-2:]] == [State.ACTIVATING, State.LEADER]


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
    assert d.state is State.RESIGNING
    d.step(ev.Resigned(d.campaign))
    assert d.state is State.INELIGIBLE


def test_a_fence_that_refuses_to_close_is_asked_again() -> None:
    """Between the tries lie RETRY_S seconds."""
    d = Driver().to(State.DEACTIVATING)
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
    assert d.state is State.DEACTIVATING
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
    d = Driver().to(State.INELIGIBLE)
    assert d.step(ev.LeaseLost(LEASE, "not found")) == []


def test_a_lost_lease_while_ineligible_changes_nothing() -> None:
    """Out of the queue there is nothing to lose."""
    d = Driver().to(State.RESIGNING)
    assert d.step(ev.LeaseLost(LEASE, "not found")) == []
    assert d.state_machine.fence.by_lease_and_pact() is None


def test_a_candidate_that_lost_its_key_stands_again() -> None:
    """FIELD 4: a deposed candidate campaigns again, each time."""
    d = Driver().to(State.CANDIDATE)
    for _ in range(20):
        assert d.step(ev.Deposed(d.campaign, "gone"))[0] == Resign(d.campaign)
        d.step(ev.Resigned(d.campaign))
        assert d.state is State.CANDIDATE


def test_a_deposed_leader_closes_the_fence_first() -> None:
    """The key is gone in etcd: the next may already be leading, so this is urgent, and in order."""
    d = Driver().to(State.LEADER)
    assert d.step(ev.Deposed(d.campaign, "gone")) == [CloseFence()]


@pytest.mark.parametrize("stale", [ev.Queued(0, "x"), ev.Elected(0, LEASE, 100.0), ev.Deposed(0, "x"), ev.Resigned(0)])
@pytest.mark.parametrize("state", [State.INELIGIBLE, State.CANDIDATE, State.LEADER, State.DEACTIVATING])
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
    assert d.state is State.ACTIVATING


def test_a_win_after_an_unorderly_predecessor_waits_for_its_fence() -> None:
    """The fence opens only after a second proof, at the instant that the election names."""
    d = Driver().to(State.CANDIDATE)
    assert d.step(ev.Elected(d.campaign, LEASE, d.now, 5, not_before=100.1)) == [AskWire(100.1), Prepare(102.5)]
    assert d.done() == [Prepared(1)]
    assert d.step(ev.WireHeard(100.1, ()), after=0.1) == []
    assert d.step(ev.Elected(d.campaign, LEASE, 100.05, 5, not_before=100.1), after=0.1) == [Prepare(102.5)]
    assert d.step(ev.Elected(d.campaign, LEASE, 100.1, 5, not_before=100.1)) == [Hold(102.5)]


def test_a_wait_ends_when_the_predecessors_fence_is_known_to_be_closed() -> None:
    """The election proves again that we are first, and that the wait is over."""
    d = Driver().to(State.CANDIDATE)
    d.step(ev.Elected(d.campaign, LEASE, d.now, 5, not_before=100.1))
    assert d.step(ev.Elected(d.campaign, LEASE, 100.0, 5, not_before=100.0), after=0.01) == [Hold(102.5)]


def test_without_nftables_nothing_is_prepared() -> None:
    """An address that is there answers."""
    d = Driver(Settings(fenced=False)).to(State.CANDIDATE)
    assert d.step(ev.Elected(d.campaign, LEASE, d.now, 5, not_before=100.1)) == [AskWire(100.1)]
    assert d.step(ev.WireHeard(100.1, ())) == []
    assert d.step(ev.Elected(d.campaign, LEASE, 100.1, 5, not_before=100.1), after=0.1) == [Hold(102.5)]


def test_an_old_proof_does_not_take() -> None:
    """A fresh lease is no proof of the place in the queue."""
    d = Driver().to(State.CANDIDATE)
    proved_at = d.now
    d.now += 5
    d.renew()
    d.step(ev.Elected(d.campaign, LEASE, proved_at))
    assert d.state is State.CANDIDATE
    d.step(ev.Elected(d.campaign, LEASE, d.now))
    assert d.state is State.ACTIVATING


def test_a_win_under_another_lease_does_not_take() -> None:
    """The proof names the lease, which must be the renewed one."""
    d = Driver().to(State.CANDIDATE)
    d.step(ev.Elected(d.campaign, LEASE + 1, d.now))
    assert d.state is State.CANDIDATE


def test_what_the_election_was_asked_for_is_asked_again() -> None:
    """FIELD 3, 4: neither a request nor its answer is trusted to arrive."""
    d = Driver().to(State.CANDIDATE)
    for _ in range(3):
        assert d.tick() == [Campaign(d.campaign)]
    d = Driver().to(State.RESIGNING)
    d.step(ev.Done(RemoveAddresses()))
    for _ in range(3):
        assert d.tick() == [Resign(d.campaign)]
