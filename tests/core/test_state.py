"""The transition table."""

import pytest

from govipd.core.state import ANSWERING, TRANSITIONS, State, Trigger, next_state
from govipd.errors import IllegalTransitionError
from tests.core.driver import Driver


def test_every_state_can_be_reached_and_every_state_but_the_last_left() -> None:
    """No dead ends: STOPPED is the only state without a way out."""
    targets = {to for row in TRANSITIONS.values() for to in row.values()}
    assert targets | {State.STARTING, State.ADOPTING} == set(State)
    assert [state for state in State if not TRANSITIONS[state]] == [State.STOPPED]


def test_the_vip_is_left_only_by_closing_the_fence() -> None:
    """Order is contract: from a state that holds, every way out leads to CLOSING, and from there to LEAVING."""
    for state in ANSWERING:
        assert set(TRANSITIONS[state].values()) - ANSWERING == {State.DEACTIVATING}
    assert set(TRANSITIONS[State.DEACTIVATING].values()) == {State.RESIGNING}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("trigger", Trigger)
def test_what_the_table_does_not_allow_raises(state: State, trigger: Trigger) -> None:
    """Every state x every trigger: the table's answer or an error, nothing else."""
    if trigger in TRANSITIONS[state]:
        assert next_state(state, trigger) is TRANSITIONS[state][trigger]
    else:
        with pytest.raises(IllegalTransitionError, match=state.name):
            next_state(state, trigger)


@pytest.mark.parametrize("state", State)
def test_the_driver_reaches_every_state(state: State) -> None:
    """The straight way to each state works."""
    assert Driver().to(state).state is state
