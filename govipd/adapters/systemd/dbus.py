"""Calls to systemd over D-Bus (org.freedesktop.systemd1(5)), each with a deadline."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.errors import DBusFastError

from govipd.errors import GovipdError

DEADLINE_S = 1.0  # for one call or one connection
SYSTEMD = "org.freedesktop.systemd1"
MANAGER = "/org/freedesktop/systemd1"
PROPERTIES = "org.freedesktop.DBus.Properties"


class BusError(GovipdError):
    """No answer, or an answer without the value that was asked for."""


class BusRefusedError(BusError):
    """The answer to the call is an error."""


@asynccontextmanager
async def connection(address: str | None) -> AsyncIterator[tuple[MessageBus, asyncio.Future[None]]]:
    """A connection to the bus at `address` (None: the system bus), and a future that is done when it is lost."""
    try:
        bus = MessageBus(bus_address=address, bus_type=BusType.SYSTEM)
        async with asyncio.timeout(DEADLINE_S):
            await bus.connect()
    except TimeoutError as error:
        raise BusError(f"no connection within {DEADLINE_S:g} s") from error
    except (DBusFastError, EOFError, OSError) as error:
        raise BusError(f"no connection: {error}") from error
    lost = asyncio.ensure_future(bus.wait_for_disconnect())  # type: ignore[no-untyped-call]  # not annotated
    try:
        yield bus, lost
    finally:
        bus.disconnect()
        with suppress(DBusFastError, EOFError, OSError):
            await lost


async def ask(
    bus: MessageBus,
    path: str,
    interface: str,
    member: str,
    signature: str = "",
    *body: str | int | list[str],
    destination: str = SYSTEMD,
) -> Message:
    """Call a method. Returns the reply.

    Raises:
        BusRefusedError: the reply is an error.
        BusError: no reply came.
    """
    message = Message(destination, path, interface, member, signature=signature, body=list(body))
    try:
        async with asyncio.timeout(DEADLINE_S):
            reply = await bus.call(message)
    except TimeoutError as error:
        raise BusError(f"{member}: no answer within {DEADLINE_S:g} s") from error
    except (DBusFastError, EOFError, OSError) as error:
        raise BusError(f"{member}: {error or 'the connection was lost'}") from error
    if reply is None:
        raise BusError(f"{member}: the connection was lost")
    if reply.message_type is MessageType.ERROR:
        raise BusRefusedError(f"{member}: {reply.error_name}")
    return reply


async def call(
    bus: MessageBus,
    path: str,
    interface: str,
    member: str,
    signature: str = "",
    *body: str | int | list[str],
    destination: str = SYSTEMD,
) -> list[Any]:
    """Call a method. Returns the reply's body. Raises the errors of ask()."""
    return (await ask(bus, path, interface, member, signature, *body, destination=destination)).body


async def get(bus: MessageBus, path: str, interface: str, name: str) -> Any:
    """Read a property, as the Python type that dbus-fast makes of its D-Bus type. Raises the errors of ask()."""
    (variant,) = await call(bus, path, PROPERTIES, "Get", "ss", interface, name)
    return variant.value
