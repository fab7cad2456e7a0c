"""Optimizers: which of eight trains one network on classification and segmentation best?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from paretorch.optim.presets import PRESETS, Preset, find_preset
from paretorch.studies.study import Expected, Study, Treatment, best_of_grid, check_scale, single_task
from paretorch.studies.tuning.hyperparameters import STATIC_WEIGHTS
from paretorch.training.names.constructors import Call, parse, split_at_commas, written
from paretorch.training.names.methods import find_method
from paretorch.training.names.optimizers import optimizers as optimizer_classes
from paretorch.training.run import Plain, Run

SCALES = ("smoke", "small", "paper")
TASKS = ("classification", "segmentation")
QUESTION = "Which optimizer trains one network on classification and segmentation best?"
PER_TASK = "MTAdamV2"  # combines the tasks' gradients itself, so it is not combined with balancing methods
FIRST_SHARES = (0.2, 0.35, 0.65, 0.8)  # of the first task in the static weights of the grid; a half is the sum itself

CLIP = 10.0  # about twice the usual norm of the gradient on the scenes: only unusual gradients are clipped
WARMUP = 0.05
RATE_FACTOR = 3.0  # of the presets' learning rates on drawn scenes, where there are 564 steps instead of 15,630

# drawn images with classification and segmentation only
DRAWN: dict[str, Plain] = {"depth": False, "normals": False, "detection": False}
SMALL: dict[str, Plain] = {
    **DRAWN,
    "size": 48,
    "objects": 2,
    "hue_spread": 0.04,
    "train": 1_500,
    "validation": 400,
    "test": 600,
    "width": 0.35,
    "stride": 8,
}
SMOKE: dict[str, Plain] = {
    **DRAWN,
    "size": 32,
    "objects": 2,
    "train": 96,
    "validation": 48,
    "test": 48,
    "width": 0.25,
    "stride": 8,
}


@dataclass(frozen=True)
class Protocol:
    """A protocol of the paper for one number of classes.

    Args:
        epochs: passes over the data.
        batch_size: images of each task per step.
        rates: learning rates that differ from those of the presets, by the optimizer's name.
        expected: expected ranges of metrics in 0..1.
    """

    epochs: int
    batch_size: int
    rates: Mapping[str, float]
    expected: tuple[Expected, ...]


def _expected_ranges(values: Mapping[str, tuple[tuple[float, float], tuple[float, float]]]) -> tuple[Expected, ...]:
    metrics = (("classification", "accuracy"), ("segmentation", "mean IoU"))
    return tuple(
        Expected(label, *metric, *ends)
        for label, both in values.items()
        for metric, ends in zip(metrics, both, strict=True)
    )


PROTOCOLS = {
    100: Protocol(
        epochs=10,
        batch_size=32,
        rates={PER_TASK: 3e-4},
        expected=_expected_ranges(
            {
                "SGD": ((0.35, 0.45), (0.15, 0.25)),
                "Adam": ((0.45, 0.55), (0.25, 0.35)),
                "AdamW": ((0.45, 0.55), (0.25, 0.35)),
                PER_TASK: ((0.40, 0.50), (0.30, 0.40)),
            }
        ),
    ),
    1000: Protocol(
        epochs=5,
        batch_size=8,
        rates={},
        expected=_expected_ranges({preset.name: ((0.45, 0.66), (0.03, 0.04)) for preset in PRESETS}),
    ),
}


def study(
    scale: str,
    optimizers: str = "",
    methods: str = "sum",
    classes: int | None = None,
    loss_weights: str = "",
    baselines: bool = False,
    root: str = "data",
    encoder: str = "mobilenet_v3_large",
    encoder_weights: str = "",
    device: str = "cpu",
) -> Study:
    """Optimizers with their presets, each combined with ways of balancing.

    Seeds, initial weights, data order, losses, clipping and schedule are the same for all. On drawn scenes, which have fewer
    steps, all learning rates are :data:`RATE_FACTOR` times those of the presets. ``MTAdamV2`` uses the gradient of each task and
    balances itself, so it is one treatment for any methods.

    Args:
        scale: ``"smoke"`` and ``"small"`` are on drawn scenes, ``"paper"`` on the folders of ImageNet and COCO.
        optimizers: numbers from 1 to 8 or names, with options that differ from the preset: ``"sgd, adamw(lr=0.01)"``; all
            eight if empty.
        methods: ``"sum"``, and constructors of balancing methods: ``"sum, MGDA()"``.
        classes: classes of ImageNet at the scale ``"paper"``: 100 (batch 32, 10 epochs) or 1000 (batch 8, 5 epochs).
        loss_weights: one number for each task, ``"1, 0.5"``, for the sum and for MTAdamV2.
        baselines: add the single-task baseline and tuned static weights, both with the optimizer of the reference.
        root: folder of ``imagenet``, ``coco`` and packs.
        encoder: one of :data:`~paretorch.workloads.models.encoders.ENCODERS`.
        encoder_weights: initial weights of the encoder: ``"torchvision"`` or a file.
        device: device of all runs.

    Raises:
        ValueError: an unknown scale, optimizer, method or number of classes, or wrong loss weights.
    """
    check_scale("optimizers", scale, SCALES)
    if classes is not None and scale != "paper":
        raise ValueError(f"classes are those of ImageNet, at the scale 'paper'; {scale!r} draws six kinds of solids")
    if (classes or 100) not in PROTOCOLS:
        raise ValueError(f"classes are 100 or 1000, each with a protocol of its own; got {classes}")
    protocol = PROTOCOLS[classes or 100]
    rates = protocol.rates if scale == "paper" else {p.name: RATE_FACTOR * _preset_rate(p) for p in PRESETS}
    presets = [_parse_preset(text, rates) for text in split_at_commas(optimizers) or [str(p.number) for p in PRESETS]]
    base = _base(scale, classes or 100, protocol, root, encoder, encoder_weights, device)
    weights = _parse_weights(loss_weights)
    treatments = [
        t for label, preset in presets for t in _crossed(label, preset, base, split_at_commas(methods), weights)
    ]
    reference = next((t for t in treatments if t.label == "Adam"), treatments[0])
    if baselines:
        plain = [preset for label, preset in presets if not _is_per_task(preset)] or [find_preset("adam")]
        treatments += _baselines(_with_preset(base, next((p for p in plain if p.name == "Adam"), plain[0])))
    return Study(
        name="optimizers",
        question=QUESTION,
        treatments=tuple(treatments),
        reference=reference.label,
        baseline=treatments[-2].label if baselines else reference.label,
        expected=_expected_of(protocol, treatments) if scale == "paper" else (),
    )


def _base(
    scale: str, classes: int, protocol: Protocol, root: str, encoder: str, encoder_weights: str, device: str
) -> Run:
    """The run that all treatments share."""
    model: dict[str, Plain] = {"encoder": encoder, "encoder_weights": encoder_weights}
    if scale == "paper":
        options = {"root": root, "classes": classes, "train": 50_000, "validation": 5_000, "test": 5_000, **model}
        run = Run("imagenet_coco", options, epochs=protocol.epochs, batch_size=protocol.batch_size)
        # each task has its own images, so only gradients of the parameters can be compared
        run = replace(run, surface="parameters")
    elif scale == "small":
        run = Run("scenes", {**SMALL, **model}, epochs=6, batch_size=16)
    else:
        run = Run("scenes", {**SMOKE, **model}, epochs=2, batch_size=16)
    return replace(run, clip=CLIP, schedule="cosine", warmup=WARMUP, device=device)


def _parse_preset(text: str, rates: Mapping[str, float]) -> tuple[str, Preset]:
    """The label and the preset, with the protocol's learning rate and the options in the text."""
    call = parse(text)
    preset = find_preset(call.name)
    if call.positional:
        raise ValueError(f"{text!r}: options are given by name, as in 'sgd(lr=0.1)', got {call.positional[0]!r}")
    if preset.name in rates:
        preset = preset.with_options(lr=rates[preset.name])
    if not call.named:
        return preset.name, preset
    return written(Call(preset.name, (), call.named)), preset.with_options(**call.named)


def _preset_rate(preset: Preset) -> float:
    return float(preset.options["lr"])  # type: ignore[arg-type]


def _parse_weights(text: str) -> tuple[float, ...]:
    try:
        weights = tuple(float(number) for number in split_at_commas(text))
    except ValueError:
        raise ValueError(f"loss_weights are numbers with a comma between, as in '1, 0.5', got {text!r}") from None
    if weights and (len(weights) != len(TASKS) or not all(0 < weight < float("inf") for weight in weights)):
        raise ValueError(f"loss_weights: expected a number above 0 for each of {', '.join(TASKS)}, got {text!r}")
    return weights


def _crossed(
    label: str, preset: Preset, base: Run, methods: Sequence[str], weights: Sequence[float]
) -> Iterable[Treatment]:
    """The treatments of an optimizer: one for each method."""
    run = _with_preset(base, preset)
    if _is_per_task(preset):
        if weights:
            run = replace(run, optimizer_options={**run.optimizer_options, "weights": [*weights]})
        return [Treatment(label, (run,))]
    treatments = []
    for method in methods or ("sum",):
        if method != "sum":
            find_method(method)
            if weights:
                raise ValueError(f"loss_weights go with the sum and with {PER_TASK}; {method} computes its own weights")
            treatments.append(Treatment(f"{label} + {method.removesuffix('()')}", (replace(run, method=method),)))
        elif weights:
            static = written(Call("Static", (dict(zip(TASKS, weights, strict=True)),)))
            treatments.append(Treatment(label, (replace(run, method=static),)))
        else:
            treatments.append(Treatment(label, (run,)))
    return treatments


def _with_preset(base: Run, preset: Preset) -> Run:
    return replace(base, optimizer=preset.optimizer, optimizer_options=preset.plain)


def _is_per_task(preset: Preset) -> bool:
    return optimizer_classes()[preset.optimizer].__module__.startswith("paretorch.")


def _baselines(reference: Run) -> list[Treatment]:
    """The single-task baseline, and static weights chosen on validation data."""
    grid = [dict(zip(TASKS, (2 * share, 2 - 2 * share), strict=True)) for share in FIRST_SHARES]
    runs = [reference, *(replace(reference, method=written(Call("Static", (weights,)))) for weights in grid)]
    return [single_task("single task", reference, TASKS), best_of_grid(STATIC_WEIGHTS, runs)]


def _expected_of(protocol: Protocol, treatments: Sequence[Treatment]) -> tuple[Expected, ...]:
    labels = {treatment.label for treatment in treatments}
    return tuple(expected for expected in protocol.expected if expected.label in labels)
