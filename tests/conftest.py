"""Rules for the whole suite."""

import os

import pytest


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test proves nothing: in CI, and where GOVIP_NO_SKIP is set, it fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    strict = os.environ.get("CI") or os.environ.get("GOVIP_NO_SKIP")
    if strict and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
