"""`govipctl history`: reads the transitions and their reasons, or the steps of each move, from the journal."""

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
    """The newest transitions, `lines` at most, in the order of time.

    Raises:
        NoDaemonError: the journal cannot be read.
    """
    return [entry(text) for text in _ask(command(vip, interface, lines, [f"GOVIP_STATE={s.value}" for s in State]))]


def moves(vip: str | None, interface: str | None, lines: int) -> list[dict[str, Any]]:
    """The newest take-overs and releases, `lines` at most, in the order of time, each with its steps.

    Raises:
        NoDaemonError: the journal cannot be read.
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
    """The journalctl command. In its matches, values of one field are alternatives; different fields must all match."""
    matches = ["_UID=0", *alternatives]  # other users can write the same fields, but not with this user id
    if vip:
        matches.append(f"GOVIP_VIP={vip}")
    if interface:
        matches.append(f"_SYSTEMD_UNIT=govipd@{interface}.service")
    return ["journalctl", "--no-pager", "--quiet", "--output=json", f"--lines={lines}", *matches]


def entry(text: str) -> dict[str, str]:
    """A transition from one line of journalctl's JSON output."""
    fields = json.loads(text)
    return {
        "at": _at(fields),
        "vip": _text(fields.get("GOVIP_VIP")),
        "state": _text(fields.get("GOVIP_STATE")),
        "reason": _text(fields.get("GOVIP_REASON")),
        "message": _text(fields.get("MESSAGE")),
    }


def move(text: str) -> dict[str, Any]:
    """A take-over or release from one line: `began` in seconds of CLOCK_BOOTTIME, the steps in ms since then."""
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
    """A field as a text. journalctl prints unprintable values as lists of bytes, and several values as a list."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
