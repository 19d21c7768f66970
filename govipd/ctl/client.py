"""Asks the daemons of this machine, by their control sockets (varlink, see adapters/control/service.py)."""

import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec

from govipd.core.sanitize import sanitize_line
from govipd.core.state import State, Trigger
from govipd.core.status import NodeStatus
from govipd.errors import DeniedError, NoDaemonError, RefusedError

RUNTIME = Path("/run/govipd")
REPLY_S = 5  # a daemon that asks etcd who could take over answers within that
REPLY_MAX = 16 * 1024 * 1024  # bytes
_INTERFACE = "org.govipd.Node"


class _Error(msgspec.Struct):
    reason: str = ""


class _Reply(msgspec.Struct):
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    error: str = ""


def instances(interface: str | None, runtime: Path = RUNTIME) -> tuple[str, ...]:
    """The interfaces whose daemons are asked: the named one, or all that run here.

    Raises:
        NoDaemonError: none runs.
    """
    if interface:
        return (interface,)
    found = tuple(sorted(path.name for path in runtime.iterdir() if path.is_dir())) if runtime.is_dir() else ()
    if not found:
        raise NoDaemonError(f"no govipd runs on this machine: {runtime} is empty; systemctl status 'govipd@*'")
    return found


def hostname(runtime: Path = RUNTIME) -> str:
    """The host's name as a daemon of this machine uses it (adapters.hostname); the host's of now where none is seen."""
    for path in sorted(runtime.glob("*/hostname")):
        try:
            return path.read_text()
        except (OSError, UnicodeDecodeError):
            continue
    return socket.gethostname()


def status(interface: str, runtime: Path = RUNTIME, patience: int = REPLY_S) -> NodeStatus:
    """What a daemon knows of itself, in states and triggers that exist.

    Raises:
        NoDaemonError: it does not answer.
        DeniedError: this user may not ask it.
    """
    reply = call(interface, "Status", runtime, patience)
    try:
        node = msgspec.json.decode(reply, type=NodeStatus)
        for group in node.groups:
            _known(group.state, group.trigger)
            for transition in group.transitions:
                _known(transition.state, transition.trigger)
    except (msgspec.DecodeError, ValueError) as e:
        raise NoDaemonError(f"govipd@{interface} answers what is no status, it may be another version: {e}") from e
    return node


def _known(state: str, trigger: str) -> None:
    """Raises ValueError where one does not exist."""
    State(state)
    Trigger(trigger)


def call(interface: str, method: str, runtime: Path = RUNTIME, patience: int = REPLY_S, **parameters: str) -> bytes:
    """The reply's parameters, as JSON; a parameter that is empty is left out, `patience` in seconds.

    Raises:
        NoDaemonError: it does not answer.
        DeniedError: this user may not ask for that.
        RefusedError: it will not do it; the text says why.
    """
    given = {name: value for name, value in parameters.items() if value}
    try:
        reply = _exchange(runtime / interface / "control", f"{_INTERFACE}.{method}", given, patience)
    except PermissionError as e:
        raise DeniedError(f"govipd@{interface}: only root and the group govip may ask it") from e
    except FileNotFoundError as e:
        raise NoDaemonError(f"govipd@{interface} does not run: systemctl status govipd@{interface}") from e
    except BlockingIOError as e:
        raise NoDaemonError(f"govipd@{interface} does not answer within {patience} s") from e
    except (OSError, ValueError) as e:
        reason = sanitize_line(os.strerror(e.errno) if isinstance(e, OSError) and e.errno else str(e))
        raise NoDaemonError(f"govipd@{interface} does not answer: {reason}; systemctl status govipd@{interface}") from e
    if reply.error == f"{_INTERFACE}.Refused":
        raise RefusedError(msgspec.json.decode(reply.parameters, type=_Error).reason)
    if reply.error == "org.varlink.service.PermissionDenied":
        raise DeniedError(f"govipd@{interface}: only root may do that")
    if reply.error:
        raise RefusedError(f"govipd@{interface}: {reply.error} {bytes(reply.parameters).decode()}")
    return bytes(reply.parameters)


def _exchange(path: Path, method: str, parameters: Mapping[str, str], patience: int) -> _Reply:
    """One request, one reply. Raises OSError, or ValueError for what is no reply."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        # The kernel's time-outs: with Python's, connect() would fail at once where many others wait to be let in.
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", patience, 0))
        connection.connect(os.fspath(path))
        connection.sendall(msgspec.json.encode({"method": method, "parameters": parameters}) + b"\0")
        received = bytearray()
        while not received.endswith(b"\0"):
            part = connection.recv(65536)
            if not part:
                raise ValueError("it closed the connection; too many may be open")
            received += part
            if len(received) > REPLY_MAX:
                raise ValueError(f"its reply has more than {REPLY_MAX} bytes")
    try:
        return msgspec.json.decode(received[:-1], type=_Reply)
    except msgspec.DecodeError as e:
        raise ValueError(f"what it says is no reply: {e}") from e
