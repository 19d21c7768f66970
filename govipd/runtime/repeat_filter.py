"""Filters repeated trouble: a line when it begins, from time to time while it lasts, and when it is over."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from govipd.core.journal_kinds import JournalKind

FIRST_S = 10.0  # the trouble's age at the first "still: ..." line; each further line comes at twice the age
LONGEST_S = 3600.0  # longest time between two "still: ..." lines
FORGOTTEN_S = 60.0  # trouble that was not reported for so long counts as new when it comes again

Write = Callable[[JournalKind, str, Mapping[str, str]], None]


@dataclass(slots=True)
class _Trouble:
    began: float
    seen: float
    due: float
    tries: int


class RepeatFilter:
    """Collapses repeated reports of the same kind and subject. Their texts may differ; the newest text is written.

    Args:
        write: takes a kind, a line, and fields.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._troubles: dict[tuple[JournalKind, str], _Trouble] = {}

    def report(self, kind: JournalKind, text: str, now: float, *, next_step: str = "", subject: str = "") -> None:
        """Report trouble, each time it happens. `next_step` is written only when the trouble begins."""
        trouble = self._troubles.get((kind, subject))
        if trouble is None or now - trouble.seen > FORGOTTEN_S:
            self._troubles[kind, subject] = _Trouble(began=now, seen=now, due=now + FIRST_S, tries=1)
            self._write(kind, f"{text}; next: {next_step}" if next_step else text, {})
            return
        trouble.seen = now
        trouble.tries += 1
        if now >= trouble.due:
            age = now - trouble.began
            trouble.due = now + min(age, LONGEST_S)
            self._write(kind, f"still: {text}, {_lasted(age, trouble.tries)}", _fields(age, trouble.tries))

    def resolve(self, kind: JournalKind, over: JournalKind, text: str, now: float, *, subject: str = "") -> None:
        """Report that the trouble is over, in a line of the kind `over`. Does nothing where there was none."""
        if trouble := self._troubles.pop((kind, subject), None):
            age = now - trouble.began
            self._write(over, f"{text}, after {_lasted(age, trouble.tries)}", _fields(age, trouble.tries))


def _lasted(age: float, tries: int) -> str:
    unit, name = (1, "s") if age < 120 else (60, "min") if age < 7200 else (3600, "h")
    digits = 1 if age < 10 else 0
    return f"{age / unit:.{digits}f} {name}, {tries} {'try' if tries == 1 else 'tries'}"


def _fields(age: float, tries: int) -> Mapping[str, str]:
    return {"GOVIP_SECONDS": f"{age:.1f}", "GOVIP_TRIES": str(tries)}
