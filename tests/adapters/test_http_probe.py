"""The HTTP probe, against a real haproxy and against servers that misbehave."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from govipd.adapters.checks.http_probe import HttpProbe
from govipd.core.events import ProbeResult
from tests.adapters.conftest import BootClock, Events, Wire

pytestmark = pytest.mark.root  # a namespace of its own: ports are free, and no other process asks

URL = "http://127.0.0.1:8404/healthz"
HAPROXY = """
global
  stats socket {directory}/admin level admin
defaults
  mode http
  timeout client 1s
  timeout server 1s
  timeout connect 1s
frontend monitor
  bind 127.0.0.1:8404
  monitor-uri /healthz
  http-request deny deny_status 403
"""

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def probing(events: Events, clock: BootClock, timeout_s: float = 5.0, url: str = URL) -> AsyncIterator[None]:
    probe = HttpProbe(url=url, interval_s=0.1, timeout_s=timeout_s, sink=events, clock=clock)
    task = asyncio.create_task(probe.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[None]:
    """A server whose connections end with it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 8404) as server:
        yield
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if getattr(task.get_coro(), "__name__", "") == "handle":
                task.cancel()


def answering(*lines: str) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write("\r\n".join((*lines, "Content-Length: 0", "", "")).encode())
        await writer.drain()

    return handler


async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Never silent for long enough to meet a time-out of the socket."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-Wait: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept, and never answer."""
    await asyncio.sleep(60)


async def result(events: Events, *, passed: bool, detail: str) -> None:
    """Wait for a result; a slow machine may see others before."""
    await events.until(
        lambda: any(isinstance(e, ProbeResult) and e.passed == passed and e.detail.startswith(detail) for e in events)
    )


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "probe"}


@pytest.fixture
def haproxy(net: Wire, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    config = tmp_path / "haproxy.cfg"
    config.write_text(HAPROXY.format(directory=tmp_path))
    process = subprocess.Popen(["haproxy", "-db", "-q", "-f", str(config)])
    yield process
    process.kill()
    process.wait()


async def test_haproxy_passes_until_it_is_killed(
    haproxy: subprocess.Popen[bytes], events: Events, clock: BootClock
) -> None:
    """The monitor page answers; a dead haproxy refuses."""
    async with probing(events, clock):
        await result(events, passed=True, detail="200 in ")
        haproxy.kill()
        await result(events, passed=False, detail="connection refused")


async def test_unexpected_status_fails(haproxy: subprocess.Popen[bytes], events: Events, clock: BootClock) -> None:
    """The status is in the detail."""
    async with probing(events, clock, url="http://127.0.0.1:8404/other"):
        await result(events, passed=False, detail="HTTP 403")


@pytest.mark.parametrize("handler", [trickle, hang])
async def test_check_is_scored_at_its_deadline(net: Wire, handler: Handler, events: Events, clock: BootClock) -> None:
    """Though the server keeps the thread busy for longer."""
    async with serving(handler), probing(events, clock, timeout_s=0.3):
        began = clock.now()
        await events.until(lambda: bool(events))
        assert events[0] == ProbeResult(passed=False, detail="no answer within 0.3 s")
        assert clock.now() - began >= 0.29


async def test_hanging_checks_are_bounded(net: Wire, events: Events, clock: BootClock) -> None:
    """Four connections hang, the fifth check fails without one; when they end, checks are made again."""
    connections = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await trickle(reader, writer)

    async with probing(events, clock, timeout_s=0.5):
        async with serving(counted):
            await events.until(lambda: connections == 4)
            events.clear()
            await result(events, passed=False, detail="no answer to the last 4 checks")
            assert connections == 4
        await result(events, passed=False, detail="connection refused")


async def test_redirect_is_an_answer(net: Wire, events: Events, clock: BootClock) -> None:
    """It is not followed."""
    async with serving(answering("HTTP/1.1 302 Found", "Location: /elsewhere")), probing(events, clock):
        await result(events, passed=False, detail="HTTP 302")


async def test_garbage_is_no_http_answer(net: Wire, events: Events, clock: BootClock) -> None:
    """What is not HTTP fails with words, not with a stack trace."""
    async with serving(answering("220 mail.example ESMTP")), probing(events, clock):
        await result(events, passed=False, detail="no HTTP answer")


async def test_proxies_of_the_environment_are_ignored(
    haproxy: subprocess.Popen[bytes], events: Events, clock: BootClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local haproxy is asked, not a proxy that happens to be configured."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with probing(events, clock):
        await result(events, passed=True, detail="200 in ")


async def test_an_address_that_requests_refuses_is_a_failed_check(events: Events, clock: BootClock) -> None:
    """However well it looked to the configuration."""
    async with probing(events, clock, url="http://*.example/"):
        await result(events, passed=False, detail="no HTTP answer")


async def test_an_answer_in_time_counts_though_the_loop_is_late(
    haproxy: subprocess.Popen[bytes], events: Events, clock: BootClock
) -> None:
    """A machine without a processor to spare says nothing about haproxy."""
    async with probing(events, clock):
        await result(events, passed=True, detail="200 in ")
    probe = HttpProbe(url=URL, interval_s=0.1, timeout_s=0.5, sink=events, clock=clock)
    check = asyncio.create_task(probe.check())
    await asyncio.sleep(0)
    time.sleep(1.0)
    assert (await check).passed
    probe.close()


async def test_a_thread_is_kept_until_it_hangs(
    haproxy: subprocess.Popen[bytes], events: Events, clock: BootClock
) -> None:
    """The thread serves every check. A hanging thread is abandoned, and ends when its check does."""
    async with probing(events, clock, timeout_s=0.3):
        await result(events, passed=True, detail="200 in ")
        (kept,) = threads()
        events.clear()
        await events.until(lambda: len(events) >= 3)
        assert threads() == {kept}
        haproxy.send_signal(signal.SIGSTOP)
        await result(events, passed=False, detail="no answer within")
        events.clear()
        haproxy.send_signal(signal.SIGCONT)
        await result(events, passed=True, detail="200 in ")
        async with asyncio.timeout(5):
            while kept in threads():
                await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        while threads():
            await asyncio.sleep(0.01)


async def test_process_exits_although_a_check_hangs(net: Wire) -> None:
    """A thread that cannot be ended does not delay the daemon's end."""
    script = f"""
import asyncio, time
from govipd.adapters.checks.http_probe import HttpProbe
class Clock:
    now = staticmethod(time.monotonic)
probe = HttpProbe(url={URL!r}, interval_s=0.1, timeout_s=0.1, sink=print, clock=Clock())
async def main():
    task = asyncio.create_task(probe.run())
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.wait([task])
asyncio.run(main())
"""
    async with serving(trickle):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(15):
            output, errors = await process.communicate()
    assert process.returncode == 0
    assert b"no answer within 0.1 s" in output
    assert errors == b""
