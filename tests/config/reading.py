"""Reads a configuration from a text."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from govipd.config.model import Config
from govipd.config.reader import load
from govipd.errors import ConfigError

VIP = '[[vip]]\nname = "api"\ninterface = "eth0"\naddresses = ["192.0.2.100/32"]\n'
WEB = VIP.replace("api", "web").replace(".100", ".101")


def read(tmp_path: Path, text: str, local: str = "198.51.100.1") -> Config:
    path = tmp_path / "govip.toml"
    path.write_text(text)
    return load(path, hostname="node1", local_addresses=[ip_address(local)])


def refusal(tmp_path: Path, text: str, local: str = "198.51.100.1") -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, local)
    for line in str(caught.value).splitlines():
        assert line.startswith(f"{tmp_path}/govip.toml: "), line
    return str(caught.value)
