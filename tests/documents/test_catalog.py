"""`journalctl -x`: every kind of entry is explained, in a catalog that journald's own tool takes."""

import re
import subprocess
from pathlib import Path

import pytest

from govipd.core.journal_kinds import JournalKind
from govipd.core.state import Trigger

CATALOG = Path(__file__).resolve().parents[2] / "units/govipd.catalog"


@pytest.fixture
def catalog(tmp_path: Path) -> dict[str, str]:
    """By MESSAGE_ID, as journalctl prints it after an installation."""
    for directory in ("usr/local/lib/systemd/catalog", "var/lib/systemd/catalog"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "usr/local/lib/systemd/catalog/govipd.catalog").write_text(CATALOG.read_text())
    journalctl = ("journalctl", f"--root={tmp_path}")
    done = subprocess.run([*journalctl, "--update-catalog"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    dump = subprocess.run([*journalctl, "--dump-catalog"], capture_output=True, text=True, check=True).stdout
    return dict(entry.split("\n", 1) for entry in re.split(r"^-- ", dump, flags=re.MULTILINE)[1:])


def test_every_kind_is_explained_and_nothing_else(catalog: dict[str, str]) -> None:
    """Each with a subject, and with what to do."""
    assert sorted(catalog) == sorted(message.id for message in JournalKind)
    for message in JournalKind:
        entry = catalog[message.id]
        assert entry.startswith("Subject: "), message
        assert "Remedy" in entry or "Nothing is to be done" in entry, message


def test_ids_are_random_and_used_once() -> None:
    """128 bits, version 4, as systemd-id128(1) makes them."""
    ids = [message.id for message in JournalKind]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", id128) for id128 in ids)


def test_every_transition_has_a_kind() -> None:
    """One for each trigger."""
    assert {JournalKind.of(trigger).name for trigger in Trigger} == {trigger.name for trigger in Trigger}


def test_fields_that_are_filled_in_exist() -> None:
    """Only fields that the daemon writes may stand between two @."""
    fields = set(re.findall(r"@(\w+)@", CATALOG.read_text()))
    assert fields <= {"GOVIP_VIP", "GOVIP_HOOK", "GOVIP_GATE", "GOVIP_DETAIL", "GOVIP_SECONDS"}
