"""The file that one process leaves for the next: a holding that etcd can be asked about, nothing, or a refusal."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govipd.adapters.state.restart_state import AHEAD_MAX_S, RestartStateFile
from govipd.core.actions import RestartState
from govipd.errors import StateFileError
from tests.fuzz.strategies import (
    INT64_MAX,
    LARGE_EXAMPLES,
    fuzz,
    is_line,
    json_values,
    mutated,
    nested,
    numbers,
    odd_text,
    raw,
    texts,
)

pytestmark = LARGE_EXAMPLES

NOW = 1000.0
VALID = {"version": 1, "identity": "m/api", "lease_id": 7587880001, "create_revision": 42, "until": NOW + 2.5}


class Clock:
    def now(self) -> float:
        return NOW


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "handoff.json"


def load(path: Path, content: bytes) -> RestartState | None:
    path.write_bytes(content)
    return RestartStateFile(path=path, identity="m/api", clock=Clock()).load()


def refusal(path: Path, content: bytes) -> str:
    """Why it is refused; "" when it is not."""
    try:
        holding = load(path, content)
    except StateFileError as error:
        return str(error)
    assert holding
    assert NOW < holding.until <= NOW + AHEAD_MAX_S
    return ""


fields = {key: st.just(value) | numbers | json_values(texts | numbers) for key, value in VALID.items()}
objects = st.fixed_dictionaries({}, optional={**fields, "more": texts}) | st.fixed_dictionaries(fields)
nearly = st.sampled_from(sorted(VALID)).flatmap(lambda key: fields[key].map(lambda value: {**VALID, key: value}))


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


@given(
    raw
    | nested
    | nested.map(lambda b: encoded(VALID)[:-1] + b', "more": ' + b)
    | nested.map(lambda b: encoded(VALID).replace(b"42", b))
    | mutated(encoded(VALID))
    | json_values().map(encoded)
    | (objects | nearly).map(encoded)
)
@fuzz(700)
def test_any_bytes_are_a_holding_or_refused(path: Path, content: bytes) -> None:
    refusal(path, content)


@given(st.sampled_from(("NaN", "Infinity", "-Infinity", "1e999", "-0.0", "1e400", "9" * 400, "9" * 5000, "0x10")))
@fuzz(9)
def test_an_instant_that_is_no_number_is_refused(path: Path, until: str) -> None:
    assert refusal(path, encoded(VALID).replace(b"1002.5", until.encode()))


@given(st.sampled_from(("lease_id", "create_revision")), st.integers() | numbers)
@fuzz(200)
def test_a_holding_has_numbers_that_etcd_can_have_given(path: Path, key: str, value: float) -> None:
    """They go into requests whose fields have 64 bits, where another number is a ValueError; 0 is no lease."""
    try:
        holding = load(path, encoded({**VALID, key: value}))
    except StateFileError:
        return
    assert holding
    assert 0 < holding.lease_id <= INT64_MAX
    assert 0 < holding.create_revision <= INT64_MAX


@given(texts | odd_text, st.sampled_from(("identity", "unknown key", "version")))
@fuzz(150)
def test_a_refusal_is_one_printable_line(path: Path, text: str, where: str) -> None:
    """The refusal goes to the journal, where the file's contents must not write lines."""
    content: dict[str, Any] = {**VALID, where: text} if where in VALID else {**VALID, text: 1}
    if where == "version":
        content = {**VALID, "version": 9**4000}
    why = refusal(path, encoded(content))
    assert is_line(why.removeprefix(str(path))), why[:300]


def test_the_valid_file_is_loaded(path: Path) -> None:
    """Else its mutations test little."""
    assert load(path, encoded(VALID)) == RestartState(7587880001, 42, NOW + 2.5)
