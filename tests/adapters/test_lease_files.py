"""Which leases are this machine's own, on a real file system."""

from pathlib import Path

from govipd.adapters.election.lease_files import LeaseFile


def test_a_lease_is_an_earlier_process_s_until_it_is_given_back_or_gone_on_with(tmp_path: Path) -> None:
    """Three leases of a process that died: one is adopted, one is given back."""
    dead = LeaseFile(tmp_path, "api", ["api"])
    for lease in (1, 2, 3):
        dead.granted(lease)
    assert not dead.earlier(), "they are its own"
    alive = LeaseFile(tmp_path, "api", ["api"])
    assert alive.earlier() == (1, 2, 3)
    alive.granted(2)
    alive.ended(1)
    assert alive.earlier() == (3,)
    assert LeaseFile(tmp_path, "api", ["api"]).earlier() == (2, 3)


def test_a_process_that_gives_its_lease_back_leaves_none(tmp_path: Path) -> None:
    """The next one would take a missing lease for a sign that etcd has lost its data."""
    stopped = LeaseFile(tmp_path, "api", ["api"])
    stopped.granted(1)
    stopped.ended(1)
    assert not LeaseFile(tmp_path, "api", ["api"]).earlier()
    assert not list(tmp_path.iterdir())


def test_a_lease_that_another_group_has_ended_is_no_earlier_one(tmp_path: Path) -> None:
    """Two groups of a process find the leases of a group that the file does not name any more."""
    LeaseFile(tmp_path, "old", ["old"]).granted(1)
    api, web = (LeaseFile(tmp_path, name, ["api", "web"]) for name in ("api", "web"))
    assert api.earlier() == web.earlier() == (1,)
    api.ended(1)
    assert not web.earlier()
