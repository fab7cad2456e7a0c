"""Classes by name, parsing of constructors, and errors for unknown names and options."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar

from paretorch.core.checks import did_you_mean

LARGEST = 1 << 63  # of a whole number, as torch has them
MAX_LENGTH = 10_000  # characters of a constructor: fewer cannot nest a literal too deeply for Python's parser

T = TypeVar("T")


def subclasses_in(module: ModuleType, base: type[T]) -> dict[str, type[T]]:
    """The subclasses of ``base`` that a module exports, by name, without ``base`` itself."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base
    }


def unknown(what: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for an unknown name, with the nearest known name and a list of all.

    Example:
        >>> print(unknown("method", "MDGA", ["MGDA", "FAMO"]))
        unknown method 'MDGA': did you mean 'MGDA'? Known: FAMO, MGDA
    """
    known = sorted(known)
    question = did_you_mean(name, known, cutoff=0.5)
    return ValueError(
        f"unknown {what} {name!r}:{f' {question}' if question else ''} Known: {', '.join(known) or 'none'}"
    )


def find_named(what: str, name: str, known: Mapping[str, T]) -> T:
    """The value called ``name``.

    Raises:
        ValueError: there is none; the message suggests the nearest.
    """
    if name not in known:
        raise unknown(what, name, known)
    return known[name]


@dataclass(frozen=True)
class Call:
    """A constructor as written: ``Name(1, key="value")``.

    Args:
        name: of the class or function.
        positional: arguments by position, plain values or :class:`Call`.
        named: arguments by name.
    """

    name: str
    positional: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)


def parse(text: str) -> Call:
    """Parses a constructor whose arguments are literals or constructors. Nothing is evaluated.

    The text before the first parenthesis is the name, of any characters: a class, a module, a path.

    Raises:
        ValueError: the text is not of that form.

    Example:
        >>> parse("CAGrad(c=0.4)")
        Call(name='CAGrad', positional=(), named={'c': 0.4})
        >>> parse("folder/my_workload.py")
        Call(name='folder/my_workload.py', positional=(), named={})
    """
    name, parenthesis, rest = text.strip().partition("(")
    if not name or len(text) > MAX_LENGTH:
        raise _unreadable(text, "no name" if not name else f"more than {MAX_LENGTH} characters")
    if not parenthesis:
        return Call(name.strip())
    try:
        tree = ast.parse(f"call({rest}", mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise _unreadable(text, str(error) or type(error).__name__) from None
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise _unreadable(text, "more than one constructor")
    call = _read(tree, text)
    return Call(name.strip(), call.positional, call.named)


def written(call: Call) -> str:
    """The inverse of :func:`parse`: the constructor as text.

    Example:
        >>> written(Call("CAGrad", (), {"c": 0.4}))
        'CAGrad(c=0.4)'
    """
    positional = [written(value) if isinstance(value, Call) else repr(value) for value in call.positional]
    named = [f"{key}={written(value) if isinstance(value, Call) else repr(value)}" for key, value in call.named.items()]
    return f"{call.name}({', '.join([*positional, *named])})"


def split_at_commas(text: str) -> tuple[str, ...]:
    """Names or constructors separated by commas outside of brackets.

    Raises:
        ValueError: there is none in a text that is not empty.

    Example:
        >>> split_at_commas("adam, SGD(lr=0.1, momentum=0.9)")
        ('adam', 'SGD(lr=0.1, momentum=0.9)')
        >>> split_at_commas("")
        ()
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    found = tuple(part.strip() for part in parts if part.strip())
    if text and not found:
        raise ValueError(f"expected names with commas between, got {text!r}")
    return found


def _read(tree: ast.Call, text: str) -> Call:
    if not isinstance(tree.func, ast.Name):
        raise _unreadable(text, f"{ast.unparse(tree.func)!r} is not a name")
    named = {}
    for keyword in tree.keywords:
        if keyword.arg is None:
            raise _unreadable(text, "'**' is not supported")
        if keyword.arg in named:
            raise _unreadable(text, f"{keyword.arg!r} is given twice")
        named[keyword.arg] = _value(keyword.value, text)
    return Call(tree.func.id, tuple(_value(value, text) for value in tree.args), named)


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call):
        return _read(node, text)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise _unreadable(text, f"{ast.unparse(node)!r} is not a literal") from None


def _unreadable(text: str, reason: str) -> ValueError:
    shown = text if len(text) <= 100 else text[:100] + "..."
    return ValueError(
        f"cannot read {shown!r}: {reason}. Expected a name, or a constructor with plain values: 'CAGrad(c=0.4)'"
    )


def check_arguments(
    what: str, constructor: Callable[..., Any], positional: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, Any]:
    """All arguments by name, after checking their names, their number and the types of plain values.

    Raises:
        ValueError: a name is not known (the nearest is suggested), a required argument is missing, or a value has the wrong
            type.
    """
    parameters = inspect.signature(constructor).parameters
    options = list(parameters)[len(positional) :]
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in named:
        if name not in parameters and not open_ended:
            raise unknown(f"option of {what}", name, options)
    try:
        bound = inspect.signature(constructor).bind(*positional, **named)
    except TypeError as error:
        raise ValueError(f"{what}: {error}. Its options: {', '.join(options) or 'none'}") from None
    for name, value in bound.arguments.items():
        _check_type(f"{what}: option {name!r}", parameters[name].annotation, value)
    return dict(bound.arguments)


def _check_type(what: str, annotation: Any, value: Any) -> None:
    types = {"float": (float, int), "int": (int,), "bool": (bool,), "str": (str,)}
    kind = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    if kind not in types:
        return
    if not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError(f"{what} is of type {kind}, got {value!r}")
    if type(value) is int and not -LARGEST <= value < LARGEST:
        raise ValueError(f"{what} is a whole number of at most 64 bits, got {value!r}")
