"""What a client sees, and which machine answers, while faults strike.

`Observation` starts three kinds of observer: (a) the service as a client sees it, (b) every machine asked
directly, (c) the address changes of every machine. `stop()` tells what they saw. Times are seconds of
CLOCK_MONOTONIC, the same for every process of this host; only (c) carries the wall clock's.
"""

import itertools
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import IO

from tests.lab.host import LabError
from tests.lab.network import INNER4, INNER6, VIP4, VIP6, Network, Port

# Two answers of one machine further apart than this enclose nothing: it may have lost the VIP and won it again.
ENCLOSING_S = 0.05
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a client: when it was sent, and which machine answered (None: none in time)."""

    sent_at: float
    by: str | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A machine answered for the VIP."""

    at: float
    kind: str
    by: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was seen from `began` to `ended`."""

    began: float
    ended: float
    requests: Sequence[Request]
    requests6: Sequence[Request]
    answers: Sequence[Answer]
    pauses: Sequence[tuple[float, float]]
    address_events: Sequence[str]
    marks: dict[str, float] = field(default_factory=dict)

    def since(self, mark: str) -> "Report":
        """The part after a mark, with the last answer before it, from which a gap counts."""
        return self.between(self.marks[mark], self.ended)

    def between(self, begin: float, end: float) -> "Report":
        """The part between two instants, with the last request before it that was answered."""
        answers = self.answers[
            bisect_left(self.answers, begin, key=lambda a: a.at) : bisect_right(self.answers, end, key=lambda a: a.at)
        ]
        pauses = [(max(a, begin), min(b, end)) for a, b in self.pauses if b > begin and a < end]
        requests, requests6 = (_between(r, begin, end) for r in (self.requests, self.requests6))
        return Report(begin, end, requests, requests6, answers, pauses, self.address_events, self.marks)

    @property
    def gap(self) -> float:
        """The longest time, in seconds, between two requests that were answered (to the end, if it stays silent)."""
        return self._gap(self.requests)

    @property
    def gap6(self) -> float:
        """The same over IPv6."""
        return self._gap(self.requests6)

    def _gap(self, requests: Sequence[Request]) -> float:
        times = [r.sent_at for r in requests if r.by]
        if not times:
            return self.ended - self.began
        # To the end itself: a request that was under way then has left no record.
        return max(b - a for a, b in itertools.pairwise([*times, max(times[-1], self.ended)]))

    @property
    def lost(self) -> int:
        """Requests that no machine answered in time."""
        return sum(1 for r in self.requests if not r.by)

    @property
    def holders(self) -> list[str]:
        """Who answered for the VIP, in order, without repetitions."""
        return [by for by, _ in itertools.groupby(a.by for a in self.answers)]

    @property
    def moves(self) -> int:
        """How often the service went over to another machine, as clients saw it."""
        served = [by for by, _ in itertools.groupby(r.by for r in self.requests if r.by)]
        return max(0, len(served) - 1)

    @property
    def two_answering(self) -> float:
        """For how long, in seconds, two machines answered for the VIP: the worst over the kinds of question.

        Two answer when the answers of one, before and after, enclose an answer of another.
        """
        return max((sum(end - begin for begin, end in _enclosed(list(a))) for a in self._by_kind()), default=0.0)

    @property
    def divided(self) -> float:
        """For how long, in seconds, one machine answered for one address while another answered for another one."""
        return sum(end - begin for begin, end in _enclosed(sorted(self.answers, key=lambda a: a.at)))

    @property
    def overlaps(self) -> list[str]:
        """For people: when two machines answered, with the answers around each such time."""
        told = []
        for answers in map(list, self._by_kind()):
            for begin, end in _enclosed(answers):
                around = [a for a in answers if begin - 0.02 <= a.at <= end + 0.02]
                told.append(f"{answers[0].kind} {begin:.4f} to {end:.4f}: " +
                            " ".join(f"{a.by}@{a.at:.4f}" for a in around))  # fmt: skip
        return told

    @property
    def unasked(self) -> float:
        """For how long, in seconds, this host was too busy to ask the machines: two may have answered unseen."""
        return sum(end - begin for begin, end in self.pauses)

    @property
    def last_answers(self) -> dict[str, float]:
        """When each machine answered last."""
        return {a.by: a.at for a in self.answers}

    def _by_kind(self) -> Iterable[Iterable[Answer]]:
        kinds = defaultdict(list)
        for answer in self.answers:
            kinds[answer.kind].append(answer)
        return kinds.values()


def _between(requests: Sequence[Request], begin: float, end: float) -> Sequence[Request]:
    """The requests sent between two instants, and the last one before them that was answered."""
    first = bisect_left(requests, begin, key=lambda r: r.sent_at)
    last = bisect_right(requests, end, key=lambda r: r.sent_at)
    before = next((i for i in range(first - 1, -1, -1) if requests[i].by), first)
    return [*requests[before : min(before + 1, first)], *requests[first:last]]


def _enclosed(answers: Sequence[Answer]) -> list[tuple[float, float]]:
    """The union of the intervals between two answers of one machine that have another's answer inside."""
    intervals: list[tuple[float, float]] = []
    previous: dict[str, int] = {}
    for i, answer in enumerate(answers):
        before = previous.get(answer.by)
        if before is not None and i - before > 1 and answer.at - answers[before].at <= ENCLOSING_S:
            intervals.append((answers[before].at, answer.at))
        previous[answer.by] = i
    union: list[tuple[float, float]] = []
    for begin, end in sorted(intervals):
        if union and begin <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((begin, end))
    return union


Vips = Sequence[tuple[IPv4Address, IPv6Address]]
FIRST: Vips = [(VIP4, VIP6)]
FIRST_INNER: Vips = [(INNER4, INNER6)]


class Observation:
    """Observers that run until stop().

    Args:
        network: the wires.
        client: where the observers run.
        nodes: the machines.
        services: the VIP's addresses that the client asks.
        vips: for which the machines are asked.
        inner: the same, on the second network.
    """

    def __init__(
        self,
        network: Network,
        client: Port,
        nodes: Sequence[Port],
        services: Sequence[str] = ("v4", "v6"),
        *,
        vips: Vips = FIRST,
        inner: Vips = FIRST_INNER,
    ) -> None:
        self._network = network
        self._observers: list[tuple[str, subprocess.Popen[str], IO[str]]] = []
        self._marks: dict[str, float] = {}
        self._began = time.monotonic()
        here = [sys.executable, "-u", "-m"]
        for name in services:
            vip = {"v4": VIP4, "v6": VIP6, "inner4": INNER4, "inner6": INNER6}[name]
            self._start(f"service {name}", client, [*here, "tests.lab.ask_service", str(vip), "80"])
        for port, asked in zip(network.wires(client), (vips, inner), strict=False):
            macs = [f"{n.name}={(n.inner if port.second else n).mac.hex(':')}" for n in nodes]
            pairs = ",".join(f"{v4}/{v6}" for v4, v6 in asked)
            identity = [port.interface, port.mac.hex(":"), str(port.v4), str(port.v6), pairs]
            self._start("machines", client, [*here, "tests.lab.ask_machines", *identity, *macs])
        for node in nodes:
            self.watch_addresses(node)

    def watch_addresses(self, node: Port) -> None:
        """Observe the addresses of a machine; again after its power was off, with its new network."""
        self._start(f"addresses {node.name}", node, ["ip", "-o", "-ts", "monitor", "address"])

    def mark(self, name: str) -> None:
        """Remember this instant."""
        self._marks[name] = time.monotonic()

    def stop(self) -> Report:
        """End the observers and tell what they saw. LabError when one had ended by itself: it saw nothing since."""
        ended = time.monotonic()
        dead = [f"{name} (exit {code})" for name, process, _ in self._observers if (code := process.poll()) is not None]
        for _, process, _ in self._observers:
            process.terminate()
        seen: dict[str, list[str]] = defaultdict(list)
        for name, process, output in self._observers:
            process.wait(timeout=10)
            output.seek(0)
            seen[name] += [line for line in output.read().splitlines() if line]
            output.close()
        self._observers.clear()
        if dead:
            raise LabError(f"observers ended before the observation: {', '.join(dead)}")
        answers, pauses = [], []
        for at, kind, value in (line.split() for line in seen["machines"]):
            if kind == "pause":
                pauses.append((float(at) - float(value), float(at)))
            else:
                answers.append(Answer(float(at), kind, value))
        answers.sort(key=lambda answer: answer.at)  # there may be two observers
        requests, requests6 = (
            sorted(map(_request, seen[name]), key=lambda r: r.sent_at) for name in ("service v4", "service v6")
        )
        events = [f"{name.split()[1]} {line}" for name in seen if name.startswith("addresses") for line in seen[name]]
        events.sort(key=_stamp)
        return Report(self._began, ended, requests, requests6, answers, pauses, events, dict(self._marks))

    def _start(self, name: str, port: Port, command: Sequence[str]) -> None:
        output = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in stop()
        process = subprocess.Popen(
            # The kernel ends an observer with its lab: one that stayed would keep the machine's network alive.
            [*self._network.enter(port.name), "setpriv", "--pdeathsig", "KILL", "--", *command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL, text=True, cwd=CHECKOUT,
        )  # fmt: skip
        self._observers.append((name, process, output))


def _request(line: str) -> Request:
    at, _, result = line.partition(" ")
    by, _, fault = result.partition(" ")
    return Request(float(at), None if by == "-" else by, fault)


def _stamp(event: str) -> str:
    return event.partition("[")[2]
