"""Whose trouble with etcd it is: the session's, or one candidacy's."""

from govipd.adapters.election.troubles import Troubles
from govipd.core.events import EtcdState, Event

WELL = EtcdState(usable=True, detail="")


def seen() -> tuple[list[Event], Troubles]:
    events: list[Event] = []
    return events, Troubles(events.append)


def test_a_single_failure_is_no_trouble() -> None:
    """Neither of the session, nor of the candidacy."""
    events, troubles = seen()
    for report in (troubles.of_session, troubles.of_candidacy):
        report("no answer")
        report("")
    assert events == [WELL]


def test_the_sessions_trouble_hides_the_candidacys() -> None:
    """Whichever fails first: when etcd is away, every call fails."""
    events, troubles = seen()
    for _ in range(3):
        troubles.of_candidacy("no answer to me")
    troubles.of_session("no answer")
    troubles.of_session("no answer")
    troubles.of_candidacy("no answer to me")
    assert events == [WELL, EtcdState(usable=False, detail="no answer", of_session=True)]
    troubles.of_session("")
    assert events[-1] == WELL


def test_a_candidacys_own_trouble_shows_beside_a_renewal() -> None:
    """And lasts until one of its calls succeeds, also over a trouble of the session."""
    events, troubles = seen()
    troubles.of_candidacy("permission denied")
    troubles.of_candidacy("permission denied")
    troubles.of_session("")
    own = EtcdState(usable=False, detail="permission denied")
    assert events == [WELL, own]
    troubles.of_session("no answer")
    assert events[-1] == own
    troubles.of_session("no answer")
    troubles.of_session("")
    assert events[-1] == own
    troubles.of_candidacy("")
    assert events[-1] == WELL


def test_a_candidacy_that_begins_anew_has_no_trouble() -> None:
    """The next report says so."""
    events, troubles = seen()
    troubles.of_candidacy("permission denied")
    troubles.of_candidacy("permission denied")
    troubles.of_session("")
    troubles.forget()
    troubles.of_session("")
    assert events[-1] == WELL
