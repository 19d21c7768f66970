"""Mutants of the source, by function and syntax tree: comments, layout and the place of a module do not matter.

A mutant is made when its module is imported, so nothing of govipd may have been imported before apply().
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

_ROOT = Path(__file__).resolve().parents[2]
_Scope = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace a piece of code that occurs once in a function.

    Attributes:
        where: the function (or class, or module) by the end of its dotted path: "Session.renew".
        before: an expression, or one or more statements.
        after: what takes its place; "" takes statements away.
    """

    where: str
    before: str
    after: str


class EditError(ValueError):
    """An edit does not fit the source: a rule that was rewritten needs its mutation rewritten."""


def mutants(edits: Sequence[Edit]) -> Mapping[str, ast.Module]:
    """The changed modules' syntax trees, by the modules' names.

    Raises:
        EditError: a function or a piece of code is not there, or not once.
    """
    names = {edit: _module_of(edit.where) for edit in edits}
    trees = {name: ast.parse(_sources()[name]) for name in names.values()}
    for edit, name in names.items():
        scope = next(scope for path, scope in _scopes(trees[name], name) if _ends(path, edit.where))
        _replace(scope, edit)
    return trees


def apply(edits: Sequence[Edit]) -> None:
    """From now on, importing a module that an edit changes imports the mutant.

    Raises:
        EditError: see mutants().
    """
    trees = mutants(edits)
    assert not trees.keys() & sys.modules.keys(), "imported before it was changed"
    sys.meta_path.insert(0, _Finder(trees))


class _Finder(MetaPathFinder):
    def __init__(self, trees: Mapping[str, ast.Module]) -> None:
        self._trees = trees

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        tree = self._trees.get(fullname)
        if tree is None:
            return None
        file = str(_file(fullname))
        return importlib.util.spec_from_file_location(fullname, file, loader=_Loader(fullname, file, tree))


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, tree: ast.Module) -> None:
        super().__init__(fullname, path)
        self._tree = tree

    def get_code(self, fullname: str) -> CodeType:
        """See importlib.abc.InspectLoader."""
        return compile(self._tree, f"<mutant of {fullname}>", "exec", dont_inherit=True)


@cache
def _sources() -> Mapping[str, str]:
    """Every module's source."""
    files = (_ROOT / "govipd").rglob("*.py")
    return {
        ".".join(file.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__"): file.read_text("utf-8")
        for file in sorted(files)
    }


def _file(module: str) -> Path:
    path = _ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _paths() -> Mapping[str, str]:
    """Each function's, class's and module's dotted path, and the module."""
    return {path: name for name, source in _sources().items() for path, _ in _scopes(ast.parse(source), name)}


def _module_of(where: str) -> str:
    found = [path for path in _paths() if _ends(path, where)]
    if len(found) != 1:
        raise EditError(f"{where}: {', '.join(found) or 'there is none of this name'}")
    return _paths()[found[0]]


def _ends(path: str, where: str) -> bool:
    return path == where or path.endswith(f".{where}")


def _scopes(scope: _Scope, path: str) -> Iterator[tuple[str, _Scope]]:
    yield path, scope
    for child in scope.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _scopes(child, f"{path}.{child.name}")


def _replace(scope: _Scope, edit: Edit) -> None:
    before, after = ast.parse(edit.before).body, ast.parse(edit.after).body
    match before, after:
        case [ast.Expr(value=old)], [ast.Expr(value=new)]:
            _replace_expression(scope, edit, old, new)
        case _:
            _replace_statements(scope, edit, before, after)
    ast.fix_missing_locations(scope)


def _replace_expression(scope: _Scope, edit: Edit, old: ast.expr, new: ast.expr) -> None:
    wanted = ast.dump(old)
    places = [
        (node, field, index)
        for node, field, value in _fields(scope)
        for index, child in enumerate(value if isinstance(value, list) else [value])
        if isinstance(child, ast.expr) and ast.dump(child) == wanted
    ]
    node, field, index = _only(places, edit)
    if isinstance(children := getattr(node, field), list):
        children[index] = new
    else:
        setattr(node, field, new)


def _replace_statements(scope: _Scope, edit: Edit, old: list[ast.stmt], new: list[ast.stmt]) -> None:
    wanted, size = [ast.dump(statement) for statement in old], len(old)
    places = [
        (node, field, index)
        for node, field, value in _fields(scope)
        if isinstance(value, list) and value and isinstance(value[0], ast.stmt)
        for index in range(len(value) - size + 1)
        if [ast.dump(statement) for statement in value[index : index + size]] == wanted
    ]
    node, field, index = _only(places, edit)
    body = getattr(node, field)
    body[index : index + size] = new if new or len(body) > size else [ast.Pass()]


def _fields(scope: _Scope) -> Iterator[tuple[ast.AST, str, object]]:
    return ((node, field, value) for node in ast.walk(scope) for field, value in ast.iter_fields(node))


def _only(places: Sequence[tuple[ast.AST, str, int]], edit: Edit) -> tuple[ast.AST, str, int]:
    if len(places) != 1:
        raise EditError(f"{edit.where}: found {len(places)} times: {edit.before}")
    return places[0]
