"""docs/incidents.md names tests that exist."""

import re
from pathlib import Path

from tests.lab.faults import FAULTS
from tests.lab.scenarios import SCENARIOS

CHECKOUT = Path(__file__).resolve().parents[2]


def test_every_named_test_and_scenario_exists() -> None:
    """And every incident has one."""
    text = (CHECKOUT / "docs/incidents.md").read_text()
    code = "\n".join(p.read_text() for p in (CHECKOUT / "tests").rglob("*.py"))
    for name in re.findall(r"`(test_[a-z0-9_]+)`", text):
        assert f"def {name}(" in code, name
    for file in re.findall(r"`(test_\w+\.py)`", text):
        assert list((CHECKOUT / "tests").rglob(file)), file
    known = {s.name for s in (*SCENARIOS, *FAULTS)}
    for names in re.findall(r"(?:scenarios|faults) (`[^;|]+`)", text):
        assert set(re.findall(r"`([^`]+)`", names)) <= known, names
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == [str(n) for n in range(1, 28)]
