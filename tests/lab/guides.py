"""The commands of docs/operations.md, typed exactly as printed there."""

from pathlib import Path

from tests.lab.machine import Machine

GUIDES = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()


def typed(node: Machine, command: str, **placeholders: str) -> str:
    """Run a command of the guides, with the reader's own values filled in. Returns its output."""
    assert f"    {command}\n" in GUIDES, command
    for name, value in placeholders.items():
        command = command.replace(name, value)
    return node.run(command, timeout=60).stdout
