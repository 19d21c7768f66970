"""`make release` prints a plan, or what prevents the release, and changes nothing."""

import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose commit may be released as 0.2.0."""
    (tmp_path / "pyproject.toml").write_text('version = "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n\n### Added\n\n- A thing.\n\n## [0.1.0]\n\n- Another.\n")
    shutil.copy(CHECKOUT / "packaging/release", tmp_path)
    for command in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-q", "-m", "x")):
        subprocess.run([*GIT, *command], cwd=tmp_path, check=True)
    return tmp_path


def release(repository: Path, version: str = "0.2.0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["./release", version], cwd=repository, capture_output=True, text=True, check=False)


def test_the_plan_is_printed_and_nothing_is_changed(repository: Path) -> None:
    done = release(repository)
    assert done.returncode == 0
    assert "1 entries of the CHANGELOG" in done.stdout
    assert "git tag --sign v0.2.0" in done.stdout
    assert not subprocess.run([*GIT, "status", "--porcelain"], cwd=repository, capture_output=True, check=True).stdout
    assert not subprocess.run([*GIT, "tag"], cwd=repository, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("change", "version", "complaint"),
    [
        ("true", "0.2", "write MAJOR.MINOR.PATCH"),
        ("true", "0.3.0", 'set version = "0.3.0"'),
        ("touch new", "0.2.0", "commit or remove them"),
        ("git switch -q -c other", "0.2.0", "git switch main"),
        ("git tag v0.2.0", "0.2.0", "choose the next version"),
        ("sed -i '/A thing/d' CHANGELOG.md", "0.2.0", "say what changes for users"),
    ],
)
def test_what_stands_against_it_is_named(repository: Path, change: str, version: str, complaint: str) -> None:
    subprocess.run(["bash", "-c", change], cwd=repository, check=True)
    done = release(repository, version)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert not done.stdout
