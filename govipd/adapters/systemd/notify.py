"""sd_notify(3) and sd_watchdog_enabled(3)."""

import os
import time
from collections.abc import Mapping

import sdnotify

_SEND_LIMIT_S = 0.1  # systemd may be busy (daemon-reexec); the event loop must not wait for it


class SystemdNotifier:
    """Notifies systemd (process_ports.Notifier) over the socket that NOTIFY_SOCKET names. Without one, does nothing."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier() if os.environ.get("NOTIFY_SOCKET") else None
        if self._notifier and self._notifier.socket:
            self._notifier.socket.settimeout(_SEND_LIMIT_S)

    def ready(self) -> None:
        """READY=1."""
        self._notify("READY=1")

    def status(self, text: str) -> None:
        """STATUS=, one line: line breaks become blanks."""
        self._notify(f"STATUS={' '.join(text.splitlines())}")

    def stopping(self) -> None:
        """STOPPING=1."""
        self._notify("STOPPING=1")

    def watchdog(self) -> None:
        """WATCHDOG=1."""
        self._notify("WATCHDOG=1")

    def reloading(self) -> None:
        """RELOADING=1, with the CLOCK_MONOTONIC time that Type=notify-reload requires; ready() ends the reload."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def close(self) -> None:
        """Close the socket."""
        if self._notifier and self._notifier.socket:
            self._notifier.socket.close()

    def _notify(self, state: str) -> None:
        if self._notifier:
            # sdnotify encodes as Latin-1, systemd reads UTF-8.
            self._notifier.notify(state.encode().decode("latin-1"))


def watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    """The watchdog's time-out in seconds; None when systemd expects no pings from this process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        timeout = int(environ["WATCHDOG_USEC"]) / 1_000_000
    except (KeyError, ValueError, OverflowError):
        return None
    return timeout if timeout > 0 else None
