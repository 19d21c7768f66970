"""What one group has trouble with in etcd."""

from collections import Counter

from govipd.core.events import EtcdState
from govipd.runtime.ports import Sink


class Troubles:
    """The troubles of one group's candidacy: its own, and its session's.

    Args:
        sink: where EtcdState events go.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._failures: Counter[str] = Counter()  # in a row, for each `part` of report()
        self._troubles: dict[str, str] = {}
        self._reported: EtcdState | None = None

    def report(self, part: str, trouble: str) -> None:
        """Note the `trouble` of one part, "" for none. Sends EtcdState when the whole changes.

        A single failure is not reported: the next call goes to the next endpoint.
        """
        if not trouble:
            self._failures[part] = 0
            self._troubles.pop(part, None)
        else:
            self._failures[part] += 1
            if self._failures[part] > 1:
                self._troubles[part] = trouble
        state = EtcdState(not self._troubles, "; ".join(dict.fromkeys(self._troubles.values())))
        if state != self._reported:
            self._reported = state
            self._sink(state)

    def forget(self, part: str) -> None:
        """Forget the trouble of a part that has ended. The next report() sends the change."""
        self._troubles.pop(part, None)
