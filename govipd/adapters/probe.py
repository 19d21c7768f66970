"""An HTTP check, with requests, in a thread of its own for each check."""

import asyncio
import threading
from contextlib import suppress

import requests
from requests.adapters import HTTPAdapter

from govipd.core.events import ProbeResult
from govipd.core.text import line
from govipd.ports import Clock, Sink

_OUTSTANDING = 4  # checks that were given up, and whose thread has not returned


class HttpProbe:
    """GETs a URL at a fixed rate (ports.Source).

    A check is scored at its deadline, not when its thread returns: a server that accepts and then hangs, or
    sends a byte now and then, defeats the socket's own time-out. Each check makes a new connection, since a
    kept one hides a full accept queue. The request is prepared once and handed to requests' adapter itself: a Session
    costs half as much again, follows what looks like a redirect, and heeds proxies of the environment.

    The threads are daemonic: one that hangs does not keep the process from exiting. While four hang, a check fails
    without a fifth.

    Args:
        url: http or https.
        interval_s: from the start of one check to the start of the next.
        timeout_s: for the whole check, name resolution included.
        sink: where ProbeResult goes, once per check.
        clock: gives the grid on which checks start.
        expect_status: the one that passes.
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
        self._outstanding = 0

    async def run(self) -> None:
        """Check for ever. Ends only by being cancelled."""
        while True:
            start = self._clock.now()
            self._sink(await self.check())
            # At once after a check that took the whole interval: a proxy that hangs costs no second one.
            await asyncio.sleep(max(0.0, start + self._interval_s - self._clock.now()))

    async def check(self) -> ProbeResult:
        """Check once."""
        if self._outstanding >= _OUTSTANDING:
            return ProbeResult(passed=False, detail=f"no answer to the last {_OUTSTANDING} checks")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[ProbeResult] = loop.create_future()

        def deliver(result: ProbeResult) -> None:
            self._outstanding -= 1
            if not answer.done():
                answer.set_result(result)

        def ask() -> None:
            result = self._get()
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(deliver, result)

        self._outstanding += 1
        threading.Thread(target=ask, name="probe", daemon=True).start()
        # Not asyncio.timeout(), which drops an answer that came in time where it is this process that was late.
        await asyncio.wait([answer], timeout=self._timeout_s)
        if answer.done():
            return answer.result()
        return ProbeResult(passed=False, detail=f"no answer within {self._timeout_s:g} s")

    def _get(self) -> ProbeResult:
        """One request, in a thread; blocks for as long as the server pleases."""
        began = self._clock.now()
        try:
            if self._request is None:  # not before: requests refuses addresses that look well to others
                self._request = requests.Request("GET", self._url, {"Connection": "close"}).prepare()
            with self._adapter.send(self._request, stream=True, timeout=self._timeout_s) as reply:
                status = reply.status_code
        except Exception as error:  # noqa: BLE001  # a thread without a result would count as outstanding for ever
            return ProbeResult(passed=False, detail=_in_words(error, self._timeout_s))
        took = self._clock.now() - began
        if took > self._timeout_s:  # it dribbled
            return ProbeResult(passed=False, detail=f"no answer within {self._timeout_s:g} s", took=took)
        if status != self._expect_status:
            return ProbeResult(passed=False, detail=f"HTTP {status}", took=took)
        return ProbeResult(passed=True, detail=f"{status} in {took * 1000:.0f} ms", took=took)


def _in_words(error: Exception, timeout_s: float) -> str:
    """What an operator calls it: the operating system's words, which requests buries some causes deep."""
    if isinstance(error, requests.Timeout):
        return f"no answer within {timeout_s:g} s"
    root: BaseException = error
    while cause := root.__cause__ or root.__context__:
        root = cause
    if isinstance(root, OSError) and root.strerror:
        return root.strerror.lower()
    return line(f"no HTTP answer: {root}")
