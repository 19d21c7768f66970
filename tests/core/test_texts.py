"""Lines for people that no other test of the core reads."""

from govipd.core import texts


def test_a_claim_of_another_group_is_named_with_what_comes_next() -> None:
    """What happened, why, what to do."""
    text = texts.claimed("192.0.2.100 is claimed by group apii of node3")
    assert text.startswith("not taken: 192.0.2.100 is claimed by group apii of node3; next: take it when")
    assert "make govip.toml the same on every machine" in text
    assert texts.claimed("") == "no other group claims an address of this group any more"


def test_a_pact_is_reported_with_its_time() -> None:
    assert "silent for 0.5 s" in texts.pact(0.5)
    assert texts.pact(0.0).startswith("no pact any more")
