"""`govipctl history`: the transitions that this machine's journal has, with their reasons; or each move's steps."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from govipd.core.state import State
from govipd.errors import NoDaemonError
from govipd.runtime.step_timing import Operation

LINES = 50


def read(vip: str | None, interface: str | None, lines: int) -> list[dict[str, str]]:
    """The newest transitions, the oldest of them first.

    Raises:
        NoDaemonError: there is no journal to be read.
    """
    return [entry(text) for text in _ask(command(vip, interface, lines, [f"GOVIP_STATE={s.value}" for s in State]))]


def moves(vip: str | None, interface: str | None, lines: int) -> list[dict[str, Any]]:
    """The newest take-overs and releases, the oldest of them first, each with its steps.

    Raises:
        NoDaemonError: there is no journal to be read.
    """
    return [move(text) for text in _ask(command(vip, interface, lines, [f"GOVIP_MOVE={m.value}" for m in Operation]))]


def _ask(journalctl: Sequence[str]) -> list[str]:
    try:
        done = subprocess.run(journalctl, capture_output=True, text=True, check=False)
    except OSError as e:
        raise NoDaemonError(f"journalctl cannot be run: {e.strerror}") from e
    if done.returncode:
        raise NoDaemonError(f"journalctl: {done.stderr.strip()}")
    return done.stdout.splitlines()


def command(vip: str | None, interface: str | None, lines: int, alternatives: Sequence[str]) -> Sequence[str]:
    """journalctl's, with matches: values of one field are alternatives, different fields must all match."""
    matches = ["_UID=0", *alternatives]  # other users can write the same fields, not the same user id
    if vip:
        matches.append(f"GOVIP_VIP={vip}")
    if interface:
        matches.append(f"_SYSTEMD_UNIT=govipd@{interface}.service")
    return ["journalctl", "--no-pager", "--quiet", "--output=json", f"--lines={lines}", *matches]


def entry(text: str) -> dict[str, str]:
    """One line of journalctl's JSON, for people and programs."""
    fields = json.loads(text)
    return {
        "at": _at(fields),
        "vip": _text(fields.get("GOVIP_VIP")),
        "state": _text(fields.get("GOVIP_STATE")),
        "reason": _text(fields.get("GOVIP_REASON")),
        "message": _text(fields.get("MESSAGE")),
    }


def move(text: str) -> dict[str, Any]:
    """One take-over or release: `began` in seconds of CLOCK_BOOTTIME, steps in ms since then."""
    fields = json.loads(text)
    try:
        began = float(fields["GOVIP_BEGAN"])
        steps = [(str(step), float(ms)) for step, ms in json.loads(fields["GOVIP_STEPS"])]
    except (KeyError, TypeError, ValueError) as e:
        raise NoDaemonError(f"an entry of the journal is of another version of govipd: {e}") from e
    return {
        "at": _at(fields),
        "vip": _text(fields.get("GOVIP_VIP")),
        "move": _text(fields.get("GOVIP_MOVE")),
        "began": began,
        "steps": [{"step": step, "ms": ms} for step, ms in steps],
    }


def _at(fields: Mapping[str, str]) -> str:
    at = datetime.fromtimestamp(int(fields["__REALTIME_TIMESTAMP"]) / 1_000_000, UTC)
    return at.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


def _text(value: object) -> str:
    """A field: journalctl gives what is not printable as a list of bytes, and several values as a list of texts."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
