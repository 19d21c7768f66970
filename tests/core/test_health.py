"""The gates."""

import pytest

from govipd.core.events import LinkState, ProbeResult, UnitState
from govipd.core.health import Damping, Gate, Health, Verdict
from govipd.core.settings import Settings
from tests.core.driver import FAILED, PASSED, RUNNING, UP

DOWN = LinkState(present=True, admin_up=True, carrier=False, mac="02:00:00:00:00:01")


def verdict(health: Health, gate: Gate) -> Verdict:
    return next(s.verdict for s in health.gates() if s.gate is gate)


def test_nothing_seen_is_unknown_and_permits_nothing() -> None:
    """UNKNOWN is a value of its own."""
    health = Health(Settings(), 0.0)
    assert {s.verdict for s in health.gates()} == {Verdict.UNKNOWN}
    assert len(health.against_campaigning()) == 3
    assert health.against_holding(1.0) == ()
    assert len(health.against_holding(3.0)) == 3
    assert health.next_deadline(1.0) == 3.0
    assert health.next_deadline(3.0) is None
    assert not health.unhealthy()


def test_rise_and_fall() -> None:
    """`rise` successes in a row to become healthy, `fall` failures in a row to become unhealthy."""
    health = Health(Settings(rise=2, fall=3), 0.0)
    seen = []
    for passed in (True, True, False, False, True, False, False, False, True, False, True, True):
        health.note(ProbeResult(passed, ""), 1.0)
        seen.append(verdict(health, Gate.PROBE).name[:3])
    assert seen == ["UNK", "HEA", "HEA", "HEA", "HEA", "HEA", "HEA", "UNH", "UNH", "UNH", "UNH", "HEA"]


@pytest.mark.parametrize(
    ("active_state", "expected"),
    [
        ("active", Verdict.HEALTHY), ("reloading", Verdict.HEALTHY), ("refreshing", Verdict.HEALTHY),
        ("inactive", Verdict.UNHEALTHY), ("failed", Verdict.UNHEALTHY), ("activating", Verdict.UNHEALTHY),
        ("deactivating", Verdict.UNHEALTHY), ("maintenance", Verdict.UNHEALTHY), (None, Verdict.UNKNOWN),
    ],
)  # fmt: skip
def test_what_systemctl_calls_active_serves(active_state: str | None, expected: Verdict) -> None:
    """Every ActiveState of systemd, and not knowing it."""
    health = Health(Settings(), 0.0)
    health.note(UnitState(active_state, ""), 1.0)
    assert verdict(health, Gate.UNIT) is expected


def test_the_link_is_debounced_both_ways() -> None:
    """A short loss of carrier changes nothing; a long one does."""
    health = Health(Settings(link_debounce=0.2), 0.0)
    health.note(UP, 1.0)
    assert verdict(health, Gate.LINK) is Verdict.HEALTHY
    health.note(DOWN, 2.0)
    health.note(DOWN, 2.1)  # repeated: the debounce runs from the first
    assert health.next_deadline(2.1) == pytest.approx(2.2)
    health.note(UP, 2.15)
    health.tick(3.0)
    assert verdict(health, Gate.LINK) is Verdict.HEALTHY
    health.note(DOWN, 4.0)
    health.tick(4.2)
    assert verdict(health, Gate.LINK) is Verdict.UNHEALTHY
    health.note(UP, 5.0)
    assert verdict(health, Gate.LINK) is Verdict.UNHEALTHY
    health.tick(5.2)
    assert verdict(health, Gate.LINK) is Verdict.HEALTHY


def test_a_missing_interface_needs_no_debounce() -> None:
    """There is nothing to wait for."""
    health = Health(Settings(), 0.0)
    health.note(UP, 1.0)
    health.note(LinkState(present=False, admin_up=False, carrier=False, mac=""), 2.0)
    assert verdict(health, Gate.LINK) is Verdict.UNHEALTHY
    health.note(LinkState(present=True, admin_up=False, carrier=False, mac=""), 3.0)
    assert "set down" in str(health.gates()[-1])


def test_gates_can_be_switched_off() -> None:
    """A gate that is off neither forbids nor shows."""
    health = Health(Settings(unit_gate=False, probe_gate=False), 0.0)
    health.note(UP, 1.0)
    assert [s.gate for s in health.gates()] == [Gate.LINK]
    assert health.against_campaigning() == ()


def test_damping_survives_any_number_of_falls() -> None:
    """The wait is bounded, and so is the arithmetic behind it."""
    damping = Damping(Settings(flap_window=1e5, flap_wait=1.0, flap_wait_max=30.0))
    for fall in range(2000):
        damping.fell(float(fall))
    assert damping.wait(2000.0) == 30.0


def test_fit_since_is_when_the_last_gate_became_healthy() -> None:
    """And None while one is not."""
    health = Health(Settings(rise=1), 0.0)
    health.note(UP, 1.0)
    health.note(RUNNING, 2.0)
    assert health.fit_since() is None
    health.note(PASSED, 3.0)
    health.note(PASSED, 4.0)
    assert health.fit_since() == 3.0
    health.note(FAILED, 5.0)
    health.note(FAILED, 6.0)
    assert health.fit_since() is None
    assert health.unhealthy()
