"""Which leases are this machine's own, on a real file system."""

from pathlib import Path

from govipd.adapters.election.lease_file import LeaseFile


def test_a_lease_is_an_earlier_process_s_until_it_is_given_back_or_gone_on_with(tmp_path: Path) -> None:
    """Three leases of a process that died: one is adopted, one is given back."""
    dead = LeaseFile(tmp_path)
    for lease in (1, 2, 3):
        dead.granted(lease)
    assert not dead.earlier(), "they are its own"
    alive = LeaseFile(tmp_path)
    assert alive.earlier() == (1, 2, 3)
    alive.granted(2)
    alive.ended(1)
    assert alive.earlier() == (3,)
    assert LeaseFile(tmp_path).earlier() == (2, 3)


def test_a_process_that_gives_its_lease_back_leaves_none(tmp_path: Path) -> None:
    """The next one would take a missing lease for a sign that etcd has lost its data."""
    stopped = LeaseFile(tmp_path)
    stopped.granted(1)
    stopped.ended(1)
    assert not LeaseFile(tmp_path).earlier()
    assert not list(tmp_path.iterdir())


def test_without_a_runtime_directory_no_lease_is_kept() -> None:
    file = LeaseFile(None)
    file.granted(1)
    file.ended(1)
    assert not file.earlier()
