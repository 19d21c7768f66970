"""Both halves of the pact, and what the supervisor makes of it."""

import pytest

from govipd.core import events as ev
from govipd.core.actions import CloseFence, EndPact, EnforcePact, Hold
from govipd.core.lease import CLOCKS_SHARE, KERNEL_S, SLEW
from govipd.core.pact import LeaderHalf, SuccessorHalf, SuccessorPhase
from govipd.core.state import State
from tests.core.driver import LEASE, Driver

T = 0.5
MARGIN = CLOCKS_SHARE * T + KERNEL_S
PACT = "p"


def bound(now: float = 100.0) -> LeaderHalf:
    half = LeaderHalf(PACT, T)
    half.acknowledged(now, now)
    return half


def test_no_pact_limits_nothing() -> None:
    """Neither without a pact, nor with a pact that no successor has answered."""
    for half in (LeaderHalf(), LeaderHalf(PACT, T)):
        assert half.limit() == float("inf")
        assert half.next_deadline() is None
        assert not half.enforce(0.0)
        assert not half.doubt(1e9)


def test_the_leader_counts_from_the_sending_of_what_was_answered() -> None:
    """An answer to something older changes nothing."""
    half = bound(100.0)
    half.acknowledged(100.2, 100.3)
    half.acknowledged(100.1, 100.35)
    assert half.limit() == 100.2 + T - MARGIN


@pytest.mark.parametrize("timeout", [0.1, 0.2, 0.5, 1.0])
def test_the_leader_is_silent_before_the_successor_takes_with_any_clocks(timeout: float) -> None:
    """One is slow by a twelfth, the other fast, and the kernel is late."""
    half = LeaderHalf(PACT, timeout)
    half.acknowledged(0.0, 0.0)
    silent = (half.limit() + KERNEL_S) / (1 - SLEW)
    assert silent <= SuccessorHalf(PACT, timeout, 0.0).silent_at() / (1 + SLEW) + 1e-9


def test_an_answer_that_took_too_long_does_not_bind() -> None:
    """There must be time to end the pact in, should it be the last."""
    half = LeaderHalf(PACT, T)
    half.acknowledged(100.0, 100.25)
    assert half.limit() == float("inf")


def test_it_comes_into_force_once_the_kernel_keeps_to_it() -> None:
    """Not by a fence that is open for longer, and once only."""
    half = bound(100.0)
    assert not half.enforce(102.5)
    assert half.enforce(100.0 + T - MARGIN)
    assert not half.enforce(100.0 + T - MARGIN)


def test_without_answers_its_end_is_asked_for_once_and_the_bond_stays() -> None:
    """Until etcd has confirmed it, which is not for this half to know."""
    half = bound(100.0)
    assert half.next_deadline() == 100.25
    assert not half.doubt(100.24)
    assert half.doubt(100.25)
    assert not half.doubt(100.3)
    assert half.next_deadline() is None
    half.acknowledged(100.2, 100.3)
    assert half.limit() == 100.2 + T - MARGIN


def test_a_follower_takes_after_silence_and_answers_nothing_from_then_on() -> None:
    """Never again, with any outcome of the take-over."""
    half = SuccessorHalf(PACT, T, 100.0)
    assert half.hear(1, 7, 100.1)
    assert not half.take(100.5)
    assert half.silent_at() == 100.6
    assert half.take(100.6)
    assert not half.hear(2, 7, 100.6)
    assert not half.take(101.0)
    half.give_up()
    assert not half.hear(3, 7, 100.7)


def test_a_follower_takes_nothing_of_a_pact_that_is_not_in_force() -> None:
    """It was offered only: silence ends it."""
    half = SuccessorHalf(PACT, T, 100.0)
    half.hear(1, 0, 100.1)
    assert not half.take(101.0)
    assert half.phase is SuccessorPhase.GAVE_UP


def test_what_comes_out_of_order_is_not_heard() -> None:
    """Late or repeated datagrams neither prolong the wait nor are answered; the revision once heard is kept."""
    half = SuccessorHalf(PACT, T, 100.0)
    assert half.hear(2, 7, 100.1)
    assert not half.hear(1, 0, 100.2)
    assert not half.hear(2, 7, 100.2)
    assert half.hear(3, 0, 100.2)
    assert half.revision == 7
    assert half.silent_at() == 100.7


def answered(d: Driver, sent_ago: float = 0.01, pact: str = PACT) -> ev.PactAnswered:
    return ev.PactAnswered(pact, T, d.now - sent_ago)


def test_a_leader_shortens_its_fence_before_the_pact_comes_into_force() -> None:
    """First the kernel acknowledges the short Hold; then etcd gets the pact."""
    d = Driver().to(State.LEADER)
    (hold,) = d.step(answered(d))
    assert hold == Hold(d.now - 0.01 + T - MARGIN)
    d.step(ev.Done(Hold(d.now + 2.0)))  # an older one
    assert EnforcePact(PACT) not in d.told
    assert d.step(ev.Done(hold)) == [EnforcePact(PACT)]


def test_a_leader_in_a_pact_lives_from_answer_to_answer() -> None:
    """A renewed lease does not help; at the deadline it drops the VIP."""
    d = Driver().to(State.LEADER)
    d.step(answered(d, 0.0))
    d.renew()
    d.now += 0.2
    assert d.step(answered(d, 0.0)) == [Hold(d.now + T - MARGIN)]
    assert d.tick() == [EndPact(PACT)]
    d.tick()
    assert d.told == [CloseFence()]
    assert "not answered" in d.reports[-1].detail


def test_a_leader_is_back_on_its_lease_once_the_end_is_confirmed() -> None:
    """Not when it is asked for, and not by the end of another pact."""
    d = Driver().to(State.LEADER)
    d.step(answered(d, 0.0))
    d.renew()
    lease_end = d.now + 2.5
    d.tick()
    assert d.step(ev.PactEnded("another")) == []
    assert d.step(ev.PactEnded(PACT)) == [Hold(lease_end)]
    assert d.state_machine.fence.pact.id == ""


def test_only_a_leader_makes_a_pact_and_only_one() -> None:
    """Answers of another pact, or after the leadership, change nothing."""
    d = Driver().to(State.CANDIDATE)
    assert d.step(answered(d)) == []
    d.step(ev.Elected(d.campaign, LEASE, d.now))
    assert d.step(answered(d)) == []
    d.renew()
    d.done()
    assert d.state is State.LEADER
    d.step(answered(d))
    assert d.step(answered(d, pact="another")) == []
