"""The Fork: a layer between encoder and heads that balances the tasks inside an ordinary ``backward()``."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from paretorch.core import checks, fork_graph
from paretorch.core.contract import Method, Need, Status
from paretorch.core.distributed import ALL
from paretorch.core.door import Door, Scale, filled
from paretorch.core.evidence import Gradients, Leaf, by_sample, chunks, to_host
from paretorch.core.gap import gap_between, over_ranks, parameter_gramian
from paretorch.core.seen import Array, Outcome, Seen


class _Step:
    """What a fork remembers within a step, and forgets in copies: a plain object, cheap to write to."""

    def __init__(self) -> None:
        self.pauses = 0
        self.backwards = 0  # counted for gap
        self.met = False  # whether two tasks were seen to have gradients on the same samples
        self.rows: dict[int, Tensor] = {}  # memory in which the tasks' gradients are brought together, by leaf
        self.begin()
        self.new_step = True  # the next forward begins one

    def begin(self) -> None:
        self.waiting: list[weakref.ref[Any]] = []  # nodes of the forwards whose losses are to be told, in eager mode
        self.link: Tensor | None = None  # of the last forward, in a compiled graph
        self.new_step = False


class Fork(Door):
    r"""Hands every task its own alias of the features and, in ``backward()``, sends one balanced gradient into the encoder.

    .. math:: \theta\text{.grad} \mathrel{+}= J_z^T \sum_t w_t \frac{\partial L_t}{\partial z}, \qquad
              w = \text{method}(G), \quad
              G_{st} = \Big\langle \frac{\partial L_s}{\partial z}, \frac{\partial L_t}{\partial z} \Big\rangle

    One encoder backward, whatever the number of tasks. Heads receive their own task's gradient, unweighted. In ``eval()`` and
    under ``torch.no_grad()`` the branches are plain aliases.

    Args:
        method: the balancing method, such as ``MGDA()``.
        tasks: names of the tasks, in a fixed order.
        heads: ``"own"``: heads receive their task's gradient; ``"weighted"``: times the task's weight, at the cost of one more
            backward through the heads (needs :meth:`losses`).
        scale: ``"calibrated"``: T equal gradients g give T g, as the sum of losses does; ``"paper"``: the method's own weights.
        copies: give each task a copy, for heads that work in place on the features.
        nonfinite: ``"pass"``: a step with inf or nan passes the plain sum on, so that GradScaler sees it and skips;
            ``"raise"``: raises FloatingPointError naming the task, on all ranks together.
        every: reuse the weights for ``every - 1`` steps.
        gap: every ``gap`` steps compare with the exact update on the encoder's parameters (``balance.gap``; T encoder backwards).
        factor: dTotal/dL_t where :meth:`losses` is not used, for methods that are not homogeneous.
        group: ranks whose losses are averaged: ``"all"`` where torch.distributed is initialised, a process group, or None.
        seed: of the method's random draws.

    Raises:
        ValueError: on repeated or unknown task names and options out of range.

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
        method: Method[Any],
        tasks: Iterable[str],
        *,
        heads: Literal["own", "weighted"] = "own",
        scale: Scale = "calibrated",
        copies: bool = False,
        nonfinite: Literal["pass", "raise"] = "pass",
        every: int = 1,
        gap: int | None = None,
        factor: float | None = None,
        group: dist.ProcessGroup | str | None = ALL,
        seed: int = 0,
    ) -> None:
        super().__init__(method, scale=scale, every=every, factor=factor, group=group, seed=seed)
        checks.one_of("heads", heads, ("own", "weighted"))
        checks.one_of("nonfinite", nonfinite, ("pass", "raise"))
        if method.batches > 1 or not method.features:
            raise ValueError(f"{method} cannot be used on features: use paretorch.Balancer")
        if heads == "weighted" and Need.JACOBIAN in method.needs:
            raise ValueError(f"{method} has no weights to give to the heads: use heads='own'")
        if gap is not None and (
            gap < 1 or Need.JACOBIAN in method.needs or method.needs == Need.LOSSES or heads == "weighted"
        ):
            raise ValueError(
                f"gap is a number of steps, for a method that looks at the Gramian and heads='own'; got {gap} for {method}"
            )
        self.heads, self.copies, self.nonfinite, self.gap = heads, copies, nonfinite, gap
        self._declare(checks.task_names(tasks))
        self._now = _Step()
        values = Need.LOSSES in method.needs
        # Whether the weights are applied at the losses, and the branches' gradients are just summed.
        self.sums = method.needs == Need.LOSSES or heads == "weighted"
        # What the backward must find again beside the gradients.
        self.keeps = (
            "branches" if heads == "weighted" else "features" if gap or Need.JACOBIAN in method.needs else "nothing"
        )
        self._must_know: str | None = None
        if heads == "weighted":
            self._must_know = f"{method} with heads='weighted' looks at the losses"
        elif values or (not method.homogeneous and factor is None):
            self._must_know = f"{method} " + (
                "looks at the loss values" if values else "must know the factors of the losses"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_now": _Step()}

    # --- forward ---------------------------------------------------------------------------------------------------------

    def forward(self, features: Any) -> dict[str, Any]:
        """One alias of the features for each task.

        Args:
            features: a tensor of any shape, or any nesting of dicts, lists and tuples of tensors; floating leaves that require
                grad are balanced, everything else is passed along.

        Returns:
            dict from task name to features nested as given.

        Raises:
            ValueError: in training, where no leaf requires grad.
            RuntimeError: inside a torch.func transform.
        """
        if not (self.training and torch.is_grad_enabled()) or self._now.pauses:
            return {task: tree_map(_cloned, features) if self.copies else features for task in self.tasks}
        leaves, nest = ([features], None) if isinstance(features, Tensor) else tree_flatten(features)
        places = [i for i, leaf in enumerate(leaves) if _is_balanced(leaf)]
        _check_features(leaves, places)
        if not torch.compiler.is_compiling():
            self.ranks.join(self.tasks, self.method)
        if self._now.new_step:
            self._now.begin()
        aliases, link = fork_graph.split(self, [leaves[place] for place in places])
        if torch.compiler.is_compiling():
            self._now.link = link
        if self.copies:
            aliases = [alias.clone() for alias in aliases]
        if nest is None:
            return dict(zip(self.tasks, aliases, strict=True))
        branch = {}
        for task, own in zip(self.tasks, chunks(aliases, len(self.tasks)), strict=True):
            filled = list(leaves)
            for place, alias in zip(places, own, strict=True):
                filled[place] = alias
            branch[task] = tree_unflatten(filled, nest)
        return branch

    def losses(self, losses: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Passes the losses through, values unchanged, and tells the fork what they are and, in backward, their factors.

        Required by methods that look at loss values and by ``heads="weighted"``. Call it once per step, after the forward. On a
        rank where no task is present call ``fork.losses({})``: the zero it returns keeps the ranks together.

        Args:
            losses: scalars by task name; a task that is absent is left out, or None.

        Returns:
            dict of the given losses; with none given, one zero.

        Raises:
            ValueError: on unknown names and losses that are not scalars with a graph on one device.
        """
        checked = checks.given_losses(losses, "fork.losses")
        checks.known_tasks(checked, self.tasks, "fork.losses")
        if not (self.training and torch.is_grad_enabled()) or self._now.pauses:
            return checked
        if self.heads == "weighted" and torch.compiler.is_compiling():
            raise RuntimeError(
                "heads='weighted' runs a backward of its own: call fork.losses outside the compiled function"
            )
        links, branches = self._this_step()
        if not links:
            raise RuntimeError(
                "fork.losses(losses) comes after branch = fork(features), once per step; no forward is waiting"
            )
        self._now.new_step = True
        names = tuple(checked)
        index = tuple(self.tasks.index(name) for name in names)
        told = fork_graph.tell(self, links, index, [*checked.values(), *branches])
        return dict(zip(names or self.tasks[:1], told, strict=True))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it the fork is absent: plain aliases, plain sums, no state. Also for backwards of forwards made before."""
        self._now.pauses += 1
        try:
            yield
        finally:
            self._now.pauses -= 1

    # --- backward --------------------------------------------------------------------------------------------------------

    def await_losses(self, node: Any) -> None:
        """Called by the node of a forward: it waits for its losses to be told, and keeps this fork alive until backward."""
        self._now.waiting = [*(ref for ref in self._now.waiting if ref() is not None), weakref.ref(node)]

    def _this_step(self) -> tuple[list[Tensor], list[Tensor]]:
        """The links of this step's forwards whose graphs are still there, and their branches, task by task, where kept."""
        if self._now.link is not None:
            return [self._now.link], []
        links: list[Tensor] = []
        rows: list[list[Tensor]] = [[] for _ in self.tasks]
        for ref in self._now.waiting:
            node = ref()
            try:
                saved = [] if node is None else list(node.saved_tensors)
            except RuntimeError:  # its backward has run
                continue
            if not saved:  # it was dropped
                continue
            link, *kept = saved
            links.append(link)
            if self.heads == "weighted":
                for row, part in zip(rows, chunks(kept, len(self.tasks)), strict=True):
                    row += part
        return links, [leaf for row in rows for leaf in row]

    def weigh(
        self,
        losses: Sequence[Tensor],
        factors: Sequence[Tensor | None],
        link: Tensor,
        index: Sequence[int],
        branches: Sequence[Tensor],
    ) -> list[Tensor | None]:
        """Called by the backward of :meth:`losses`: the gradient to send back to each loss, and what to tell the features."""
        sent = [(task, loss, f) for task, loss, f in zip(index, losses, factors, strict=True) if f is not None]
        told = filled(
            torch.zeros_like(link), [t for t, _, _ in sent], [loss for _, loss, _ in sent], [f for *_, f in sent]
        )
        if not self.sums or self._now.pauses:
            return [*factors, told]
        if self.heads == "weighted":
            cotangents: Sequence[Tensor | None] = [None] * len(branches)
            if sent:
                cotangents = torch.autograd.grad(
                    [loss for _, loss, _ in sent],
                    branches,
                    [factor for _, _, factor in sent],
                    retain_graph=True,
                    allow_unused=True,
                )
            like = branches[: len(branches) // len(self.tasks)]
            outcome = self._balanced(Gradients(chunks(cotangents, len(self.tasks)), like), told, [])
        else:
            self.ranks.join(self.tasks, self.method)
            seen = self._seen(to_host([told])[0].numpy())
            unusable = self._unusable(seen)
            outcome = self._solve(seen) if unusable is None else self._passed_on(seen, unusable)
        assert outcome.weights is not None
        weights = outcome.weights
        return [None if f is None else f * weights[task] for task, f in zip(index, factors, strict=True)] + [told]

    def combine(
        self,
        cotangents: Sequence[Tensor | None],
        told: Tensor | None,
        like: Sequence[Tensor | Leaf],
        kept: Sequence[Tensor],
        calls: list[frozenset[int]],
    ) -> list[Tensor]:
        """Called by the backward of the features: the one gradient to send into the encoder, leaf by leaf."""
        self._now.new_step = True
        gradients = Gradients(chunks(cotangents, len(self.tasks)), like, self._now.rows)
        if self._now.pauses:
            return gradients.summed()
        self._notice_calls(calls, frozenset(gradients.known))
        if told is None and self._must_know is not None:
            raise RuntimeError(f"{self._must_know}: write losses = fork.losses(losses) before summing them")
        if self.sums:
            return gradients.summed()
        outcome = self._balanced(gradients, told, kept)
        if outcome.update is not None:
            return gradients.split(outcome.update)
        assert outcome.weights is not None
        return gradients.combined(outcome.weights)

    def _balanced(self, gradients: Gradients, told: Tensor | None, kept: Sequence[Tensor]) -> Outcome:
        """One step on the features' gradients."""
        reused = self._reused(gradients.known)
        if reused is not None:
            return reused
        local, host = gradients.gramian(() if told is None else (told,))
        self._notice_own_inputs(gradients, local)
        seen = self._seen(host[0] if host else None, over_ranks(local, self.ranks), gradients.resolution)
        measured = self.gap is not None and bool(seen.present.any()) and self._now.backwards % self.gap == 0
        self._now.backwards += 1
        unusable = self._unusable(seen)
        if unusable is not None:
            return self._passed_on(seen, unusable)
        if Need.JACOBIAN in self.method.needs:
            return self._solve(seen, gradients.jacobian(torch.from_numpy(seen.present)), by_sample(kept))
        if not measured:
            return self._solve(seen)
        exact = parameter_gramian(kept, gradients, self.ranks)
        expected, _ = self._ask(seen._replace(gramian=exact))
        used = self._solve(seen)
        assert used.weights is not None
        assert expected.weights is not None
        return self._recorded(used._replace(gap=gap_between(exact, used.weights, expected.weights)))

    def _unusable(self, seen: Seen) -> Status | None:
        """Why the method cannot be asked this time, if so."""
        if not seen.present.any():
            return Status.ABSENT
        broken = seen.nonfinite(values=Need.LOSSES in self.method.needs)
        if broken is None:
            return None
        if self.nonfinite == "raise":
            names = [task for task, bad in zip(self.tasks, broken, strict=True) if bad]
            raise FloatingPointError(
                f"the gradient or loss of {', '.join(map(repr, names))} is not finite; nothing was changed"
            )
        return Status.NONFINITE

    def _notice_calls(self, calls: list[frozenset[int]], known: frozenset[int]) -> None:
        """Warn where the tasks' losses are sent backward one at a time: then there is nothing to balance."""
        if calls and any(not known & earlier for earlier in calls):
            self._say(
                "calls",
                "each task's loss was sent backward on its own, so nothing is balanced: call backward once, on the sum",
            )
        calls.append(known)

    def _notice_own_inputs(self, gradients: Gradients, gramian: Array) -> None:
        """Warn where no two tasks have a gradient on the same sample: their features never meet."""
        if self._now.met or "inputs" in self._said:
            return
        there = np.count_nonzero(gramian.diagonal())
        if there < 2:
            return
        self._now.met = bool(np.count_nonzero(gramian) > there)
        if self._now.met:
            return
        if sum(leaf.shape[0] if len(leaf.shape) > 1 else 1 for leaf in gradients.like) > 1 and not gradients.meet():
            self._say(
                "inputs",
                "each task has samples of its own, so the tasks' gradients on the features never meet and balancing on them is "
                "blind to conflict: use paretorch.Balancer",
            )


def _is_balanced(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.requires_grad


def _cloned(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _check_features(leaves: Sequence[Any], balanced: Sequence[int]) -> None:
    """Features must carry a gradient, and torch.func must not be at work."""
    if not balanced:
        got = (
            ", ".join(type(leaf).__name__ if not isinstance(leaf, Tensor) else str(leaf.dtype) for leaf in leaves)
            or "nothing"
        )
        raise ValueError(
            f"fork(features) in training expects floating features that require grad, got {got} without: was the encoder "
            "frozen, or its output detached? For a frozen encoder there is nothing to balance: leave the Fork out, or call "
            "fork.eval()"
        )
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            "a Fork cannot run inside a torch.func transform (grad, vmap, jvp): wrap it in `with fork.paused():`"
        )
