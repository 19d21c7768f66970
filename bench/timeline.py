"""The steps of one take-over, from the time lines of the machine that lost the VIP and of the one that took it.

Both are stamped with CLOCK_BOOTTIME, which all machines here share, so that all can be told in one order.
"""

import time

from bench.measure import Measured
from bench.records import Step
from tests.lab.steps import steps_of


def steps(measured: Measured) -> list[Step]:
    """What both daemons did from the event until a client was served again."""
    if measured.taker is None or measured.served_at is None:
        return []
    ends = 1000 * (measured.served_at - measured.event_at)
    found = [Step(round(ends, 1), "client", "served again")]
    event_at = measured.event_at + time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    for node, move in ((measured.holder, "release"), (measured.taker, "take-over")):
        for step, at in steps_of(node, move, event_at).items():
            found.append(Step(round(1000 * (at - event_at), 1), node.name, step))
    return sorted(found, key=lambda step: step.at_ms)
