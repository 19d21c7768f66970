"""Reports trouble that the VIP groups of a process have at the same time: one line for all of them."""

from collections.abc import Mapping

from govipd.core.journal_kinds import JournalKind
from govipd.runtime.process_ports import Journal
from govipd.runtime.repeat_filter import RepeatFilter

NAMED_MAX = 3  # groups that a line names


class SharedTroubles:
    """The process's trouble with etcd. A line names the groups that have had it so far.

    Args:
        journal: takes the lines.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._filter = RepeatFilter(self._write)
        self._in_trouble: dict[str, None] = {}  # groups; the first one counts the tries
        self._had_it: dict[str, None] = {}  # groups in the trouble that lasts, or has just ended

    def report(self, vip: str, text: str, now: float, *, next_step: str) -> None:
        """Report the trouble of a group, each time it happens."""
        if not self._in_trouble:
            self._had_it.clear()
        self._in_trouble[vip] = self._had_it[vip] = None
        if next(iter(self._in_trouble)) == vip:
            self._filter.report(JournalKind.ETCD_SILENT, text, now, next_step=next_step)

    def resolve(self, vip: str, text: str, now: float) -> None:
        """Report that the trouble of a group is over. The last group's end is the trouble's."""
        if vip in self._in_trouble:
            del self._in_trouble[vip]
            if not self._in_trouble:
                self._filter.resolve(JournalKind.ETCD_SILENT, JournalKind.ETCD_ANSWERS, text, now)

    def forget(self, vip: str) -> None:
        """Forget a group that has ended."""
        self._in_trouble.pop(vip, None)

    def _write(self, kind: JournalKind, text: str, fields: Mapping[str, str]) -> None:
        vips = [*self._had_it]
        more = f" and {len(vips) - NAMED_MAX} more" if len(vips) > NAMED_MAX else ""
        names = ", ".join(vips[:NAMED_MAX]) + more
        self._journal.write(kind, f"{names}: {text}", {"GOVIP_VIP": vips[0], **fields})
