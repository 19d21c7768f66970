"""The configuration's secrets and files, and any text at all."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govipd.config.reader import load
from govipd.errors import ConfigError
from tests.config.reading import VIP, read, refusal

CHECKOUT = Path(__file__).resolve().parents[2]


def test_a_password_in_an_endpoint_is_refused_and_not_repeated(tmp_path: Path) -> None:
    """The message may end in a journal."""
    message = refusal(tmp_path, '[etcd]\nendpoints = ["http://u:hunter2@192.0.2.1:2379"]\n' + VIP)
    assert "etcd.endpoints[0] = '...'" in message
    assert "set user and password_file" in message
    assert "hunter2" not in message


def test_a_pipe_does_not_stop_the_reader(tmp_path: Path) -> None:
    """Opening a named pipe would wait for its writer without an end."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    message = refusal(tmp_path, f'[etcd]\nuser = "u"\npassword_file = "{tmp_path}/pipe"\n{VIP}')
    assert "must be a regular file" in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, a directory, not UTF-8."""
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "gone", hostname="h")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, hostname="h")
    (tmp_path / "latin").write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 2"):
        load(tmp_path / "latin", hostname="h")


def test_secrets_must_be_secret(tmp_path: Path) -> None:
    """A password file that others can read is refused, with the command that mends it."""
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(0o644)
    text = f'[etcd]\nuser = "govip"\npassword_file = "{password}"\n{VIP}'
    message = refusal(tmp_path, text)
    assert f"has mode 0644: others could read the secret; chmod 0600 {password}" in message
    assert "secret'" not in message
    password.chmod(0o600)
    assert read(tmp_path, text).etcd.user == "govip"


_values = st.recursive(
    st.integers() | st.floats() | st.booleans() | st.sampled_from(["", "x", "192.0.2.1", "http://h:1", "a.service"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["etcd", "health", "vip", "name", "interface", "addresses", "ttl", "endpoints", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case str():
            return f'"{value}"'
        case _:
            return str(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    text=st.text(max_size=200)
    | st.dictionaries(st.sampled_from(["etcd", "election", "health", "vip", "x"]), _values).map(
        lambda d: "\n".join(f"{k} = {_toml(v)}" for k, v in d.items())
    )
)
def test_no_text_does_anything_but_be_refused_or_read(tmp_path: Path, text: str) -> None:
    """Arbitrary text and arbitrary structures: a Config or a ConfigError."""
    path = tmp_path / "govip.toml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with suppress(ConfigError):
        load(path, hostname="h")
