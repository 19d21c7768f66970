"""Observer (a), a process of its own in the client's network: does the service answer?

Every few milliseconds a new TCP connection to the VIP, not waiting for the last one; the body names the
machine. One line per request on stdout: the time it was sent (CLOCK_MONOTONIC), and the machine's name or
"-" and why not. Ends at SIGTERM.

It has real-time priority where it may: on a host whose processors are busy, its own waiting for one is no gap in
the service. Nor is its lateness of up to LATENESS_S: such a request counts as sent when it was due.
"""

import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress

INTERVAL_S = 0.004
LATENESS_S = 0.0005  # timers and the interpreter cost it up to a tenth of the interval
TIMEOUT_S = 0.250  # a first retransmission comes after a second: what is answered later was lost once
REQUEST = b"GET / HTTP/1.0\r\n\r\n"


class Asking:
    """Requests under way."""

    def __init__(self, address: str, port: int) -> None:
        self._target = (address, port)
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._selector = selectors.SelectSelector()  # those that wait for whole milliseconds ask at no steady rate
        self._open: dict[socket.socket, float] = {}

    def ask(self, now: float) -> None:
        s = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            s.connect(self._target)
        except BlockingIOError:
            pass  # under way, as it should be
        except OSError as e:
            s.close()
            print(f"{now:.6f} - {e.strerror}")
            return
        self._open[s] = now
        self._selector.register(s, selectors.EVENT_WRITE)

    def listen(self, until: float) -> None:
        while (wait := until - time.monotonic()) > 0:
            for key, events in self._selector.select(wait):
                s = key.fileobj
                assert isinstance(s, socket.socket)
                try:
                    if events & selectors.EVENT_WRITE:
                        s.send(REQUEST)
                        self._selector.modify(s, selectors.EVENT_READ)
                    else:
                        body = s.recv(4096).rpartition(b"\r\n\r\n")[2].decode(errors="replace").strip()
                        self._end(s, body or "- empty answer")
                except OSError as e:
                    self._end(s, f"- {e.strerror}")

    def expire(self, now: float) -> None:
        for s in [s for s, sent in self._open.items() if now - sent > TIMEOUT_S]:
            self._end(s, "- no answer")

    def _end(self, s: socket.socket, result: str) -> None:
        self._selector.unregister(s)
        # Reset instead of the usual end: thousands of sockets in TIME_WAIT would use up the ports.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
        print(f"{self._open.pop(s):.6f} {result}")


def main() -> None:
    """Ask until told to stop."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    asking = Asking(sys.argv[1], int(sys.argv[2]))
    due = time.monotonic()
    while not stopped:
        now = time.monotonic()
        if now - due > LATENESS_S:
            due = now
        asking.expire(now)
        asking.ask(due)
        due += INTERVAL_S
        asking.listen(due)


if __name__ == "__main__":
    main()
