"""What a check says."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class Severity(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"  # it works, but less well, or not for long
    FAILED = "failed"  # something does not work
    SKIPPED = "skipped"  # not looked at; the detail says why


@dataclass(frozen=True, slots=True)
class Finding:
    """One precondition: what was checked, the result, what was seen, and what to do ("" for nothing)."""

    check: str
    verdict: Severity
    detail: str
    remedy: str = ""


def ok(check: str, detail: str) -> Finding:
    """It is as it should be."""
    return Finding(check, Severity.OK, detail)


def warning(check: str, detail: str, remedy: str) -> Finding:
    """It works, but less well than it could, or not for long."""
    return Finding(check, Severity.WARNING, detail, remedy)


def failed(check: str, detail: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check, Severity.FAILED, detail, remedy)


def skipped(check: str, why: str, remedy: str = "") -> Finding:
    """It was not looked at."""
    return Finding(check, Severity.SKIPPED, why, remedy)


@dataclass(frozen=True, slots=True)
class Queue:
    """One VIP's election and its members' records, as etcd has them.

    Attributes:
        names: the candidates, in order; the first one leads.
        records: what each member publishes; a record that is no JSON object is an empty one.
    """

    names: tuple[str, ...]
    records: Mapping[str, Mapping[str, object]]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """As `govipd.ctl.cluster` reads it."""
        return cls(tuple(found["queue"]), found["members"])

    @property
    def leader(self) -> str:
        """The first candidate's name; "" where there is none."""
        return self.names[0] if self.names else ""


Cluster = Mapping[str, Queue]
"""By the VIP's name."""
