"""A Prometheus of Debian's package that runs in the client's network and scrapes the machines, faster than usual."""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.lab.host import until

RULES = Path(__file__).resolve().parents[2] / "conf/prometheus-rules.yml"
PORT = 9177
_LISTEN = "127.0.0.1:9090"
CONFIG = """\
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: govipd
    static_configs: [{{targets: [{targets}]}}]
"""


class Prometheus:
    """Asked over its HTTP API."""

    def __init__(self, enter: Sequence[str]) -> None:
        self._enter = enter

    def _get(self, path: str) -> dict[str, Any]:
        curl = ("curl", "-fsS", "-m", "5", f"http://{_LISTEN}/api/v1/{path}")
        done = subprocess.run([*self._enter, *curl], capture_output=True, timeout=10, check=False)
        return dict(json.loads(done.stdout)["data"]) if done.returncode == 0 else {}

    def value(self, query: str) -> float | None:
        """The sum of a query's samples; None without any."""
        result = self._get(f"query?query={quote(query)}").get("result", [])
        return sum(float(sample["value"][1]) for sample in result) if result else None

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts = self._get("alerts").get("alerts", [])
        return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}


@contextmanager
def prometheus(enter: Sequence[str], targets: Sequence[object]) -> Iterator[Prometheus]:
    """Run one with the shipped rules, each of which fires a second after it became true."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        listed = ", ".join(f'"{target}:{PORT}"' for target in targets)
        (directory / "prometheus.yml").write_text(CONFIG.format(targets=listed))
        (directory / "rules.yml").write_text(re.sub(r"\bfor: \w+", "for: 1s", RULES.read_text()))
        with (directory / "log").open("w") as log:
            process = subprocess.Popen(
                [*enter, "prometheus", f"--config.file={directory}/prometheus.yml",
                 f"--storage.tsdb.path={directory}/data", f"--web.listen-address={_LISTEN}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            asked = Prometheus(enter)
            until(lambda: asked.value("count(up)"), 30, "Prometheus answers")
            yield asked
        finally:
            process.terminate()
            process.wait(timeout=30)
