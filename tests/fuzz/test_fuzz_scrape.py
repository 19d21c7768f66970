"""Any bytes that are sent to the metrics port get a well-formed answer at once."""

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from govipd.adapters.outputs.scrape_server import HEAD_MAX, ScrapeServer
from tests import fakes
from tests.fuzz.strategies import LARGE_EXAMPLES, fuzz, mutated, raw

pytestmark = LARGE_EXAMPLES

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: 192.0.2.11:9177\r\nAccept: text/plain\r\n\r\n"
_ANSWER = re.compile(
    rb"HTTP/1\.1 (200 OK|400 Bad Request|404 Not Found)\r\n([\w-]+: [^\r\n]+\r\n)+\r\n(page|[^\r\n]+\n)?"
)


@given(raw | mutated(REQUEST) | st.binary(max_size=8).map(lambda b: b"GET " + b * (HEAD_MAX // 8)))
@fuzz(300)
def test_any_request_is_answered_in_good_form(head: bytes) -> None:
    server = ScrapeServer("127.0.0.1", 0, journal=fakes.FakeJournal(), clock=fakes.FakeClock())
    server._page = lambda: b"page"
    began = time.monotonic()
    assert _ANSWER.fullmatch(server._answer(head))
    assert time.monotonic() - began < 1
