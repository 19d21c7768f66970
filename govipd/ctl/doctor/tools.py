"""Runs other programs, with a deadline."""

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE

_DEADLINE_S = 5.0


class ToolError(Exception):
    """The program is not installed, failed, or did not end in time; the text says which."""


async def ask(*command: str) -> str:
    """Run a program. Returns its standard output.

    Raises:
        ToolError: the program is not installed, exits with another status than 0, or takes longer than 5 s.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environment
        )
    except OSError as error:
        raise ToolError(f"{command[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(_DEADLINE_S):
            output, complaint = await process.communicate()
    except TimeoutError as error:
        raise ToolError(f"{command[0]}: no answer within {_DEADLINE_S:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        words = complaint.decode(errors="replace").strip().splitlines() or [f"exit status {process.returncode}"]
        raise ToolError(f"{command[0]}: {words[0]}")
    return output.decode(errors="replace")
