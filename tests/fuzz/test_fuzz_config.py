"""Any bytes of a configuration file give a Config, or a ConfigError of printable lines that name the file."""

import json
import time
from datetime import UTC, date, datetime
from datetime import time as clock_time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import fields

from govipd.config.model import Config, ElectionConfig, EtcdConfig, HealthConfig, HooksConfig, MetricsConfig, VipConfig
from govipd.config.profiles import PROFILES
from govipd.config.reader import load
from govipd.errors import ConfigError
from tests.fuzz.strategies import LARGE_EXAMPLES, fuzz, mutated, nested, odd_text, raw, texts

pytestmark = LARGE_EXAMPLES

EXAMPLE = (Path(__file__).resolve().parents[2] / "conf/govip.toml").read_bytes()
VIP = b'[[vip]]\nname = "api"\ninterface = "eth0"\naddresses = ["192.0.2.100/32"]\n'
TABLES: dict[str, type[Struct]] = {
    "etcd": EtcdConfig,
    "election": ElectionConfig,
    "health": HealthConfig,
    "metrics": MetricsConfig,
    "hooks": HooksConfig,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "govip.toml"


def check(path: Path, content: bytes) -> Config | None:
    """Load; the configuration, or None after a refusal in good form."""
    path.write_bytes(content)
    began = time.monotonic()
    try:
        return load(path, hostname="node1")
    except ConfigError as error:
        lines = str(error).split("\n")
        assert all(line.startswith(f"{path}: ") and line.isprintable() for line in lines), lines
        return None
    finally:
        assert time.monotonic() - began < 2


def quoted(text: str) -> str:
    """A basic string of TOML, which has no surrogates; JSON's escapes are TOML's too, but for DEL."""
    return json.dumps(text.encode(errors="replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007f")


def toml(value: Any) -> str:
    """A value as TOML writes it, in line."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
        case int():
            return hex(value) if value > 10**400 else str(value)
        case datetime() | date() | clock_time():
            return value.isoformat()
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return "{" + ", ".join(f"{quoted(k)} = {toml(v)}" for k, v in value.items()) + "}"
        case _:
            return repr(value)  # floats, with nan and inf


scalars = (
    st.booleans()
    | st.integers()
    | st.sampled_from((10**30, 10**400, 2**64, -1, 0))
    | st.floats()
    | texts
    | st.sampled_from(
        ("\x00", "/dev/zero", "/", "http://[", "http://a:99999", "https://a:1", "0.0.0.0/0", "::1%eth0/64")
    )
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.just(UTC))
)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(texts, v, max_size=3), max_leaves=6)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Every known key may be there, with a value of any type."""
    profile = draw(values | st.sampled_from([*PROFILES]))
    lines = [f"profile = {toml(profile)}"]
    for table, kind in TABLES.items():
        names = st.sampled_from([f.name for f in fields(kind)]) | odd_text
        found = draw(st.dictionaries(names, values, max_size=4))
        lines += [f"[{table}]", *(f"{quoted(name)} = {toml(value)}" for name, value in found.items())]
    for _ in range(draw(st.integers(0, 3))):
        lines.append("[[vip]]")
        vip = {"name": "api", "interface": "eth0", "addresses": ["192.0.2.1", "2001:db8::1/64"]}
        for f in fields(VipConfig):
            value = draw(values | st.just(vip.get(f.name, "other")))
            lines.append(f"{f.name} = {toml(value)}")
    return "\n".join(lines).encode()


toml_like = st.lists(
    st.sampled_from([*'[]{}=.,"\n#\r\x00', "[[", '"""', "'''", "vip", "health", "url", "0x", "1_", "1e", "nan"])
    | st.sampled_from(["\\u", "1979-05-27", "T07:32:00Z", "true"]),
    max_size=40,
).map(lambda parts: "".join(parts).encode())


@given(raw | nested | toml_like | toml_like.map(lambda t: VIP + t))
@fuzz(400)
def test_any_bytes_are_refused_in_words(path: Path, content: bytes) -> None:
    check(path, content)


@given(mutated(EXAMPLE) | mutated(VIP) | mutated(EXAMPLE.replace(b"\n#", b"\n")))
@fuzz(400)
def test_a_damaged_file_is_valid_or_refused_in_words(path: Path, content: bytes) -> None:
    check(path, content)


@given(documents())
@fuzz(250)
def test_values_of_any_type_are_valid_or_refused_in_words(path: Path, content: bytes) -> None:
    check(path, content)


@given(st.sampled_from(("etcd", "election", "health")), st.data())
@fuzz(200)
def test_a_configuration_that_is_accepted_gives_settings(path: Path, table: str, data: st.DataObject) -> None:
    """One key at a time, so that many are valid."""
    name = data.draw(st.sampled_from([f.name for f in fields(TABLES[table])]))
    config = check(path, f"[{table}]\n{name} = {toml(data.draw(values))}\n".encode() + VIP)
    if config:
        assert config.settings().margin > 0


@pytest.mark.parametrize("key", ["ttl", "no_such_key"])
def test_a_number_too_long_to_be_written_is_refused(path: Path, key: str) -> None:
    """int() reads hexadecimal numbers of any length, which repr() refuses to write."""
    assert check(path, f"[election]\n{key} = 0x{'f' * 5000}\n".encode() + VIP) is None


def test_a_long_url_is_refused_at_once(path: Path) -> None:
    """The pattern of health.url must not try every way to divide the URL."""
    assert check(path, b'[health]\nurl = "http://' + b"a" * 20_000 + b' "\n' + VIP) is None


def test_a_name_of_a_file_cannot_write_a_line_of_its_own(path: Path) -> None:
    """The remedy for a key file that others can read names the file."""
    key = path.with_name("a\nb")
    key.write_text("secret")
    key.chmod(0o644)
    assert check(path, f"[etcd]\npassword_file = {quoted(str(key))}\nuser = 'x'\n".encode() + VIP) is None


def test_the_example_is_valid(path: Path) -> None:
    """Else its mutations test little."""
    assert check(path, EXAMPLE)
