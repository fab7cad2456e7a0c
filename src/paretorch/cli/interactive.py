"""``paretorch interactive``: a few questions, then a run with its result, the plot and the JSON."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from paretorch.cli.found_data import Found, fitted, look
from paretorch.cli.questions import Option, Questions, whole
from paretorch.extras import extra
from paretorch.optim.presets import PRESETS, Preset, find_preset
from paretorch.studies.catalog.optimizers import SMALL
from paretorch.training.monitoring.training_monitor import NO_GPU
from paretorch.training.names.constructors import Call, parse, written
from paretorch.training.names.devices import find_device
from paretorch.training.names.optimizers import find_optimizer
from paretorch.training.run import Run
from paretorch.workloads.models.encoders import encoder
from paretorch.workloads.streams import Plain

with extra("studies"):
    from rich.console import Console
    from rich.markup import escape

MODELS = {
    "mobilenet_v3_large": "MobileNetV3-Large: small and quick",
    "resnet18": "ResNet-18: plain, a good start",
    "resnet50": "ResNet-50: larger, slower",
    "efficientnet_b0": "EfficientNet-B0: few parameters, much work for each",
}
EXPECTED = {
    "SGD": "simple, little memory; wants a learning rate tuned to the problem",
    "SGD+Nesterov": "generalises well, given epochs enough",
    "Adam": "fast at the start",
    "AdamW": "fast, and generalises well: its weight decay is apart from the step",
    "RMSprop": "adapts as Adam does, without its first moment; noisier",
    "Adagrad": "for rare features; its steps only ever shrink",
    "Adadelta": "hardly any tuning; slow at the start",
    "MTAdamV2": "fast, and no task drowns another; a backward for each task",
}
EPOCHS, BATCH = {"scenes": 8, "imagenet_coco": 10}, {"scenes": 16, "imagenet_coco": 32}


@dataclass(frozen=True)
class Flags:
    """Answers that were given beforehand; None is asked.

    Args:
        model: an encoder, by number or name.
        data: a workload, by number or name.
        batch_size: images of each task in a step.
        optimizer: 1 to 8, or a name, with options where they differ: ``"adamw(lr=0.01)"``.
        epochs: passes over the data.
        images: of each task to train on; as many as there are, or as the protocol asks, by default. Never asked.
        root: the folder of image data.
        seed: decides initial weights and data order.
        device: ``"auto"`` takes a GPU where there is one.
        out: the run's folder.
        yes: take the default of all that is not given.
    """

    model: str | None = None
    data: str | None = None
    batch_size: str | None = None
    optimizer: str | None = None
    epochs: str | None = None
    images: int | None = None
    root: str = "data"
    seed: int = 0
    device: str = "auto"
    out: Path | None = None
    yes: bool = False


def trained(run: Run, flags: Flags, console: Console) -> None:
    """Trains what was asked for, and shows what came of it.

    Raises:
        KeyboardInterrupt: on Ctrl-C; the command that is printed before the training resumes it.
    """
    folder = flags.out or Path("runs") / f"interactive-{run.key}"
    console.print(f"\nThe same without questions:\n  {escape(command(run, flags))}\n", highlight=False, soft_wrap=True)
    from paretorch.reports.report import report
    from paretorch.training.loop import train
    from paretorch.training.monitoring.result_table import show

    result = train(run, folder)
    show(result, folder)
    written = report(folder)
    plots = [path for path in written.files if path.suffix == ".svg"]
    for what, path in {"The plot": plots[0] if plots else None, "The page": written.page}.items():
        if path is not None:
            console.print(f"{what}: {escape(str(path))}", highlight=False, soft_wrap=True)
    console.print(f"The JSON: {escape(str(folder / 'result.json'))}", highlight=False, soft_wrap=True)


def asked(flags: Flags, console: Console) -> Run:
    """The run that the answers describe: asks for what the flags do not say.

    Raises:
        ValueError: a flag is wrong.
        EOFError: the input ended before the last question.
        KeyboardInterrupt: on Ctrl-C.
    """
    questions = Questions(console, flags.yes)
    found = look(flags.root)
    model = questions.choose(
        "Model", [Option(name, about) for name, about in MODELS.items()], default=1, given=flags.model
    ).name
    data = _data(questions, flags, found)
    options = _options(data, flags, found)
    _sizes(console, data, model, options)
    images = int(str(options["train"]))
    console.print()
    read = whole("the batch size", 2, "as batch norm needs", images)
    batch_size = questions.ask("Batch size", str(min(BATCH[data], images)), read, flags.batch_size)
    preset = _optimizer(questions, flags)
    epochs = questions.ask("Epochs", str(EPOCHS[data]), whole("the number of epochs", 1), flags.epochs)
    run = Run(
        data,
        {**options, "encoder": model},
        optimizer=preset.optimizer,
        optimizer_options=preset.plain,
        epochs=epochs,
        batch_size=batch_size,
        seed=flags.seed,
        device=_device(flags.device, console),
        clip=1.0,
        schedule="cosine",
    )
    # each task of imagenet_coco has its own images: gradients meet on the parameters alone
    return replace(run, surface="parameters") if data == "imagenet_coco" else run


def _data(questions: Questions, flags: Flags, found: Mapping[str, Found]) -> str:
    missing = "; ".join(part.where.rstrip(".") for part in found.values() if part.source is None)
    if missing:
        missing += f"\n       `paretorch data check {flags.root}` says how the folders must lie; --root DIR names another place"
    where = missing or "found: " + ", ".join(part.where for part in found.values())
    options = [
        Option("scenes", "drawn solids: 6 classes, 8 masks", "found: always there, drawn from a seed"),
        Option("imagenet_coco", "ImageNet classes, COCO masks; each task has its own images", where, missing),
    ]
    return questions.choose("Data", options, default=1 if missing else 2, given=flags.data).name


def _options(data: str, flags: Flags, found: Mapping[str, Found]) -> dict[str, Plain]:
    if flags.images is not None and flags.images < 2:
        raise ValueError(f"images are at least 2, as batch norm needs, got {flags.images}")
    if data == "scenes":
        images = flags.images or int(str(SMALL["train"]))
        held_out = {name: min(images, int(str(SMALL[name]))) for name in ("validation", "test")}
        return {**SMALL, "train": images, **held_out}
    sources = {task: part.source for task, part in found.items() if part.source is not None}
    return {"root": flags.root, **fitted(sources, flags.images)}


def _sizes(console: Console, data: str, model: str, options: Mapping[str, Plain]) -> None:
    """Says what was chosen, in numbers."""
    made = encoder(model, float(str(options.get("width", 1.0))))
    count = sum(parameter.numel() for parameter in made.parameters())
    parts = ", ".join(f"{name} {options[name]:,}" for name in ("train", "validation", "test"))
    console.print(
        f"\n{data}: images of each task: {parts}; the encoder {model} has {count:,} parameters",
        highlight=False,
        soft_wrap=True,
    )


def _optimizer(questions: Questions, flags: Flags) -> Preset:
    options = [
        Option(preset.name, str(preset), f"expected, not measured: {EXPECTED[preset.name]}") for preset in PRESETS
    ]
    if flags.optimizer is None and not questions.silent:
        questions.show("Optimizer", options)
    preset = questions.ask("Optimizer, 1 to 8", "4", _preset, flags.optimizer)
    questions.console.print(f"  {escape(str(preset))}", highlight=False, soft_wrap=True)
    return preset


def _preset(answer: str) -> Preset:
    """A number from 1 to 8 or a name, with options where they differ from the preset's."""
    call = parse(answer)
    if call.positional:
        raise ValueError(f"{answer!r}: options are given by name, as in 'sgd(lr=0.1)'")
    preset = find_preset(call.name).with_options(**call.named)
    find_optimizer(preset.optimizer, preset.options)
    return preset


def _device(name: str, console: Console) -> str:
    if name != "auto":
        find_device(name)
        return name
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    console.print(NO_GPU, highlight=False, soft_wrap=True)
    return "cpu"


def command(run: Run, flags: Flags) -> str:
    """The command line that asks nothing and trains ``run``."""

    def changed(preset: Preset) -> dict[str, Plain]:
        return {name: value for name, value in run.optimizer_options.items() if preset.plain.get(name) != value}

    fitting = [p for p in PRESETS if p.optimizer == run.optimizer and p.options.keys() <= run.optimizer_options.keys()]
    preset = min(fitting, key=lambda p: len(changed(p)))
    optimizer = written(Call(preset.name, (), changed(preset))) if changed(preset) else preset.name
    parts = [
        *("paretorch", "interactive", "--yes", "--model", str(run.options["encoder"]), "--data", run.workload),
        *("--batch-size", str(run.batch_size), "--optimizer", optimizer, "--epochs", str(run.epochs)),
        *("--images", str(run.options["train"]), "--root", flags.root, "--seed", str(run.seed), "--device", run.device),
    ]
    return shlex.join(parts + (["--out", str(flags.out)] if flags.out else []))
