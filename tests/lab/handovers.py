"""`python -m tests.lab.handovers --times 50`: planned moves between three machines under a client's load.

Each is typed on the holder, to each of the others in turn, and waited for. Prints for how long two machines answered in
all of it, and the longest time without an answered request around each.
"""

import argparse
import statistics
import sys
from dataclasses import dataclass

from tests.lab.host import until
from tests.lab.lab import Lab


@dataclass(frozen=True, slots=True)
class Handovers:
    """The results. Times are in ms."""

    gaps: tuple[float, ...]
    two_answering: float
    unasked: float
    moves: int

    def __str__(self) -> str:
        return (
            f"handovers={len(self.gaps)} two_answering_ms={self.two_answering:.0f} "
            f"gap_ms median={statistics.median(self.gaps):.0f} max={max(self.gaps):.0f} "
            f"moves={self.moves} unasked_ms={self.unasked:.0f}"
        )


def hand_over(lab: Lab, times: int) -> Handovers:
    """Hand the VIP over so many times."""
    lab.make_whole()
    with lab.observe() as watching:
        for i in range(times):
            holder = lab.wait_serving()
            successor = lab.others(holder)[i // 2 % 2]
            until(lambda successor=successor: successor.name in lab.queue(), 30, f"{successor} stands in the queue")  # type: ignore[misc]
            watching.mark(str(i))
            holder.run(f"govipctl handover --to {successor} --wait")
            lab.wait_serving(by=successor)
        watching.mark(str(times))
    report = watching.report
    parts = [report.between(report.marks[str(i)], report.marks[str(i + 1)]) for i in range(times)]
    gaps = tuple(1000 * part.gap for part in parts)
    return Handovers(gaps, 1000 * report.two_answering, 1000 * report.unasked, report.moves)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="handovers")
    parser.add_argument("--times", type=int, default=50)
    args = parser.parse_args()
    with Lab() as lab:
        lab.start_daemons()
        seen = hand_over(lab, args.times)
    print(seen)
    return 0 if seen.two_answering == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
