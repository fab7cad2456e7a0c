"""Algorithms for fronts by name: constructors as one would write them, read and never evaluated."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import paretorch.pareto
from paretorch.pareto import FrontAlgorithm, Scalarization, Transfer
from paretorch.training.names.constructors import Call, check_arguments, parse, pick

PARTS = {"Scalarization": Scalarization, "Transfer": Transfer}  # what an algorithm's options may be made of

T = TypeVar("T")


def algorithms() -> dict[str, type[FrontAlgorithm]]:
    """The algorithms for fronts by name."""
    return _classes(FrontAlgorithm)


def find_algorithm(text: str) -> FrontAlgorithm:
    """The algorithm that ``text`` writes as a constructor; case and hyphens do not matter, nothing is evaluated.

    Raises:
        ValueError: it is not a constructor with plain values, or a name or an option is not known.

    Example:
        >>> find_algorithm("mt2o(transfer=Neighbours(rho=0.3), adapt='spacing')").transfer
        Neighbours(rho=0.3, tau=None, nearest=None)
    """
    call = parse(text)
    return _built(call, _named("algorithm", call.name, algorithms()))


def _classes(base: type[T]) -> dict[str, type[T]]:
    return {
        name: value
        for name, value in vars(paretorch.pareto).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base
    }


def _named(what: str, name: str, known: Mapping[str, T]) -> T:
    """The value of that name, however it is capitalised and hyphenated."""
    folded = {key.lower(): key for key in known}
    return pick(what, folded.get(name.lower().replace("-", "").replace("_", ""), name), known)


def _built(call: Call, made: type[T]) -> T:
    def value(given: Any) -> Any:
        if not isinstance(given, Call):
            return given
        known: dict[str, type[Any]] = {**_classes(Scalarization), **_classes(Transfer)}
        return _built(given, _named("scalarization or transfer", given.name, known))

    named = {name: value(given) for name, given in call.named.items()}
    arguments = check_arguments(call.name, made, tuple(map(value, call.positional)), named)
    for field in dataclasses.fields(made):  # type: ignore[arg-type]
        kinds = str(field.type).split(" | ")
        if field.name not in arguments or kinds[0] not in PARTS:
            continue
        found = arguments[field.name]
        if not (isinstance(found, PARTS[kinds[0]]) or (found is None and "None" in kinds)):
            known = ", ".join(sorted(_classes(PARTS[kinds[0]])))
            raise ValueError(f"{call.name}: {field.name} is one of {known}, written as a constructor, got {found!r}")
    return made(**arguments)
