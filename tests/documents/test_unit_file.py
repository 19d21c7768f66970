"""units/govipd@.service, as `systemd-analyze security` sees it."""

import json
import re
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "units/govipd@.service"
EXPOSURE_AT_MOST = 2.2


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """systemd-analyze wants an instance."""
    path = tmp_path / "govipd@eth0.service"
    path.write_text(UNIT.read_text())
    return path


def analyze(instance: Path, *options: str) -> str:
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", *options, str(instance)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_exposure(instance: Path) -> None:
    """The figure."""
    level = re.search(r"exposure level for \S+: ([0-9.]+)", analyze(instance))
    assert level
    assert float(level[1]) <= EXPOSURE_AT_MOST


def test_each_directive_that_is_missing_has_its_reason(instance: Path) -> None:
    """A comment of the unit names whatever is found open."""
    comments = "\n".join(line for line in UNIT.read_text().splitlines() if line.startswith("#"))
    for entry in json.loads(analyze(instance, "--json=short")):
        if entry["set"] is not True:
            for directive in re.findall(r"(\w+=)", entry["name"]):
                assert directive in comments, entry
            for value in re.findall(r"AF_\w+|CAP_NET_ADMIN", entry["name"]):
                assert value.rstrip("_") in comments, entry
