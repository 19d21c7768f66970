"""Configurations for the tests of `govipctl doctor`."""

from collections.abc import Iterable
from pathlib import Path

from govipd.config.model import Config
from govipd.config.reader import load
from govipd.ctl.doctor.finding import Finding, Severity


def configured(directory: Path, etcd: str = "", rest: str = "") -> Config:
    """A VIP of both families on eth0, and what the test adds to it."""
    path = directory / "govip.toml"
    path.write_text(
        f"[etcd]\n{etcd}\n{rest}\n"
        '[[vip]]\nname = "api"\ninterface = "eth0"\naddresses = ["192.0.2.100/32", "2001:db8::100/128"]\n'
    )
    return load(path, hostname="node1")


def bad(findings: Iterable[Finding]) -> list[Finding]:
    """Those that are not all right."""
    return [finding for finding in findings if finding.verdict is not Severity.OK]
