"""The steps of one take-over, from the journals of the machine that lost the VIP and of the one that took it.

Both stamp with this host's CLOCK_MONOTONIC, as the event and the clients' requests are stamped, so that all can be told
in one order.
"""

import json
import re

from bench.measure import Measured
from bench.records import Step


def steps(measured: Measured) -> list[Step]:
    """What both daemons said from the event until a client was served again."""
    if measured.taker is None or measured.served_at is None:
        return []
    ends = 1000 * (measured.served_at - measured.event_at)
    found = [Step(round(ends, 1), "client", "served again")]
    for node in (measured.holder, measured.taker):
        for line in node.run("journalctl -u govipd -o json --no-pager -n 60").stdout.splitlines():
            entry = json.loads(line)
            at_ms = 1000 * (int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6 - measured.event_at)
            if at_ms >= 0 and "GOVIP_STATE" in entry:
                found.append(Step(round(at_ms, 1), node.name, said(str(entry["MESSAGE"]))))
    return sorted(found, key=lambda step: step.at_ms)


def said(message: str) -> str:
    """A line of the journal without the VIP's name, the reason and what is next."""
    return re.split(r" \(|; next", message.partition(": ")[2])[0]
