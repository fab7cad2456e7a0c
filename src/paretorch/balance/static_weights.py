"""Static weights from the gradient norms along a short balanced run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paretorch.balance.imtlg import IMTLG
from paretorch.core.balancer.balancer import Balancer
from paretorch.core.checks import called
from paretorch.core.contract import Method, Need
from paretorch.core.fork.pausing import paused_forks
from paretorch.core.method.argument import check_method
from paretorch.core.option_checks import check_whole
from paretorch.core.restoring import RestoredOnError

FEWEST_STEPS = 10  # in which a task must have a gradient
FEWEST_RUN = 12  # steps of the run, of which so many are used
UNLIKE = (
    10  # ratio of gradient norms from which on scales are unlike; below it the benchmark shows no gain over the sum
)
IGNORED_SHARE = 0.1  # of the run, at its beginning: gradients there are those of the initial weights


@dataclass(frozen=True)
class StaticWeights(Mapping[str, float]):
    """Weights for ``sum(weights[task] * loss)``; a mapping from tasks to weights.

    Args:
        weights: by task, with a mean of one.
        norms: by task, the geometric mean of the norms of its gradient on the shared parameters.
        steps: number of steps over which the norms were averaged.
        method: the method of the balanced run.

    Example:
        >>> found = StaticWeights({"seg": 0.4, "depth": 1.6}, {"seg": 2.0, "depth": 0.5}, steps=180, method="IMTLG()")
        >>> found["depth"], dict(found)
        (1.6, {'seg': 0.4, 'depth': 1.6})
        >>> print(found)
        task     weight  gradient norm
        seg         0.4              2
        depth       1.6            0.5
        (geometric means over 180 steps with IMTLG())
        The norms differ by less than a factor of 10: the plain sum may be as good.
    """

    weights: Mapping[str, float]
    norms: Mapping[str, float]
    steps: int
    method: str

    def __getitem__(self, task: str) -> float:
        return self.weights[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """A table of the weights and norms, with a remark where weights are not needed."""
        width = max(len("task"), *map(len, self.weights))
        rows = [f"{task:<{width}}{weight:>10.4g}{self.norms[task]:>15.4g}" for task, weight in self.weights.items()]
        head = f"{'task':<{width}}{'weight':>10}{'gradient norm':>15}"
        lines = [head, *rows, f"(geometric means over {self.steps} steps with {self.method})"]
        if max(self.norms.values()) < UNLIKE * min(self.norms.values()):
            lines.append(f"The norms differ by less than a factor of {UNLIKE}: the plain sum may be as good.")
        return "\n".join(lines)


def find_weights(
    model: nn.Module,
    losses_of: Callable[[Any, Any], Mapping[str, Tensor | None]],
    batches: Iterable[Any],
    *,
    steps: int = 200,
    method: Method[Any] | None = None,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    shared: nn.Module | Iterable[Tensor] | None = None,
) -> StaticWeights:
    r"""Static weights at which the weighted gradients of all tasks have the same norm along a short balanced run.

    .. math:: w_t = \frac{c}{\exp\bigl(\frac{1}{|K|} \sum_{k \in K} \log \lVert g_{t,k} \rVert\bigr)}, \qquad
              \frac{1}{T} \sum_t w_t = 1,

    where :math:`g_{t,k}` is the gradient of the loss of task t on the shared parameters in step k, and K are the steps after
    the first tenth in which the task is present. The geometric mean depends less on single large norms than the arithmetic one.

    The model is trained for ``steps`` steps with a balancing method, so that the norms are those of a model that learns every
    task. Afterwards its parameters, buffers, gradients and training mode, and the states of the global random generators of
    Python, NumPy and torch are as before.

    A third of a training is long enough: the norms of the later steps gave no better weights where both were measured. A step
    has a backward pass for each task.

    Args:
        model: the model. Forks within it do not balance during the run.
        losses_of: model, batch -> scalar losses by task; a task that is absent is left out, or None.
        batches: what ``losses_of`` receives; repeated until ``steps`` are done, unless it is an iterator.
        steps: number of steps of the run, at least 12.
        method: the balancing method of the run, one that compares gradients; ``IMTLG()`` by default.
        optimizer: parameters -> optimizer of the run; ``torch.optim.Adam(parameters, lr=1e-3)`` by default. Give the one with
            which the model is to be trained.
        shared: the shared parameters, or a module; by default those that two losses or more reach. Necessary for compiled
            models and under DistributedDataParallel, where they cannot be found from the graph.

    Returns:
        the weights by task, with the norms.

    Raises:
        ValueError: fewer than two tasks, losses that are not scalars or share no parameter, a task without a gradient, too few
            batches, or a method that compares no gradients.
        FloatingPointError: a loss or gradient that is not finite; the message names the task.

    Example:
        >>> import paretorch as pt
        >>> _ = torch.manual_seed(0)
        >>> encoder, heads = nn.Linear(4, 8), nn.ModuleDict({"left": nn.Linear(8, 1), "right": nn.Linear(8, 1)})
        >>> model = nn.ModuleDict({"encoder": encoder, "heads": heads})
        >>> def losses_of(model, batch):
        ...     z = model["encoder"](batch).tanh()
        ...     left, right = model["heads"]["left"](z), model["heads"]["right"](z)
        ...     return {"left": (left - 1).square().mean(), "right": 1e4 * (right - batch[:, :1]).square().mean()}
        >>> found = pt.find_weights(model, losses_of, torch.randn(20, 32, 4), steps=50)
        >>> found["right"] < 0.01 * found["left"]
        True
        >>> method = pt.Static(found.weights)

    References:
        Yang et al., "AutoScale: Linear Scalarization Guided by Multi-Task Optimization Metrics", 2025, arXiv:2508.13979, in
        which weights with similar gradient norms perform well, and are found in a first phase and fixed in a second. We take
        the norms along a run with another balancing method, and the weights in closed form.
    """
    check_whole("steps", steps, least=FEWEST_RUN)
    method = comparing_method(IMTLG() if method is None else method)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("find_weights: no parameter of the model requires grad, so there is no gradient to measure")
    make = optimizer or (lambda parameters: torch.optim.Adam(parameters, lr=1e-3))
    norms: list[Mapping[str, float]] = []
    with RestoredOnError([model]), _unchanged(model), paused_forks(model):
        if not model.training:
            model.train()
        trained, balancer = make(parameters), Balancer(method, shared=shared)
        for step, batch in enumerate(_repeated(batches, steps)):
            for parameter in parameters:
                parameter.grad = None
            try:
                balance = balancer.backward(called(losses_of, model, batch))
            except FloatingPointError as error:
                cure = "lower the learning rate with optimizer=" if step else "the model gives it before the first step"
                raise FloatingPointError(f"find_weights, step {step + 1}: {error}; {cure}") from error
            if not step and all(parameter.grad is None for parameter in parameters):
                raise ValueError(
                    "find_weights: the losses do not depend on the model; losses_of(model, batch) must use its first argument"
                )
            trained.step()
            norms.append(dict(zip(balance.tasks, balance.norms.tolist(), strict=True)))
    return weights_of_norms(norms, str(method))


def weights_of_norms(norms: Sequence[Mapping[str, float]], method: str) -> StaticWeights:
    """The weights that are inversely proportional to the geometric means of gradient norms.

    Args:
        norms: of each step, by task; zero where a task is absent. The first tenth of the steps is ignored.
        method: the method of the run.

    Raises:
        ValueError: fewer than two tasks, or a task with a gradient in fewer than 10 of the steps.

    Example:
        >>> found = weights_of_norms([{"a": 1.0, "b": 4.0}] * 20, "IMTLG()")
        >>> {task: round(weight, 6) for task, weight in found.items()}, found.steps
        ({'a': 1.6, 'b': 0.4}, 18)
    """
    used = norms[int(IGNORED_SHARE * len(norms)) :]
    tasks = list(dict.fromkeys(task for step in norms for task in step))
    if len(tasks) < 2:
        raise ValueError(
            f"static weights are for two tasks or more, got {tasks or 'no losses'}: train one task without weights"
        )
    logarithms = {task: [np.log(step[task]) for step in used if step.get(task, 0.0) > 0] for task in tasks}
    for task, values in logarithms.items():
        if len(values) < FEWEST_STEPS:
            raise ValueError(
                f"task {task!r} has a gradient on the shared parameters in {len(values)} of {len(used)} steps, expected at least "
                f"{FEWEST_STEPS}: "
                + ("use more steps" if values else "its loss is constant, or does not depend on what the tasks share")
            )
    means = {task: float(np.mean(values)) for task, values in logarithms.items()}
    inverse = {task: float(np.exp(min(means.values()) - mean)) for task, mean in means.items()}  # at most 1
    factor = len(tasks) / sum(inverse.values())
    weights = {task: factor * value for task, value in inverse.items()}
    return StaticWeights(weights, {task: float(np.exp(mean)) for task, mean in means.items()}, len(used), method)


def comparing_method(method: Method[Any]) -> Method[Any]:
    """The method, which must be able to run a balanced run.

    Raises:
        ValueError: it is no method, compares no gradients, or takes several batches per step.
    """
    check_method(method)
    if not method.needs & (Need.GRAMIAN | Need.JACOBIAN) or method.batches > 1:
        reason = "compares no gradients" if method.batches == 1 else f"takes {method.batches} batches per step"
        raise ValueError(
            f"static weights are found with a method that compares gradients, such as IMTLG(); {method} {reason}"
        )
    return method


def _repeated(batches: Iterable[Any], steps: int) -> Iterator[Any]:
    """The batches, again and again, until there were ``steps`` of them."""
    count = 0
    while count < steps:
        before = count
        for batch in batches:
            yield batch
            count += 1
            if count == steps:
                return
        if count == before:
            break
    if count < FEWEST_RUN:
        raise ValueError(
            f"find_weights got {count} batches, expected at least {FEWEST_RUN}: give a list or a loader, which can be repeated, "
            "or an iterator with more"
        )


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Restores the model, its gradients and the global random generators after the block."""
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - losses and loaders may draw from it
    devices = sorted({tensor.device.index or 0 for tensor in tensors if tensor.device.type == "cuda"})

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                if not torch.equal(tensor, value):  # a buffer that is an expanded view cannot be written
                    tensor.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode

    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        try:
            restore()
        except BaseException:  # an interrupt: once more, to the end
            restore()
            raise
