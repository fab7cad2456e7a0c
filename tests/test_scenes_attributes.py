"""The forty attributes of rendered scenes: exact labels, and relations between them that are known by construction."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from paretorch.training.evaluation import evaluate
from paretorch.training.workload_checks import trained_model
from paretorch.workloads import Samples
from paretorch.workloads.generated.scene_attributes import (
    ATTRIBUTES,
    CONFLICTING,
    CORRELATED,
    EXCLUDING,
    Pair,
    scene_attributes,
)
from paretorch.workloads.generated.scene_layout import CLASSES, sample_scenes
from paretorch.workloads.generated.scene_rendering import render
from paretorch.workloads.scenes import SceneImages
from paretorch.workloads.streams import training_batches
from stored_streams import only_stream

EDGE = 32
SECONDS = tuple(second for _, second in CONFLICTING)


def workload(**options: object) -> SceneImages:
    options = {"size": EDGE, "train": 1500, "validation": 1, "test": 1, "encoder": "convnet", "stride": 8} | options
    return SceneImages(variant="attributes", **options)  # type: ignore[arg-type]


def labels(**options: object) -> dict[str, Tensor]:
    return dict(only_stream(workload(**options), "train").targets)


def phi(pair: Pair, found: dict[str, Tensor]) -> float:
    """The correlation of two binary labels."""
    return float(torch.corrcoef(torch.stack([found[task] for task in pair]))[0, 1])


def test_scene_attributes_are_forty_and_the_pairs_are_of_them() -> None:
    assert len(set(ATTRIBUTES)) == 40
    pairs = [*CORRELATED, *CONFLICTING, *EXCLUDING]
    assert {task for pair in pairs for task in pair} <= set(ATTRIBUTES)
    assert len(set(SECONDS) | {first for first, _ in CONFLICTING}) == 2 * len(CONFLICTING), "each has one conflict"


@pytest.mark.parametrize("size", [32, 48])
def test_scene_attributes_are_never_constant(size: int) -> None:
    found = labels(size=size, train=800, data_seed=5)
    rates = {task: float(target.mean()) for task, target in found.items()}
    assert {task: rate for task, rate in rates.items() if not 0.15 <= rate <= 0.8} == {}
    assert {float(value) for target in found.values() for value in target.unique()} == {0.0, 1.0}


def test_scene_attributes_are_correlated_as_documented() -> None:
    found = labels()
    assert {pair: phi(pair, found) for pair in CORRELATED if phi(pair, found) < 0.35} == {}
    negative = (*CONFLICTING, *EXCLUDING)
    assert {pair: phi(pair, found) for pair in negative if phi(pair, found) > -0.25} == {}
    others = (("has_sphere", "wall_bright"), ("main_left", "light_high"), ("has_cyan", "camera_down"))
    assert {pair: phi(pair, found) for pair in others if abs(phi(pair, found)) > 0.12} == {}


def test_scene_attributes_of_kind_and_hue_are_correlated_according_to_hue_spread() -> None:
    kinds = CORRELATED[:6]
    sharp, wide = labels(hue_spread=0.0, train=600), labels(hue_spread=9.0, train=600)
    assert min(phi(pair, sharp) for pair in kinds) > 0.97
    assert max(abs(phi(pair, wide)) for pair in kinds) < 0.2


def test_scene_attributes_are_derived_from_scene_and_pixels() -> None:
    scenes = sample_scenes(40, 4, 0.1, 11)
    rendered = render(scenes, EDGE)
    found = dict(zip(ATTRIBUTES, scene_attributes(scenes, rendered).T.tolist(), strict=True))
    for number in range(40):
        pixels = rendered.instances[number].long()
        counts = torch.bincount(pixels.flatten(), minlength=6)
        main = int(counts[2:].argmax()) + 2
        rows, columns = (pixels == main).nonzero().T
        kinds = [CLASSES[int(scenes.kinds[number, thing])] for thing in range(2, 6) if counts[thing] > 0.01 * EDGE**2]
        for kind in CLASSES[2:]:
            assert found[f"has_{kind}"][number] == (kind in kinds)
        assert found["three_objects"][number] == (len(kinds) >= 3)
        assert found["main_solid"][number] == (CLASSES[int(scenes.kinds[number, main])] not in ("disc", "board"))
        assert found["main_small"][number] == (int(counts[main]) < 0.134 * EDGE**2)
        assert found["main_left"][number] == (float(columns.double().mean()) + 0.5 < EDGE / 2)
        assert found["main_near"][number] == (float(rendered.depth[number][pixels == main].mean()) < 2.97)
        on_edge = (rows % (EDGE - 1) == 0) | (columns % (EDGE - 1) == 0)
        assert found["main_cut"][number] == bool(on_edge.any())
        red, _, blue = scenes.colors[number, main].tolist()
        assert found["main_warm"][number] == (red > blue)
        brightness = rendered.images[number].double().mean(dim=0) / 255
        wall, floor = (float(brightness[pixels == surface].mean()) for surface in (0, 1))
        assert found["wall_bright"][number] == (wall > 0.353)
        assert found["floor_brighter"][number] == (floor - wall > 0.116)
        assert found["camera_down"][number] == (float(scenes.pitch[number]) > 0.207)


@pytest.mark.parametrize("count", [1, 2, 5, 10, 20, 40])
def test_scenes_of_attributes_have_the_first_attributes_as_tasks(count: int) -> None:
    small = workload(attributes=count, train=4)
    assert small.tasks == ATTRIBUTES[:count]
    model = small.model()
    assert tuple(model.heads) == small.tasks  # type: ignore[arg-type]
    images = only_stream(small, "train").inputs
    assert {tuple(output.shape) for output in model(images).values()} == {(4,)}
    encoder = {name: value.shape for name, value in model.encoder.state_dict().items()}  # type: ignore[union-attr]
    whole = workload().model().encoder.state_dict()  # type: ignore[union-attr]
    assert encoder == {name: value.shape for name, value in whole.items()}, "the encoder does not depend on the tasks"


def test_scenes_of_attributes_need_at_least_one() -> None:
    assert workload().tasks == ATTRIBUTES
    with pytest.raises(ValueError, match="attributes are 1 to 40, got 0"):
        workload(attributes=0)
    with pytest.raises(ValueError, match="variant is one of dense, attributes, got 'attribute'"):
        SceneImages(variant="attribute")


def test_scenes_of_attributes_have_disjoint_splits_and_depend_on_the_seed_alone() -> None:
    small = workload(size=16, train=520, validation=40, test=40)
    images = {split: only_stream(small, split).inputs for split in ("train", "validation", "test")}
    assert len({image.numpy().tobytes() for part in images.values() for image in part}) == 600
    fewer = workload(size=16, train=30, validation=1, test=1)
    assert torch.equal(fewer.data().test[0].targets["main_near"], small.data().test[0].targets["main_near"][:1])  # type: ignore[attr-defined]
    other = workload(size=16, train=520, validation=1, test=1, data_seed=1)
    assert not torch.equal(only_stream(other, "train").inputs, images["train"])


def feature_gradients(model: nn.Module, batch: Samples, tasks: Sequence[str], made: SceneImages) -> dict[str, Tensor]:
    """The gradients of the losses with respect to the encoder's output."""
    features = model.encoder(batch.inputs).detach().requires_grad_()  # type: ignore[operator]
    outputs = {task: model.heads[task](features) for task in tasks}  # type: ignore[index, operator]
    losses = made.losses(outputs, batch.targets)
    return {task: torch.autograd.grad(losses[task], features)[0].flatten() for task in tasks}


def test_scenes_gradients_of_conflicting_attributes_have_the_cosine_of_their_labels() -> None:
    """With scores of zero each sample's gradient is +-1/2 of the score: the cosine is 1 - 2 P(labels differ)."""
    made = workload(train=256)
    model = made.model().eval()
    nn.init.zeros_(model.encoder.scores.weight)  # type: ignore[union-attr, arg-type]
    nn.init.zeros_(model.encoder.scores.bias)  # type: ignore[union-attr, arg-type]
    batch = next(iter(made.data().train[0].batches(256, None)))
    gradients = feature_gradients(model, batch, made.tasks, made)
    for first, second in CONFLICTING:
        different = float((batch.targets[first] != batch.targets[second]).float().mean())
        cosine = torch.nn.functional.cosine_similarity(gradients[first], gradients[second], dim=0)
        assert float(cosine) == pytest.approx(1 - 2 * different, abs=1e-5)
        assert different > 0.6


def test_scenes_conflicting_attributes_are_not_learnable_together() -> None:
    """The accuracies of a pair sum to at most 1 + P(labels agree), for any weights."""
    made = workload(train=256)
    targets = made.data().train[0].targets  # type: ignore[attr-defined]
    for seed in range(3):
        torch.manual_seed(seed)
        model = made.model()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.startswith("heads."):
                    parameter.normal_()
        found = evaluate(made, model, made.data().train, made.tasks, 256, "float32").metrics
        for first, second in CONFLICTING:
            agree = float((targets[first] == targets[second]).float().mean())
            assert found[first]["accuracy"] + found[second]["accuracy"] <= 1 + agree + 1e-6


def parameter_cosines(model: nn.Module, made: SceneImages, pairs: Sequence[Pair]) -> dict[Pair, float]:
    """Cosines of the tasks' gradients with respect to the parameters of the encoder's layers."""
    (batch,) = next(training_batches(made.data().train, 512, 7, 0))
    losses = made.losses(model(batch.inputs), batch.targets)
    parameters = list(model.encoder.layers.parameters())  # type: ignore[union-attr]

    def gradient(task: str) -> Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(losses[task], parameters, retain_graph=True)])

    return {
        pair: float(torch.nn.functional.cosine_similarity(gradient(pair[0]), gradient(pair[1]), dim=0))
        for pair in pairs
    }


def trained(made: SceneImages, tasks: tuple[str, ...], epochs: int, of: int | None = None) -> nn.Module:
    """A model after ``epochs`` of training on the sum of the losses, with a step size that falls to zero after ``of``."""
    torch.manual_seed(1)
    model = trained_model(made, tasks)
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    steps = -(-made.train // 64) * (of or epochs)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (steps + 1))
    for epoch in range(epochs):
        for (batch,) in training_batches(made.data().train, 64, 1, epoch):
            losses = made.losses(model(batch.inputs), batch.targets)
            optimizer.zero_grad()
            torch.stack([losses[task] for task in tasks]).sum().backward()
            optimizer.step()
            schedule.step()
    return model


@pytest.mark.long
def test_scenes_gradients_conflict_in_the_conflicting_pairs_alone() -> None:
    made = workload(train=3000, data_seed=3)
    model = trained(made, made.tasks, epochs=1, of=6)
    assert max(parameter_cosines(model, made, CONFLICTING).values()) < -0.2
    same = list(parameter_cosines(model, made, CORRELATED).values())
    assert sum(same) / len(same) > 0.2
    excluding = list(parameter_cosines(model, made, EXCLUDING).values())
    assert sum(excluding) / len(excluding) > -0.1, "opposite heads fit labels that exclude each other"


@pytest.mark.long
def test_scenes_attributes_are_learnable_in_a_short_run() -> None:
    """Each attribute without its opponent exceeds the rate of the more frequent label."""
    made = workload(train=5000, test=2000, data_seed=3)
    test = made.data().test
    for tasks in (tuple(task for task in ATTRIBUTES if task not in SECONDS), SECONDS):
        found = evaluate(made, trained(made, tasks, epochs=8), test, tasks, 500, "float32").metrics
        for task in tasks:
            rate = float(test[0].targets[task].mean())  # type: ignore[attr-defined]
            assert found[task]["accuracy"] > max(rate, 1 - rate) + 0.02, task
