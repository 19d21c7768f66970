"""Lines about trouble that lasts."""

from collections.abc import Mapping

from govipd.core.journal_kinds import JournalKind
from govipd.runtime.repeat_filter import FORGOTTEN_S, LONGEST_S, RepeatFilter

KIND, OVER = JournalKind.ETCD_SILENT, JournalKind.ETCD_ANSWERS


class Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.kinds: list[JournalKind] = []
        self.fields: list[Mapping[str, str]] = []
        self.troubles = RepeatFilter(self._write)

    def _write(self, kind: JournalKind, text: str, fields: Mapping[str, str]) -> None:
        self.kinds.append(kind)
        self.lines.append(text)
        self.fields.append(fields)

    def trouble(self, begin: float, end: float, every: float = 0.5) -> None:
        for n in range(round((end - begin) / every)):
            self.troubles.report(KIND, "etcd unreachable", begin + n * every, next_step="tried for ever")


def test_trouble_is_reported_at_once_then_at_growing_intervals() -> None:
    """The age doubles from line to line; what follows is said once."""
    told = Lines()
    told.trouble(100, 141)
    assert told.lines == [
        "etcd unreachable; next: tried for ever",
        "still: etcd unreachable, 10 s, 21 tries",
        "still: etcd unreachable, 20 s, 41 tries",
        "still: etcd unreachable, 40 s, 81 tries",
    ]
    assert told.fields[-1] == {"GOVIP_SECONDS": "40.0", "GOVIP_TRIES": "81"}


def test_the_end_says_how_long_it_lasted() -> None:
    """Once; and nothing where nothing had begun."""
    told = Lines()
    told.troubles.resolve(KIND, OVER, "etcd answers again", 99)
    told.trouble(100, 104)
    told.troubles.resolve(KIND, OVER, "etcd answers again", 104)
    told.troubles.resolve(KIND, OVER, "etcd answers again", 105)
    assert told.lines[1:] == ["etcd answers again, after 4.0 s, 8 tries"]
    assert told.kinds == [KIND, OVER]


def test_the_same_trouble_after_its_end_is_new() -> None:
    """Also where the end was only silence."""
    told = Lines()
    told.trouble(100, 101)
    told.trouble(101 + FORGOTTEN_S, 102 + FORGOTTEN_S)
    assert told.lines == 2 * ["etcd unreachable; next: tried for ever"]


def test_each_subject_is_a_trouble_of_its_own_and_the_newest_words_count() -> None:
    """Two actions of the kernel fail, one with changing words."""
    told = Lines()
    told.troubles.report(KIND, "Hold failed: 1", 0, subject="Hold")
    told.troubles.report(KIND, "CloseFence failed", 0, subject="CloseFence")
    told.troubles.report(KIND, "Hold failed: 2", 10, subject="Hold")
    assert told.lines == ["Hold failed: 1", "CloseFence failed", "still: Hold failed: 2, 10 s, 2 tries"]


def test_days_of_trouble_are_reported_every_hour() -> None:
    """In units that people read."""
    told = Lines()
    told.trouble(0, 10 * LONGEST_S, every=10)
    ages = [line.split(", ")[1] for line in told.lines[1:]]
    assert ages[3:9] == ["80 s", "3 min", "5 min", "11 min", "21 min", "43 min"]
    assert ages[9:] == ["85 min", "2 h", "3 h", "4 h", "5 h", "6 h", "7 h", "8 h", "9 h"]
