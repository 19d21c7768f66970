"""The host's name in use: kept on a real file system, asked for again by a service over a fake daemon."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from govipd.adapters.state import hostname
from govipd.adapters.state.hostname import HostName, NameService
from govipd.config.rules import nameable
from govipd.core.events import ClusterFault
from govipd.ctl import client


class Host:
    """Its name, which a test changes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> str:
        return self.name


def used(tmp_path: Path | None, host: Callable[[], str]) -> HostName:
    return HostName(tmp_path and tmp_path / "hostname", nameable, host)


def test_a_restart_goes_on_under_the_name_of_before(tmp_path: Path) -> None:
    """A restart keeps the name, whatever the host is called now. After a stop, the host's present name counts."""
    host = Host("node1")
    name = used(tmp_path, host)
    assert (name(), name.first_start()) == ("node1", True)
    name.keep()
    host.name = "renamed"
    assert name() == "node1"  # a reload
    again = used(tmp_path, host)
    assert (again(), again.first_start()) == ("node1", False)
    (tmp_path / "hostname").unlink()
    assert used(tmp_path, host)() == "renamed"


def test_a_first_start_is_one_once(tmp_path: Path) -> None:
    """A reload that names another unit starts nothing."""
    name = used(tmp_path, Host("node1"))
    assert [name.first_start(), name.first_start()] == [True, False]


@pytest.mark.parametrize("none", ["localhost", "localhost.localdomain", "", "(none)"])
def test_what_is_no_name_is_asked_for_again(tmp_path: Path, none: str) -> None:
    """In this process and by the next one, whatever an earlier one has left."""
    (tmp_path / "hostname").write_text(none)
    host = Host(none)
    name = used(tmp_path, host)
    assert name() == none
    assert not name.ask_again()
    host.name = "node1"
    assert name() == "node1"


@pytest.mark.parametrize("left", [b"\xff\xfe", b"x" * 10_000, b"a b", b"a\n"])
def test_a_file_that_holds_no_name_is_not_believed(tmp_path: Path, left: bytes) -> None:
    """The host is asked."""
    (tmp_path / "hostname").write_bytes(left)
    assert used(tmp_path, Host("node1"))() == "node1"


def test_without_a_runtime_directory_it_is_kept_in_memory() -> None:
    """And a directory that is not there is no fault."""
    host = Host("node1")
    for place in (None, Path("/nonexistent")):
        name = used(place, host)
        assert name() == "node1"
        name.keep()


def test_govipctl_knows_the_name_in_use(tmp_path: Path) -> None:
    """So that the doctor looks for the right member; the host's own where no daemon has left one."""
    used(tmp_path / "eth0", Host("x")).keep()
    before = client.hostname(tmp_path)
    (tmp_path / "eth0").mkdir()
    used(tmp_path / "eth0", Host("old-name")).keep()
    assert client.hostname(tmp_path) == "old-name" != before


class Node:
    """A daemon that only says in which states its VIP groups are."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)

    def status(self) -> Any:
        group = type("Group", (), {"state": ""})
        groups = []
        for state in self.states:
            groups.append(group())
            groups[-1].state = state
        return type("Status", (), {"groups": groups})()


REFUSED = ClusterFault(refused="the member name debian is taken by 192.0.2.11; set election.member")


@pytest.mark.parametrize(
    ("states", "event", "renamed"),
    [
        (["ineligible"], REFUSED, True),
        (["ineligible", "ineligible"], REFUSED, True),
        (["ineligible", "leader"], REFUSED, False),  # it would lose the other VIP
        (["ineligible", "candidate"], REFUSED, False),
        (["ineligible"], ClusterFault(warning="members disagree"), False),
        (["ineligible"], None, False),
    ],
)
async def test_a_member_whose_name_is_taken_asks_the_host_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    states: list[str],
    event: ClusterFault | None,
    renamed: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    """Only while nothing is held or stood for; the next process has the new name too."""
    monkeypatch.setattr(hostname, "LOOK_S", 0.01)
    host, told = Host("debian"), []
    name = used(tmp_path, host)
    assert name() == "debian"
    service = NameService(name, Node(*states), lambda: told.append(name()))  # type: ignore[arg-type]  # status() only
    running = asyncio.ensure_future(service.run())
    if event:
        service.stepped("api", event, (), 0.0)
    await asyncio.sleep(0.05)
    assert not told  # the host has no other name yet
    host.name = "node2"
    await asyncio.sleep(0.1)
    running.cancel()
    assert told == (["node2"] if renamed else [])
    assert used(tmp_path, host)() == "node2" if renamed else name() == "debian"
