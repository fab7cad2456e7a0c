"""What is given in place of a balancing method: the message contains the call that works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
from torch import nn

import paretorch as pt
from paretorch.core.contract import Method, Need

TASKS = ("sign", "size")


class Net(nn.Module):
    """A body and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.two = nn.Linear(3, 2), nn.Linear(2, 1), nn.Linear(2, 1)


def fork_at(method: Any) -> pt.Fork:
    return pt.fork_at(Net(), "body", heads={"sign": "one", "size": "two"}, method=method)


@dataclass(frozen=True)
class Mine(Method[None]):
    """A method of a user's own."""

    c: float
    needs = Need.LOSSES


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers compare the message
        call()
    return str(caught.value)


def evaluated(message: str) -> Any:
    """The object that the call in the message makes."""
    code = message.partition("write ")[2]
    return eval(code, {"pt": pt, "Fork": pt.Fork, "Balancer": pt.Balancer, "Mine": Mine})


@pytest.mark.parametrize("names", [TASKS, list(TASKS), dict.fromkeys(TASKS, 1.0)])
@pytest.mark.parametrize("make", [pt.Fork, pt.Balancer])
def test_task_names_in_place_of_the_method_give_the_call_that_works(make: Any, names: Any) -> None:
    assert evaluated(error_of(lambda: make(names))).tasks == TASKS


@pytest.mark.parametrize(
    "make",
    [lambda m: pt.Fork(m, TASKS), lambda m: pt.Fork(m), lambda m: pt.Balancer(m), fork_at],
)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pt.IMTLG, pt.IMTLG()),
        ("CAGrad", pt.CAGrad()),
        ("cagrad", pt.CAGrad()),
        ("CAGrad()", pt.CAGrad()),
        ("CAGrad(c=0.25)", pt.CAGrad(c=0.25)),
    ],
)
def test_class_or_name_of_a_method_gives_the_object_to_write(make: Any, given: Any, expected: Method[Any]) -> None:
    assert evaluated(error_of(lambda: make(given))) == expected


def test_class_of_a_user_with_required_arguments_is_written_with_dots() -> None:
    message = error_of(lambda: pt.Balancer(cast(Any, Mine)))
    assert message.endswith("write Mine(...)")
    assert error_of(lambda: pt.Fork(cast(Any, pt.Static), TASKS)).endswith("write pt.Static(...)")


@pytest.mark.parametrize("make", [lambda m: pt.Fork(m, TASKS), lambda m: pt.Balancer(m), fork_at])
def test_unknown_name_of_a_method_gives_the_nearest(make: Any) -> None:
    assert "did you mean 'CAGrad'?" in error_of(lambda: make("CAGard"))


def test_optimizer_gives_the_same_cure() -> None:
    assert evaluated(error_of(lambda: pt.Preconditioned(Net().parameters(), cast(Any, pt.MGDA)))) == pt.MGDA()


@pytest.mark.parametrize("heads", [["one", "two"], {}, "one"])
def test_fork_at_refuses_heads_that_are_no_dict(heads: Any) -> None:
    net = Net()
    assert "heads is a dict" in error_of(lambda: pt.fork_at(net, "body", heads=heads))
    assert not hasattr(net, "fork")
