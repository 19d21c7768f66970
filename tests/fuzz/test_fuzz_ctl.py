"""govipctl shows any bytes that members and strangers wrote into etcd, and executes none of them."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from govipd.adapters.etcd.api import KeyValue
from govipd.config.model import Config
from govipd.config.reader import load
from govipd.ctl.cluster import read_vip
from govipd.ctl.doctor import check_answers, check_members
from govipd.ctl.doctor.doctor import show
from govipd.ctl.doctor.finding import Queue
from govipd.ctl.render import cluster_table
from tests.fuzz.memory_store import MemoryStore
from tests.fuzz.strategies import LARGE_EXAMPLES, finish, fuzz, json_values, key_values, mutated, nested, raw, texts

pytestmark = LARGE_EXAMPLES

RECORD = {
    "machine": "m1",
    "state": "leader",
    "since": "2025-01-01T00:00:00Z",
    "detail": "",
    "reason": "won the election",
    "gates": {"unit": {"verdict": "healthy"}, "probe": {"verdict": "unhealthy"}},
}
MEMBERS = "govip/members/api/"
QUEUE = "govip/election/api/"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("fuzz") / "govip.toml"
    path.write_text('[[vip]]\nname = "api"\ninterface = "eth0"\naddresses = ["192.0.2.100/32"]\n')
    return load(path, hostname="node1")


def shown(config: Config, *content: KeyValue) -> str:
    """What goes to the terminal, after both forms have been made."""
    found: dict[str, dict[str, Any]] = {}

    async def work() -> None:
        found["api"] = await read_vip(MemoryStore(*content), config, config.vip[0])

    finish(work())
    json.dumps(found).encode()
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    console = Console(file=stream, width=120, color_system=None)
    console.print(cluster_table(found))
    queue, vip = Queue.of(found["api"]), config.vip[0]
    check_answers._addresses_of_leader(queue)
    findings = [check_members._own("node1", vip, queue, None), check_members._others("node1", vip, queue)]
    show([*findings, check_members._addresses(vip, queue)], console)
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


anything = json_values()
markup = st.sampled_from(("[/]", "[bold", "[/bold]", "[link=x]", "[red]", "[[", ":smile:", "\\[", "[@click=f()]"))
gates = st.dictionaries(texts, st.dictionaries(st.just("verdict"), anything) | anything, max_size=3) | anything
records = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(RECORD, markup | texts | anything) | {"gates": gates}
) | st.just(RECORD)
values = records.map(lambda r: json.dumps(r).encode()) | mutated(json.dumps(RECORD).encode()) | nested | raw
candidates = raw | texts.map(lambda t: t.encode(errors="replace")) | st.just(b"node1")


@given(st.lists(key_values(MEMBERS, values), max_size=3), st.lists(key_values(QUEUE, candidates), max_size=3))
@fuzz(250)
def test_any_value_in_etcd_can_be_shown(config: Config, members: list[KeyValue], queue: list[KeyValue]) -> None:
    shown(config, *members, *queue)


def member(record: object, name: str = "node1") -> KeyValue:
    return KeyValue(MEMBERS + name, record if isinstance(record, bytes) else json.dumps(record).encode(), 1, 1)


@pytest.mark.parametrize(
    "record",
    [
        b"[" * 100_000,
        {**RECORD, "gates": []},
        {**RECORD, "gates": {"unit": "healthy"}},
        {**RECORD, "reason": "[/bold]"},
        {**RECORD, "reason": "\ud800"},
    ],
    ids=["deeply nested", "gates is a list", "gate is a text", "markup", "surrogate"],
)
def test_one_odd_record_does_not_hide_the_others(config: Config, record: object) -> None:
    assert "node2" in shown(config, member(record), member(RECORD, "node2"))


@pytest.mark.parametrize("where", ["state", "since", "reason", "name"])
def test_a_record_cannot_control_the_terminal(config: Config, where: str) -> None:
    """An escape sequence could move the cursor, set the title, or type text."""
    text = "\x1b]0;title\x07\x1b[2J\x9b2J"
    record = member(RECORD, text) if where == "name" else member({**RECORD, where: text})
    assert not {"\x1b", "\x07", "\x9b"} & set(shown(config, record))


def test_brackets_in_a_reason_are_shown(config: Config) -> None:
    """They are no markup: a probe's words can have an IPv6 address in them."""
    assert "[red]" in shown(config, member({**RECORD, "reason": "[red]"}))


def test_an_honest_record_is_shown(config: Config) -> None:
    assert "unit healthy, probe unhealthy" in shown(config, member(RECORD)).replace("\n", " ")
