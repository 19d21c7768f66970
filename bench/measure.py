"""One event for one tool, observed by a client and by the machines."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.events import Event, place_etcd_leader
from bench.field import Field
from bench.records import Record
from bench.tools import Tool
from tests.lab.faults import etcd_leader
from tests.lab.host import LabError
from tests.lab.lab import CLIENT, Lab, Watching
from tests.lab.machine import Machine
from tests.lab.observe import Observation

WINDOW_S = 10.0  # within which a tool has moved the VIP, or does not
QUICK_WINDOW_S = 4.0  # with QUICK=1, where the VIP need not move
QUIET_S = 0.7  # nothing happens for so long before an event, at least
# And for up to so long more: a hung haproxy is noticed at the next check, and of all tools the longest time from check
# to check is 2 s. The event must not always come at the same point of it.
PHASE_S = 2.0
GOLDEN_S = 0.618034  # multiples of it are spread evenly, modulo 1 s and 2 s, however few there are
AFTER_S = 1.0  # and the machines are watched for so long after the VIP has moved
ORDER_S = 0.5  # exactly one machine has answered for so long
FIRST_LOOK_S = 0.5  # asking whether it has moved takes processor time from what is measured
TRIES = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """A record, the holders before and after, and the time of the event in seconds of CLOCK_MONOTONIC."""

    record: Record
    holder: Machine
    taker: Machine | None
    event_at: float
    served_at: float | None  # the first request that another machine has answered


def measure(field: Field, tool: Tool, event: Event, run: int, *, quick: bool = False) -> Measured:
    """Play the event on the machine that holds the VIP.

    Raises:
        LabError: the tool was not in order before the event, in three tries.
    """
    for left in reversed(range(TRIES)):
        try:
            return _measure(field, tool, event, run, quick=quick)
        except LabError as e:
            if not left:
                raise
            print(f"  again: {e}")
    raise AssertionError


def _measure(field: Field, tool: Tool, event: Event, run: int, *, quick: bool) -> Measured:
    lab = field.lab
    holder = field.play_with(tool)
    if event.leads_etcd is not None:
        place_etcd_leader(lab, holder, on_holder=event.leads_etcd)
    leads_etcd = etcd_leader(lab) is holder
    with _observe(lab) as watching:
        time.sleep(QUIET_S + run * GOLDEN_S % PHASE_S)  # the same for every tool
        watching.mark("event")
        event.act(lab, tool, holder)
        if event.ends_when_moved or (quick and event.moves):
            _follow(lab, holder)
        else:
            time.sleep(QUICK_WINDOW_S if quick else WINDOW_S)
        serving = lab.serving()
    report = watching.report
    at = report.marks["event"]
    before, seen = report.between(at - ORDER_S, at), report.since("event")
    if set(before.holders) != {holder.name}:
        raise LabError(f"{tool.name} was not in order before {event.name}: {before.holders} answered")
    answered = [r.sent_at for r in seen.requests if r.by]
    return Measured(
        Record(
            tool.name,
            event.name,
            run,
            gap_ms=round(1000 * seen.gap, 1),
            two_answering_ms=round(1000 * seen.two_answering, 1),
            moves=seen.moves,
            censored=not answered or report.ended - answered[-1] > AFTER_S / 2,
            window_ms=round(1000 * (report.ended - at)),
            unasked_ms=round(1000 * seen.unasked, 1),
            etcd_leader=leads_etcd,
        ),
        holder,
        lab.node(serving) if serving else None,
        at,
        next((r.sent_at for r in seen.requests if r.by not in {None, holder.name}), None),
    )


def _follow(lab: Lab, holder: Machine) -> None:
    """Watch until another machine serves and a while longer, or until the window ends."""
    ends = time.monotonic() + WINDOW_S
    time.sleep(FIRST_LOOK_S)
    while time.monotonic() < ends:
        if lab.serving() not in (None, holder.name):
            time.sleep(AFTER_S)
            return
        time.sleep(0.1)


@contextmanager
def _observe(lab: Lab) -> Iterator[Watching]:
    """As Lab.observe(), but without IPv6: every tool can hold one IPv4 address."""
    ports = [n.port for n in lab.nodes]
    watching = Watching(Observation(lab.network, CLIENT, ports, services=("v4",)))
    time.sleep(0.3)
    try:
        yield watching
    finally:
        watching.end()
