"""What one process leaves for the next, on a real file system."""

import time
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from govipd.adapters.state.restart_state import RestartStateFile
from govipd.core.actions import RestartState
from govipd.errors import StateFileError


class Clock:
    def now(self) -> float:
        return time.monotonic()


def file(path: Path | None, identity: str = "api") -> RestartStateFile:
    return RestartStateFile(path=path, identity=identity, clock=Clock())


def holding(ahead: float = 2.5) -> RestartState:
    return RestartState(0x694D9EF1, 17, time.monotonic() + ahead)


def test_what_is_saved_is_loaded_until_it_is_forgotten(tmp_path: Path) -> None:
    """The newest counts; forgetting twice is fine."""
    memory = file(tmp_path / "api.json")
    assert memory.load() is None
    memory.save(holding())
    newest = holding()
    memory.save(newest)
    assert memory.load() == newest
    memory.forget()
    memory.forget()
    assert memory.load() is None
    assert list(tmp_path.iterdir()) == []


def test_a_renewal_writes_over_the_file(tmp_path: Path) -> None:
    """Also with more addresses, with fewer addresses, and after the file was deleted."""
    path = tmp_path / "api.json"
    memory = file(path)
    many = tuple(ip_interface(f"192.0.2.{n}/32") for n in range(1, 20))
    memory.save(holding())
    first = path.stat().st_ino
    memory.save(newest := holding())
    assert path.stat().st_ino == first
    for addresses in (many, many[:1], ()):
        memory.save(newest := replace(holding(), addresses=addresses))
        assert file(path).load() == newest
    path.unlink()
    memory.save(newest)
    assert file(path).load() == newest


def test_without_a_runtime_directory_nothing_is_kept() -> None:
    """Started by hand."""
    memory = file(None)
    memory.save(holding())
    memory.forget()
    assert memory.load() is None


def test_stale_future_foreign_and_other_versions_are_refused(tmp_path: Path) -> None:
    """Each with its reason."""
    path = tmp_path / "api.json"
    for ahead, reason in ((-1.0, "ended 1"), (1e6, "another boot")):
        file(path).save(holding(ahead))
        with pytest.raises(StateFileError, match=reason):
            file(path).load()
    file(path).save(holding())
    with pytest.raises(StateFileError, match="is of api, not of web"):
        file(path, "web").load()
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
    with pytest.raises(StateFileError, match="version 2"):
        file(path).load()


def test_a_torn_file_is_refused_at_every_length(tmp_path: Path) -> None:
    """Cut anywhere."""
    path = tmp_path / "api.json"
    file(path).save(holding())
    whole = path.read_bytes().rstrip()  # blanks fill it up
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StateFileError):
            file(path).load()


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=300) | st.text(max_size=100).map(lambda t: ('{"version":' + t).encode()))
def test_no_content_does_anything_but_be_refused(tmp_path: Path, content: bytes) -> None:
    """Arbitrary bytes: refused, never another error."""
    path = tmp_path / "api.json"
    path.write_bytes(content)
    with pytest.raises(StateFileError):
        file(path).load()


def test_what_cannot_be_written_is_an_error_and_leaves_the_old(tmp_path: Path) -> None:
    """The directory is gone; or the name is taken by a directory."""
    with pytest.raises(StateFileError):
        file(tmp_path / "gone" / "api.json").save(holding())
    (tmp_path / "api.new").mkdir()
    with pytest.raises(StateFileError):
        file(tmp_path / "api.json").save(holding())
    (tmp_path / "api.json").mkdir()
    with pytest.raises(StateFileError):
        file(tmp_path / "api.json").load()
    file(tmp_path / "api.json").forget()
