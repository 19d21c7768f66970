"""One line for all VIP groups that have the same trouble."""

from govipd.runtime.shared_troubles import SharedTroubles
from tests.fakes import FakeJournal


def test_the_first_group_tells_and_the_last_one_ends_it() -> None:
    """Tries are counted once; a later line names the groups."""
    journal = FakeJournal()
    shared = SharedTroubles(journal)
    for now in range(12):
        for vip in ("api", "web", "db", "dns", "ntp"):
            shared.report(vip, "etcd is silent", now, next_step="wait")
    assert journal.lines == [
        "api: etcd is silent; next: wait",
        "api, web, db and 2 more: still: etcd is silent, 10 s, 11 tries",
    ]
    for vip in ("api", "web", "db", "dns"):
        shared.resolve(vip, "etcd answers", 12)
    shared.report("ntp", "etcd is silent", 13, next_step="wait")
    shared.resolve("ntp", "etcd answers", 14)
    shared.resolve("ntp", "etcd answers", 15)
    assert journal.lines[2:] == ["api, web, db and 2 more: etcd answers, after 14 s, 13 tries"]


def test_a_group_that_ends_does_not_keep_the_trouble() -> None:
    """Otherwise no other group would tell of it."""
    journal = FakeJournal()
    shared = SharedTroubles(journal)
    shared.report("api", "etcd is silent", 0, next_step="wait")
    shared.report("web", "etcd is silent", 0, next_step="wait")
    shared.forget("api")
    shared.report("web", "etcd is silent", 11, next_step="wait")
    shared.resolve("web", "etcd answers", 12)
    assert len(journal.lines) == 3
    assert "etcd answers, after 12 s" in journal.lines[-1]


def test_a_new_trouble_names_its_own_groups() -> None:
    """Not those of the one before."""
    journal = FakeJournal()
    shared = SharedTroubles(journal)
    shared.report("api", "etcd is silent", 0, next_step="wait")
    shared.resolve("api", "etcd answers", 1)
    shared.report("web", "etcd is silent", 2, next_step="wait")
    assert journal.lines[-1] == "web: etcd is silent; next: wait"
