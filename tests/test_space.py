"""What may be tuned, as plain values: what is no range or choice is refused where it is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from paretorch.core.space import Choice, PerTask, Range


@pytest.mark.parametrize(
    ("wrong", "message"),
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
def test_what_is_no_space_is_refused(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def test_equal_numbers_of_other_kinds_are_different_choices() -> None:
    assert Choice((1, True, 1.0)).values == (1, True, 1.0)
