"""Which code a number depends on: the definitions that can be reached, by name, from the function that computed it.

Starting at one definition (a function, class or constant of a module) every name it mentions is followed to where the lab
defines it, through imports, and so on. The hash is taken over the set of these definitions as syntax trees, without what
computes nothing: comments, docstrings, layout, import lines, file names, the words on a knob. So moving a definition to
another file, or renaming the file, changes no hash; editing anything that was reached does.

Followed are plain names and `module.name`. What is reached only by strings and `importlib`, or put into a dictionary by a
decorator, is not seen: the lab's registries are plain dictionaries for this reason.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import symtable
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_LAB = Path(__file__).resolve().parent
# The house around the numbers: it draws, stores, judges and times, but makes none. Pictures and exercises likewise.
_PLUMBING = frozenset(
    f"lab.{name}"
    for name in (
        *("assets", "cache", "catalog", "cli", "code_hash", "engine", "exercise", "experiment", "knobs", "ledger"),
        *("paths", "plot", "provenance", "results", "rooms", "tuning", "views", "widgets"),
    )
)
_PLUMBING_PACKAGES = ("lab.commands",)
_PICTURES = ("figures", "_figures", "exercises")  # ends of modules' names
DECLARATIONS = frozenset({"experiment", "study", "race"})
_STATEMENTS = 16384  # statements of which is remembered what they say: many measurements reach the same ones
_LAYOUT = frozenset({"ctx", "kind", "type_comment", "lineno", "col_offset", "end_lineno", "end_col_offset"})


@dataclass(frozen=True)
class Module:
    """A parsed source file: its definitions by name, what it imports, and statements that run when it is imported."""

    name: str
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)  # local name -> (module, name in it or "")
    effects: list[ast.stmt] = field(default_factory=list)
    scopes: dict[str, frozenset[str]] = field(default_factory=dict)  # definition -> global names its body mentions


def reachable(module: str, name: str, root: Path = _LAB.parent) -> frozenset[str]:
    """The definitions that `name` of `module` depends on, each written out as one string without layout.

    `root` holds the packages. Raises KeyError when the module defines no such name.
    """
    _path.cache_clear()  # files may have moved since the last question
    if name not in _module(module, root).definitions:
        raise KeyError(f"{module} defines no {name!r}")
    package = module.partition(".")[0]
    pending, seen, effects_seen, written = [(module, name)], set(), set(), set()
    while pending:
        place = pending.pop()
        if place in seen or not _counts(place[0], package):
            continue
        seen.add(place)
        source = _module(place[0], root)
        statements = [(place[1], statement) for statement in source.definitions.get(place[1], ())]
        if place[0] not in effects_seen:
            effects_seen.add(place[0])
            statements += [("", statement) for statement in source.effects]
        for owner, statement in statements:
            written.add(_statement(statement))
            pending += _mentioned(source, owner, statement, root)
        if not source.definitions.get(place[1]) and place[1] in source.imports:
            pending += _targets(*source.imports[place[1]], root)
    return frozenset(written)


def code_hash(module: str, name: str, root: Path = _LAB.parent) -> str:
    """Sixteen hex digits that change when, and only when, a definition that `name` depends on changes."""
    text = "\n".join(sorted(reachable(module, name, root)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def declared(folder: Path, package: str, kind: str, key: str) -> tuple[str, str] | None:
    """Module and name of the function below `folder` that is decorated with @kind("key", ...); nothing is imported."""
    for path in sorted(folder.rglob("*.py")):
        if (kind, key) in (found := _declarations(path, path.stat().st_mtime_ns)):
            parts = path.relative_to(folder).with_suffix("").parts
            module = ".".join((package, *(part for part in parts if part != "__init__")))
            return module, found[kind, key]
    return None


@functools.lru_cache(maxsize=4096)
def _declarations(path: Path, changed: int) -> dict[tuple[str, str], str]:
    """(kind, key) -> function of every declaration in a file."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for decorator in getattr(node, "decorator_list", ()):
            if _is_declaration(decorator) and decorator.args and isinstance(decorator.args[0], ast.Constant):
                found[decorator.func.id, str(decorator.args[0].value)] = node.name  # type: ignore[attr-defined]
    return found


def _is_declaration(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in DECLARATIONS


def _counts(module: str, package: str) -> bool:
    if module.partition(".")[0] not in ("lab", package) or module in _PLUMBING:
        return False
    if module.startswith(tuple(f"{name}." for name in _PLUMBING_PACKAGES)) or module in _PLUMBING_PACKAGES:
        return False
    return not module.rpartition(".")[2].endswith(_PICTURES)


@functools.lru_cache(maxsize=4096)
def _path(module: str, root: Path) -> Path | None:
    if module.partition(".")[0] == "lab" and not (root / "lab").is_dir():
        root = _LAB.parent  # another package's paper, which computes with what the lab offers
    stem = root.joinpath(*module.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


def _module(module: str, root: Path) -> Module:
    path = _path(module, root)
    return Module(module) if path is None else _parsed(module, path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _parsed(module: str, path: Path, changed: int) -> Module:
    source = path.read_text(encoding="utf-8")
    found = Module(module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for statement in ast.parse(source).body:
        names = list(_bound(statement))
        for name in names:
            found.definitions.setdefault(name, []).append(statement)
        found.imports.update(_imports(statement, package))
        if not names and not isinstance(statement, ast.Import | ast.ImportFrom) and not _computes_nothing(statement):
            found.effects.append(statement)
    for table in symtable.symtable(source, str(path), "exec").get_children():
        found.scopes[table.get_name()] = found.scopes.get(table.get_name(), frozenset()) | _globals(table)
    return found


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement defines, imports left out."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif not isinstance(statement, ast.Import | ast.ImportFrom) and not _only_for_types(statement):
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name


def _only_for_types(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.If) and isinstance(statement.test, ast.Name) and statement.test.id == "TYPE_CHECKING"
    )


def _computes_nothing(statement: ast.stmt) -> bool:
    """A docstring, imports for types, or what runs only as a script."""
    script = isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'"
    return script or _only_for_types(statement) or _is_text(statement)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


@functools.lru_cache(maxsize=_STATEMENTS)
def _imports(statement: ast.stmt, package: str) -> dict[str, tuple[str, str]]:
    """Local name -> (module, name in it; "" for the module itself) of every import in a statement."""
    found: dict[str, tuple[str, str]] = {}
    if _only_for_types(statement):
        return found
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                found[alias.asname or top] = (alias.name if alias.asname else top, "")
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                found[alias.asname or alias.name] = (module, alias.name)
    return found


def _globals(table: symtable.SymbolTable) -> frozenset[str]:
    """Names that a scope, or one inside it, takes from its module."""
    own = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() and symbol.is_referenced()}
    return frozenset(own).union(*(_globals(child) for child in table.get_children()))


def _mentioned(source: Module, owner: str, statement: ast.stmt, root: Path) -> list[tuple[str, str]]:
    """Where the names of a statement are defined: (module, name) each."""
    path = _path(source.name, root)
    package = source.name if path is not None and path.name == "__init__.py" else ""
    imports = source.imports | _imports(statement, package or source.name.rpartition(".")[0])
    names = _names(statement)
    names |= source.scopes.get(owner, frozenset()) if owner else frozenset()
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        names |= {name for name in _imports(statement, "") if name in imports}
    targets: list[tuple[str, str]] = []
    whole = set(names)
    for first, *attributes in _chains(statement):  # module.name: only that name of the module
        if first in imports:
            target = _through(imports[first], attributes, root)
            if target is not None:
                targets.append(target)
                whole.discard(first)
    for name in names:
        if name in source.definitions:
            targets.append((source.name, name))
        elif name in imports and name in whole:
            targets += _targets(*imports[name], root)
    return targets


@functools.lru_cache(maxsize=_STATEMENTS)
def _names(statement: ast.stmt) -> frozenset[str]:
    """The names that a definition mentions outside of its body."""
    return frozenset(node.id for node in _outside_bodies(statement) if isinstance(node, ast.Name))


@functools.lru_cache(maxsize=_STATEMENTS)
def _chains(statement: ast.stmt) -> tuple[list[str], ...]:
    """All a.b.c in a statement, as ["a", "b", "c"]."""
    return tuple(chain for node in ast.walk(statement) if (chain := _chain(node)))


def _outside_bodies(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes of a definition that are evaluated in its module: decorators, defaults, annotations, bases; else all."""
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield from ast.walk(statement)
        return
    heads: list[ast.AST] = [each for each in statement.decorator_list if not _is_declaration(each)]
    if isinstance(statement, ast.ClassDef):
        heads += [*statement.bases, *statement.keywords]
        for node in ast.walk(statement):  # methods' annotations and defaults, fields' types
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                heads += [node.args, *([node.returns] if node.returns else []), *node.decorator_list]
            elif isinstance(node, ast.AnnAssign):
                heads.append(node.annotation)
    else:
        heads += [statement.args, *([statement.returns] if statement.returns else [])]
    for head in heads:
        yield from ast.walk(head)


def _chain(node: ast.AST) -> list[str]:
    """["a", "b", "c"] for a.b.c; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) and parts else []


def _through(imported: tuple[str, str], attributes: list[str], root: Path) -> tuple[str, str] | None:
    """Where `imported.attributes` is defined if `imported` is a module; None if it is not one of the packages'."""
    module = ".".join(part for part in imported if part)
    if _path(module, root) is None:
        return None
    while attributes and _path(f"{module}.{attributes[0]}", root) is not None:
        module, attributes = f"{module}.{attributes[0]}", attributes[1:]
    return (module, attributes[0]) if attributes else None


def _targets(module: str, name: str, root: Path) -> list[tuple[str, str]]:
    """A name imported from a module, or, where a module itself is handed on, all that it defines."""
    whole = f"{module}.{name}" if name else module
    if _path(whole, root) is not None:
        return [(whole, each) for each in _module(whole, root).definitions]
    return [(module, name)] if _path(module, root) is not None else []


@functools.lru_cache(maxsize=_STATEMENTS)
def _statement(statement: ast.stmt) -> str:
    """A top-level statement, written out."""
    return _written(statement)


def _written(node: ast.AST | object) -> str:
    """A syntax tree as text that is the same under every Python: no positions, docstrings, imports or declarations."""
    if isinstance(node, list):
        return f"[{','.join(text for each in node if (text := _written(each)))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Import | ast.ImportFrom) or (isinstance(node, ast.stmt) and _is_text(node)):
        return ""
    if _is_declaration(node) if isinstance(node, ast.expr) else False:
        return ""  # key, title, seeds, columns: they choose what is measured, and the record holds them
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "knob":
        return f"knob({_written(node.args[:1])})"  # its default; bounds and words make no number
    fields = ((name, value) for name, value in ast.iter_fields(node) if name not in _LAYOUT and value not in (None, []))
    return f"{type(node).__name__}({','.join(f'{name}={_written(value)}' for name, value in fields)})"
