"""The unit monitor, against a D-Bus daemon of the test with a stand-in for systemd."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from govipd.adapters.systemd.unit import UnitMonitor
from govipd.core.events import UnitState
from tests.adapters.conftest import Events

UNIT_PATH = "/org/freedesktop/systemd1/unit/haproxy_2eservice"
CONFIG = """
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/> <allow eavesdrop="true"/> <allow own="*"/>
  </policy>
</busconfig>
"""


class Daemon:
    """dbus-daemon on a socket of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.address = f"unix:path={directory}/bus"
        self._config = directory / "bus.conf"
        self._config.write_text(CONFIG.format(socket=directory / "bus"))
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={self._config}", "--nofork", "--nopidfile", "--print-address"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        assert self.process.stdout.readline()  # listens
        self.process.stdout.close()

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


class Systemd:
    """Answers what the monitor asks, on a bus of its own."""

    def __init__(self) -> None:
        self.properties = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running"}
        self.result = "success"
        self.subscribed = False
        self.silent = False
        self.bus: MessageBus | None = None
        self.started: list[list[str]] = []
        self.refuses = False

    async def connect(self, address: str) -> None:
        self.bus = await MessageBus(bus_address=address, bus_type=BusType.SYSTEM).connect()
        self.bus.add_message_handler(self._answer)
        await self.bus.request_name("org.freedesktop.systemd1")

    async def disconnect(self) -> None:
        if self.bus:
            self.bus.disconnect()
            await self.bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # not annotated

    def _answer(self, call: Message) -> Message | bool:
        if call.message_type is not MessageType.METHOD_CALL:
            return False
        match call.member, call.path, call.body:
            case _ if self.silent:
                return True
            case "Subscribe", _, [] if self.subscribed:
                return Message.new_error(call, "org.freedesktop.systemd1.AlreadySubscribed", "again")
            case "Subscribe", _, []:
                self.subscribed = True
                return Message.new_method_return(call)
            case "LoadUnit", _, ["haproxy.service"]:
                return Message.new_method_return(call, "o", [UNIT_PATH])
            case "ListUnitsByNames", _, [["haproxy.service"]]:
                states = [self.properties[name] for name in ("LoadState", "ActiveState", "SubState")]
                unit = ["haproxy.service", "HAProxy", *states, "", UNIT_PATH, 0, "", "/"]
                return Message.new_method_return(call, "a(ssssssouso)", [[unit]])
            case "StartUnit", _, body:
                self.started.append(body)
                if self.refuses:
                    return Message.new_error(call, "org.freedesktop.systemd1.UnitMasked", "masked")
                return Message.new_method_return(call, "o", ["/org/freedesktop/systemd1/job/1"])
            case "Get", path, [_, "Result"] if path == UNIT_PATH:
                return Message.new_method_return(call, "v", [Variant("s", self.result)])
        raise AssertionError(f"unexpected call: {call.member} {call.body}")

    def become(self, active: str, sub: str, result: str = "success", *, tell: bool = True) -> None:
        self.properties |= {"ActiveState": active, "SubState": sub}
        self.result = result
        assert self.bus
        if tell:
            changed = {name: Variant("s", value) for name, value in self.properties.items() if name != "LoadState"}
            self.bus.send(
                Message.new_signal(
                    UNIT_PATH,
                    "org.freedesktop.DBus.Properties",
                    "PropertiesChanged",
                    "sa{sv}as",
                    ["org.freedesktop.systemd1.Unit", changed, []],
                )
            )


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
async def systemd(daemon: Daemon) -> AsyncIterator[Systemd]:
    systemd = Systemd()
    await systemd.connect(daemon.address)
    yield systemd
    if daemon.process:
        await systemd.disconnect()


@asynccontextmanager
async def monitoring(
    daemon: Daemon, events: Events, poll_s: float = 60.0, systemctl: str = "/nonexistent", *, start: bool = False
) -> AsyncIterator[None]:
    monitor = UnitMonitor(
        unit="haproxy.service",
        sink=events,
        poll_s=poll_s,
        bus_address=daemon.address,
        systemctl=systemctl,
        start=start,
    )
    task = asyncio.create_task(monitor.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def seen(events: Events, *expected: UnitState) -> None:
    """Wait for the newest event to be one of those."""
    await events.until(lambda: bool(events) and events[-1] in expected)


async def test_state_is_reported_at_start_and_at_each_signal(daemon: Daemon, systemd: Systemd, events: Events) -> None:
    """Without waiting for a poll; a failure names its result."""
    async with monitoring(daemon, events):
        await seen(events, UnitState("active", "running"))
        systemd.become("reloading", "reload")
        await seen(events, UnitState("reloading", "reload"))
        systemd.become("failed", "failed", "signal")
        await seen(events, UnitState("failed", "failed, result: signal"))
        assert UnitState("failed", "failed") in events  # the signal itself, before the result is asked for


async def test_a_first_start_starts_the_unit_that_is_named_once(
    daemon: Daemon, systemd: Systemd, events: Events
) -> None:
    """The unit is started if it does not run. A unit that is stopped later stays stopped."""
    systemd.become("inactive", "dead", tell=False)
    async with monitoring(daemon, events, poll_s=0.05, start=True):
        await seen(events, UnitState("inactive", "dead"))
        systemd.become("active", "running")
        await seen(events, UnitState("active", "running"))
        systemd.become("inactive", "dead")
        await seen(events, UnitState("inactive", "dead"))
        await asyncio.sleep(0.2)
    assert systemd.started == [["haproxy.service", "fail"]]


@pytest.mark.parametrize(
    ("state", "start"), [("inactive", False), ("active", True), ("activating", True), ("deactivating", True)]
)
async def test_nothing_else_is_started(
    daemon: Daemon,
    systemd: Systemd,
    events: Events,
    state: str,
    start: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    """Not by a restarted daemon, and not what runs, or is on its way."""
    systemd.become(state, "sub", tell=False)
    async with monitoring(daemon, events, poll_s=0.05, start=start):
        await seen(events, UnitState(state, "sub"))
        systemd.become("inactive", "dead")
        await seen(events, UnitState("inactive", "dead"))
        await asyncio.sleep(0.2)
    assert systemd.started == []


async def test_a_unit_that_cannot_be_started_is_not_healthy_and_no_more(
    daemon: Daemon, systemd: Systemd, events: Events
) -> None:
    """A masked or missing unit: the monitor reports its state as usual."""
    systemd.become("inactive", "dead", tell=False)
    systemd.refuses = True
    async with monitoring(daemon, events, start=True):
        await seen(events, UnitState("inactive", "dead"))
    assert len(systemd.started) == 1


async def test_change_without_a_signal_is_found_by_the_next_read(
    daemon: Daemon, systemd: Systemd, events: Events
) -> None:
    """Level-triggered."""
    async with monitoring(daemon, events, poll_s=0.1):
        await seen(events, UnitState("active", "running"))
        systemd.become("inactive", "dead", tell=False)
        await seen(events, UnitState("inactive", "dead"))
        assert systemd.subscribed


async def test_a_systemd_that_was_executed_anew_is_subscribed_to_again(
    daemon: Daemon, systemd: Systemd, events: Events
) -> None:
    """It has another name on the bus, and has forgotten its subscribers."""
    async with monitoring(daemon, events, poll_s=0.1):
        await seen(events, UnitState("active", "running"))
        await systemd.disconnect()
        systemd.subscribed = False
        await systemd.connect(daemon.address)
        await events.until(lambda: systemd.subscribed)


async def test_missing_unit_is_inactive(daemon: Daemon, systemd: Systemd, events: Events) -> None:
    """Known not to run, and the detail says why."""
    systemd.properties |= {"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}
    async with monitoring(daemon, events):
        await seen(events, UnitState("inactive", "not found"))


async def test_bus_lost_is_unknown_until_it_returns(daemon: Daemon, systemd: Systemd, events: Events) -> None:
    """No answer is not an answer; a new connection is made as soon as the bus is back."""
    async with monitoring(daemon, events, poll_s=0.1):
        await seen(events, UnitState("active", "running"))
        daemon.stop()
        await events.until(lambda: isinstance(events[-1], UnitState) and events[-1].active_state is None)
        daemon.start()
        await systemd.connect(daemon.address)
        await seen(events, UnitState("active", "running"))


async def test_frozen_bus_and_silent_systemd_are_unknown(daemon: Daemon, systemd: Systemd, events: Events) -> None:
    """Every call has a deadline."""
    async with monitoring(daemon, events, poll_s=0.1):
        await seen(events, UnitState("active", "running"))
        daemon.signal(signal.SIGSTOP)
        await events.until(lambda: isinstance(events[-1], UnitState) and events[-1].active_state is None)
        daemon.signal(signal.SIGCONT)
        await seen(events, UnitState("active", "running"))
        systemd.silent = True
        await events.until(lambda: isinstance(events[-1], UnitState) and events[-1].active_state is None)
        systemd.silent = False
        await seen(events, UnitState("active", "running"))


def program(directory: Path, text: str) -> str:
    path = directory / "systemctl"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return os.fspath(path)


async def test_systemctl_stands_in_while_the_bus_is_away(
    daemon: Daemon, systemd: Systemd, events: Events, tmp_path: Path
) -> None:
    """It is asked for exactly this unit, and no more once the bus is back."""
    systemctl = program(
        tmp_path,
        '[ "$*" = "show --property=LoadState,ActiveState,SubState,Result -- haproxy.service" ] || exit 9\n'
        "printf 'LoadState=loaded\\nActiveState=failed\\nSubState=failed\\nResult=exit-code\\n'",
    )
    async with monitoring(daemon, events, poll_s=0.1, systemctl=systemctl):
        await seen(events, UnitState("active", "running"))
        daemon.stop()
        await seen(events, UnitState("failed", "failed, result: exit-code"))
        daemon.start()
        await systemd.connect(daemon.address)
        await seen(events, UnitState("active", "running"))
        told = len(events)
        await events.until(lambda: len(events) > told + 3)
        assert set(events[told:]) == {UnitState("active", "running")}


@pytest.mark.parametrize(("script", "detail"), [("exec sleep 60", "no answer within 1 s"), ("exit 3", "exit status 3")])
async def test_systemctl_that_fails_or_hangs_is_unknown(
    daemon: Daemon, events: Events, tmp_path: Path, script: str, detail: str
) -> None:
    """It too has a deadline."""
    daemon.stop()
    async with monitoring(daemon, events, poll_s=0.1, systemctl=program(tmp_path, script)):
        await events.until(lambda: bool(events))
    assert isinstance(events[0], UnitState)
    assert events[0].active_state is None
    assert detail in events[0].detail
