"""What the fuzz tests share: how many examples, foreign bytes and texts, and what a line for the journal may be."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from govipd.adapters.etcd.api import KeyValue

# Multiplies the examples. A run of the suite repeats the same ones; a longer run looks for new ones.
MULTIPLIER = float(os.environ.get("GOVIP_FUZZ_EXAMPLES", "1"))
LINE_MAX = 2000  # characters of a line that foreign bytes contribute to
INT64_MAX = 2**63 - 1

# A failing example may be large: the failure is what counts, not how long it takes to print.
LARGE_EXAMPLES = pytest.mark.filterwarnings("ignore:Generating overly large repr")


def fuzz(examples: int) -> settings:
    """The settings of a test that wants so many examples in a run of the suite."""
    return settings(
        max_examples=max(1, round(examples * MULTIPLIER)),
        deadline=None,
        derandomize=MULTIPLIER == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def is_line(text: str, longest: int = LINE_MAX) -> bool:
    """Whether the text is one printable line of bounded length, as the journal needs it."""
    return len(text) <= longest and text.isprintable()


def finish(work: Coroutine[Any, Any, object], seconds: float = 10.0) -> None:
    """Run to the end, in a loop of its own; what takes longer hangs."""

    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await work

    asyncio.run(bounded())


# Characters that a terminal, a journal or a line-based reader takes amiss.
odd_text = st.text(st.sampled_from("a/[]{}\"'\\\n\r\t\x00\x1b\x7f\x85\u2028\u202e\ufffd\ud800é=;:%"), max_size=12)
texts = odd_text | st.text(max_size=20) | st.builds(lambda t, n: t * n, odd_text, st.sampled_from((100, 5000)))
numbers = (
    st.integers()
    | st.sampled_from((0, -1, INT64_MAX, INT64_MAX + 1, -(2**63), 2**64, 10**30, 10**400))
    | st.floats()  # JSON as Python reads it has NaN and Infinity
)


def json_values(leaves: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[Any]:
    """Any JSON value."""
    leaf = leaves if leaves is not None else st.none() | st.booleans() | numbers | texts
    return st.recursive(leaf, lambda v: st.lists(v, max_size=4) | st.dictionaries(texts, v, max_size=4), max_leaves=8)


nested = st.builds(
    lambda opening, closing, depth: opening * depth + closing * depth,
    st.sampled_from((b"[", b'{"a":', b'{"addresses":[', b'{"gates":{"a":')),
    st.sampled_from((b"", b"]", b"}", b"]}", b"}}")),
    st.sampled_from((3, 300, 900, 950, 980, 990, 1000, 20_000)),
)
raw = st.binary(max_size=60) | st.builds(lambda b, n: b * n, st.binary(min_size=1, max_size=8), st.just(20_000))


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """A valid file to which a few things happened."""
    data = valid
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        middle = draw(
            st.just(b"")
            | st.just(data[start:end] * 2)
            | st.binary(max_size=4)
            | st.sampled_from((b"9" * 400, b"9" * 5000, b"0x" + b"f" * 5000, b"1e999", b"nan", b"-", b"[" * 500, b"\n"))
            | texts.map(lambda t: t.encode(errors="surrogatepass"))
            | st.just(b"").map(lambda _: bytes(255 - byte for byte in data[start:end]))  # noqa: B023  # drawn at once
        )
        data = data[:start] + middle + data[end:]
    return data


def key_values(prefix: str, values: st.SearchStrategy[bytes]) -> st.SearchStrategy[KeyValue]:
    """Keys below a prefix as etcd's client gives them: what is not UTF-8 was replaced."""
    name = st.binary(max_size=12).map(lambda b: b.decode(errors="replace")) | texts.map(
        lambda t: t.encode(errors="replace").decode()
    )
    revision = st.integers(1, 1000) | st.just(INT64_MAX)
    return st.builds(KeyValue, name.map(lambda n: prefix + n), values, revision, st.integers(0, INT64_MAX))
