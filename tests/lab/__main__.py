"""`python -m tests.lab shell`: machines to try out. `python -m tests.lab clean`: remove a killed lab's remains."""

import shlex
import sys

from tests.lab import host
from tests.lab.lab import CLIENT, DAEMON, Lab


def shell() -> None:
    """Run three machines until the person ends the shell."""
    with Lab() as lab:
        lab.start_daemons()
        print(f"\n{lab.wait_serving()} serves the VIP. In another terminal, as root:\n")
        for node in lab.nodes:
            print(f"  {shlex.join(node.enter())} bash    # {node.name}")
        print(f"  {shlex.join(lab.network.enter(CLIENT.name))} curl http://192.0.2.100/    # as a client")
        print(f"\nTry: systemctl status {DAEMON}; journalctl -fu govipd; govipctl status; systemctl stop haproxy")
        try:
            input("\nEnter removes everything. ")
        except (EOFError, KeyboardInterrupt):
            print()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["shell"]:
            shell()
        case ["clean"]:
            host.remove_dead_labs()
        case _:
            sys.exit(__doc__)
