"""The varlink protocol as the control socket speaks it (varlink.org): calls and replies, without input or output.

A message is a JSON object and a NUL byte. `org.varlink.service` describes what else there is, so that `varlinkctl`
and other clients need nothing of ours. Why not a library: docs/adr/0014.
"""

import re
from typing import Any, TypeVar

import msgspec

SERVICE = "org.varlink.service"
END = b"\0"

DESCRIPTION = """\
# What every varlink service has.
interface org.varlink.service

method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
"""

_NAME_MAX = 100  # of a method or interface that is asked for: longer ones are cut in the reply


class Call(msgspec.Struct, frozen=True):
    """One request. Unknown keys are ignored, as varlink wants it."""

    method: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    oneway: bool = False


class ErrorReply(Exception):  # noqa: N818  # an error of the protocol's, not of ours
    """A call that is answered with an error.

    Args:
        name: the error, with its interface.
        parameters: what the interface's description says of it.
    """

    def __init__(self, name: str, **parameters: str) -> None:
        super().__init__(name)
        self.name = name
        self.parameters = parameters


_Parameters = TypeVar("_Parameters", bound=msgspec.Struct)


class NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a method that takes none."""


class Interface(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of GetInterfaceDescription."""

    interface: str


def parse(message: bytes) -> Call:
    """One message, without its end.

    Raises:
        ValueError: it is no call; the connection has lost its meaning.
    """
    try:
        return msgspec.json.decode(message, type=Call)
    except (msgspec.DecodeError, RecursionError) as e:
        raise ValueError(str(e)) from e


def parameters(call: Call, kind: type[_Parameters]) -> _Parameters:
    """A call's parameters.

    Raises:
        ErrorReply: they are not of this kind.
    """
    given = bytes(call.parameters)
    try:
        return msgspec.json.decode(b"{}" if given == b"null" else given, type=kind)
    except (msgspec.DecodeError, RecursionError) as e:
        named = re.findall(r"`\$?\.?([A-Za-z0-9_]+)`", str(e))
        name = named[-1][:_NAME_MAX] if named else "parameters"
        raise ErrorReply(f"{SERVICE}.InvalidParameter", parameter=name) from e


def method_not_found(call: Call) -> ErrorReply:
    """The answer to a call of what is not there."""
    return ErrorReply(f"{SERVICE}.MethodNotFound", method=call.method[:_NAME_MAX])


def interface_not_found(name: str) -> ErrorReply:
    """The answer to a question about what is not there."""
    return ErrorReply(f"{SERVICE}.InterfaceNotFound", interface=name[:_NAME_MAX])


def reply(result: Any) -> bytes:
    """A successful reply, with its end; `result` is a mapping or a dataclass."""
    return msgspec.json.encode({"parameters": result}) + END


def error(e: ErrorReply) -> bytes:
    """An error's reply, with its end."""
    return msgspec.json.encode({"error": e.name, "parameters": e.parameters}) + END
