"""Imports and classes of a package, read from its source files without executing them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "paretorch"
SOURCE = Path(__file__).parents[1] / "src"


@dataclass(frozen=True)
class Import:
    """One imported module."""

    file: Path  # relative to the source folder
    line: int
    importer: str  # full names
    module: str
    for_types: bool  # within `if TYPE_CHECKING ...`

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


@dataclass(frozen=True)
class Class:
    """One class at the top of a module."""

    name: str
    module: str
    bases: tuple[tuple[str, str], ...]  # module and name of each base that the package defines
    defined: frozenset[str] = field(default_factory=frozenset)  # names that its body or its methods assign
    used: frozenset[str] = field(default_factory=frozenset)  # attributes of `self` that its methods read
    abstract: frozenset[str] = field(default_factory=frozenset)  # methods that only a subclass can provide
    inherits: bool = False  # from a class that the package does not define

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def trees(root: Path) -> dict[str, tuple[Path, ast.Module]]:
    """The file, relative to ``root``, and the syntax tree of each module of the package, by the module's full name."""
    found = {}
    for file in sorted((root / PACKAGE).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = file.relative_to(root), ast.parse(file.read_text(encoding="utf-8"))
    return found


def imports(root: Path = SOURCE) -> Iterator[Import]:
    """Every import of every module: at the top, within a function, and for type checkers only."""
    modules = trees(root)
    for name, (file, tree) in modules.items():
        guarded = {id(node) for test in ast.walk(tree) if _is_for_types(test) for node in ast.walk(test)}
        for node in ast.walk(tree):
            for module in _imported(node, name, modules):
                yield Import(file, node.lineno, name, module, id(node) in guarded)  # type: ignore[attr-defined]


def classes(root: Path = SOURCE) -> dict[tuple[str, str], Class]:
    """The classes at the top of every module, by module and name."""
    modules = trees(root)
    found = {}
    for module, (_, tree) in modules.items():
        names = _names(tree, module, modules)
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                bases = [_dotted(base) for base in node.bases]
                inner = tuple(names[base] for base in bases if base in names)
                defined, used = _members(node)
                outside = any(base not in names and base not in ("Generic", "Protocol") for base in bases)
                found[module, node.name] = Class(node.name, module, inner, defined, used, _abstract(node), outside)
    return found


def circles(links: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Groups of two or more modules that reach one another, from (importer, imported) pairs."""
    targets: dict[str, set[str]] = {}
    for source, target in links:
        targets.setdefault(source, set()).add(target)
        targets.setdefault(target, set())
    reach = {name: _reached(name, targets) for name in targets}
    groups = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in targets}
    return sorted(list(group) for group in groups if group)


def _reached(start: str, targets: Mapping[str, set[str]]) -> set[str]:
    """Modules that ``start`` imports, directly or through others; ``start`` itself where a circle leads back."""
    found: set[str] = set()
    open_names = list(targets[start])
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.add(name)
            open_names += targets[name]
    return found


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _imported(node: ast.AST, importer: str, modules: Iterable[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
        return [str(node.args[0].value)] if isinstance(node.args[0], ast.Constant) else []
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, f"{importer}: relative import in line {node.lineno}: write the module's full name"
    assert node.module is not None
    inner = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name if name in modules else node.module for name in inner]


def _names(tree: ast.Module, module: str, modules: Mapping[str, tuple[Path, ast.Module]]) -> dict[str, tuple[str, str]]:
    """What each name of a module refers to, where that is a class or function of the package: (module, name)."""
    names: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                bound, full = alias.asname or alias.name, f"{node.module}.{alias.name}"
                if full in modules:  # `bound.Class` is a class of that module
                    inner = modules[full][1].body
                    names |= {
                        f"{bound}.{one.name}": _origin(full, one.name, modules)
                        for one in inner
                        if isinstance(one, ast.ClassDef)
                    }
                elif node.module in modules:
                    names[bound] = _origin(node.module, alias.name, modules)
    return names | {node.name: (module, node.name) for node in tree.body if isinstance(node, ast.ClassDef)}


def _origin(module: str, name: str, modules: Mapping[str, tuple[Path, ast.Module]]) -> tuple[str, str]:
    """Where a name that a module exports is defined."""
    for node in modules[module][1].body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module in modules:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _origin(node.module, alias.name, modules)
    return module, name


def _dotted(base: ast.expr) -> str:
    """``Base`` of ``Base`` and ``Base[int]``, ``module.Base`` of ``module.Base``."""
    return ast.unparse(base.value if isinstance(base, ast.Subscript) else base)


def _members(node: ast.ClassDef) -> tuple[frozenset[str], frozenset[str]]:
    """Names that a class defines, and attributes of ``self`` that its methods read."""
    defined: set[str] = set()
    used: set[str] = set()
    for part in node.body:
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(part.name)
        elif isinstance(part, ast.Assign | ast.AnnAssign):
            targets = part.targets if isinstance(part, ast.Assign) else [part.target]
            defined |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id == "self":
            (used if isinstance(inner.ctx, ast.Load) else defined).add(inner.attr)
    return frozenset(defined), frozenset(used)


def _abstract(node: ast.ClassDef) -> frozenset[str]:
    """Methods that are marked as abstract, or that do nothing but raise ``NotImplementedError``."""
    return frozenset(
        part.name
        for part in node.body
        if isinstance(part, ast.FunctionDef)
        and (
            any("abstractmethod" in ast.unparse(decorator) for decorator in part.decorator_list)
            or (isinstance(part.body[-1], ast.Raise) and "NotImplementedError" in ast.unparse(part.body[-1]))
        )
    )
