"""The Fork's step: what the backwards of features and losses call."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretorch.core.contract import Need, Status
from paretorch.core.door import Door
from paretorch.core.evidence import Gradients, Leaf, batch_of, by_sample, chunks, to_host
from paretorch.core.gap import gap_between, over_ranks, parameter_gramian
from paretorch.core.nonnegative import Array
from paretorch.core.seen import Outcome, Seen, filled


class Within:
    """What a fork remembers within a step, and forgets in copies: a plain object, cheap to write to."""

    def __init__(self) -> None:
        self.pauses = 0
        self.backwards = 0  # counted for gap
        self.met = False  # whether two tasks were seen to have gradients on the same samples
        self.rows: dict[int, Tensor] = {}  # memory in which the tasks' gradients are brought together, by leaf
        self.begin()
        self.new_step = True  # the next forward begins one

    def begin(self) -> None:
        """Forget the forwards of the last step."""
        self.waiting: list[weakref.ref[Any]] = []  # nodes of the forwards whose losses are to be told, in eager mode
        self.link: Tensor | None = None  # of the last forward, in a compiled graph
        self.told: set[int] | None = None  # the tasks whose losses were told; None: it is not known
        self.balanced = False  # whether some forward's features were
        self.new_step = False


class FeatureStep(Door):
    """Balances on the features in the backward. Not made directly: see Fork."""

    def _prepare(self, heads: str, nonfinite: str, gap: int | None) -> None:
        """Settle what every step asks."""
        method, values = self.method, Need.LOSSES in self.method.needs
        self.heads, self.nonfinite, self.gap = heads, nonfinite, gap
        self._now = Within()
        # Whether the weights are applied at the losses, and the branches' gradients are just summed.
        self.sums = method.needs == Need.LOSSES or heads == "weighted"
        # What the backward must find again beside the gradients.
        self.keeps = "features" if gap or Need.JACOBIAN in method.needs else "nothing"
        self._must_know: str | None = None  # why fork.losses must be called
        if heads == "weighted":
            self.keeps = "branches"
            self._must_know = f"{method} with heads='weighted' looks at the losses"
        elif values:
            self._must_know = f"{method} looks at the loss values"
        elif not self._homogeneous and self.factor is None:
            self._must_know = f"{method} must know the factors of the losses"

    @property
    def needs_losses(self) -> bool:
        """Whether :meth:`losses` must be called: for methods that look at values or factors, and for weighted heads."""
        return self._must_know is not None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_now": Within()}

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
            outcome = self._weighted(to_host([told])[0].numpy(), [task for task, *_ in sent])
        assert outcome.weights is not None
        # what is absent on the features may have a gradient on its head
        present = outcome.seen.present
        weights = [weight if present[task] else 1.0 for task, weight in enumerate(outcome.weights)]
        return [None if f is None else f * weights[task] for task, f in zip(index, factors, strict=True)] + [told]

    def _weighted(self, told: Array, known: list[int]) -> Outcome:
        """One step of a method that looks at losses alone, (3, all) as they are told."""
        reused = self._reused(known, lambda: ~np.isfinite(told[0]))
        if reused is not None:
            return reused
        seen = self._seen(told)
        unusable = self._unusable(seen)
        return self._solve(seen) if unusable is None else self._passed_on(seen, unusable)

    def combine(
        self,
        cotangents: Sequence[Tensor | None],
        told: Tensor | None,
        like: Sequence[Tensor | Leaf],
        kept: Sequence[Tensor],
        calls: list[list[int]],
    ) -> list[Tensor]:
        """Called by the backward of the features: the one gradient to send into the encoder, leaf by leaf."""
        self._now.new_step = True
        batch = batch_of(like) if Need.JACOBIAN in self.method.needs else None
        gradients = Gradients(chunks(cotangents, len(self.tasks)), like, self._now.rows, batch)
        if self._now.pauses:
            return gradients.summed()
        self._notice_calls(calls, gradients.known)
        if told is None and self._must_know is not None:
            raise RuntimeError(f"{self._must_know}: write losses = fork.losses(losses) before summing them")
        untold = set(gradients.known) - self._now.told if self._must_know and self._now.told is not None else ()
        if untold:
            names = ", ".join(repr(self.tasks[task]) for task in sorted(untold))
            raise RuntimeError(
                f"{self._must_know}, and fork.losses(losses) was not given the loss of {names}: give it all"
            )
        if self.sums or (not gradients.known and self._now.balanced and self.ranks.alone):
            return gradients.summed()  # the latter: of a forward that this backward did not come from
        self._now.balanced = bool(gradients.known)
        outcome = self._balanced(gradients, told, kept)
        if outcome.update is not None:
            return gradients.split(outcome.update)
        assert outcome.weights is not None
        return gradients.combined(outcome.weights)

    def _balanced(self, gradients: Gradients, told: Tensor | None, kept: Sequence[Tensor]) -> Outcome:
        """One step on the features' gradients."""
        reused = self._reused(gradients.known, gradients.broken)
        if reused is not None:
            return reused
        local, host = gradients.gramian(() if told is None else (told,))
        if not self._now.met:
            self._notice_own_inputs(gradients, local)
        whole = local if self.ranks.alone else over_ranks(local, self.ranks)
        seen = self._seen(host[0] if host else None, whole, gradients.resolution)
        measured = self.gap is not None and self._now.backwards % self.gap == 0
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
        if not seen.regular and not seen.present.any():
            return Status.ABSENT
        broken = seen.nonfinite()
        if broken is None:
            return None
        if self.nonfinite == "raise":
            names = [task for task, bad in zip(self.tasks, broken, strict=True) if bad]
            raise FloatingPointError(
                f"the gradient or loss of {', '.join(map(repr, names))} is not finite; nothing was changed"
            )
        return Status.NONFINITE

    def _notice_calls(self, calls: list[list[int]], known: list[int]) -> None:
        """Warn where the tasks' losses are sent backward one at a time: then there is nothing to balance."""
        if calls and any(set(known).isdisjoint(earlier) for earlier in calls):
            self._say(
                "calls",
                "each task's loss was sent backward on its own, so nothing is balanced: call backward once, on the sum",
            )
        calls.append(known)

    def _notice_own_inputs(self, gradients: Gradients, gramian: Array) -> None:
        """Warn where no two tasks have a gradient on the same sample: their features never meet."""
        there = np.count_nonzero(gramian.diagonal())
        if there < 2:
            return
        self._now.met = "inputs" in self._said or bool(np.count_nonzero(gramian) > there)
        if self._now.met:
            return
        if sum(leaf.shape[0] if len(leaf.shape) > 1 else 1 for leaf in gradients.like) > 1 and not gradients.meet():
            self._say(
                "inputs",
                "each task has samples of its own, so the tasks' gradients on the features never meet and balancing on them is "
                "blind to conflict: use paretorch.Balancer",
            )
