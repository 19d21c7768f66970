"""Serves one page of text over HTTP. Limits keep every client from disturbing the daemon."""

import asyncio
import re
from collections.abc import Callable

from govipd.core.journal_kinds import JournalKind
from govipd.runtime.ports import Clock
from govipd.runtime.process_ports import Journal
from govipd.runtime.repeat_filter import RepeatFilter

CONNECTIONS_MAX = 8  # the server closes any further connection at once
HEAD_MAX = 8192  # bytes of a request
EXCHANGE_S = 5.0  # seconds from the connection to the last byte of the answer
FRESH_S = 0.2  # seconds for which a page is served again, so that many requests cost no more
RETRY_S = 5.0  # seconds between tries to listen

_REQUEST = re.compile(rb"(GET|HEAD) (\S*) HTTP/1\.[01]\r\n")
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ScrapeServer:
    """GET /metrics, one request per connection (RFC 9112), on the daemon's own event loop.

    If the server cannot listen on the address, it reports that, and tries again every RETRY_S.

    Args:
        host: an address of this machine, "0.0.0.0" or "::" for all.
        port: the TCP port; 0: any free port (see `bound`).
        journal: where errors are reported.
        clock: measures the page's age.
    """

    def __init__(self, host: str, port: int, *, journal: Journal, clock: Clock) -> None:
        self._host, self._port = host, port
        self._clock = clock
        self._troubles = RepeatFilter(journal.write)
        self._page: Callable[[], bytes] = bytes
        self._made = (float("-inf"), b"")
        self._open = 0
        self.bound: tuple[str, int] | None = None  # while it listens

    async def run(self, page: Callable[[], bytes]) -> None:
        """Serve until cancelled. `page` makes the text; it must take only milliseconds."""
        self._page = page
        where = f"metrics on {f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"
        while True:
            try:
                server = await asyncio.start_server(self._serve, self._host, self._port, limit=HEAD_MAX)
            except OSError as e:
                text = f"{where}: not served: {e.strerror}"
                self._troubles.report(
                    JournalKind.METRICS_REFUSED, text, self._clock.now(), next_step="tried again for ever"
                )
                await asyncio.sleep(RETRY_S)
                continue
            self._troubles.resolve(
                JournalKind.METRICS_REFUSED, JournalKind.METRICS_SERVED, f"{where}: served", self._clock.now()
            )
            self.bound = server.sockets[0].getsockname()[:2]
            async with server:
                await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS_MAX:
                async with asyncio.timeout(EXCHANGE_S):
                    writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client's fault: the connection is closed
        finally:
            self._open -= 1
            writer.transport.abort()

    def _answer(self, head: bytes) -> bytes:
        request = _REQUEST.match(head)
        if request is None:
            return _response("400 Bad Request", b"GET /metrics\n")
        if request[2].partition(b"?")[0] != b"/metrics":
            return _response("404 Not Found", b"see /metrics\n")
        now = self._clock.now()
        if now - self._made[0] >= FRESH_S:
            self._made = now, self._page()
        return _response("200 OK", self._made[1], with_body=request[1] == b"GET")


def _response(status: str, body: bytes, *, with_body: bool = True) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {_TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (body if with_body else b"")
