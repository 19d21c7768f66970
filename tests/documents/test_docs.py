"""The documents say what the code says."""

import argparse
import json
import re
from operator import attrgetter
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import fields

from docs.diagram import diagram
from govipd import cli
from govipd.config.model import (
    NO_KEYS,
    ElectionConfig,
    EtcdConfig,
    HealthConfig,
    HooksConfig,
    MetricsConfig,
    PactConfig,
    VipConfig,
)
from govipd.config.profiles import PROFILES
from govipd.config.reader import load
from govipd.core import texts
from govipd.core.state import State, Trigger
from govipd.ctl import main as ctl

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = (CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md"))


def read(name: str) -> str:
    return (CHECKOUT / name).read_text()


def test_the_state_diagram_is_the_table() -> None:
    """docs/design.md shows the transitions that exist."""
    assert diagram() in read("docs/design.md")


@pytest.mark.parametrize("state", State)
def test_an_operator_finds_every_state(state: State) -> None:
    """docs/operations.md explains the words of `systemctl status`."""
    assert f"\n| {texts._WHAT[state]}" in read("docs/operations.md")


@pytest.mark.parametrize(
    ("title", "table"),
    [
        ("[etcd]", EtcdConfig),
        ("[election]", ElectionConfig),
        ("[health]", HealthConfig),
        ("[pact]", PactConfig),
        ("[metrics]", MetricsConfig),
        ("[hooks]", HooksConfig),
        ("[[vip]]", VipConfig),
    ],
)
def test_the_manual_has_every_key_with_its_default(title: str, table: type[Struct]) -> None:
    """docs/man/govip.toml.5.md: in the order of the code, and none that does not exist."""
    section = read("docs/man/govip.toml.5.md").split(f"## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `?(.+?)`? \|", section, flags=re.MULTILINE)
    assert rows == [
        (f.name, "required" if f.required else _toml(f.default)) for f in fields(table) if f.name not in NO_KEYS
    ]


def test_the_manual_has_every_number_of_every_profile(tmp_path: Path) -> None:
    """As the reader of the configuration takes it."""
    section = read("docs/man/govip.toml.5.md").split("## PROFILE\n")[1].split("\n## ")[0]
    head, *rows = re.findall(r"^\| (.+) \|$", section, flags=re.MULTILINE)
    names = re.findall(r'"(\w+)"', head)
    assert names == list(PROFILES)
    table = {key.strip("`"): numbers for key, *numbers in (row.split(" | ") for row in rows)}
    assert set(table) == {f"{where}.{key}" for p in PROFILES.values() for where, keys in p.items() for key in keys}
    for i, name in enumerate(names):
        file = tmp_path / "govip.toml"
        file.write_text(f'profile = "{name}"\n[[vip]]\nname = "a"\ninterface = "eth0"\naddresses = ["192.0.2.100"]\n')
        config = load(file, hostname="node1")
        for key, numbers in table.items():
            assert numbers[i] == f"`{_toml(attrgetter(key)(config))}`", (name, key)


def _toml(value: object) -> str:
    """Strings, numbers and lists look alike in TOML and JSON."""
    return "none" if value is None else json.dumps(value)


def usage(parser: argparse.ArgumentParser) -> str:
    """The help of a command, and of its commands."""
    below = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return parser.format_help() + "".join(usage(p) for choices in below for p in choices.values())


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("govipd.8.md", usage(cli._arguments())),
        ("govipctl.8.md", usage(ctl._arguments())),
    ],
)
def test_the_manual_has_every_option(page: str, text: str) -> None:
    """Each `--option` of the command's help, and of its commands'."""
    assert set(re.findall(r"--[a-z-]+", text)) <= set(re.findall(r"--[a-z-]+", read(f"docs/man/{page}")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Files exist, and have the heading that is named."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        text = (page.parent / path if path else page).read_text()
        titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
        anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not heading or heading in anchors, target


def test_the_manual_has_every_state_and_reason() -> None:
    """Programs select by them."""
    section = read("docs/man/govipctl.8.md").split("## STATES AND REASONS")[1].split("\n## ")[0]
    assert [word for word in (*State, *Trigger) if f"`{word.value}`" not in section] == []
