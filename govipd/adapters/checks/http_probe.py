"""The probe: an HTTP check with the library requests, in a thread that is kept from check to check."""

import asyncio
import threading
from contextlib import suppress
from queue import SimpleQueue

import requests
from requests.adapters import HTTPAdapter

from govipd.core.events import ProbeResult
from govipd.core.sanitize import sanitize_line
from govipd.runtime.ports import Clock, Sink

_LEFT_MAX = 4  # abandoned threads that still hang in their check

_Answer = asyncio.Future[ProbeResult]


class HttpProbe:
    """GETs a URL at a fixed rate (process_ports.Source).

    A check fails at its deadline, not when its thread returns: a server that accepts and then hangs, or sends a byte
    now and then, defeats the socket's own time-out. Each check makes a new connection, because a kept connection hides
    a full accept queue. The request is prepared once and given to requests' HTTPAdapter: a requests.Session costs half
    as much again, follows redirects, and uses the proxies of the environment.

    A thread whose check is past its deadline is abandoned: it ends when its check returns, and the next check starts a
    new thread. While four abandoned threads hang, each check fails without a fifth thread. The threads are daemonic, so
    a thread that hangs does not keep the process from exiting.

    Args:
        url: http or https.
        interval_s: seconds from the start of one check to the start of the next.
        timeout_s: seconds for the whole check, name resolution included.
        sink: where ProbeResult goes, once per check.
        clock: CLOCK_BOOTTIME.
        expect_status: the HTTP status that passes.
    """

    def __init__(
        self,
        *,
        url: str,
        interval_s: float,
        timeout_s: float,
        sink: Sink,
        clock: Clock,
        expect_status: int = 200,
    ) -> None:
        self._url = url
        self._adapter = HTTPAdapter()
        self._request: requests.PreparedRequest | None = None
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._sink = sink
        self._clock = clock
        self._expect_status = expect_status
        self._wanted: SimpleQueue[_Answer | None] | None = None  # the thread's requests; None without a thread
        self._left = 0

    async def run(self) -> None:
        """Check until cancelled."""
        try:
            while True:
                start = self._clock.now()
                self._sink(await self.check())
                # After a check that took the whole interval, the next check starts at once.
                await asyncio.sleep(max(0.0, start + self._interval_s - self._clock.now()))
        finally:
            self.close()

    async def check(self) -> ProbeResult:
        """Check once. The thread stays for the next check, until close()."""
        loop = asyncio.get_running_loop()
        if self._wanted is None:
            if self._left >= _LEFT_MAX:
                return ProbeResult(passed=False, detail=f"no answer to the last {_LEFT_MAX} checks")
            self._wanted = SimpleQueue()
            threading.Thread(target=self._work, args=(self._wanted, loop), name="probe", daemon=True).start()
        answer: _Answer = loop.create_future()
        self._wanted.put(answer)
        # Not asyncio.timeout(): where this process itself is late, it would drop an answer that came in time.
        await asyncio.wait([answer], timeout=self._timeout_s)
        if answer.done():
            return answer.result()
        self.close()
        return ProbeResult(passed=False, detail=f"no answer within {self._timeout_s:g} s")

    def close(self) -> None:
        """Let the thread end, after its present check. The object can be used again."""
        if self._wanted is not None:
            self._wanted.put(None)
            self._wanted = None
            self._left += 1

    def _work(self, wanted: SimpleQueue[_Answer | None], loop: asyncio.AbstractEventLoop) -> None:
        """The thread's function: makes one check for each request in `wanted`."""
        with suppress(RuntimeError):  # the loop has ended meanwhile
            while answer := wanted.get():
                loop.call_soon_threadsafe(_give, answer, self._get())
            loop.call_soon_threadsafe(self._returned)

    def _returned(self) -> None:
        self._left -= 1

    def _get(self) -> ProbeResult:
        """Make one request, in the thread. Blocks until the server answers, without a limit."""
        began = self._clock.now()
        try:
            if self._request is None:  # not earlier: requests may refuse a URL that the configuration accepts
                self._request = requests.Request("GET", self._url, {"Connection": "close"}).prepare()
            with self._adapter.send(self._request, stream=True, timeout=self._timeout_s) as reply:
                status = reply.status_code
        except Exception as error:  # noqa: BLE001  # a thread that ends without a result would be counted for ever
            return ProbeResult(passed=False, detail=_in_words(error, self._timeout_s))
        took = self._clock.now() - began
        if took > self._timeout_s:  # the server sent a byte now and then
            return ProbeResult(passed=False, detail=f"no answer within {self._timeout_s:g} s", took=took)
        if status != self._expect_status:
            return ProbeResult(passed=False, detail=f"HTTP {status}", took=took)
        return ProbeResult(passed=True, detail=f"{status} in {took * 1000:.0f} ms", took=took)


def _give(answer: _Answer, result: ProbeResult) -> None:
    if not answer.done():  # given up, and cancelled
        answer.set_result(result)


def _in_words(error: Exception, timeout_s: float) -> str:
    """A short reason: the operating system's error text, from the innermost cause."""
    if isinstance(error, requests.Timeout):
        return f"no answer within {timeout_s:g} s"
    root: BaseException = error
    while cause := root.__cause__ or root.__context__:
        root = cause
    if isinstance(root, OSError) and root.strerror:
        return root.strerror.lower()
    return sanitize_line(f"no HTTP answer: {root}")
