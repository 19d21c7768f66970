"""Checks the files that the configuration names, and parses the TOML file itself."""

import os
import stat
from pathlib import Path
from typing import Any

import tomli

from govipd.errors import ConfigError


def unfit_program(name: str) -> str:
    """What is wrong with a program that is to run with the daemon's rights, as a text; "" for nothing."""
    try:
        found = Path(name).stat()
    except OSError as e:
        return f"cannot be run: {e.strerror}"
    if not Path(name).is_absolute():
        return "must be an absolute path"
    if not stat.S_ISREG(found.st_mode) or not os.access(name, os.X_OK):
        return "must be a program: a regular file that may be executed; chmod 0755"
    if found.st_mode & 0o022 or found.st_uid not in {0, os.geteuid()}:
        who = f"mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}"
        return f"has {who}: others could change what runs with govipd's rights; chown root, chmod go-w"
    return ""


def unfit_file(name: str, *, secret: bool) -> str:
    """What is wrong with a file that the daemon reads, as a text; "" for nothing. `secret`: others may not read it."""
    try:
        mode = Path(name).stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe could block
            return "must be a regular file"
        with Path(name).open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as e:
        return f"cannot be read: {getattr(e, 'strerror', None) or e}"
    if secret and mode & 0o077:
        shown = name if name.isprintable() else repr(name)
        return f"has mode {stat.S_IMODE(mode):04o}: others could read the secret; chmod 0600 {shown}"
    return ""


def parsed(path: Path) -> dict[str, Any]:
    """Read and parse a TOML file.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    try:
        return tomli.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not UTF-8 at byte {e.start}; TOML files are UTF-8") from e
    except ValueError as e:  # TOMLDecodeError, or int() refuses a number with thousands of digits
        raise ConfigError(f"{path}: not TOML: {e}") from e
    except RecursionError as e:
        raise ConfigError(f"{path}: not TOML that can be read: nested too deeply") from e
