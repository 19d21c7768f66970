"""The varlink protocol as the control socket speaks it (varlink.org): calls and replies, without input or output.

A message is a JSON object and a NUL byte. `org.varlink.service` describes the interfaces of a service, so that
`varlinkctl` and other clients need no code of ours. For why no library is used, see docs/adr/0014.
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

_NAME_MAX = 100  # characters of a method's or interface's name; the reply cuts a longer name


class Call(msgspec.Struct, frozen=True):
    """One request. Unknown keys are ignored, as varlink prescribes."""

    method: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    oneway: bool = False


class ErrorReply(Exception):  # noqa: N818  # an error of the protocol's, not of ours
    """Raised where a call is answered with an error.

    Args:
        name: the error's name, with its interface.
        parameters: the error's parameters, as in the interface's description.
    """

    def __init__(self, name: str, **parameters: str) -> None:
        super().__init__(name)
        self.name = name
        self.parameters = parameters


_Parameters = TypeVar("_Parameters", bound=msgspec.Struct)


class NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of a method without any."""


class Interface(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of GetInterfaceDescription."""

    interface: str


def parse(message: bytes) -> Call:
    """Decode one message, given without its NUL byte.

    Raises:
        ValueError: the message is no call, so the connection is of no further use.
    """
    try:
        return msgspec.json.decode(message, type=Call)
    except (msgspec.DecodeError, RecursionError) as e:
        raise ValueError(str(e)) from e


def parameters(call: Call, kind: type[_Parameters]) -> _Parameters:
    """Decode a call's parameters as `kind`.

    Raises:
        ErrorReply: the parameters do not fit `kind`.
    """
    given = bytes(call.parameters)
    try:
        return msgspec.json.decode(b"{}" if given == b"null" else given, type=kind)
    except (msgspec.DecodeError, RecursionError) as e:
        named = re.findall(r"`\$?\.?([A-Za-z0-9_]+)`", str(e))
        name = named[-1][:_NAME_MAX] if named else "parameters"
        raise ErrorReply(f"{SERVICE}.InvalidParameter", parameter=name) from e


def method_not_found(call: Call) -> ErrorReply:
    """The answer to a call of an unknown method."""
    return ErrorReply(f"{SERVICE}.MethodNotFound", method=call.method[:_NAME_MAX])


def interface_not_found(name: str) -> ErrorReply:
    """The answer to a question about an unknown interface."""
    return ErrorReply(f"{SERVICE}.InterfaceNotFound", interface=name[:_NAME_MAX])


def reply(result: Any) -> bytes:
    """A successful reply, with its NUL byte; `result` is a mapping or a dataclass."""
    return msgspec.json.encode({"parameters": result}) + END


def error(e: ErrorReply) -> bytes:
    """An error's reply, with its NUL byte."""
    return msgspec.json.encode({"error": e.name, "parameters": e.parameters}) + END
