"""The questions of ``paretorch interactive``, the run that they describe, and its training."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from paretorch.cli.console import print_line
from paretorch.cli.interactive.image_sources import TaskImages, find_image_sources, size_options
from paretorch.cli.interactive.questions import Option, Questions, integer
from paretorch.cli.options import name_and_options
from paretorch.extras import extra
from paretorch.optim import MultiTaskOptimizer
from paretorch.optim.presets import PRESETS, Preset, find_preset
from paretorch.studies.catalog.optimizers import SMALL
from paretorch.training.monitoring.training_monitor import NO_GPU
from paretorch.training.names.constructors import Call, parse, written
from paretorch.training.names.devices import available_devices, find_device
from paretorch.training.names.optimizers import find_optimizer, optimizers
from paretorch.training.resolved_run import check
from paretorch.training.run import Run
from paretorch.workloads.models.encoders import encoder
from paretorch.workloads.streams import Plain

with extra("studies"):
    from rich.console import Console

MODELS = {
    "mobilenet_v3_large": "MobileNetV3-Large: small and quick",
    "resnet18": "ResNet-18: plain, a good start",
    "resnet50": "ResNet-50: larger, slower",
    "efficientnet_b0": "EfficientNet-B0: few parameters, slow for its size",
}
EXPECTED = {
    "SGD": "simple, little memory; needs a learning rate tuned to the problem",
    "SGD+Nesterov": "generalises well with enough epochs",
    "Adam": "fast at the start",
    "AdamW": "fast, and generalises well: its weight decay is decoupled from the gradient",
    "RMSprop": "adaptive as Adam, without its first moment; noisier",
    "Adagrad": "for rare features; its step size only decreases",
    "Adadelta": "little tuning; slow at the start",
    "MTAdamV2": "fast, and no task dominates; one backward pass per task",
}
METHODS = {
    "sum": "the sum of the losses: no balancing, the reference of every comparison",
    "IMTLG()": "equal projections of the update on all task gradients, whatever the scales of the losses are",
    "CAGrad()": "near the mean gradient, and best for the task that improves least",
    "FAMO()": "all log-losses decrease at the same rate; one backward pass",
    "UPGrad()": "conflicts between task gradients are projected out",
}
EPOCHS, BATCH = {"scenes": 8, "imagenet_coco": 10}, {"scenes": 16, "imagenet_coco": 32}


@dataclass(frozen=True)
class Answers:
    """Answers from the command line. There is a question for each of the first six that is None.

    Args:
        model: encoder, by number or name.
        data: workload, by number or name.
        batch_size: images of each task per step.
        optimizer: 1 to 8, or a name, with options that differ: ``"adamw(lr=0.01)"``.
        method: balancing method, by number or as a constructor: ``"CAGrad(c=0.4)"``; ``"sum"``.
        epochs: passes over the data.
        images: training images of each task; by default those of the protocol, or as many as there are.
        root: folder of the image data.
        seed: seed of the initial weights and the data order.
        device: device; ``"auto"`` is a GPU if there is one.
        out: folder of the run.
        yes: use the default for every answer that is None.
    """

    model: str | None = None
    data: str | None = None
    batch_size: str | None = None
    optimizer: str | None = None
    method: str | None = None
    epochs: str | None = None
    images: int | None = None
    root: str = "data"
    seed: int = 0
    device: str = "auto"
    out: Path | None = None
    yes: bool = False


def train_and_show(run: Run, answers: Answers, console: Console) -> None:
    """Trains the run, and prints its result and the paths of its plot, page and JSON.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the command that is printed before the training resumes it.
    """
    folder = answers.out or Path("runs") / f"interactive-{run.key}"
    print_line(console, f"\nThe same without questions:\n  {command(run, answers)}\n")
    from paretorch.reports.report import report
    from paretorch.training.loop import train
    from paretorch.training.monitoring.result_table import show

    result = train(run, folder)
    show(result, folder)
    written_report = report(folder)
    plot = next((path for path in written_report.files if path.suffix == ".svg"), None)
    for name, path in {"The plot": plot, "The page": written_report.page, "The JSON": folder / "result.json"}.items():
        if path is not None:
            print_line(console, f"{name}: {path}")


def choose_run(answers: Answers, console: Console) -> Run:
    """The run that the answers describe, after a question for each missing one.

    Raises:
        ValueError: an answer from the command line is wrong.
        EOFError: the input ended before the last question.
        KeyboardInterrupt: after Ctrl-C.
    """
    questions = Questions(console, answers.yes)
    sources = find_image_sources(answers.root)
    model = questions.choose(
        "Model", [Option(name, about) for name, about in MODELS.items()], default=1, given=answers.model
    ).name
    data = _choose_data(questions, answers, sources)
    options = _workload_options(data, answers, sources)
    _print_sizes(console, data, model, options)
    images = int(str(options["train"]))
    console.print()
    parse_batch_size = integer("the batch size", 2, "as batch norm needs", images)
    batch_size = questions.ask("Batch size", str(min(BATCH[data], images)), parse_batch_size, answers.batch_size)
    preset = _choose_preset(questions, answers)
    run = Run(
        data,
        {**options, "encoder": model},
        optimizer=preset.optimizer,
        optimizer_options=preset.plain,
        batch_size=batch_size,
        seed=answers.seed,
        device=_choose_device(answers.device, console),
        clip=1.0,
        schedule="cosine",
    )
    # each task of imagenet_coco has its own images, so only gradients of the parameters can be compared
    run = replace(run, surface="parameters") if data == "imagenet_coco" else run
    run = replace(run, method=_choose_method(questions, answers, run))
    epochs = questions.ask("Epochs", str(EPOCHS[data]), integer("the number of epochs", 1), answers.epochs)
    return replace(run, epochs=epochs)


def _choose_data(questions: Questions, answers: Answers, sources: Mapping[str, TaskImages]) -> str:
    missing = "; ".join(each.description.rstrip(".") for each in sources.values() if each.source is None)
    if missing:
        missing += f"\n       `paretorch data check {answers.root}` prints the expected layout; --root DIR names another folder"
    note = missing or "found: " + ", ".join(each.description for each in sources.values())
    options = [
        Option("scenes", "drawn solids: 6 classes, 8 masks", "found: always available, drawn from a seed"),
        Option("imagenet_coco", "ImageNet classes, COCO masks; each task has its own images", note, missing),
    ]
    return questions.choose("Data", options, default=1 if missing else 2, given=answers.data).name


def _workload_options(data: str, answers: Answers, sources: Mapping[str, TaskImages]) -> dict[str, Plain]:
    if answers.images is not None and answers.images < 2:
        raise ValueError(f"images are at least 2, as batch norm needs, got {answers.images}")
    if data == "scenes":
        images = answers.images or int(str(SMALL["train"]))
        held_out = {name: min(images, int(str(SMALL[name]))) for name in ("validation", "test")}
        return {**SMALL, "train": images, **held_out}
    available = {task: each.source for task, each in sources.items() if each.source is not None}
    return {"root": answers.root, **size_options(available, answers.images)}


def _print_sizes(console: Console, data: str, model: str, options: Mapping[str, Plain]) -> None:
    """Prints the numbers of images and of parameters."""
    network = encoder(model, float(str(options.get("width", 1.0))))
    count = sum(parameter.numel() for parameter in network.parameters())
    parts = ", ".join(f"{name} {options[name]:,}" for name in ("train", "validation", "test"))
    print_line(console, f"\n{data}: images of each task: {parts}; the encoder {model} has {count:,} parameters")


def _choose_preset(questions: Questions, answers: Answers) -> Preset:
    options = [
        Option(preset.name, str(preset), f"expected, not measured: {EXPECTED[preset.name]}") for preset in PRESETS
    ]
    if answers.optimizer is None and not questions.silent:
        questions.show("Optimizer", options)
    preset = questions.ask("Optimizer, 1 to 8", "4", _parse_preset, answers.optimizer)
    print_line(questions.console, f"  {preset}")
    return preset


def _parse_preset(answer: str) -> Preset:
    """The preset with a number from 1 to 8 or a name, with the given options."""
    name, options = name_and_options(answer)
    preset = find_preset(name).with_options(**options)
    find_optimizer(preset.optimizer, preset.options)
    return preset


def _choose_method(questions: Questions, answers: Answers, run: Run) -> str:
    """The balancing method as a constructor; there is no question if the optimizer balances by itself."""

    def parse_method(answer: str) -> str:
        names = dict(zip(map(str, range(1, len(METHODS) + 1)), METHODS, strict=True))
        text = names.get(answer, answer)
        method = "Equal()" if text.lower() == "sum" else written(parse(text))
        check(replace(run, method=method))
        return method

    balances = issubclass(optimizers()[run.optimizer], MultiTaskOptimizer)
    if answers.method is None and not questions.silent:
        if balances:
            print_line(questions.console, f"\n{run.optimizer} balances the tasks itself: there is no method to choose")
            return parse_method("sum")
        questions.show("Balancing method", [Option(name, about) for name, about in METHODS.items()])
    question = f"Balancing method, 1 to {len(METHODS)} or a constructor"
    return questions.ask(question, "1", parse_method, answers.method)


def _choose_device(name: str, console: Console) -> str:
    if name != "auto":
        find_device(name)
        return name
    fastest = available_devices()[0]
    if fastest == "cpu":
        print_line(console, NO_GPU)
    return fastest


def command(run: Run, answers: Answers) -> str:
    """The command that trains ``run`` without questions."""

    def changed(preset: Preset) -> dict[str, Plain]:
        return {name: value for name, value in run.optimizer_options.items() if preset.plain.get(name) != value}

    presets = [p for p in PRESETS if p.optimizer == run.optimizer and p.options.keys() <= run.optimizer_options.keys()]
    preset = min(presets, key=lambda p: len(changed(p)))
    optimizer = written(Call(preset.name, (), changed(preset))) if changed(preset) else preset.name
    options = {
        "model": run.options["encoder"],
        "data": run.workload,
        "batch-size": run.batch_size,
        "optimizer": optimizer,
        "method": "sum" if run.method == "Equal()" else run.method,
        "epochs": run.epochs,
        "images": run.options["train"],
        "root": answers.root,
        "seed": run.seed,
        "device": run.device,
    } | ({"out": answers.out} if answers.out else {})
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return shlex.join(["paretorch", "interactive", "--yes", *flags])
