"""A process in a client's network: does one machine answer at a port that a NAT rule redirects?

The VIP stands in this client's neighbour table with the machine's own hardware address, for good: what is asked goes to
that machine, wherever the VIP is. One line per answer on stdout: time (CLOCK_MONOTONIC), then "established" for
the connection that was made at the start, or "new". Arguments: the VIP, the port, for how many seconds at most.
"""

import socket
import sys
import time

REQUEST = b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n"
INTERVAL_S = 0.01
TIMEOUT_S = 0.05  # what is answered later counts when it comes: of the connection that stays open, nothing is lost


def main() -> None:
    """Ask until the time is over or stdout is closed."""
    target, end = (sys.argv[1], int(sys.argv[2])), time.monotonic() + float(sys.argv[3])
    established = socket.create_connection(target, timeout=5.0)
    established.setblocking(False)
    asked = 0.0  # when, while the answer is due
    while time.monotonic() < end:
        try:
            if not asked or time.monotonic() - asked > TIMEOUT_S:
                established.send(REQUEST)
                asked = time.monotonic()
            if established.recv(4096):
                print(f"{time.monotonic():.6f} established", flush=True)
                asked = 0.0
        except BlockingIOError:
            pass
        with socket.socket() as new:
            new.settimeout(TIMEOUT_S)
            try:
                new.connect(target)
                new.send(REQUEST)
                if new.recv(4096):
                    print(f"{time.monotonic():.6f} new", flush=True)
            except OSError:
                pass
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main()
