"""govipd and haproxy accept the commands and files that the documents show."""

import argparse
import contextlib
import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from govipd import cli
from govipd.ctl import main as ctl

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md")))
PARSERS = {"govipd": cli._arguments, "govipctl": ctl._arguments}


def typed(page: Path) -> Iterator[str]:
    """Each command of ours, in an indented block or between backticks; a manual's synopsis is none."""
    text = re.sub(r"## SYNOPSIS\n.*?\n## ", "", page.read_text(), flags=re.DOTALL)
    blocks = re.findall(r"^(?: {4}|\t)\s*(.+)$", text, flags=re.MULTILINE)
    for candidate in (*blocks, *re.findall(r"`([^`\n]+)`", text)):
        for part in re.split(r"\s*(?:;|&&|\|\||\||#)\s*", candidate):
            command = part.removeprefix("sudo ")
            if command.split(" ")[0] in PARSERS and " " in command:
                yield command


COMMANDS = sorted({(page.name, command) for page in PAGES for command in typed(page)})


def accepted(parser: argparse.ArgumentParser, words: list[str]) -> str:
    """Empty where the command line is complete and every option exists; else the complaint."""
    complaint = io.StringIO()
    with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(io.StringIO()):
        try:
            parser.parse_args(words)
        except SystemExit as end:
            return complaint.getvalue() if end.code else ""
    return ""


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_of_the_documents_parses(page: str, command: str) -> None:
    """By the parsers of the programs themselves."""
    program, *words = shlex.split(command)
    if program == "govipd" and "--interface" not in words:
        words += ["--interface", "eth0"]  # a sentence may be about another option
    assert accepted(PARSERS[program](), words) == ""


def test_commands_are_found() -> None:
    """In each page that has some."""
    pages = {page for page, _ in COMMANDS}
    assert {"README.md", "operations.md", "migration.md", "kubernetes.md", "govipctl.8.md"} <= pages


def test_a_command_that_does_not_exist_is_not_accepted() -> None:
    """The test above can fail."""
    assert "--forever" in accepted(ctl._arguments(), ["drain", "--forever"])
    assert "invalid choice" in accepted(ctl._arguments(), ["cure"])


@pytest.mark.parametrize("module", sorted((CHECKOUT / "govipd/ctl/doctor").glob("check_*.py")), ids=lambda p: p.stem)
def test_a_command_in_a_remedy_parses(module: Path) -> None:
    """`govipctl NAME` in a message is a command that exists."""
    for command in re.findall(r"govipctl ([a-z][a-z-]*)", module.read_text()):
        assert accepted(ctl._arguments(), [command]) == "", command


def test_haproxys_configuration_for_api_servers(tmp_path: Path) -> None:
    """docs/kubernetes.md: haproxy itself finds no fault with it, and the page beside it."""
    page = (CHECKOUT / "docs/kubernetes.md").read_text()
    section = page.split("\n## haproxy\n")[1].split("\nand the page")[0]
    authority = tmp_path / "ca.crt"
    new = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=ca")
    command = ["openssl", "req", *new, "-keyout", str(tmp_path / "ca.key"), "-out", str(authority)]
    subprocess.run(command, check=True, capture_output=True)
    text = re.sub(r"^ {4}", "", section, flags=re.MULTILINE).replace("/etc/kubernetes/pki/ca.crt", str(authority))
    written = tmp_path / "haproxy.cfg"
    written.write_text(text + "\n" + (CHECKOUT / "conf/haproxy-govip.cfg").read_text())
    done = subprocess.run(["haproxy", "-c", "-f", written], check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
