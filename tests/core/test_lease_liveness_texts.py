"""The lease's arithmetic, the watchdog's liveness, and the words for people."""

import pytest

from govipd.core import events as ev
from govipd.core import texts
from govipd.core.actions import CloseFence
from govipd.core.lease import Lease
from govipd.core.liveness import Liveness
from govipd.core.settings import Settings
from govipd.core.state import State, Trigger
from tests.core.driver import Driver


def test_the_deadline_is_the_sending_plus_the_granted_ttl_minus_the_margin() -> None:
    """etcd may grant more than was asked for: what it granted counts."""
    assert Lease.of(ev.LeaseRenewed(1, sent_at=10.0, ttl=5.0)).deadline(0.5) == 14.5


def test_a_ping_is_earned_by_a_recent_full_step_and_living_tasks() -> None:
    """A loop that hangs, or a task that ended, earns none."""
    liveness = Liveness(limit=2.0, now=0.0)
    assert liveness.earned(2.0)
    assert not liveness.earned(2.1)
    liveness.stepped(5.0)
    assert liveness.earned(6.0)
    liveness.ended("probe")
    assert not liveness.earned(6.0)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("trigger", Trigger)
def test_every_transition_has_words(state: State, trigger: Trigger) -> None:
    """What, why and what next, for every state and every reason."""
    line = texts.transition(state, trigger, "because")
    assert "because" in line
    assert "; next: " in line
    assert "()" not in texts.transition(state, trigger, "")


@pytest.mark.parametrize("state", State)
def test_the_status_line_says_role_vip_gates_and_lease(state: State) -> None:
    """In every state."""
    d = Driver().to(state)
    line = texts.status(d.state_machine, ["192.0.2.100"], d.now)
    assert "192.0.2.100" in line
    assert "gates: unit " in line
    assert "lease" in line


def test_the_adoption_says_how_long_it_may_take() -> None:
    """What, why, what next."""
    assert "its lease runs 2.1 s more" in texts.adopting(2.14)


def test_the_status_line_reports_what_is_in_the_way() -> None:
    """Who is ahead, how long damping waits, that etcd is away, that members disagree."""
    d = Driver().to(State.CANDIDATE)
    d.step(ev.Queued(d.campaign, "node2"))
    assert "behind node2" in texts.status(d.state_machine, ["v"], d.now)
    d.step(ev.ClusterFault(warning="members disagree"))
    assert "members disagree" in texts.status(d.state_machine, ["v"], d.now)
    d.step(ev.EtcdState(usable=False, detail="no answer"))
    assert "lease runs out, etcd: no answer" in texts.status(d.state_machine, ["v"], d.now)
    assert "; etcd: no answer" in texts.status(d.state_machine, ["v"], d.now + 10)
    d = Driver(Settings(flap_wait=5.0)).to(State.CANDIDATE)
    for _ in range(2):
        d.step(ev.UnitState("failed", "failed"))
        d.step(ev.Done(CloseFence()))
        d.step(ev.Resigned(d.campaign))
        d.step(ev.UnitState("active", "running"))
    assert "campaigns in 5 s" in texts.status(d.state_machine, ["v"], d.now)
