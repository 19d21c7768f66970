"""The findings of the checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class Severity(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"  # the precondition holds, but less well than it could, or not for long
    FAILED = "failed"  # the precondition does not hold
    SKIPPED = "skipped"  # not checked; the detail says why


@dataclass(frozen=True, slots=True)
class Finding:
    """One precondition: what was checked, the result, what was seen, and what to do ("" for nothing)."""

    check: str
    verdict: Severity
    detail: str
    remedy: str = ""


def ok(check: str, detail: str) -> Finding:
    """A finding: the precondition holds."""
    return Finding(check, Severity.OK, detail)


def warning(check: str, detail: str, remedy: str) -> Finding:
    """A finding: the precondition holds, but less well than it could, or not for long."""
    return Finding(check, Severity.WARNING, detail, remedy)


def failed(check: str, detail: str, remedy: str) -> Finding:
    """A finding: the precondition does not hold."""
    return Finding(check, Severity.FAILED, detail, remedy)


def skipped(check: str, why: str, remedy: str = "") -> Finding:
    """A finding: the precondition was not checked."""
    return Finding(check, Severity.SKIPPED, why, remedy)


@dataclass(frozen=True, slots=True)
class Queue:
    """One VIP's election and its members' records, as etcd has them.

    Attributes:
        names: the candidates, in order; the first one leads.
        records: the members' records, by name; a record that is no JSON object counts as empty.
    """

    names: tuple[str, ...]
    records: Mapping[str, Mapping[str, object]]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """Make a Queue from what `govipd.ctl.cluster.read_vip()` returns."""
        return cls(tuple(found["queue"]), found["members"])

    @property
    def leader(self) -> str:
        """The first candidate's name; "" where there is none."""
        return self.names[0] if self.names else ""


Cluster = Mapping[str, Queue]
"""The queue of each VIP, by the VIP's name."""
