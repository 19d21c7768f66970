"""The records of a benchmark: `latest.json` holds a list of Record, `context.json` a Context."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec


@dataclass(frozen=True, slots=True)
class Record:
    """One event, once. `censored`: nobody served when the watching ended, so the gap is at least that long."""

    tool: str
    event: str
    run: int
    gap_ms: float
    two_answering_ms: float
    moves: int
    censored: bool
    window_ms: float  # how long the machines were watched after the event
    unasked_ms: float  # how long of it the observer itself got no processor
    etcd_leader: bool  # whether the holder's member of etcd led


@dataclass(frozen=True, slots=True)
class Idle:
    """A daemon at rest, on one machine."""

    tool: str
    holds: bool
    seconds: float
    cpu_percent: float  # of one core, with the processes that it started
    resident_mb: float


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a take-over; `at_ms` since the event."""

    at_ms: float
    node: str
    name: str


@dataclass(frozen=True, slots=True)
class Context:
    """What is common to all records."""

    date: str
    machine: dict[str, str]
    versions: dict[str, str]
    quick: bool
    idle: list[Idle] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)  # from the start of govipd to its READY
    timeline: list[Step] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Summary:
    """The runs of one event with one tool."""

    gaps: tuple[float, ...]
    two_answering: tuple[float, ...]
    moves: tuple[int, ...]
    censored: bool  # one of them, at least
    window: float

    @property
    def median(self) -> float:
        """The median gap in ms."""
        return statistics.median(self.gaps)

    @property
    def served(self) -> bool:
        """Whether the VIP came back in every run."""
        return not self.censored


def summarize(records: Iterable[Record]) -> dict[tuple[str, str], Summary]:
    """The summaries, by event and tool."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.event, record.tool), []).append(record)
    return {key: _summary(group) for key, group in groups.items()}


def _summary(group: Sequence[Record]) -> Summary:
    return Summary(
        tuple(r.gap_ms for r in group),
        tuple(r.two_answering_ms for r in group),
        tuple(r.moves for r in group),
        any(r.censored for r in group),
        max(r.window_ms for r in group),
    )


def write(directory: Path, records: Sequence[Record], context: Context) -> None:
    """Write the records to a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, contents in (("latest.json", records), ("context.json", context)):
        (directory / name).write_bytes(msgspec.json.format(msgspec.json.encode(contents), indent=1) + b"\n")


def read(directory: Path) -> tuple[list[Record], Context]:
    """Read the records that write() wrote."""
    return (
        msgspec.json.decode((directory / "latest.json").read_bytes(), type=list[Record]),
        msgspec.json.decode((directory / "context.json").read_bytes(), type=Context),
    )


@dataclass(frozen=True, slots=True)
class ScaleFigure:
    """One measured value of many groups."""

    groups: int
    what: str
    value: float
    unit: str

    def __str__(self) -> str:
        return f"groups={self.groups:<4} {self.what:44} {self.value:10.2f} {self.unit}"
