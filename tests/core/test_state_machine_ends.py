"""The decisions: how a process begins with what another left, how it ends, and any sequence in between."""

from ipaddress import IPv4Interface

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from govipd.core import events as ev
from govipd.core.actions import (
    Adopt,
    Announce,
    CloseFence,
    DropRestartState,
    Hold,
    RemoveAddresses,
    Resign,
    RestartState,
    SaveRestartState,
    SeekPact,
)
from govipd.core.lease import HANDOVER_S
from govipd.core.settings import Settings
from govipd.core.state import ANSWERING, HOLDING, State
from tests.core.driver import FAILED, LEASE, PASSED, RUNNING, UP, Driver, left_at

VIP = IPv4Interface("192.0.2.100/32")


def test_a_late_acknowledgement_of_a_hold_does_not_stop_the_release() -> None:
    """The refresh that was under way when the fence had to close."""
    d = Driver().to(State.DEACTIVATING)
    assert d.step(ev.Done(Hold(d.now + 1))) == []
    assert d.state is State.DEACTIVATING


def test_a_stop_ends_from_every_state() -> None:
    """SIGTERM in any state: release, resign, end."""
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
            if d.state is not State.STOPPED and d.state_machine.next_deadline(d.now) is not None:
                d.tick()
        assert d.state is State.STOPPED, state


def test_a_stop_does_not_wait_for_etcd_beyond_its_time() -> None:
    """The VIP is dropped; the key would end with its lease."""
    d = Driver().to(State.RESIGNING)
    d.step(ev.Stop(by=d.now + 0.7))
    assert d.state is State.RESIGNING
    d.tick()
    assert d.state is State.STOPPED


def test_a_stop_waits_for_the_addresses_to_be_gone() -> None:
    """etcd may confirm before the kernel does: a process that ended then would leave the address behind."""
    d = Driver().to(State.RESIGNING)
    d.step(ev.Stop(by=d.now + 0.7))
    d.step(ev.Resigned(d.campaign))
    assert d.state is State.INELIGIBLE
    d.step(ev.Done(RemoveAddresses()))
    assert d.state is State.STOPPED


def test_a_stop_still_never_resigns_before_the_fence_is_closed() -> None:
    """Even when it has no time."""
    d = Driver().to(State.LEADER)
    d.step(ev.Stop(by=d.now))
    assert d.state is State.HANDING_OVER
    d.tick()
    assert d.state is State.DEACTIVATING
    assert not d.resigned()


def test_what_the_last_process_held_is_adopted_once_it_is_proven() -> None:
    """No action changes the kernel before the proof. Then the fence opens again, under the same lease (FIELD 11)."""
    d = Driver(left=left_at(100.0))
    assert d.told == [Adopt(1, left_at(100.0))]
    assert d.state is State.ADOPTING
    d.step(ev.Elected(1, LEASE, d.now, 5))
    assert d.state is State.ADOPTING
    assert d.renew() == [Hold(102.5)]
    assert d.step(ev.Done(Hold(102.5))) == [Announce(), SeekPact()]
    assert d.state is State.LEADER
    assert d.kept == [SaveRestartState(RestartState(LEASE, 5, 102.5))]


def test_a_confirmed_lease_alone_does_not_adopt() -> None:
    """The key must be proven too."""
    d = Driver(left=left_at(100.0))
    assert d.renew() == []
    assert d.state is State.ADOPTING


def test_what_is_not_proven_in_time_is_dropped() -> None:
    """The last process's deadline counts, even if this process has renewed the lease."""
    d = Driver(left=left_at(100.0))
    d.renew()
    d.tick()
    assert (d.now, d.state) == (102.5, State.DEACTIVATING)


@pytest.mark.parametrize(
    "event",
    [ev.LeaseLost(LEASE, "not found"), ev.Deposed(1, "gone"), ev.UnitState("failed", "failed"), ev.Stop(by=200.0)],
)
def test_what_is_disproved_or_not_wanted_is_dropped(event: ev.Event) -> None:
    """In the order of every release: the fence first."""
    d = Driver(left=left_at(100.0))
    assert d.step(event) == [CloseFence()]
    assert d.step(ev.Done(CloseFence())) == [Resign(1), RemoveAddresses()]
    assert d.kept == [DropRestartState()]


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
    assert d.kept[-1] == SaveRestartState(RestartState(LEASE, 0, 103.5))
    d.step(ev.UnitState("failed", "failed"))
    d.step(ev.Done(CloseFence()))
    assert d.kept[-1] == DropRestartState()


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


@example(start=State.LEADER, events=[(ev.Stop(by=110.0), 0.0)])
@given(start=_states, events=st.lists(st.tuples(_events, st.floats(0, 2)), max_size=40))
def test_no_sequence_of_events_breaks_the_contract(start: State, events: list[tuple[ev.Event, float]]) -> None:
    """Any events in any state, at any time.

    No illegal transition; Hold only while holding, or shortly for a handover, and never beyond the lease; Resign only
    after the fence is known to be closed; the next deadline never lies in the past without being dealt with.
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
                    assert d.state in HOLDING or (d.state is State.HANDING_OVER and until <= d.now + HANDOVER_S)
                    deadline = d.state_machine.fence.by_lease_and_pact()
                    assert deadline is not None
                    assert d.now < until <= deadline
                    held_until, closed = max(held_until, until), False
                case Resign():
                    assert closed or d.now >= held_until
        for _ in range(3):  # time alone settles at this instant: no busy timer
            deadline = d.state_machine.next_deadline(d.now)
            if deadline is None or deadline > d.now:
                break
            d.step(ev.Tick())
        else:
            raise AssertionError(f"the timer spins in {d.state}")
