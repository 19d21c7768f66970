"""A daemon over fakes with a control socket, and the ways to it."""

import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from govipd.adapters.control.service import ControlSocket
from govipd.adapters.control.varlink_server import LIMITS, Limits, VarlinkServer
from govipd.ctl import client
from govipd.runtime.process_ports import Operator
from tests.world import World, running

CHECKOUT = Path(__file__).resolve().parents[2]
STATUS = json.dumps({"method": "org.govipd.Node.Status"}).encode() + b"\0"
NOBODY = 65534


class Node:
    """A daemon with a control socket, and the ways to it."""

    def __init__(self, world: World, runtime: Path) -> None:
        self.world = world
        self.runtime = runtime
        self.path = runtime / "eth0" / "control"

    def server(self) -> VarlinkServer:
        """The one behind the socket."""
        ((service, _),) = self.world.daemon._services.values()
        assert isinstance(service, ControlSocket)
        return service._server

    def pings(self) -> int:
        """Of the watchdog, so far."""
        return self.world.notifier.said.count("watchdog")

    def pauses(self) -> Callable[[], float]:
        """Counts from here on; the longest time between two pings, in seconds."""
        at = [time.monotonic()]
        n = self.world.notifier
        watchdog = n.watchdog

        def noted() -> None:
            at.append(time.monotonic())
            watchdog()

        n.watchdog = noted  # type: ignore[method-assign]  # beside what the fake does
        return lambda: max(b - a for a, b in itertools.pairwise([*at, time.monotonic()]))

    async def ask(self, method: str, **parameters: str) -> Any:
        """As govipctl does, from another thread; the reply's parameters."""
        asking = partial(client.call, "eth0", method, self.runtime, client.REPLY_S, **parameters)
        return json.loads(await asyncio.to_thread(asking))

    async def send(self, *messages: bytes) -> list[dict[str, Any]]:
        """Raw messages on one connection; the replies until the daemon closes it or every message has one."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        with closing(writer):
            try:
                writer.write(b"".join(messages))
                return [json.loads((await reader.readuntil(b"\0"))[:-1]) for _ in messages]
            except (asyncio.IncompleteReadError, ConnectionError):
                return []


@asynccontextmanager
async def node(expected_status: int = 0, limits: Limits = LIMITS) -> AsyncIterator[Node]:
    """It leads, and its socket is there."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "eth0", "control")
        path.parent.mkdir()

        def make(operator: Operator) -> ControlSocket:
            return ControlSocket(path=path, operator=operator, journal=world[0].journal, version="1", limits=limits)

        def add(w: World) -> None:
            world.append(w)
            w.daemon._plan = w.plan = w.next_plan = replace(w.plan, services={"control": make})

        world: list[World] = []
        async with running(expected_status, add) as w:
            await w.until(w.leads)
            await w.eventually(path.exists)
            yield Node(w, Path(directory))


# What it answers
