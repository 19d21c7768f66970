"""What a client sees and what is true, while something happens to the machines.

`Observation` starts three kinds of observer: (a) the service as a client sees it, (b) every machine asked
directly, (c) the address changes of every machine. `report()` tells what they saw. All times are seconds of
CLOCK_MONOTONIC, the same for every process of this host.
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
from pathlib import Path
from typing import IO

from tests.lab.network import VIP4, VIP6, Network, Port

# Two answers of one machine further apart than this enclose nothing: it may have lost the VIP and won it again.
ENCLOSING_S = 0.05
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a client: when it was sent, and who answered (None: nobody in time)."""

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
    answers: Sequence[Answer]
    address_events: Sequence[str]
    marks: dict[str, float] = field(default_factory=dict)

    def since(self, mark: str) -> "Report":
        """The part after a mark, with the last answer before it, from which a gap counts."""
        return self.between(self.marks[mark], self.ended)

    def between(self, begin: float, end: float) -> "Report":
        """The part between two instants, with the last request before it that was answered."""
        first = bisect_left(self.requests, begin, key=lambda r: r.sent_at)
        last = bisect_right(self.requests, end, key=lambda r: r.sent_at)
        before = next((i for i in range(first - 1, -1, -1) if self.requests[i].by), first)
        answers = self.answers[
            bisect_left(self.answers, begin, key=lambda a: a.at) : bisect_right(self.answers, end, key=lambda a: a.at)
        ]
        requests = [*self.requests[before : min(before + 1, first)], *self.requests[first:last]]
        return Report(begin, end, requests, answers, self.address_events, self.marks)

    @property
    def gap(self) -> float:
        """The longest time, in seconds, between two requests that were answered (to the end, if it stays silent)."""
        times = [r.sent_at for r in self.requests if r.by]
        if not times:
            return self.ended - self.began
        return max((b - a for a, b in itertools.pairwise([*times, max(times[-1], self._last_sent)])), default=0.0)

    @property
    def _last_sent(self) -> float:
        return max((r.sent_at for r in self.requests), default=self.ended)

    @property
    def lost(self) -> int:
        """Requests nobody answered in time."""
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
    def last_answers(self) -> dict[str, float]:
        """When each machine answered last."""
        return {a.by: a.at for a in self.answers}

    def _by_kind(self) -> Iterable[Iterable[Answer]]:
        kinds = defaultdict(list)
        for answer in self.answers:
            kinds[answer.kind].append(answer)
        return kinds.values()


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


class Observation:
    """Observers that run until stop()."""

    def __init__(self, network: Network, client: Port, nodes: Sequence[Port]) -> None:
        self._network = network
        self._outputs: dict[str, IO[str]] = {}
        self._processes: list[subprocess.Popen[str]] = []
        self._marks: dict[str, float] = {}
        self._began = time.monotonic()
        here = [sys.executable, "-u", "-m"]
        for name, vip in (("v4", VIP4), ("v6", VIP6)):
            self._start(f"service {name}", client, [*here, "tests.lab.ask_service", str(vip), "80"])
        macs = [f"{n.name}={n.mac.hex(':')}" for n in nodes]
        identity = [client.mac.hex(":"), str(client.v4), str(client.v6), str(VIP4), str(VIP6)]
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
        """End the observers and tell what they saw."""
        ended = time.monotonic()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(timeout=10)
        requests, answers, events = [], [], []
        for name, output in self._outputs.items():
            output.seek(0)
            lines = [line for line in output.read().splitlines() if line]
            output.close()
            if name == "service v4":
                requests = sorted(map(_request, lines), key=lambda r: r.sent_at)
            elif name == "machines":
                answers = [Answer(float(at), kind, by) for at, kind, by in (line.split() for line in lines)]
            elif name.startswith("addresses"):
                events += [f"{name.split()[1]} {line}" for line in lines]
        self._processes.clear()
        return Report(self._began, ended, requests, answers, sorted(events, key=_stamp), dict(self._marks))

    def _start(self, name: str, port: Port, command: Sequence[str]) -> None:
        output = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in stop()
        self._outputs[f"{name}{' again' * (name in self._outputs)}"] = output
        self._processes.append(
            subprocess.Popen(
                [*self._network.enter(port.name), *command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL, text=True, cwd=CHECKOUT,
            )
        )  # fmt: skip


def _request(line: str) -> Request:
    at, _, result = line.partition(" ")
    by, _, fault = result.partition(" ")
    return Request(float(at), None if by == "-" else by, fault)


def _stamp(event: str) -> str:
    return event.partition("[")[2]
