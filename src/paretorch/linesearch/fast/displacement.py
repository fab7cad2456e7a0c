"""How far a step of the shared parameters moves the features: q = J_z u, by four ways of different price."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from paretorch.core.gradients.graph import task_graph
from paretorch.linesearch.fast.extrapolation import extrapolated, first_rows, rows_are_samples
from paretorch.linesearch.fast.features import Features
from paretorch.linesearch.parameter_line import length
from paretorch.linesearch.replay.batch_norm import layers_of
from paretorch.linesearch.replay.forward import Repeat

DISPLACEMENTS = ("gradient", "linearised", "difference", "calibrated")
NOT_TWICE = "torch::autograd::Error"  # the node that stands for the derivative of a derivative which there is not
TINY = 3e-5  # of a difference without a step to go by: relative to the parameters' length

Moved = tuple[list[Tensor], list[Tensor]]  # features as they were, and how they move


class Displacement:
    r"""Computes q, along which the features move to first order when the parameters move along -u.

    .. math:: z(\theta - \eta u) = z(\theta) - \eta\, q + O(\eta^2), \qquad q = J_z u

    Args:
        encoder: the module. Every product may be taken on the first ``samples`` of the batch and carried over to the others;
            None: on all.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder = encoder
        self.named = {name: leaf for name, leaf in encoder.named_parameters() if leaf.requires_grad}
        self.ratio = math.nan  # of the lengths of q and u, when it was last computed
        self.scalable = (
            True  # whether each task, along the features' own direction at that length, has a share beta of its slope
        )
        self.double_backward = False
        self._seen_twice = False  # that every operation can be differentiated twice
        self.norms = layers_of(encoder)
        self.telling = True  # whether the samples tell how those of the whole batch move
        self.apart: bool | None = None  # whether a sample's features can be had without the others; None: not known yet
        self.divisible: bool | None = None  # whether the encoder takes some samples of a batch; None: not known yet

    def linearised(
        self, x: Any, features: Features, direction: Sequence[Tensor], repeat: Repeat, samples: int | None
    ) -> list[Tensor]:
        """J_z u, exactly: by a forward-mode product, or a double backward where an operation has none; said once."""
        if not self.double_backward:
            try:
                return self._on_samples(
                    x, features, repeat, samples, lambda inputs, _: self._dual(features, inputs, direction)
                )
            except (NotImplementedError, RuntimeError) as error:
                if not _unsupported(error):
                    raise
                self.double_backward = True
                warnings.warn(
                    f"the encoder has no forward-mode derivative ({str(error).splitlines()[0][:100]}): its displacement is "
                    "computed by a double backward, on the whole batch. displacement='difference' needs neither",
                    stacklevel=5,
                )
        try:
            return self._twice(features, direction)
        except RuntimeError as error:
            raise ValueError(
                f"the encoder has neither a forward-mode derivative nor a second backward ({str(error).splitlines()[0][:100]}): "
                "expected one of them for displacement='linearised', use displacement='difference'"
            ) from error

    def difference(
        self,
        x: Any,
        features: Features,
        direction: Sequence[Tensor],
        repeat: Repeat,
        step: float,
        samples: int | None,
    ) -> list[Tensor]:
        """(z(theta) - z(theta - h u)) / h with h = ``step``; exact to all orders at that step."""
        ends = torch._foreach_add([leaf.detach() for leaf in self.named.values()], list(direction), alpha=-step)
        there = dict(zip(self.named, ends, strict=True))

        def secant(inputs: Any, base: list[Tensor] | None) -> Moved:
            if base is None:
                base = features.same(self.encoder(inputs))
            end = features.same(functional_call(self.encoder, there, (inputs,)))
            return base, [(one.detach() - other) / step for one, other in zip(base, end, strict=True)]

        return self._on_samples(x, features, repeat, samples, secant)

    def small_step(self, direction: Sequence[Tensor]) -> float:
        """A step that moves the parameters by a small part of their length, well above rounding."""
        size = length(direction)
        return TINY * max(length(list(self.named.values())), 1e-6) / size if size > 0 else 1.0

    def calibrate(self, displacement: Sequence[Tensor], direction: Sequence[Tensor]) -> None:
        """Remembers how much longer the displacement is than the direction."""
        size = length(direction)
        if size > 0:
            self.ratio = length(displacement) / size

    def scaled(self, along: Sequence[Tensor], direction: Sequence[Tensor]) -> list[Tensor]:
        """``along`` (the features' own direction) at the length that the remembered ratio predicts."""
        size = length(along)
        factor = self.ratio * length(direction) / size if size > 0 else 0.0
        return [part * factor for part in along]

    def projected(self, along: Sequence[Tensor], gradient: Sequence[Tensor]) -> list[Tensor]:
        r"""The part of J_z u that lies along d_z, for u = J_z^T d_z: :math:`d_z \lVert u \rVert^2 / \lVert d_z \rVert^2`.

        It tells the balanced loss's slope exactly, and nothing else.
        """
        size = length(along)
        factor = (length(gradient) / size) ** 2 if size > 0 else 0.0
        return [part * factor for part in along]

    # --- on all samples or on some ---------------------------------------------------------------------------------------

    def _on_samples(
        self,
        x: Any,
        features: Features,
        repeat: Repeat,
        samples: int | None,
        displace: Callable[[Any, list[Tensor] | None], Moved],
    ) -> list[Tensor]:
        if samples is None or not self.takes(samples, x, features, repeat):
            with repeat.again():
                return displace(x, features.leaves)[1]
        some = first_rows(x, len(features.leaves[0]), samples)
        alone = self.apart and not repeat.drew
        base = [leaf[:samples] for leaf in features.leaves] if alone else None
        with repeat.again(), repeat.matching.matched(samples) if alone else nullcontext():
            own, displacement = displace(some, base)
        return extrapolated(features.leaves, own, displacement)

    def takes(self, samples: int, x: Any, features: Features, repeat: Repeat) -> bool:
        """Whether the encoder can be called with the first samples of this batch alone; tried at the first step.

        At the same time it is seen whether these have by themselves the features that they have in the batch (``apart``).
        """
        if features.leaves[0].ndim and samples >= len(features.leaves[0]):
            return False
        if not rows_are_samples(x, features.leaves):
            self.divisible = False
        elif self.divisible is None or (self.divisible and self.apart is None and not repeat.drew):
            self._try(samples, x, features, repeat)
        if not self.divisible:
            self.telling = (
                False  # the whole batch is used from now on, as where some samples do not tell its displacement
            )
        return bool(self.divisible)

    def _try(self, samples: int, x: Any, features: Features, repeat: Repeat) -> None:
        some = first_rows(x, len(features.leaves[0]), samples)
        try:
            with repeat.again(), nullcontext() if repeat.drew else repeat.matching.matched(samples):
                again = features.same(self.encoder(some))
        except (
            Exception
        ):  # whatever ties the samples together, such as the edges of a graph or a state of the batch's size
            self.divisible = False
            return
        pairs = list(zip(again, features.leaves, strict=True))
        self.divisible = all(one.ndim > 0 and one.shape == leaf[:samples].shape for one, leaf in pairs)
        if self.divisible and self.apart is None and not repeat.drew:
            self.apart = all(
                torch.allclose(one, leaf[:samples].detach(), rtol=1e-3, atol=1e-4 * float(leaf.detach().abs().max()))
                for one, leaf in pairs
            )

    # --- exact products --------------------------------------------------------------------------------------------------

    def _dual(self, features: Features, inputs: Any, direction: Sequence[Tensor]) -> Moved:
        # fused attention has neither a forward-mode derivative nor a second backward, its plain form has both
        with _quiet(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
            duals = {
                name: forward_ad.make_dual(leaf.detach(), part)
                for (name, leaf), part in zip(self.named.items(), direction, strict=True)
            }
            out = features.same(functional_call(self.encoder, duals, (inputs,)))
            unpacked = [forward_ad.unpack_dual(leaf) for leaf in out]
        return (
            [each.primal.detach() for each in unpacked],
            [
                torch.zeros_like(each.primal) if each.tangent is None else each.tangent.detach().contiguous()
                for each in unpacked
            ],
        )

    def _twice(self, features: Features, direction: Sequence[Tensor]) -> list[Tensor]:
        """The derivative of v -> J_z^T v, which is linear in v, along the direction."""
        dummies = [torch.zeros_like(leaf, requires_grad=True) for leaf in features.leaves]
        leaves = list(self.named.values())
        with torch.enable_grad():
            back = torch.autograd.grad(
                features.leaves, leaves, dummies, retain_graph=True, create_graph=True, allow_unused=True
            )
            self._differentiable([one for one in back if one is not None])
            pairs = [(one, part) for one, part in zip(back, direction, strict=True) if one is not None]
            found = torch.autograd.grad(
                [one for one, _ in pairs], dummies, [part for _, part in pairs], allow_unused=True
            )
        return [
            torch.zeros_like(leaf) if part is None else part for part, leaf in zip(found, features.leaves, strict=True)
        ]

    def _differentiable(self, back: Sequence[Tensor]) -> None:
        """A function that can be differentiated once does not raise here: it would be left out of the derivative in silence."""
        if not self._seen_twice and any(node.name() == NOT_TWICE for node, _ in task_graph([back]).task_masks):
            raise RuntimeError("a torch.autograd.Function is marked with @once_differentiable")
        self._seen_twice = True


@contextmanager
def _quiet() -> Iterator[None]:
    """At its first use torch loads its forward-mode formulas, and warns of a deprecated way in which it does so itself."""
    if "torch._decomp.decompositions_for_jvp" in sys.modules:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        yield


def _unsupported(error: BaseException) -> bool:
    """Whether it says that an operation has no forward-mode derivative."""
    text = str(error).lower()
    return "forward ad" in text or "forward mode" in text or "forward-mode" in text or "jvp" in text
