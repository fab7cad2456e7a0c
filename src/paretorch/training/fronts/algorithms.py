"""Front algorithms by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import paretorch.pareto
from paretorch.pareto import FrontAlgorithm, Scalarization, Transfer
from paretorch.training.names.constructors import Call, check_arguments, find_named, parse, subclasses_in

OPTION_TYPES = {"Scalarization": Scalarization, "Transfer": Transfer}  # that options may have, as constructors

T = TypeVar("T")


def algorithms() -> dict[str, type[FrontAlgorithm]]:
    """The front algorithms by name."""
    return subclasses_in(paretorch.pareto, FrontAlgorithm)


def find_algorithm(text: str) -> FrontAlgorithm:
    """The algorithm whose constructor is written in ``text``, regardless of case and hyphens; the text is not evaluated.

    Raises:
        ValueError: it is no constructor with plain values, or a name or an option is not known.

    Example:
        >>> find_algorithm("mt2o(transfer=Neighbours(rho=0.3), adapt='spacing')").transfer
        Neighbours(rho=0.3, tau=None, nearest=None)
    """
    call = parse(text)
    return _construct(call, _find("algorithm", call.name, algorithms()))


def _find(what: str, name: str, known: Mapping[str, T]) -> T:
    """The value of that name, regardless of case, hyphens and underscores."""
    folded = {key.lower(): key for key in known}
    return find_named(what, folded.get(name.lower().replace("-", "").replace("_", ""), name), known)


def _construct(call: Call, made: type[T]) -> T:
    def value(argument: Any) -> Any:
        if not isinstance(argument, Call):
            return argument
        known: dict[str, type[Any]] = {}
        for base in OPTION_TYPES.values():
            known |= subclasses_in(paretorch.pareto, base)
        return _construct(argument, _find("scalarization or transfer", argument.name, known))

    named = {name: value(given) for name, given in call.named.items()}
    arguments = check_arguments(call.name, made, tuple(map(value, call.positional)), named)
    for field in dataclasses.fields(made):  # type: ignore[arg-type]
        kinds = str(field.type).split(" | ")
        if field.name not in arguments or kinds[0] not in OPTION_TYPES:
            continue
        found = arguments[field.name]
        if not (isinstance(found, OPTION_TYPES[kinds[0]]) or (found is None and "None" in kinds)):
            known = ", ".join(sorted(subclasses_in(paretorch.pareto, OPTION_TYPES[kinds[0]])))
            raise ValueError(f"{call.name}: {field.name} is one of {known}, written as a constructor, got {found!r}")
    return made(**arguments)
