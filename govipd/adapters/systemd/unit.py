"""The state of a systemd unit, pushed over D-Bus (org.freedesktop.systemd1(5)), polled while D-Bus is away."""

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from contextlib import suppress

from dbus_fast import Message
from dbus_fast.aio import MessageBus

from govipd.adapters.systemd.dbus import (
    DEADLINE_S,
    MANAGER,
    PROPERTIES,
    SYSTEMD,
    BusError,
    BusRefusedError,
    ask,
    call,
    connection,
    get,
)
from govipd.core.events import UnitState
from govipd.runtime.ports import Sink

_BACKOFF_S = (0.2, 0.5, 1.0, 2.0)  # between connections; the last one repeats


class UnitMonitor:
    """Watches one unit (process_ports.Source).

    Sends UnitState at every change that systemd signals, and at a re-read every `poll_s` seconds: signals may be lost
    when the bus or systemd is restarted. While D-Bus does not answer, the monitor runs systemctl, which as root talks
    to systemd without the bus. If systemctl fails too, the state is unknown.

    Args:
        unit: the unit's full name, "haproxy.service".
        sink: where the events go.
        poll_s: seconds between re-reads.
        bus_address: the address of the D-Bus daemon; None: the system bus.
        systemctl: the program to run.
        start: whether to start the unit, once, if the first answer says that the unit does not run (docs/adr/0030).
    """

    def __init__(
        self,
        *,
        unit: str,
        sink: Sink,
        poll_s: float = 1.0,
        bus_address: str | None = None,
        systemctl: str = "systemctl",
        start: bool = False,
    ) -> None:
        self._unit = unit
        self._sink = sink
        self._poll_s = poll_s
        self._bus_address = bus_address
        self._systemctl = systemctl
        self._start = start
        self._away = ""  # why D-Bus does not answer; "" while it does

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._stand_in())

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                async with connection(self._bus_address) as (bus, lost):
                    await self._follow(bus, lost)
            except BusError as error:
                failures = 0 if not self._away else failures + 1
                self._away = str(error)
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])

    async def _follow(self, bus: MessageBus, lost: asyncio.Future[None]) -> None:
        """Report the unit's state until the bus fails."""
        path = (await call(bus, MANAGER, f"{SYSTEMD}.Manager", "LoadUnit", "s", self._unit))[0]
        changed = asyncio.Event()
        owner = ""  # systemd's own name on the bus; any local user may send signals (system.conf)

        def on_message(message: Message) -> None:
            if message.sender != owner or message.path != path or message.member != "PropertiesChanged":
                return
            changed.set()
            properties = {name: variant.value for name, variant in message.body[1].items()}
            if "ActiveState" in properties:
                self._sink(_unit_state(properties))

        bus.add_message_handler(on_message)
        await call(
            bus,
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus",
            "AddMatch",
            "s",
            f"type='signal',sender='{SYSTEMD}',path='{path}',interface='{PROPERTIES}',member='PropertiesChanged'",
            destination="org.freedesktop.DBus",
        )
        lost.add_done_callback(lambda _: changed.set())
        while not lost.done():
            changed.clear()
            sender, properties = await self._read(bus, path)
            if sender != owner:  # at first, and after systemd's re-execution: only subscribers get signals
                owner = sender
                with suppress(BusRefusedError):  # AlreadySubscribed
                    await call(bus, MANAGER, f"{SYSTEMD}.Manager", "Subscribe")
                continue  # read again: a change before the subscription was not signalled
            self._away = ""
            await self._start_once(bus, properties["ActiveState"])
            if not changed.is_set():  # else a signal came, which may be newer than this read
                self._sink(_unit_state(properties))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await changed.wait()
        raise BusError("the D-Bus connection was lost")

    async def _start_once(self, bus: MessageBus, active_state: str) -> None:
        """Start a unit that does not run, at the first answer only: later the operator may have stopped the unit."""
        wanted, self._start = self._start and active_state in {"inactive", "failed"}, False
        if wanted:
            with suppress(BusRefusedError):  # the unit does not exist, is masked, or is being stopped
                await call(bus, MANAGER, f"{SYSTEMD}.Manager", "StartUnit", "ss", self._unit, "fail")

    async def _read(self, bus: MessageBus, path: str) -> tuple[str, Mapping[str, str]]:
        """Read the unit's state. Returns the sender's unique name on the bus, and the unit's properties."""
        reply = await ask(bus, MANAGER, f"{SYSTEMD}.Manager", "ListUnitsByNames", "as", [self._unit])
        if not reply.body[0]:
            raise BusError("ListUnitsByNames: an answer without the unit")
        ((_, _, load, active, sub, *_),) = reply.body[0]
        properties = {"LoadState": load, "ActiveState": active, "SubState": sub}
        if active == "failed":
            with suppress(BusRefusedError):  # the unit is no service
                properties["Result"] = str(await get(bus, path, f"{SYSTEMD}.Service", "Result"))
        return reply.sender or "", properties

    async def _stand_in(self) -> None:
        """Poll with systemctl while D-Bus is away."""
        while True:
            if self._away:
                try:
                    state = _unit_state(await self._show())
                except BusError as error:
                    state = UnitState(None, f"D-Bus: {self._away}; {error}")
                if self._away:  # still
                    self._sink(state)
            await asyncio.sleep(self._poll_s)

    async def _show(self) -> Mapping[str, str]:
        command = ("show", "--property=LoadState,ActiveState,SubState,Result", "--", self._unit)
        try:
            process = await asyncio.create_subprocess_exec(
                self._systemctl, *command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
            )
        except OSError as error:
            raise BusError(f"systemctl: {error.strerror}") from error
        try:
            async with asyncio.timeout(DEADLINE_S):
                output, _ = await process.communicate()
        except TimeoutError as error:
            raise BusError(f"systemctl: no answer within {DEADLINE_S:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise BusError(f"systemctl: exit status {process.returncode}")
        lines = output.decode(errors="replace").splitlines()
        properties = dict(line.split("=", 1) for line in lines if "=" in line)
        if not properties.get("ActiveState", "").isalpha() or not properties["ActiveState"].isascii():
            raise BusError("systemctl: an answer without a state")
        return properties


def _unit_state(properties: Mapping[str, str]) -> UnitState:
    """The event for these properties. Its text: the sub-state, and the result if it is not a success."""
    detail = properties.get("SubState", "")
    if properties.get("LoadState") == "not-found":
        detail = "not found"
    elif properties.get("Result", "success") != "success":
        detail += f", result: {properties['Result']}"
    return UnitState(properties["ActiveState"], detail)
