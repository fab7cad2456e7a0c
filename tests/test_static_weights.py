"""Static weights: from the norms along a balanced run, and from a population."""

from __future__ import annotations

import copy
import json
import math
import random
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

import paretorch as pt
from command_line import call
from paretorch.balance.static_weights import _unchanged, weights_of_norms
from paretorch.metrics import delta_m_to_best
from paretorch.storage.locks import acquire_lock
from paretorch.studies import population, weights_folder
from paretorch.studies.population import Population, search_population
from paretorch.studies.weights_folder import WeightsOptions, default_folder, find_weights_in
from paretorch.training import Run, evaluation, train, updates, workload_checks
from paretorch.training.balanced_run import balanced_weights
from paretorch.workloads import LoaderStream, Splits, Workload
from small_models import Net, data
from training_runs import TINY

TABLE = Run(
    "tabular", {"table": "diabetes"}, method="IMTLG()", optimizer_options={"lr": 0.01}, epochs=10, batch_size=32
)
UNLIKE = {"a": 1.0, "b": 1e-3, "c": 1e4}  # factors of the losses


def batches(count: int = 30) -> list[tuple[Tensor, dict[str, Tensor]]]:
    return [data(seed=seed) for seed in range(count)]


def losses_of(model: Any, batch: tuple[Tensor, dict[str, Tensor]]) -> dict[str, Tensor]:
    outputs = model(batch[0])
    return {task: UNLIKE[task] * (output - batch[1][task]).square().mean() for task, output in outputs.items()}


def plain_losses_of(model: Any, batch: tuple[Tensor, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {task: loss / UNLIKE[task] for task, loss in losses_of(model, batch).items()}


# --- from the norms of a run ---------------------------------------------------------------------------------------------


def test_weights_are_inverse_to_geometric_means_after_the_first_tenth() -> None:
    norms = [{"a": 1e6, "b": 1e-6}] * 2 + [{"a": 1.0, "b": 4.0}, {"a": 9.0, "b": 4.0}] * 9
    found = weights_of_norms(norms, "IMTLG()")
    assert found.norms == pytest.approx({"a": 3.0, "b": 4.0})
    assert found.weights == pytest.approx({"a": 8 / 7, "b": 6 / 7})
    assert found.steps == 18


def test_weights_of_norms_at_the_ends_of_float64_have_a_mean_of_one() -> None:
    found = weights_of_norms([{"a": 1e-300, "b": 1e300, "c": 1e-300}] * 12, "IMTLG()")
    assert sum(found.values()) == pytest.approx(3)
    assert found["a"] == found["c"]


def test_weights_of_a_task_that_is_rarely_present_are_those_of_its_own_steps() -> None:
    norms: list[Mapping[str, float]] = [{"a": 2.0, "b": 1.0} if step % 3 == 0 else {"a": 2.0} for step in range(60)]
    assert weights_of_norms(norms, "IMTLG()").weights == pytest.approx({"a": 2 / 3, "b": 4 / 3})


@pytest.mark.parametrize(("norm", "advised"), [(9.0, True), (0.2, True), (11.0, False), (0.01, False)])
def test_weights_of_norms_of_like_size_advise_the_plain_sum(norm: float, advised: bool) -> None:
    found = weights_of_norms([{"a": 1.0, "b": norm}] * 20, "IMTLG()")
    assert ("the plain sum may be as good" in found.text) is advised


def test_find_weights_cancels_the_scales_of_the_losses() -> None:
    unlike, plain = (pt.find_weights(Net(), each, batches(), steps=40) for each in (losses_of, plain_losses_of))
    expected = {task: plain[task] / UNLIKE[task] for task in UNLIKE}
    total = sum(expected.values()) / 3
    assert dict(unlike) == pytest.approx({task: value / total for task, value in expected.items()}, rel=0.05)
    assert sum(unlike.values()) == pytest.approx(3)


def test_find_weights_make_gradient_norms_agree_in_a_run_of_their_own() -> None:
    found = pt.find_weights(Net(seed=3), losses_of, batches(), steps=90)
    model = Net(seed=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    shared = list(model.encoder.parameters())
    logarithms = []
    for batch in batches():
        losses = losses_of(model, batch)
        grads = [torch.autograd.grad(found[task] * loss, shared, retain_graph=True) for task, loss in losses.items()]
        logarithms.append([math.log(sum(float(part.square().sum()) for part in grad)) / 2 for grad in grads])
        optimizer.zero_grad()
        torch.stack([found[task] * loss for task, loss in losses.items()]).sum().backward()
        optimizer.step()
    means = np.mean(logarithms, axis=0)
    assert math.exp(means.max() - means.min()) < 3  # above 1e6 without weights


def test_find_weights_used_in_a_sum_train_the_task_that_the_plain_sum_starves() -> None:
    inputs = torch.randn(512, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    targets = {"a": inputs[:, :2] * inputs[:, 2:3], "c": inputs[:, 3:].sin()}
    parts = [slice(start, start + 64) for start in range(0, 512, 64)]

    def losses_of(model: Any, part: slice) -> dict[str, Tensor]:
        outputs = model(inputs[part])
        return {task: UNLIKE[task] * (outputs[task] - targets[task][part]).square().mean() for task in targets}

    def trained(weights: Mapping[str, float]) -> float:
        model = Net(tasks=("a", "c"), seed=7)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for step in range(300):
            optimizer.zero_grad()
            losses = losses_of(model, parts[step % 8])
            torch.stack([weights[task] * loss for task, loss in losses.items()]).sum().backward()
            optimizer.step()
        return float(losses_of(model, slice(None))["a"].detach())

    def adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=1e-2)

    found = pt.find_weights(Net(tasks=("a", "c"), seed=8), losses_of, parts, steps=100, optimizer=adam)
    assert trained(found) < 0.8 * trained({"a": 1.0, "c": 1.0})


class Normed(nn.Module):
    """Batch norm and dropout before two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5)).double()
        self.heads = nn.ModuleDict({"a": nn.Linear(8, 2), "c": nn.Linear(8, 2)}).double()

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        z = self.encoder(inputs)
        return {task: head(z) for task, head in self.heads.items()}


@pytest.mark.parametrize("fails", [False, True])
def test_find_weights_changes_neither_model_nor_random_generators(fails: bool) -> None:
    model = Normed()
    model.encoder[1].eval()
    for parameter in model.heads.parameters():
        parameter.grad = torch.ones_like(parameter)
    tensors = {name: tensor.detach().clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    modes = [module.training for module in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002

    def noisy(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        noise = np.random.rand()  # noqa: NPY002
        return {
            task: (1 + noise) * (math.nan if fails and steps.pop() == 0 else 1) * loss
            for task, loss in losses_of(model, batch).items()
        }

    steps = list(range(60))
    if fails:
        with pytest.raises(FloatingPointError, match="'c'"):
            pt.find_weights(model, noisy, batches(), steps=40)
    else:
        pt.find_weights(model, noisy, batches(), steps=40)
    after = dict((*model.named_parameters(), *model.named_buffers()))
    assert all(torch.equal(tensor, after[name]) for name, tensor in tensors.items())
    assert [module.training for module in model.modules()] == modes
    assert all(
        float(parameter.grad.sum()) == parameter.numel()
        for parameter in model.heads.parameters()
        if parameter.grad is not None
    )
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]  # noqa: NPY002


def test_find_weights_restores_the_generator_of_python() -> None:
    before = random.getstate()
    with _unchanged(nn.Linear(2, 2)):  # the checks of types in a call of find_weights draw from it, too
        random.random()
    assert random.getstate() == before


def test_find_weights_of_missing_labels_ignores_the_steps_without_them() -> None:
    def sometimes(model: Any, batch: tuple[Tensor, dict[str, Tensor]]) -> dict[str, Tensor | None]:
        found: dict[str, Tensor | None] = {**losses_of(model, batch)}
        return found | ({"c": None} if float(batch[0][0, 0]) > 0 else {})

    assert sum(float(batch[0][0, 0]) > 0 for batch in batches()) > 5
    some, every = (pt.find_weights(Net(), each, batches(), steps=90) for each in (sometimes, losses_of))
    assert dict(some) == pytest.approx(dict(every), rel=0.5)  # the weights differ by factors of ten million


def frozen(model: Net) -> Net:
    for parameter in model.encoder.parameters():
        parameter.requires_grad_(False)
    return model


def times(**factors: float) -> Any:
    return lambda model, batch: {task: factors.get(task, 1.0) * loss for task, loss in losses_of(model, batch).items()}


def test_find_weights_names_what_is_wrong() -> None:
    other = Net()

    def one(model: Any, batch: Any) -> dict[str, Tensor]:
        return {"a": losses_of(model, batch)["a"]}

    def elsewhere(model: Any, batch: Any) -> dict[str, Tensor]:
        return losses_of(other, batch)

    def detached(model: Any, batch: Any) -> dict[str, Tensor]:
        z = model.encoder(batch[0])
        outputs = {task: head(z.detach() if task == "b" else z) for task, head in model.heads.items()}
        return {task: output.square().mean() for task, output in outputs.items()}

    def once() -> Iterator[Any]:
        yield from batches(4)

    many = batches()
    for model, losses, given, options, error, words in (
        (Net(), one, many, {}, ValueError, "two tasks or more, got \\['a'\\]"),
        (Net(), times(b=math.nan), many, {}, FloatingPointError, "'b'.*before the first step"),
        (Net(), elsewhere, many, {}, ValueError, "must use its first argument"),
        (Net(), detached, many, {}, ValueError, "'b' has a gradient on the shared parameters in 0 of"),
        (frozen(Net()), losses_of, many, {}, ValueError, "share no parameter"),
        (Net(), losses_of, once(), {}, ValueError, "got 4 batches, expected at least 12"),
        (Net(), losses_of, [], {}, ValueError, "got 0 batches"),
        (Net(), losses_of, many, {"method": pt.FAMO()}, ValueError, "compares no gradients"),
        (Net(), losses_of, many, {"steps": 3}, ValueError, "steps is a whole number of at least 12"),
    ):
        with pytest.raises(error, match=words):
            pt.find_weights(model, losses, given, **options)


# --- of a workload -------------------------------------------------------------------------------------------------------


def test_balanced_weights_are_equal_in_every_call_and_draw_no_global_numbers() -> None:
    before = torch.get_rng_state()
    first, again, other = (balanced_weights(replace(TABLE, seed=seed)) for seed in (0, 0, 1))
    assert dict(first) == dict(again)
    assert dict(first) != dict(other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("options", [{}, {"own_inputs": True}, {"missing": True}])
def test_balanced_weights_of_unlike_losses_are_unlike(options: dict[str, Any]) -> None:
    found = balanced_weights(Run(TINY, options, method="IMTLG()", epochs=12, batch_size=6))
    assert found["size"] < 0.1 * found["sign"]  # the targets of "size" have a deviation of 60


def found_by_population(run: Run, **options: Any) -> Population:
    return search_population(replace(run, epochs=6), **{"members": 8, "rounds": 3, **options})


def test_population_trains_members_as_runs_with_static_weights() -> None:
    found = found_by_population(TABLE)
    unchanged = [member for member in found.members if member.copies == 0]
    assert 4 <= len(unchanged) < 8
    run = replace(TABLE, epochs=6, schedule="constant")
    for member in unchanged[:2]:
        static = replace(run, method=f"Static({dict(member.weights)})", test=False)
        assert_metrics(static, member.metrics)


def assert_metrics(run: Run, metrics: Mapping[str, Mapping[str, float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        expected = train(run, folder, progress=None).validation.metrics
    for task, values in metrics.items():
        assert dict(values) == pytest.approx(dict(expected[task]), rel=1e-3)


def test_population_is_ranked_and_the_same_in_every_call() -> None:
    lines: list[str] = []
    first, again = (found_by_population(TABLE, report=lines.append) for _ in range(2))
    assert first == again
    assert len(lines) == 6
    values = [member.delta_m for member in first.members]
    assert values == sorted(values)
    assert all(sum(member.weights.values()) == pytest.approx(3) for member in first.members)
    assert max(member.copies for member in first.members) >= 1


WORKLOAD = """
from dataclasses import dataclass
from paretorch.workloads.tabular import Tabular

@dataclass(frozen=True)
class Unlike(Tabular):
    def losses(self, outputs, targets):
        losses = super().losses(outputs, targets)
        return losses | ({"bmi": 1e5 * losses["bmi"]} if "bmi" in losses else {})
"""


def test_population_around_found_weights_prefers_them_to_equal_ones(tmp_path: Path) -> None:
    (tmp_path / "unlike.py").write_text(WORKLOAD)
    run = replace(TABLE, workload=str(tmp_path / "unlike.py"), epochs=12)
    found = balanced_weights(run)
    assert found["bmi"] < 1e-3 * found["bp"]
    population = search_population(run, members=4, rounds=2, centre=found)
    assert population.weights["bmi"] < 0.1 * population.weights["bp"]


def test_member_with_parameters_that_are_not_finite_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its metrics are not computed: one may raise an error on what the model gives."""
    made, evaluated = updates.make_update, evaluation.evaluate
    members: list[int] = []

    def make_update(workload: Any, model: nn.Module, *arguments: Any) -> Any:
        members.append(len(members))
        if len(members) == 3:  # after that of the run itself and the first member
            return lambda _: next(model.parameters()).data.fill_(math.nan)
        return made(workload, model, *arguments)

    def evaluate(workload: Any, model: nn.Module, *arguments: Any) -> Any:
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            raise ValueError("Input contains NaN")
        return evaluated(workload, model, *arguments)

    monkeypatch.setattr(updates, "make_update", make_update)
    monkeypatch.setattr(population, "evaluate", evaluate)
    found = search_population(replace(TABLE, epochs=4), 4, 2)
    assert len(members) == 9
    assert all(math.isfinite(member.delta_m) for member in found.members)
    assert [member.copies for member in found.members].count(1) == 1


def test_population_and_balanced_run_refuse_what_they_cannot_weight() -> None:
    for options, words in (
        ({"members": 3}, "at least 4 members"),
        ({"rounds": 1}, "rounds are at least 2"),
        ({"rounds": 7}, "the epochs of the run, 6"),
    ):
        with pytest.raises(ValueError, match=words):
            found_by_population(TABLE, **options)
    for run, words in (
        (replace(TABLE, tasks=("bmi",)), "two tasks or more, got 'bmi' alone"),
        (replace(TABLE, optimizer="MTAdam"), "MTAdam combines the tasks by itself"),
        (replace(TABLE, optimizer="FastBacktracking", optimizer_options={}), "FastBacktracking combines"),
    ):
        with pytest.raises(ValueError, match=words):
            found_by_population(run)
        with pytest.raises(ValueError, match=words):
            balanced_weights(run)
    with pytest.raises(ValueError, match="compares no gradients"):
        balanced_weights(replace(TABLE, method="DWA()"))
    with pytest.raises(ValueError, match="0 < share <= 1, got 0"):
        balanced_weights(TABLE, 0)


@pytest.mark.parametrize(("epochs", "size", "share"), [(1, 256, 1 / 3), (15, 200, 1 / 3), (2, 32, 0.5)])
def test_balanced_run_of_too_few_steps_names_the_fewest_epochs_and_the_largest_batch_that_suffice(
    epochs: int, size: int, share: float
) -> None:
    run = replace(TABLE, epochs=epochs, batch_size=size)
    with pytest.raises(ValueError, match="expected at least 12") as caught:
        balanced_weights(run, share)
    words = str(caught.value).replace(",", "").split()
    more, smaller = (int(words[words.index(option) + 1]) for option in ("--epochs", "--batch-size"))
    for enough, too_few in (
        (replace(run, epochs=more), replace(run, epochs=more - 1)),
        (replace(run, batch_size=smaller), replace(run, batch_size=smaller + 1)),
    ):
        assert balanced_weights(enough, share).steps > 10
        with pytest.raises(ValueError, match="expected at least 12"):
            balanced_weights(too_few, share)


@pytest.mark.parametrize("seed", [1, 4])
def test_weights_of_a_model_with_a_fork_are_those_of_the_model_without_and_nothing_warns(seed: int) -> None:
    torch.manual_seed(seed)
    plain = Net()
    forked = copy.deepcopy(plain)
    forked.fork = pt.Fork(pt.MGDA(), tasks=tuple(UNLIKE))

    def with_fork(model: Any, batch: tuple[Tensor, dict[str, Tensor]]) -> dict[str, Tensor]:
        branch = model.fork(model.encoder(batch[0]))
        return {
            task: UNLIKE[task] * (head(branch[task]) - batch[1][task]).square().mean()
            for task, head in model.heads.items()
        }

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pt.find_weights(forked, with_fork, batches(), steps=20)
    assert dict(found) == pytest.approx(dict(pt.find_weights(plain, losses_of, batches(), steps=20)), rel=1e-6)
    assert forked.fork.balance is None
    torch.stack([*with_fork(forked, batches(1)[0]).values()]).sum().backward()  # the Fork balances again
    assert forked.fork.balance is not None


def test_error_of_the_losses_of_a_model_carries_a_note_of_the_call() -> None:
    def wrong(model: Any, batch: Any) -> dict[str, Tensor]:
        return {"a": model.heads["a"](batch[0])}

    for search in (pt.find_weights, pt.diagnose):
        with pytest.raises(RuntimeError, match="shapes") as caught:
            search(Net(), wrong, batches())
        assert caught.value.__notes__ == ["while calling losses_of(model, batch)"]


def test_delta_m_to_best_leaves_out_zeros_and_ranks_nan_last() -> None:
    values = delta_m_to_best([[0.0, 2.0], [0.0, 1.0], [0.0, math.nan]], [False, False])
    assert values.tolist() == [100.0, 0.0, math.inf]
    with pytest.raises(ValueError, match="every metric is 0"):
        delta_m_to_best([[0.0], [1.0]], [False])


# --- the command ---------------------------------------------------------------------------------------------------------

COMMAND = ["weights", TINY, "--epochs", "12", "--batch-size", "6"]


def test_weights_command_writes_the_weights_and_prints_lines_that_use_them(tmp_path: Path) -> None:
    code, printed = call(*COMMAND, "--out", str(tmp_path))
    assert code == 0
    stored = json.loads((tmp_path / "weights.json").read_text())
    assert stored["cost in runs"] == pytest.approx(1 / 3)
    begin, end = printed.index("weights = {"), printed.index(" fork = ")
    lines = printed[begin:end].replace(" total =", "\ntotal =")
    names: dict[str, Any] = {"losses": {"sign": 2.0, "size": 3000.0}}
    exec(lines, names)
    expected = sum(stored["weights"][task] * loss for task, loss in names["losses"].items())
    assert names["total"] == pytest.approx(expected, rel=1e-3)
    fork = printed[end + len(" fork = ") : printed.index(" Cost:")]
    made = eval(fork, {"paretorch": pt, "weights": names["weights"]})
    assert made.tasks == ("sign", "size")


def test_weights_command_with_a_population_stores_its_members(tmp_path: Path) -> None:
    code, printed = call(*COMMAND, "--search", "population", "--members", "4", "--rounds", "2", "--out", str(tmp_path))
    assert code == 0
    assert "round 2 of 2" in printed
    stored = json.loads((tmp_path / "weights.json").read_text())
    assert stored["cost in runs"] == pytest.approx(4 + 1 / 3)
    assert stored["weights"] == stored["population"]["members"][0]["weights"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--members", "4"), "--members is an option of --search population"),
        (("--method", "FAMO()"), "compares no gradients"),
        (("--tasks", "sign"), "two tasks or more"),
        (("--epochs", "1"), "expected at least 12"),
        (("--optimizer", "MTAdam(lr=0.1)"), "combines the tasks by itself"),
        (("--search", "population", "--rounds", "13"), "at most the epochs of the run, 12"),
        (("--search", "population", "--members", "0"), "at least 4 members, of which a quarter is replaced, got 0"),
    ],
)
def test_weights_command_refuses_in_one_sentence(options: tuple[str, ...], words: str, tmp_path: Path) -> None:
    code, printed = call(*COMMAND, *options, "--out", str(tmp_path))
    assert code == 2
    assert words in printed
    assert not (tmp_path / "weights.json").exists()


def test_weights_of_a_workload_by_name_are_those_of_its_balanced_run() -> None:
    found = pt.find_weights("tabular(table='diabetes')", epochs=5, batch_size=32, seed=3, share=0.5)
    run = Run("tabular", {"table": "diabetes"}, method="IMTLG()", epochs=5, batch_size=32, seed=3)
    assert dict(found) == dict(balanced_weights(run, 0.5))
    assert sum(found.values()) == pytest.approx(3)


def test_workload_with_losses_and_model_without_them_are_refused() -> None:
    with pytest.raises(TypeError, match="a workload has its own losses and batches"):
        pt.find_weights("digits", lambda model, batch: {}, [])
    with pytest.raises(TypeError, match="a model needs a function of its losses"):
        pt.find_weights(nn.Linear(1, 1))


def test_weights_command_returns_what_is_finished_and_refuses_another_search(tmp_path: Path) -> None:
    code, printed = call(*COMMAND, "--out", str(tmp_path))
    assert code == 0
    file = tmp_path / "weights.json"
    written = file.stat().st_ino, file.read_bytes()
    assert call(*COMMAND, "--out", str(tmp_path)) == (0, printed)
    assert (file.stat().st_ino, file.read_bytes()) == written
    others = {
        ("--share", "0.5"): "its share is 0.3333333333333333, expected 0.5",
        ("--seed", "3"): "its seed is 0, expected 3",
        ("--search", "population", "--members", "4"): "its members is None, expected 4",
    }
    for options, difference in others.items():
        code, printed = call(*COMMAND, *options, "--out", str(tmp_path))
        assert code == 2
        assert f"weights.json belongs to another search of weights: {difference}. Remove the file" in printed
    assert (file.stat().st_ino, file.read_bytes()) == written
    file.write_text(file.read_text().replace("0.333", "0.334"))
    code, printed = call(*COMMAND, "--out", str(tmp_path))
    assert code == 2
    assert "weights.json is damaged" in printed


def test_weights_of_an_unknown_search_are_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "weights.json"
    file.write_text('{"weights": {"sign": 1.0, "size": 1.0}, "search": "run"}')
    code, printed = call(*COMMAND, "--out", str(tmp_path))
    assert code == 2
    assert "does not name the search to which its weights belong" in printed
    assert file.read_text().startswith('{"weights"')


def test_default_folder_of_weights_depends_on_all_that_decides_them(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("1")
    run = Run(str(file), method="IMTLG()", epochs=12, batch_size=6)
    searches = [(run, WeightsOptions()), (replace(run, seed=1), WeightsOptions())]
    searches += [(run, WeightsOptions(share=0.5)), (run, WeightsOptions(members=4))]
    searches += [(run, WeightsOptions(members=8)), (run, WeightsOptions(members=4, rounds=2))]
    folders = {default_folder(*search) for search in searches}
    assert len(folders) == len(searches)
    assert all(folder.parent == Path("runs") and folder.name.startswith("weights-own-") for folder in folders)
    assert default_folder(run, WeightsOptions()) in folders
    file.write_text("2")
    assert default_folder(run, WeightsOptions()) not in folders


def test_refused_search_leaves_no_folder(tmp_path: Path) -> None:
    for options in (("--epochs", "1"), ("--tasks", "sign"), ("--search", "population", "--rounds", "13")):
        assert call(*COMMAND, *options, "--out", str(tmp_path / "new"))[0] == 2
    assert not list(tmp_path.iterdir())


def test_search_stops_when_its_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def moved(*_: object) -> None:
        (tmp_path / "out").rename(tmp_path / "moved")
        raise FloatingPointError

    monkeypatch.setattr(weights_folder, "_content", moved)
    run = Run(TINY, method="IMTLG()", surface="parameters", epochs=12, batch_size=6)
    with pytest.raises(FloatingPointError):
        find_weights_in(tmp_path / "out", run, WeightsOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]
    assert (tmp_path / "moved" / "checkpoint").exists()


def test_weights_command_refuses_the_checkpoint_of_another_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(weights_folder, "search_population", interrupted)
        command = [*COMMAND, "--search", "population", "--members", "4", "--out", str(tmp_path)]
        assert call(*command)[0] == 130
    code, printed = call(*COMMAND, "--share", "0.5", "--out", str(tmp_path))
    assert code == 2
    assert "search.json belongs to another search of weights: its share is 0.3333333333333333, expected 0.5" in printed
    code, printed = call(*COMMAND, "--out", str(tmp_path))  # whose balanced run is the same
    assert code == 2
    assert "search.json belongs to another search of weights: its members is 4, expected None" in printed
    (tmp_path / "checkpoint" / "search.json").unlink()  # earlier versions did not write it
    code, printed = call(*COMMAND, "--share", "0.5", "--out", str(tmp_path))
    assert code == 2
    assert "belongs to another training: share was" in printed
    assert call(*command)[0] == 0
    with acquire_lock(tmp_path / ".lock", "locked"):
        code, printed = call(*COMMAND, "--out", str(tmp_path))
    assert code == 2
    assert "another process searches weights in" in printed


class StoredOrder(IterableDataset[dict[str, Tensor]]):
    def __init__(self, rows: list[dict[str, Tensor]]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter(self.rows)


@pytest.mark.parametrize("indexed", [True, False])
def test_interrupted_population_over_a_loader_equals_an_uninterrupted_one(
    indexed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members of a round receive the same batches, also from a loader that stores its own position."""
    stored = workload_checks.data_of

    def loaded(workload: Workload) -> Splits:
        splits = stored(workload)
        samples = next(splits.train[0].batches(30, order=None))
        rows = [
            {"x": samples.inputs[i]} | {task: values[i] for task, values in samples.targets.items()} for i in range(30)
        ]
        stream = LoaderStream(
            rows if indexed else StoredOrder(rows), samples.targets, inputs="x", steps_per_epoch=5, is_paired=True
        )
        return replace(splits, train=(stream,))

    monkeypatch.setattr("paretorch.training.resolved_run.data_of", loaded)
    run = Run(TINY, epochs=6, batch_size=8, optimizer="Adam", surface="parameters", seed=3)
    expected = search_population(run, 4, 3)
    trained = population._train
    done: list[None] = []

    def interrupted(*arguments: Any) -> Any:
        if len(done) in (2, 5, 9):
            done.append(None)
            raise KeyboardInterrupt
        done.append(None)
        return trained(*arguments)

    monkeypatch.setattr(population, "_train", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            search_population(run, 4, 3, checkpoint=tmp_path / "checkpoint")
    assert search_population(run, 4, 3, checkpoint=tmp_path / "checkpoint") == expected
    assert len(done) == 12 + 3
