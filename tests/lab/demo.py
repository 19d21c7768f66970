"""`make demo`: the main scenarios, step by step. The last line and the exit status are for programs."""

import sys
import threading
import time
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.lab.host import LabError
from tests.lab.lab import DAEMON, Lab
from tests.lab.play import Result, play
from tests.lab.scenarios import SCENARIOS

REFRESH_S = 0.7


class Board:
    """The live table: each machine's status, and which machine serves."""

    def __init__(self, lab: Lab, live: Live) -> None:
        self._lab = lab
        self._live = live
        self._doing = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def doing(self, what: str) -> None:
        """Set the title."""
        self._doing = what

    def _refresh(self) -> None:
        while not self._ended.wait(REFRESH_S):
            self._live.update(self._table())

    def _table(self) -> Table:
        table = Table("machine", "govipd says", title=self._doing, title_justify="left", min_width=100)
        serving = self._lab.serving()
        for node in self._lab.nodes:
            says = "switched off"
            if node.running:
                try:
                    show = node.run(f"systemctl show -P StatusText {DAEMON}", check=False, timeout=2)
                    says = show.stdout.strip() or "not running"
                except (LabError, OSError, TimeoutError):
                    says = "does not answer"
            style = "bold green" if node.name == serving else ""
            table.add_row(f"{node.name}{'  serves' * (node.name == serving)}", says, style=style)
        return table


def main() -> int:
    """Play the demo. Returns the exit status."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print("[bold]govipd: three machines, one virtual IP, and what can go wrong[/bold]")
    results: list[Result] = []
    with Lab(say=lambda text: console.print(f"  {text}")) as lab:
        console.print("  three machines with systemd, etcd, haproxy and govipd, and a client that asks every 4 ms")
        lab.start_daemons()
        with Live(console=console, auto_refresh=sys.stdout.isatty(), transient=True) as live, Board(lab, live) as board:
            for number, scenario in enumerate(SCENARIOS, 1):
                board.doing(f"{number}. {scenario.title}")
                result = play(lab, scenario)
                results.append(result)
                console.print(_line(number, result))
            board.doing("everything is repaired")
            lab.make_whole()
            time.sleep(REFRESH_S)
    console.print(_summary(results))
    console.print("Go on by hand with [bold]make demo-shell[/bold].")
    ok = sum(1 for r in results if not r.faults)
    two = max(r.two_answering_ms for r in results)
    print(f"demo: steps={len(results)} ok={ok} two_answering_ms={two:.0f}")
    return 0 if ok == len(results) else 1


def _line(number: int, result: Result) -> str:
    verdict = "[green]ok[/green]" if not result.faults else f"[bold red]{'; '.join(result.faults)}[/bold red]"
    return (
        f"[bold]{number}. {result.scenario.title}[/bold]: {result.before} -> {result.after}, service gap "
        f"{1000 * result.seen.gap:.0f} ms, two machines answered for {result.two_answering_ms:.0f} ms: {verdict}"
    )


def _summary(results: list[Result]) -> Table:
    table = Table("what happened", "expected", "served by", "gap", "two answered", "ok", title="Summary")
    for r in results:
        table.add_row(
            r.scenario.title, r.scenario.outcome.value, f"{r.before} -> {r.after}",
            f"{1000 * r.seen.gap:.0f} ms", f"{r.two_answering_ms:.0f} ms", "no" if r.faults else "yes",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    sys.exit(main())
