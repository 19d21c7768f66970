"""Whether the daemon may send systemd a watchdog ping.

A ping says: the event loop completed a whole step recently, and every task that must run is running. A ping
never depends on an answer of etcd: an etcd outage leads to a release, not to a crash loop.
"""

START_S = 0.8  # seconds from a process's end until the next process has adopted; the watchdog's time comes on top


class Liveness:
    """Keeps the time of the last full step, and which tasks have ended."""

    def __init__(self, limit: float, now: float) -> None:
        """Send systemd no ping if the loop's last step is more than `limit` seconds ago."""
        self._limit = limit
        self._stepped_at = now
        self._dead: set[str] = set()

    def stepped(self, now: float) -> None:
        """A full step of the loop is complete: event taken, decision made, actions handed out."""
        self._stepped_at = now

    def ended(self, task: str) -> None:
        """A task that must not end has ended."""
        self._dead.add(task)

    def earned(self, now: float) -> bool:
        """Whether systemd may get a watchdog ping."""
        return not self._dead and now - self._stepped_at <= self._limit
