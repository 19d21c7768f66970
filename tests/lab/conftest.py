"""One lab for all tests that use it. Each test gets it repaired."""

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab


@pytest.fixture(scope="session")
def machines() -> Iterator[Lab]:
    """Three machines, booted once."""
    with Lab() as lab:
        lab.start_daemons()
        yield lab


@pytest.fixture
def lab(machines: Lab) -> Lab:
    """The machines, after every change of an earlier test was undone."""
    machines.make_whole()
    return machines


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this directory boots machines; those with machines of their own come before the shared ones run."""
    items.sort(key=lambda item: "machines" in getattr(item, "fixturenames", ()))
    for item in items:
        if "/lab/" in str(item.path):
            item.add_marker(pytest.mark.lab)
