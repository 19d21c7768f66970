"""Tests that prove nothing: none of them may."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import running

TESTS = Path(__file__).resolve().parents[1]
# What raises where the behaviour is not there: each waits within a time-out, or checks.
CHECKING = frozenset({
    "until", "eventually", "sees", "first", "raises", "fail", "wait_serving", "wait_for", "timeout", "finish", "fuzz",
    "check", "expect", "example", "given", "play", "edge", "assert_never_raised",
})  # fmt: skip


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every test function, by file and name."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield f"{path.relative_to(TESTS)}::{node.name}", node


def checks(function: ast.AST) -> bool:
    """Whether a function can fail by what it looks at: an assertion, or a call of something that checks."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in CHECKING:
                return True
    return False


def test_every_test_can_fail() -> None:
    """By an assertion of its own, of a helper in its file, or of one of the helpers above."""
    helpers: dict[Path, frozenset[str]] = {}
    empty = []
    for name, function in functions():
        path = TESTS / name.partition("::")[0]
        if path not in helpers:
            module = ast.parse(path.read_text())
            helpers[path] = frozenset(
                f.name for f in ast.walk(module) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) and checks(f)
            )
        calls = {
            getattr(c.func, "id", getattr(c.func, "attr", "")) for c in ast.walk(function) if isinstance(c, ast.Call)
        }
        decorated = any("given" in ast.unparse(d) or "fuzz" in ast.unparse(d) for d in function.decorator_list)
        if not checks(function) and not calls & helpers[path] and not decorated:
            empty.append(name)
    assert empty == []


async def test_a_wait_for_what_holds_already_is_refused() -> None:
    """A test that waited until nobody was connected passed before anything had connected."""
    async with running() as w:
        await w.until(w.leads)
        with pytest.raises(AssertionError, match="holds already"):
            await w.until(w.leads)
