"""`govipctl history`: the transitions that this machine's journal has, with their reasons."""

import json
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime

from govipd.core.state import State
from govipd.errors import NoDaemonError

LINES = 50


def read(vip: str | None, interface: str | None, lines: int) -> list[dict[str, str]]:
    """The newest ones, the oldest of them first.

    Raises:
        NoDaemonError: there is no journal to be read.
    """
    try:
        done = subprocess.run(command(vip, interface, lines), capture_output=True, text=True, check=False)
    except OSError as e:
        raise NoDaemonError(f"journalctl cannot be run: {e.strerror}") from e
    if done.returncode:
        raise NoDaemonError(f"journalctl: {done.stderr.strip()}")
    return [entry(text) for text in done.stdout.splitlines()]


def command(vip: str | None, interface: str | None, lines: int) -> Sequence[str]:
    """journalctl's, with matches: values of one field are alternatives, different fields must all match."""
    states = [f"GOVIP_STATE={state.value}" for state in State]
    matches = ["_UID=0", *states]  # other users can write the same fields, not the same user id
    if vip:
        matches.append(f"GOVIP_VIP={vip}")
    if interface:
        matches.append(f"_SYSTEMD_UNIT=govipd@{interface}.service")
    return ["journalctl", "--no-pager", "--quiet", "--output=json", f"--lines={lines}", *matches]


def entry(text: str) -> dict[str, str]:
    """One line of journalctl's JSON, for people and programs."""
    fields = json.loads(text)
    at = datetime.fromtimestamp(int(fields["__REALTIME_TIMESTAMP"]) / 1_000_000, UTC)
    return {
        "at": at.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00"),
        "vip": _text(fields.get("GOVIP_VIP")),
        "state": _text(fields.get("GOVIP_STATE")),
        "reason": _text(fields.get("GOVIP_REASON")),
        "message": _text(fields.get("MESSAGE")),
    }


def _text(value: object) -> str:
    """A field: journalctl gives what is not printable as a list of bytes, and several values as a list of texts."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
