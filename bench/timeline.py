"""The steps of one take-over, from the journals of the machine that lost the VIP and of the one that took it.

Both stamp with this host's CLOCK_MONOTONIC, as the event is stamped, so that their lines can be told in one order.
"""

import json

from bench.measure import Measured
from bench.records import Step


def steps(measured: Measured) -> list[Step]:
    """What both daemons said since the event."""
    lab_nodes = [measured.holder]
    if measured.taker:
        lab_nodes.append(measured.taker)
    found = []
    for node in lab_nodes:
        for line in node.run("journalctl -u govipd -o json --no-pager -n 60").stdout.splitlines():
            entry = json.loads(line)
            at_ms = 1000 * (int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6 - measured.event_at)
            if at_ms >= 0 and "GOVIP_STATE" in entry:
                found.append(Step(round(at_ms, 1), node.name, str(entry["MESSAGE"])))
    return sorted(found, key=lambda step: step.at_ms)
