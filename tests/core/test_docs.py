"""The documents say what the code says."""

from pathlib import Path

from docs.diagram import diagram

CHECKOUT = Path(__file__).resolve().parents[2]


def test_the_state_diagram_is_the_table() -> None:
    """docs/design.md shows the transitions that exist."""
    assert diagram() in (CHECKOUT / "docs/design.md").read_text()
