"""Names and constructors: parsed, never evaluated; the nearest known name is suggested."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

import paretorch as pt
from paretorch.cli.options import task_names
from paretorch.optim import MultiTaskOptimizer
from paretorch.training.names.constructors import Call, parse, split_at_commas
from paretorch.training.names.devices import find_device
from paretorch.training.names.methods import find_method, methods
from paretorch.training.names.optimizers import find_optimizer, optimizers
from paretorch.training.names.workloads import find_workload
from training_runs import TINY_FILE

CODE = [
    "__import__('os').system('true')",
    "MGDA().__class__",
    "CAGrad(c=__import__('os'))",
    "CAGrad(c=1 if True else 2)",
    "CAGrad(c=[x for x in (1,)][0])",
    "CAGrad(c=open)",
    "CAGrad(**{'c': 1})",
    "CAGrad(*[1])",
    "CAGrad(c=2**99999999)",
    "CAGrad(c=lambda: 1)",
    "CAGrad(c=os.path.join())",
    "CAGrad(c=0.4); MGDA()",
    "CAGrad(c=0.4)(1)",
    "CAGrad(c=0.4",
    "CAGrad(c=" + "(" * 3000,
    "CAGrad(c=" + "-" * 5000 + "1)",
    "CAGrad(c='" + "x" * 20_000 + "')",
    "(1)",
    "",
]


@pytest.mark.parametrize("text", CODE, ids=lambda text: text[:30])
def test_parse_refuses_code(text: str) -> None:
    with pytest.raises(ValueError, match=r"cannot read|unknown method"):
        find_method(text)


def test_parse_reads_constructors() -> None:
    assert parse("A") == Call("A")
    assert parse(" A( 1, b = -2.5, c={'x': [1, (2, None)]} ) ") == Call(
        "A", (1,), {"b": -2.5, "c": {"x": [1, (2, None)]}}
    )
    assert parse("A(B(c=1))") == Call("A", (Call("B", (), {"c": 1}),))
    assert parse("a folder/file.py(ink=True)") == Call("a folder/file.py", (), {"ink": True})


def test_find_method_constructs_methods() -> None:
    assert find_method("MGDA") == find_method("MGDA()") == pt.MGDA()
    assert find_method("CAGrad(c=0.25)") == pt.CAGrad(c=0.25)
    assert find_method("Static({'a': 0.5, 'b': 0.5})") == pt.Static({"a": 0.5, "b": 0.5})
    assert {"Equal", "Static", "Uncertainty", "DWA", "FAMO", "MGDA", "PCGrad", "CAGrad", "UPGrad"} <= set(methods())
    assert "Method" not in methods()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MDGA()", "did you mean 'MGDA'"),
        ("cagrad()", "did you mean 'CAGrad'"),
        ("CAGrad(d=0.4)", "unknown option of the method CAGrad 'd'"),
        ("CAGrad(c='much')", "'c' is of type float, got 'much'"),
        ("CAGrad(c=True)", "'c' is of type float, got True"),
        ("MGDA(1, 2, 3, 4, 5)", "too many positional"),
    ],
)
def test_find_method_suggests_the_nearest_name(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_method(text)


def test_exchanged_letters_suggest_every_close_name_the_one_with_the_same_letters_first() -> None:
    expected = r"did you mean 'IMTLG', 'IMTL' or 'IMTLL'\?"
    for call in (
        lambda: find_method("IMTGL()"),
        lambda: pt.Fork("IMTGL", ("a", "b")),  # type: ignore[arg-type]
        lambda: pt.IMTGL,
    ):
        with pytest.raises((ValueError, AttributeError), match=expected):
            call()
    assert not hasattr(pt, "imtgl")
    with pytest.raises(AttributeError, match=r"no attribute 'zzz'$"):
        _ = pt.zzz


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Adm", {}, "did you mean 'Adam'"),
        ("Adam", {"rl": 0.1}, "option of the optimizer Adam 'rl': did you mean 'lr'"),
        ("Adam", {"lr": -1.0}, "Invalid learning rate"),
        ("LBFGS", {}, "unknown optimizer"),  # its step needs a closure
    ],
)
def test_find_optimizer_suggests_the_nearest_name(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_optimizer(name, options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Adam", {"capturable": True}, r"Adam does not accept \{'capturable': True\}: If capturable=True, params"),
        ("Adam", {"differentiable": True}, r"Adam does not accept .*'differentiable': True.*in-place operation"),
        ("AdamW", {"fused": True, "foreach": True}, r"AdamW does not accept .*cannot be `True` together"),
        ("Adam", {"lr": math.inf}, "Adam takes finite numbers, got lr=inf"),
        ("SGD", {"momentum": math.nan}, "SGD takes finite numbers, got momentum=nan"),
        ("Adam", {"betas": (0.9, math.inf)}, r"got betas=\(0.9, inf\)"),
        ("MTAdamV2", {"lr": math.inf}, "MTAdamV2 takes finite numbers"),
    ],
)
def test_optimizer_that_cannot_step_with_its_options_is_refused(
    name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        find_optimizer(name, options, device=torch.device("cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(optimizers()))
def test_every_optimizer_takes_the_trial_step_without_drawing_random_numbers(name: str) -> None:
    before = torch.get_rng_state()
    tasks = ("a", "b") if issubclass(optimizers()[name], MultiTaskOptimizer) else None
    made = find_optimizer(name, {}, tasks=tasks, device=torch.device("cpu"))
    assert isinstance(made([torch.nn.Parameter(torch.zeros(2, 2))]), optimizers()[name])
    assert torch.equal(torch.get_rng_state(), before)


def test_optimizer_of_matrices_names_itself_where_a_model_has_vectors() -> None:
    made = find_optimizer("Muon", {}, device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"the optimizer Muon does not accept \{\}: Muon only supports 2D parameters"):
        made([torch.nn.Parameter(torch.zeros(3))])


@pytest.mark.parametrize("text", [",", " , ,", " "])
def test_commas_without_names_are_refused(text: str) -> None:
    for read in (split_at_commas, task_names):
        with pytest.raises(ValueError, match=f"with commas between, got {text!r}"):
            read(text)


def test_optimizers_include_those_of_torch() -> None:
    assert {"SGD", "Adam", "AdamW", "RMSprop"} <= set(optimizers())
    assert not {"Optimizer", "LBFGS", "SparseAdam"} & set(optimizers())


def test_optimizer_parameters_are_no_option() -> None:
    with pytest.raises(ValueError, match=r"option of the optimizer Adam 'rate': .*Known: ") as caught:
        find_optimizer("Adam", {"rate": 0.1})
    known = str(caught.value).partition("Known: ")[2].split(", ")
    assert "lr" in known
    assert "params" not in known


def test_find_workload_accepts_a_name_a_module_or_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_workload("digits", {"ink": True}).tasks == ("left", "right", "ink")
    assert find_workload(str(TINY_FILE), {"samples": 40}).tasks == ("sign", "size")
    monkeypatch.syspath_prepend(str(TINY_FILE.parent))
    monkeypatch.delitem(sys.modules, "training_workload", raising=False)
    assert find_workload("training_workload", {}).tasks == ("sign", "size")


def test_find_workload_accepts_a_file_with_an_object(tmp_path: Path) -> None:
    path = tmp_path / "two.py"
    path.write_text("from paretorch.workloads.digits import Digits\nworkload = Digits(ink=True)\n")
    assert find_workload(str(path), {}).tasks == ("left", "right", "ink")
    assert find_workload(str(path), {"ink": False}).tasks == ("left", "right")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digit", {}, "did you mean 'digits'"),
        ("streams", {}, "unknown workload"),
        ("..digits", {}, "unknown workload"),
        ("digits", {"inc": True}, "option of the workload digits 'inc': did you mean 'ink'"),
        ("digits", {"ink": 1}, "'ink' is of type bool, got 1"),
        ("json", {}, "expected a top-level object `workload` or one subclass"),
    ],
)
def test_find_workload_suggests_the_nearest_name(name: str, options: dict[str, bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_workload(name, options)


def test_find_workload_names_a_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/mine.py does not exist"):
        find_workload("nowhere/mine.py", {})


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", ""])
def test_find_device_names_an_unavailable_device(name: str) -> None:
    with pytest.raises(ValueError, match="device"):
        find_device(name)
