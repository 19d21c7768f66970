"""Edits of govip.toml on one machine. An edit is applied by the next reload or restart."""

from collections.abc import Sequence

from tests.lab.machine import Machine
from tests.lab.network import VIP4, VIP6

TOML = "/etc/govip/govip.toml"
API = (f"{VIP4}/32", f"{VIP6}/128")  # as provisioned


def set_vips(node: Machine, **groups: Sequence[str]) -> None:
    """Give the file these VIP groups, each with its addresses. An address may be followed by "@" and its interface."""
    tables = [table for table in _tables(node) if not table.startswith("[[vip]]")]
    for name, addresses in groups.items():
        listed = ", ".join(map(_listed, addresses))
        tables.append(f'[[vip]]\nname = "{name}"\ninterface = "eth0"\naddresses = [{listed}]\n')
    node.write(TOML, "\n".join(tables))


def _listed(address: str) -> str:
    ip, _, interface = address.partition("@")
    return f'{{address = "{ip}", interface = "{interface}"}}' if interface else f'"{ip}"'


def set_key(node: Machine, table: str, key: str, value: str | None) -> None:
    """Set one text value of a table; None removes the key."""
    header = f"[{table}]\n"
    tables = _tables(node)
    if not any(t.startswith(header) for t in tables):
        tables.insert(1, header)
    edited = []
    for t in tables:
        if t.startswith(header):
            kept = [line for line in t.splitlines(keepends=True) if line.partition(" =")[0] != key]
            t = "".join([*kept, f'{key} = "{value}"\n' if value is not None else ""])  # noqa: PLW2901
        if t != header:
            edited.append(t)
    node.write(TOML, "\n".join(edited))


def _tables(node: Machine) -> list[str]:
    """The file's tables, each with its header; empty lines between them are left out."""
    tables: list[str] = []
    for line in node.read(TOML).splitlines(keepends=True):
        if line.startswith("["):
            tables.append("")
        if line.strip():
            tables[-1] += line
    return tables
