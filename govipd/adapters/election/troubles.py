"""What one group has trouble with in etcd."""

from govipd.core.events import EtcdState
from govipd.runtime.ports import Sink


class Troubles:
    """The troubles of one group's candidacy, and of the session that it shares with the process's other groups.

    A single failure is not reported: the next call goes to the next endpoint. While the session fails, the calls of its
    candidacies fail, too: only the session's trouble is reported then. So failures of a candidacy count only once a
    renewal has succeeded beside them.

    Args:
        sink: where EtcdState events go, when the whole changes.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._session_failures = 0  # in a row
        self._session = ""
        self._failures = 0  # of the candidacy, in a row, since the session failed last
        self._newest = ""  # of these
        self._candidacy = ""
        self._reported: EtcdState | None = None

    def of_session(self, trouble: str) -> None:
        """Note the outcome of a renewal; "": it succeeded."""
        if trouble:
            self._session_failures += 1
            self._failures = 0
            if self._session_failures > 1:
                self._session = trouble
        else:
            self._session_failures, self._session = 0, ""
            if self._failures > 1:
                self._candidacy = self._newest
        self._report()

    def of_candidacy(self, trouble: str) -> None:
        """Note the outcome of a call of the candidacy; "": it succeeded."""
        if not trouble:
            self._failures, self._candidacy = 0, ""
        elif not self._session_failures:
            self._failures, self._newest = self._failures + 1, trouble
            self._candidacy = self._candidacy and trouble
        self._report()

    def forget(self) -> None:
        """Forget the candidacy's trouble: a new lease begins. The next report sends the change."""
        self._failures, self._candidacy = 0, ""

    def _report(self) -> None:
        trouble = self._session or self._candidacy
        state = EtcdState(not trouble, trouble, of_session=bool(self._session))
        if state != self._reported:
            self._reported = state
            self._sink(state)
