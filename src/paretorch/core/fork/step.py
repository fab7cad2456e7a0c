"""The Fork's step: what the backwards of features and losses call."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretorch.core.arrays import Array
from paretorch.core.contract import Need, Status
from paretorch.core.fork.usage import SEVERAL_CALLS, Call, Notices, broken_names
from paretorch.core.fork.wrapped import WrappedOutputs
from paretorch.core.gradients.gap import gap_between, parameter_gramian
from paretorch.core.gradients.rank_gramians import averaged_gramian
from paretorch.core.gradients.step_evidence import StepEvidence, StepResult, filled
from paretorch.core.gradients.task_gradients import Gradients, Leaf, by_sample, chunks, common_batch_size, to_host
from paretorch.core.method.runner import Door


class Within:
    """What a fork remembers within a step, and forgets in copies: a plain object, cheap to write to."""

    def __init__(self) -> None:
        self.pauses = 0
        self.backwards = 0  # counted for gap
        self.weighed = -1  # the backward in which losses were
        # The buffers and the record before losses were weighed, where that may be taken back.
        self.before: tuple[dict[str, Tensor], StepResult | None] | None = None
        self.rows: dict[int, Tensor] = {}  # memory in which the tasks' gradients are brought together, by leaf
        self.wrapped = WrappedOutputs()
        self.begin()
        self.new_step = True  # the next forward begins one

    def begin(self) -> None:
        """Forget the forwards of the last step."""
        self.waiting: list[weakref.ref[Any]] = []  # nodes of the forwards whose losses are to be told, in eager mode
        self.link: Tensor | None = None  # of the last forward, in a compiled graph
        self.links = 0  # forwards whose losses were told
        self.told: set[int] | None = None  # the tasks whose losses were told; None: it is not known
        self.balanced = False  # whether some forward's features were
        self.new_step = False

    def nodes(self) -> list[Any]:
        """Those of this step's forwards that are still there."""
        return [node for ref in self.waiting if (node := ref()) is not None]


class FeatureStep(Door):
    """Balances on the features in the backward. Not made directly: see Fork."""

    _notices: Notices

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
        return {**super().__getstate__(), "_now": Within(), "_notices": self._new_notices()}

    def _new_notices(self) -> Notices:
        return Notices(self.tasks, remembers=bool(self._rows) or self.method.needs == Need.LOSSES)

    def _begin_anew(self) -> None:
        super()._begin_anew()
        self._now.backwards = 0

    def await_losses(self, node: Any) -> None:
        """Called by the node of a forward: it waits for its losses to be told, and keeps this fork alive until backward."""
        self._now.waiting = [*(ref for ref in self._now.waiting if ref() is not None), weakref.ref(node)]

    def _this_step(self) -> tuple[list[Tensor], list[Tensor]]:
        """The links of this step's forwards whose graphs are still there, and their branches, task by task, where kept."""
        if self._now.link is not None:
            return [self._now.link], []
        links: list[Tensor] = []
        rows: list[list[Tensor]] = [[] for _ in self.tasks]
        for node in self._now.nodes():
            try:
                link, *kept = node.saved_tensors
            except RuntimeError:  # its backward has run
                continue
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
        if self._now.pauses:
            return [*factors, told]
        if not self.sums:
            return [*self._finite_only(index, losses, factors), told]
        if sent:
            self._now.weighed = self._notices.check_one_weighing(self._now.weighed)
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
            self.ranks.agree_on_tasks(self.tasks, self.method)
            outcome = self._weighted(to_host([told])[0].numpy(), [task for task, *_ in sent])
        assert outcome.weights is not None
        # what is absent on the features may have a gradient on its head; zero times inf or nan is nan
        present = outcome.seen.present
        weights = [weight if present[task] else 1.0 for task, weight in enumerate(outcome.weights)]
        self._recorded(outcome._replace(heads=weights))
        left_out = [] if outcome.seen.left_out is None else outcome.seen.left_out.nonzero()[0].tolist()
        return [
            None if f is None or task in left_out else f * weights[task] for task, f in zip(index, factors, strict=True)
        ] + [told]

    def _finite_only(
        self, index: Sequence[int], losses: Sequence[Tensor], factors: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """What to send to each loss of a gradient method: as it comes, but nothing to one that is to be skipped.

        The heads' gradients cannot be taken back once they are there; a loss that is not finite is known before.
        """
        if self.nonfinite == "pass" or not losses:
            return list(factors)
        finite = torch.isfinite(torch.stack([loss.detach() for loss in losses])).tolist()
        broken = [task for task, fine, f in zip(index, finite, factors, strict=True) if not fine and f is not None]
        if broken and self.nonfinite == "raise" and self.ranks.alone:
            raise FloatingPointError(_not_finite([self.tasks[task] for task in broken], "no gradient was sent"))
        skips = self.nonfinite == "skip"
        return [None if skips and not fine else f for fine, f in zip(finite, factors, strict=True)]

    def _weighted(self, told: Array, known: list[int]) -> StepResult:
        """One step of a method that looks at losses alone, (3, all) as they are told."""
        self._now.before = None if self.nonfinite == "pass" else (self._snapshot(), self._memory.outcome)
        reused = self._reused(known, lambda: ~np.isfinite(told[0]))
        if reused is not None:
            return reused
        seen, unusable = self._judged(self._seen(told))
        return self._solve(seen) if unusable is None else self._passed_on(seen, unusable)

    def combine(
        self,
        cotangents: Sequence[Tensor | None],
        told: Tensor | None,
        like: Sequence[Tensor | Leaf],
        kept: Sequence[Tensor],
        call: Call,
    ) -> list[Tensor]:
        """Called by the backward of the features: the one gradient to send into the encoder, leaf by leaf."""
        self._now.new_step = True
        batch = common_batch_size(like) if Need.JACOBIAN in self.method.needs else None
        gradients = Gradients(chunks(cotangents, len(self.tasks)), like, self._now.rows, batch)
        if self._now.pauses:
            return gradients.summed()
        if not self.ranks.alone:
            self._notices.alone = None  # other ranks may have other tasks
        again = bool(gradients.known) and self._notices.comes_again(call)
        if not again:
            self._notices.one_at_a_time(call, gradients.known, self._say)
        if told is None and self._must_know is not None:
            raise RuntimeError(f"{self._must_know}: write losses = fork.losses(losses) before summing them")
        untold = set(gradients.known) - self._now.told if self._must_know and self._now.told is not None else ()
        if untold:
            names = ", ".join(repr(self.tasks[task]) for task in sorted(untold))
            raise RuntimeError(
                f"{self._must_know}, and fork.losses(losses) was not given the loss of {names}: give it all"
            )
        if self.sums:
            before = self._now.before
            return gradients.summed() if before is None else self._summed_if_finite(gradients, *before)
        if not gradients.known and self._now.balanced and self.ranks.alone:
            return gradients.summed()  # of a forward that this backward did not come from
        if gradients.known:
            if again and gradients.any():
                if self._memory.outcome is not None and self._memory.outcome.seen.present.any():
                    raise RuntimeError(SEVERAL_CALLS)
            elif again and self.ranks.alone:
                return gradients.summed()  # zeros, of a forward all of whose losses are masked
            self._notices.reached(gradients.known, told is not None or not self.ranks.alone, self._say)
        self._now.balanced = bool(gradients.known)
        outcome = self._balanced(gradients, told, kept)
        if outcome.heads is not None:  # heads receive their own gradient as it is
            self._recorded(outcome._replace(heads=None))
        if outcome.update is not None:
            combined = gradients.split(outcome.update)
        else:
            assert outcome.weights is not None
            combined = gradients.combined(outcome.weights)
        if call.compares:
            call.sent = dict(enumerate(combined))
        return combined

    def _summed_if_finite(self, gradients: Gradients, buffers: dict[str, Tensor], record: Any) -> list[Tensor]:
        """The sum of gradients whose losses were weighed, without those that are not finite; the state is put back then."""
        broken = self.ranks.sum(torch.from_numpy(gradients.nonfinite_tasks().astype(np.float64))).numpy() > 0
        if not broken.any():
            return gradients.summed()
        self._restore(buffers)
        names = broken_names(self.tasks, broken)
        if self.nonfinite == "raise":
            self._memory.record(record)
            raise FloatingPointError(_not_finite(names, "the encoder received nothing, and the state is as before"))
        self._count_skipped(names)
        outcome = self._memory.outcome
        if outcome is not None and outcome.weights is not None:
            seen = outcome.seen.without(broken)
            weights = np.where(seen.present, outcome.weights, 0.0).tolist()
            self._recorded(outcome._replace(seen=seen, weights=weights))
        return gradients.combined((~broken).astype(np.float64).tolist())

    def _balanced(self, gradients: Gradients, told: Tensor | None, kept: Sequence[Tensor]) -> StepResult:
        """One step on the features' gradients."""
        reused = self._reused(gradients.known, gradients.nonfinite_tasks)
        if reused is not None:
            return reused
        local, host = gradients.gramian(() if told is None else (told,))
        if not self._notices.settled:
            self._notices.apart_by_construction(gradients, local, self._say)
        if host and self._now.links == 1 and "bypass" not in self._said:
            self._notices.missed(host[0], gradients.known, self._say)
        whole = local if self.ranks.alone else averaged_gramian(local, self.ranks)
        seen = self._seen(host[0] if host else None, whole, gradients.resolution)
        measured = self.gap is not None and self._now.backwards % self.gap == 0
        self._now.backwards += 1
        seen, unusable = self._judged(seen)
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

    def _judged(self, seen: StepEvidence) -> tuple[StepEvidence, Status | None]:
        """What the method is to see, and why it cannot be asked this time, if so."""
        if seen.regular:
            return seen, None
        broken = seen.nonfinite()
        if broken is not None:
            names = broken_names(self.tasks, broken)
            if self.nonfinite == "raise":
                raise FloatingPointError(_not_finite(names, "the encoder and the state are as before"))
            if self.nonfinite == "pass":
                return seen._replace(present=seen.present | broken), Status.NONFINITE
            self._count_skipped(names)
            seen = seen.without(broken)
        return seen, None if seen.present.any() else Status.ABSENT

    def _count_skipped(self, names: Sequence[str]) -> None:
        for name in names:
            self.skipped[name] = self.skipped.get(name, 0) + 1


def _not_finite(names: Sequence[str], what: str) -> str:
    return (
        f"the gradient or loss of {', '.join(map(repr, names))} is not finite; {what}. Fork(..., nonfinite='skip') leaves such a "
        "task out of the step; under a GradScaler use 'pass'"
    )
