"""A server that answers with hostile bytes: each check gives one result, in time, in words, in bounded memory."""

import resource
import socketserver
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govipd.adapters.checks.http_probe import HttpProbe
from govipd.core.events import ProbeResult
from tests.fakes import FakeClock
from tests.fuzz.memory_store import Collected
from tests.fuzz.strategies import LARGE_EXAMPLES, finish, fuzz, is_line, mutated, raw, texts

pytestmark = LARGE_EXAMPLES

TIMEOUT_S = 0.3
SLACK_S = 1.0
VALID = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\nSet-Cookie: a=b; Max-Age=1\r\n\r\nok"
REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: "


class Server(socketserver.ThreadingTCPServer):
    """Sends the same pieces to each client that connects, then closes."""

    daemon_threads = True
    block_on_close = False
    pieces: Iterable[bytes] = ()
    pause_s = 0.0
    turn = 0

    def send(self, *pieces: bytes, endless: bytes = b"", pause_s: float = 0.0) -> None:
        """What each connection gets from now on; those of before are closed."""
        self.turn += 1
        self.pieces, self.pause_s = chain(pieces, repeat(endless)) if endless else pieces, pause_s


class Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Server)
        turn = self.server.turn
        self.request.settimeout(0.2)
        with suppress(OSError):
            self.request.recv(4096)
            for piece in self.server.pieces:
                if self.server.turn != turn:
                    return
                self.request.sendall(piece)
                time.sleep(self.server.pause_s)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def probe(server: Server, timeout_s: float = TIMEOUT_S) -> HttpProbe:
    url = f"http://127.0.0.1:{server.server_address[1]}/healthz"
    return HttpProbe(url=url, interval_s=timeout_s, timeout_s=timeout_s, sink=Collected(), clock=FakeClock())


def check(server: Server, times: int = 1, timeout_s: float = TIMEOUT_S) -> list[ProbeResult]:
    """That many checks by one probe, each in time."""
    results: list[ProbeResult] = []

    async def work() -> None:
        ours = probe(server, timeout_s)
        for _ in range(times):
            began = time.monotonic()
            results.append(await ours.check())
            assert time.monotonic() - began < timeout_s + SLACK_S
        ours.close()

    finish(work())
    return results


def threads() -> int:
    return sum(thread.name == "probe" for thread in threading.enumerate())


def threads_end(within_s: float = 2.0) -> bool:
    """Whether those of the checks end."""
    by = time.monotonic() + within_s
    while threads() and time.monotonic() < by:
        time.sleep(0.002)
    return not threads()


header = st.sampled_from(
    (b"Content-Length: -1", b"Content-Length: 9" + b"9" * 5000, b"Content-Length: 2, 3", b"Transfer-Encoding: chunked",
     b"Content-Encoding: gzip", b"Content-Encoding: br, gzip, \xff", b"Location: http://[", b"Location: \xff\xfe",
     b"Location: //:99999/", b"Set-Cookie: a=b; expires=\xff; domain=\x00", b"Set-Cookie: =;;=", b": empty", b" folded",
     b"No colon", b"\x00\x01\x02", b"A:" + b"a" * 70_000, b"Connection: keep-alive", b"Retry-After: never")
) | raw.map(lambda b: b[:60])  # fmt: skip
status = st.sampled_from(
    (b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/1.1 302 Found", b"HTTP/1.1 100 Continue", b"HTTP/1.1 999 \xff\x1b[2J",
     b"HTTP/1.1 -200 OK", b"HTTP/9.9 200 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 \xb2\xb3\xb9 OK", b"ICY 200 OK", b"",
     b"HTTP/0.9 200", b"<html>\x1b[2J", b"HTTP/1.1 204 " + b"a" * 70_000, b"\x16\x03\x01\x02\x00")
) | texts.map(lambda t: t.encode(errors="replace"))  # fmt: skip
body = raw | st.sampled_from(
    (b"ok", b"-5\r\nok", b"ffffffffffffffffffff\r\n", b"zz\r\n\r\n", b"\x1f\x8b\x08garbage", b"")
)
answers = st.builds(
    lambda first, headers, rest: b"\r\n".join((first, *headers, b"", rest)), status, st.lists(header, max_size=4), body
)


@given(answers | mutated(VALID) | mutated(REDIRECT + b"http://a/\r\n\r\n") | raw, st.integers(0, 80))
@fuzz(250)
def test_any_answer_is_a_result_in_one_bounded_line(server: Server, answer: bytes, cut: int) -> None:
    server.send(answer[:cut], answer[cut:])
    (result,) = check(server)
    assert is_line(result.detail), result.detail[:300]
    assert threads_end()


@given(answers | mutated(VALID) | mutated(REDIRECT + b"http://a/\r\n\r\n"))
@fuzz(150)
def test_no_answer_ends_the_thread_before_it_has_a_result(server: Server, answer: bytes) -> None:
    """The server closes at once, so a check that takes the whole time-out was lost."""
    server.send(answer)
    (result,) = check(server, timeout_s=2.0)
    assert threads_end()
    assert not result.detail.startswith("no answer within"), answer[:300]


@pytest.mark.parametrize("location", [b"\xff", b"http://[", b"http://a:b/", b"//\x00"])
def test_redirects_to_nowhere_do_not_use_up_the_probe(server: Server, location: bytes) -> None:
    """After any number of bad answers, a good one passes."""
    server.send(REDIRECT + location + b"\r\nContent-Length: 0\r\n\r\n")

    async def work() -> None:
        ours = probe(server)
        for _ in range(5):
            await ours.check()
        server.send(VALID)
        assert (await ours.check()).passed
        ours.close()

    finish(work())


@pytest.mark.parametrize(
    ("first", "endless"),
    [
        (b"", b"a" * 65_536),
        (b"", b"\r\n" * 1000),
        (b"", b"HTTP/1.1 200 OK\r\n" * 1000),
        (VALID, b"a" * 65_536),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"X: " + b"a" * 65_000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"a" * 1_000_000),
        (b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 1000),
        (REDIRECT + b"/\r\n\r\n", b"a" * 65_536),
        (REDIRECT + b"/\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"a" * 65_536 + b"\r\n"),
    ],
)
def test_an_endless_answer_takes_bounded_memory(server: Server, first: bytes, endless: bytes) -> None:
    """And no thread: a page's body is none of the probe's business."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    server.send(first, endless=endless)
    check(server)
    ended = threads_end(within_s=0.5)
    server.send()
    assert threads_end()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
    assert ended


@pytest.mark.parametrize("dribble", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: y\r\n"])
def test_a_dribble_costs_no_more_than_the_time_out_and_four_threads(server: Server, dribble: bytes) -> None:
    """For a byte now and then the socket's own time-out does not help."""
    server.send(endless=dribble, pause_s=0.01)
    results = check(server, 6)
    assert all(is_line(result.detail) and not result.passed for result in results)
    assert threads() <= 4
    server.send()
    assert threads_end()
