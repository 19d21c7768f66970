"""The scenarios of the demo, and more faults, as tests."""

import pytest

from tests.lab.faults import FAULTS
from tests.lab.lab import Lab
from tests.lab.play import Scenario, parameters, play
from tests.lab.scenarios import SCENARIOS

LONG = {"etcd-in-turn", "govipd-frozen-30s", "govipd-frozen-unwatched"}


@pytest.mark.parametrize("scenario", parameters((*SCENARIOS, *FAULTS), long=LONG))
def test_scenario(lab: Lab, scenario: Scenario) -> None:
    """The right machine serves afterwards, and at no moment two machines answered."""
    result = play(lab, scenario)
    seen = [*result.faults, *result.report.overlaps, *result.report.address_events[-40:]]
    assert result.faults == (), "\n".join(seen)


def test_a_reload_of_the_proxy_loses_no_request_to_a_move(lab: Lab) -> None:
    """`systemctl reload haproxy`, ten times on the holder: no move, and the other machines never answered."""
    result = play(lab, next(s for s in SCENARIOS if s.name == "haproxy-reloaded"))
    assert result.report.moves == 0
    assert {r.by for r in result.report.requests if r.by} == {result.before}
