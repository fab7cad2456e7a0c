"""Search spaces of options: ranges, choices, and their validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

import paretorch.balance
from paretorch.core.contract import Method
from paretorch.core.search_space import Choice, PerTask, Range, SearchSpace
from paretorch.optim import Preset

OPTIONS = {
    (name, option): (made, values)
    for name, made in vars(paretorch.balance).items()
    if isinstance(made, type) and issubclass(made, Method)
    for option, values in made.search_space.items()
}


def extreme_values(values: Range | Choice | PerTask) -> list[object]:
    if isinstance(values, Choice):
        return list(values.values)
    if isinstance(values, PerTask):
        return [{"a": values.range.low, "b": values.range.high}]
    return [values.low, values.high]


@pytest.mark.parametrize(("name", "option"), sorted(OPTIONS))
def test_method_accepts_extreme_values_of_search_space(name: str, option: str) -> None:
    made, values = OPTIONS[name, option]
    for value in extreme_values(values):
        assert getattr(made(**{option: value}), option) == value
    default = made.__dataclass_fields__[option].default  # type: ignore[attr-defined]
    if isinstance(values, Range):
        assert values.low <= default <= values.high, "the default is not in the space"
    if isinstance(values, Choice):
        assert default in values.values


def test_former_name_of_a_search_space_works_and_warns() -> None:
    with pytest.warns(FutureWarning, match=r"CAGrad\.space is now CAGrad\.search_space"):
        assert paretorch.balance.CAGrad.space is paretorch.balance.CAGrad.search_space
    declared: Mapping[str, Range] = {"rate": Range(0.0, 1.0)}
    with pytest.warns(FutureWarning, match=r"Own\.space is now Own\.search_space"):
        own = type("Own", (Method,), {"space": declared})
    assert issubclass(own, Method)
    assert own.search_space is declared


def test_former_argument_of_a_preset_works_and_warns() -> None:
    declared: Mapping[str, Range] = {"lr": Range(0.1, 1.0)}
    with pytest.warns(FutureWarning, match="search_space="):
        preset = Preset(9, "ours", "SGD", {"lr": 0.5}, space=declared)  # type: ignore[call-arg]
    assert preset.search_space is declared
    with pytest.warns(FutureWarning, match=r"Preset\.search_space"):
        assert preset.space is declared  # type: ignore[attr-defined]
    assert preset == Preset(9, "ours", "SGD", {"lr": 0.5}, search_space=declared)


def test_search_spaces_are_collected_and_empty_for_methods_without_options() -> None:
    assert {"Static", "CAGrad", "FAMO", "MGDA"} <= {name for name, _ in OPTIONS}
    spaces: list[SearchSpace] = [paretorch.balance.Equal.search_space, Method.search_space]
    assert spaces == [{}, {}]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Range(1.0, 1.0), "from a finite number to a larger one, got 1.0 to 1.0"),
        (lambda: Range(0.0, float("inf")), "got 0.0 to inf"),
        (lambda: Range(0.0, 1.0, log=True), r"logarithmic range begins above 0, got 0\.0"),
        (lambda: Range(0.5, 3.0, whole=True), "whole bounds, got 0.5 to 3.0"),
        (lambda: Choice(("a",)), "two or more different values"),
        (lambda: Choice(("a", "a")), "two or more different values"),
        (lambda: PerTask(Range(-1.0, 1.0)), "numbers per task are positive"),
    ],
)
def test_search_space_invalid_range_or_choice_raises(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_search_space_choice_distinguishes_equal_values_of_different_types() -> None:
    assert Choice((1, True, 1.0)).values == (1, True, 1.0)
