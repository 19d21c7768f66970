"""Calls the daemons of this machine over their control sockets (varlink, see adapters/control/service.py)."""

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
REPLY_S = 5  # seconds: a daemon that has to ask etcd for the successors answers within that time
REPLY_MAX = 16 * 1024 * 1024  # bytes
_INTERFACE = "org.govipd.Node"


class _Error(msgspec.Struct):
    reason: str = ""


class _Reply(msgspec.Struct):
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    error: str = ""


def instances(interface: str | None, runtime: Path = RUNTIME) -> tuple[str, ...]:
    """The interfaces whose daemons are called: `interface`, or those of all daemons that run here.

    Raises:
        NoDaemonError: no daemon runs.
    """
    if interface:
        return (interface,)
    found = tuple(sorted(path.name for path in runtime.iterdir() if path.is_dir())) if runtime.is_dir() else ()
    if not found:
        raise NoDaemonError(f"no govipd runs on this machine: {runtime} is empty; systemctl status 'govipd@*'")
    return found


def hostname(runtime: Path = RUNTIME) -> str:
    """The host's name that a daemon here uses (adapters.state.hostname); without a daemon, the host's present name."""
    for path in sorted(runtime.glob("*/hostname")):
        try:
            return path.read_text()
        except (OSError, UnicodeDecodeError):
            continue
    return socket.gethostname()


def status(interface: str, runtime: Path = RUNTIME, patience: int = REPLY_S) -> NodeStatus:
    """The status of a daemon. Every state and trigger in it is one that this version knows.

    Raises:
        NoDaemonError: the daemon does not answer, or its answer is no valid status.
        DeniedError: this user may not call the daemon.
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
    """Raises ValueError where the state or the trigger does not exist."""
    State(state)
    Trigger(trigger)


def call(interface: str, method: str, runtime: Path = RUNTIME, patience: int = REPLY_S, **parameters: str) -> bytes:
    """Call a method. Returns the reply's parameters, as JSON. Empty `parameters` are left out; `patience` is seconds.

    Raises:
        NoDaemonError: the daemon does not answer.
        DeniedError: this user may not call the method.
        RefusedError: the daemon refuses; the text says why.
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
    """Send a request, and receive its reply. Raises OSError, or ValueError for an answer that is no reply."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        # The kernel's time-outs: with Python's, connect() would fail at once where the server's backlog is full.
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
