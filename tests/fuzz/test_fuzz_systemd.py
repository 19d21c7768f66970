"""What comes from systemd: systemctl's output, a unit's properties, the environment."""

import asyncio
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import BusType, Message, Variant
from dbus_fast.aio import MessageBus
from hypothesis import given
from hypothesis import strategies as st

from govipd.adapters.systemd.dbus import PROPERTIES, BusError
from govipd.adapters.systemd.notify import watchdog_interval_s
from govipd.adapters.systemd.unit import UnitMonitor, _unit_state
from govipd.core.events import UnitState
from tests.adapters.test_unit import UNIT_PATH, Daemon, Systemd
from tests.fuzz.memory_store import Collected
from tests.fuzz.strategies import LARGE_EXAMPLES, finish, fuzz, mutated, odd_text, raw, texts

pytestmark = LARGE_EXAMPLES

ANSWER = b"LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\n"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a systemctl that prints the file beside it."""
    directory = tmp_path_factory.mktemp("fuzz")
    program = directory / "systemctl"
    program.write_text('#!/bin/sh\nexec cat "${0%/*}/answer"\n')
    program.chmod(0o755)
    return directory


def shown(directory: Path, answer: bytes) -> UnitState | None:
    """What the monitor makes of an answer of systemctl, as its stand-in does; None where it has words for it."""
    (directory / "answer").write_bytes(answer)
    states: list[UnitState] = []

    async def work() -> None:
        monitor = UnitMonitor(unit="a.service", sink=Collected(), systemctl=str(directory / "systemctl"))
        try:
            states.append(_unit_state(await monitor._show()))
        except BusError:
            return

    finish(work())
    return states[0] if states else None


lines = st.builds(
    lambda name, value: f"{name}={value}".encode(errors="surrogatepass"),
    st.sampled_from(("LoadState", "ActiveState", "SubState", "Result", "")),
    st.sampled_from(("active", "failed", "not-found", "")) | texts,
)


@given(mutated(ANSWER) | raw | st.lists(lines, max_size=5).map(b"\n".join))
@fuzz(150)
def test_any_output_of_systemctl_is_a_state_or_an_error(directory: Path, answer: bytes) -> None:
    shown(directory, answer)


@pytest.mark.parametrize("answer", [b"", b"\xff", b"LoadState=loaded\n", b"ActiveState=\xe4\n", b"\x00=\x00"])
def test_an_answer_without_a_state_is_an_error(directory: Path, answer: bytes) -> None:
    assert shown(directory, answer) is None


def test_a_full_answer_is_a_state(directory: Path) -> None:
    assert shown(directory, ANSWER) == UnitState("failed", "failed, result: exit-code")


properties = st.dictionaries(
    st.sampled_from(("LoadState", "SubState", "Result")), st.sampled_from(("success", "not-found", "")) | texts
)


@given(properties, texts)
@fuzz(200)
def test_any_properties_with_a_state_are_a_state(found: dict[str, str], active: str) -> None:
    assert _unit_state({**found, "ActiveState": active}).active_state == active


numbers = (
    st.integers().map(str)
    | st.sampled_from(("1" + "0" * 400, "9" * 5000, "-1", "0", "1e6", "0x10", " 5 ", "1_0", "٣", "", "inf", "nan"))
    | odd_text
)


@given(
    st.fixed_dictionaries({}, optional={"WATCHDOG_USEC": numbers, "WATCHDOG_PID": numbers | st.just(str(os.getpid()))})
)
@fuzz(300)
def test_any_environment_is_a_watchdog_interval_or_none(environ: dict[str, str]) -> None:
    interval = watchdog_interval_s(environ)
    assert interval is None or (interval > 0 and math.isfinite(interval))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    daemon.start()
    yield daemon
    daemon.stop()


async def tell(address: str, signature: str, body: list[Any]) -> None:
    """A signal like systemd's to every connection of the bus, from a stranger; the bus's policy allows signals."""
    stranger = await MessageBus(bus_address=address, bus_type=BusType.SYSTEM).connect()
    assert stranger.unique_name
    for number in range(int(stranger.unique_name.removeprefix(":1."))):
        signal = Message.new_signal(UNIT_PATH, PROPERTIES, "PropertiesChanged", signature, body)
        signal.destination = f":1.{number}"
        await stranger.send(signal)
    stranger.disconnect()
    await stranger.wait_for_disconnect()  # type: ignore[no-untyped-call]  # not annotated


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("sa{sv}as", ["org.freedesktop.systemd1.Unit", {"ActiveState": Variant("s", "failed")}, []]),
        ("sa{sv}as", ["org.freedesktop.systemd1.Unit", {"ActiveState": Variant("u", 5)}, []]),
        ("s", ["org.freedesktop.systemd1.Unit"]),
        ("", []),
    ],
    ids=["failed", "a number", "no properties", "empty"],
)
async def test_a_signal_of_a_stranger_is_not_believed(daemon: Daemon, signature: str, body: list[Any]) -> None:
    """Any local user can send one, and it would drop the VIP."""
    systemd, told = Systemd(), Collected()
    await systemd.connect(daemon.address)
    monitor = UnitMonitor(unit="haproxy.service", sink=told, poll_s=0.1, bus_address=daemon.address)
    task = asyncio.create_task(monitor.run())
    async with asyncio.timeout(10):
        await told.until(UnitState)
        await tell(daemon.address, signature, body)
        await asyncio.sleep(0.25)  # two polls
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    await systemd.disconnect()
    assert set(told) == {UnitState("active", "running")}
