"""The Fork: a layer between encoder and heads that balances the tasks inside an ordinary ``backward()``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from operator import is_
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from paretorch.core import checks
from paretorch.core.contract import Method, Need
from paretorch.core.fork.features import branches_of, is_balanced, open_features
from paretorch.core.fork.nested import opened
from paretorch.core.fork.nodes import alias_features, record_losses
from paretorch.core.fork.step import ForkStep
from paretorch.core.gradients.engine import allow_repeated_backwards
from paretorch.core.gradients.ranks import ALL
from paretorch.core.method.argument import check_method
from paretorch.core.method.default import method_or_default
from paretorch.core.method.module import MethodModule
from paretorch.core.method.runner import Scale
from paretorch.core.option_checks import check_choice, check_whole


class Fork(MethodModule):
    r"""Gives every task its own alias of the features and, in ``backward()``, sends one balanced gradient into the encoder.

    .. math:: \theta\text{.grad} \mathrel{+}= J_z^T \sum_t w_t \frac{\partial L_t}{\partial z}, \qquad
              w = \text{method}(G), \quad
              G_{st} = \Big\langle \frac{\partial L_s}{\partial z}, \frac{\partial L_t}{\partial z} \Big\rangle

    One encoder backward, whatever the number of tasks. Heads receive their own task's gradient, unweighted; with a method that
    needs losses alone, times the task's weight. In ``eval()`` and
    under ``torch.no_grad()`` the branches are plain aliases; a backward through those made in ``eval()`` warns once.

    Args:
        method: the balancing method, such as ``MGDA()``; None: the recommended one, ``IMTLG()``.
        tasks: names of the tasks, in a fixed order.
        heads: ``"own"``: as above; ``"weighted"``: times the task's weight, at the cost of one more
            backward through the heads (needs :meth:`losses`).
        scale: ``"calibrated"``: T equal gradients g give T g, as the sum of losses does; ``"paper"``: the method's own weights.
        copies: give each task a copy, for heads that work in place on the features.
        nonfinite: ``"pass"``: a step with inf or nan sends the plain sum, so that GradScaler finds it and skips the step;
            ``"raise"``: raises FloatingPointError naming the task, on all ranks together; ``"skip"``: leaves that task out of the
            step, and counts it in ``skipped``. With :meth:`losses` the last two take back the gradients that the heads already
            have: see the documentation, "When something is wrong", for what each option guarantees.
        every: reuse the weights for ``every - 1`` steps.
        gap: every ``gap`` steps (of those whose weights are not reused) compare with the exact update on the encoder's parameters
            (``balance.gap``; T encoder backwards).
        factor: dTotal/dL_t where :meth:`losses` is not called, for methods that are not homogeneous.
        group: ranks whose losses are averaged: ``"all"`` where torch.distributed is initialised, a process group, or None.
        seed: of the method's random draws.

    Raises:
        ValueError: on missing, repeated or unknown task names and options out of range, and for one task without a method.

    Example:
        >>> import paretorch as pt
        >>> encoder, left, right = (torch.nn.Linear(n, m) for n, m in ((4, 3), (3, 1), (3, 1)))
        >>> fork = pt.Fork(pt.MGDA(), tasks=("left", "right"))
        >>> branch = fork(encoder(torch.ones(8, 4)))
        >>> losses = {"left": left(branch["left"]).square().mean(), "right": right(branch["right"]).exp().mean()}
        >>> sum(losses.values()).backward()
        >>> float(fork.balance.weights.sum())
        2.0

    References:
        Sener & Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, (MGDA-UB) and Algorithm 2. They
        weight the heads' losses by one as we do; our default scale is T times theirs.
    """

    def __init__(
        self,
        method: Method[Any] | None = None,
        tasks: Iterable[str] = (),
        *,
        heads: Literal["own", "weighted"] = "own",
        scale: Scale = "calibrated",
        copies: bool = False,
        nonfinite: Literal["pass", "raise", "skip"] = "pass",
        every: int = 1,
        gap: int | None = None,
        factor: float | None = None,
        group: dist.ProcessGroup | str | None = ALL,
        seed: int = 0,
    ) -> None:
        if method is not None:
            check_method(method, owner="Fork")
        names = checks.checked_task_names(tasks)
        method = method_or_default(method, names)
        super().__init__(method, scale=scale, every=every, factor=factor, group=group, seed=seed, on_parameters=False)
        check_choice("heads", heads, ("own", "weighted"))
        check_choice("nonfinite", nonfinite, ("pass", "raise", "skip"))
        if method.batches > 1 or not method.features:
            raise ValueError(f"{method} cannot be used on features: use paretorch.Balancer")
        if heads == "weighted" and Need.JACOBIAN in method.needs:
            raise ValueError(f"{method} has no weights to give to the heads: use heads='own'")
        if gap is not None:
            check_whole("gap", gap)
        if gap is not None and (Need.JACOBIAN in method.needs or method.needs == Need.LOSSES or heads == "weighted"):
            raise ValueError(
                f"gap is a number of steps, for a method that needs the Gramian and heads='own'; got {gap} for {method}"
            )
        if gap is not None or heads == "weighted":
            allow_repeated_backwards()
        self.copies = copies
        self.runner.state.declare(names)
        self._step = ForkStep(self.runner, heads, nonfinite, gap)

    @property
    def heads(self) -> Literal["own", "weighted"]:
        """Whether the heads' gradients are multiplied by the weights."""
        return self._step.heads

    @property
    def gap(self) -> int | None:
        """The number of steps from one comparison with the exact update to the next."""
        return self._step.gap

    @property
    def nonfinite(self) -> Literal["pass", "raise", "skip"]:
        """What happens in a step with inf or nan."""
        return self._step.nonfinite

    @nonfinite.setter
    def nonfinite(self, nonfinite: Literal["pass", "raise", "skip"]) -> None:
        self._step.nonfinite = nonfinite

    @property
    def needs_losses(self) -> bool:
        """Whether :meth:`losses` must be called: for methods that need values or factors, and for weighted heads."""
        return self._step.losses_required is not None

    def reset_state(self) -> None:  # noqa: D102
        super().reset_state()
        self._step.measured_steps = 0

    # --- forward ---------------------------------------------------------------------------------------------------------

    def forward(self, features: Any) -> dict[str, Any]:
        """One alias of the features for each task.

        Args:
            features: a tensor of any shape, or any nesting of dicts, lists, tuples and objects with fields (dataclasses and the
                like); floating tensors that require grad are balanced, everything else is passed along.

        Returns:
            dict from task name to features nested as given; objects that contain balanced tensors are shallow copies.

        Raises:
            ValueError: in training, where no leaf requires grad, or a leaf that does cannot be balanced (a distributed, sparse,
                nested or complex tensor, an object that cannot be copied).
            RuntimeError: inside a torch.func transform.
        """
        if not self._balances:
            return self._unbalanced(features)
        found = open_features(features)
        self._step.begin_forward()
        aliases, link = alias_features(self._step, found.balanced)
        self._step.end_forward(link, found.balanced)
        if self.copies:
            aliases = [alias.clone() for alias in aliases]
        return branches_of(found, self.tasks, aliases)

    @property
    def _balances(self) -> bool:
        return self.training and torch.is_grad_enabled() and not self._step.pauses

    def _unbalanced(self, features: Any) -> dict[str, Any]:
        """The same features, or copies, for every task, where nothing is balanced."""
        if torch.is_grad_enabled() and not self.training and not self._step.pauses:
            features = self._with_eval_warning(features)
        if not self.copies:
            in_checkpoint = self.training and not torch.is_grad_enabled() and _is_in_reentrant_checkpoint()
            return self._aliases(features) if in_checkpoint else dict.fromkeys(self.tasks, features)
        leaves, fill = opened(features, _is_tensor)
        return {task: fill([leaf.clone() if _is_tensor(leaf) else leaf for leaf in leaves]) for task in self.tasks}

    def _aliases(self, features: Any) -> dict[str, Any]:
        """For every task another view of the features: autograd distinguishes outputs of a checkpoint by their objects."""
        leaves, fill = opened(features, _is_tensor)
        views = [[leaf.view_as(leaf) if _is_dense(leaf) else leaf for leaf in leaves] for _ in self.tasks]
        return {task: fill(view) for task, view in zip(self.tasks, views, strict=True)}

    def _with_eval_warning(self, features: Any) -> Any:
        """Aliases of the features whose backward warns: in eval mode it computes a plain sum."""
        is_transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
        if self.runner.has_warned("eval") or is_transformed:
            return features
        leaves, fill = opened(features, is_balanced)
        aliases = [
            leaf.view_as(leaf) if is_balanced(leaf) and leaf.layout is torch.strided else leaf for leaf in leaves
        ]
        for leaf, alias in zip(leaves, aliases, strict=True):
            if leaf is not alias:
                alias.register_hook(self._warn_eval)
        return features if all(map(is_, leaves, aliases)) else fill(aliases)

    def _warn_eval(self, _: Tensor) -> None:
        if not self._step.pauses:
            self.runner.warn_once(
                "eval",
                "this backward goes through branches that a Fork in eval mode made: it is the plain sum of the tasks' gradients, "
                "and nothing is balanced. fork.train() makes the Fork balance, whatever mode the rest of the model is in; where "
                "plain gradients are meant, use `with fork.paused():`",
            )

    def losses(self, losses: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Returns the losses unchanged, and records their values and, in the backward, their factors.

        Required by methods that need loss values and by ``heads="weighted"``. Call it once per step, after the forward. On a
        rank where no task is present call ``fork.losses({})``: the zero it returns keeps the ranks together.

        Args:
            losses: scalars by task name; a task that is absent is left out, None, or a zero without a graph.

        Returns:
            dict of the losses of the tasks that are present; with none, one zero.

        Raises:
            ValueError: on unknown names and losses that are not scalars with a graph on one device.
            RuntimeError: before the forward, for weighted heads where the Fork is in a compiled function, and without a task
                where DistributedDataParallel has no output.
        """
        checked = checks.present_losses(losses, "fork.losses")
        checks.check_known_tasks(checked, self.tasks, "fork.losses")
        if not self._balances:
            return checked
        step, is_compiling = self._step, torch.compiler.is_compiling()
        if self.heads == "weighted" and is_compiling:
            raise RuntimeError(
                "heads='weighted' runs a backward of its own: call fork.losses outside the compiled function"
            )
        links, branches = step.forwards.links_and_branches(len(self.tasks), self.heads == "weighted")
        if self.heads == "weighted" and step.forwards.compiled_link is not None:
            raise RuntimeError(
                "heads='weighted' runs a backward through the heads, which are in one compiled function with the Fork: compile "
                "the encoder and the heads apart, as in model.encoder.compile(), or use heads='own'"
            )
        if (
            not links and not checked and step.forwards.has_any
        ):  # no branch was used, and the graph of the features is gone
            step.begin_losses({}, 0)
            return {self.tasks[0]: torch.zeros((), requires_grad=True)}
        if not links:
            raise RuntimeError(
                "fork.losses(losses) comes after branch = fork(features), once per step; there is no forward without losses"
            )
        names = tuple(checked)
        if not names and not is_compiling and not self.runner.ranks.alone:
            step.ddp_outputs.find(step.forwards.nodes())
            step.ddp_outputs.check_any()
        index = tuple(self.tasks.index(name) for name in names)
        step.begin_losses(dict(zip(index, checked.values(), strict=True)), len(links))
        recorded = record_losses(step, links, index, [*checked.values(), *branches])
        if not self.runner.ranks.alone and not is_compiling:
            recorded = recorded if names else (step.ddp_outputs.connected(recorded[0]),)
            step.ddp_outputs.release()
        return dict(zip(names or self.tasks[:1], recorded, strict=True))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it the Fork does nothing: plain aliases, plain sums, no state. Also for backwards of earlier forwards."""
        before = self._step.pauses
        try:  # twice: an interrupt may arrive within the inner one's end
            try:
                self._step.pauses = before + 1
                yield
            finally:
                self._step.pauses = before
        finally:
            self._step.pauses = before


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _is_in_reentrant_checkpoint() -> bool:
    """Whether the forward of a reentrant checkpoint is running, for which torch has no query."""
    frame = None if torch.compiler.is_compiling() else sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "forward" and frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            return True
        frame = frame.f_back
    return False


def _is_dense(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.layout is torch.strided
