"""Products of the encoder's Jacobian with a direction of its parameters, J_z u."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from paretorch.core.gradients.graph import task_graph
from paretorch.linesearch.fast.batch import Batch
from paretorch.linesearch.fast.state import EncoderProperties
from paretorch.linesearch.fast.subsample import extrapolated, first_rows
from paretorch.linesearch.tensor_rows import norm

NOT_TWICE = "torch::autograd::Error"  # the node in place of a second derivative that does not exist
TINY = 3e-5  # of a difference without an expected step: relative to the norm of the parameters

_FORWARD_MODE = threading.RLock()  # torch has one level of forward mode for all threads of the process

Product = tuple[list[Tensor], list[Tensor]]  # features, and their displacement


def secant(
    batch: Batch, direction: Sequence[Tensor], step: float, samples: int | None, encoder: EncoderProperties
) -> list[Tensor]:
    """(z(theta) - z(theta - h u)) / h with h = ``step``: exact to all orders at that step, for one forward."""
    parameters, model = batch.options.parameters, batch.parts.encoder
    ends = torch._foreach_add([leaf.detach() for leaf in parameters.values()], list(direction), alpha=-step)
    moved = dict(zip(parameters, ends, strict=True))

    def difference(inputs: Any, base: list[Tensor] | None) -> Product:
        if base is None:
            base = batch.features.leaves_of(model(inputs))
        end = batch.features.leaves_of(functional_call(model, moved, (inputs,)))
        return base, [(one.detach() - other) / step for one, other in zip(base, end, strict=True)]

    return _on_samples(batch, samples, encoder, difference)


def short_step(batch: Batch, direction: Sequence[Tensor]) -> float:
    """A step that moves the parameters by a small part of their norm, well above rounding."""
    size = norm(direction)
    return TINY * max(norm(list(batch.options.parameters.values())), 1e-6) / size if size > 0 else 1.0


def tangent(batch: Batch, direction: Sequence[Tensor], step: float) -> list[Tensor]:
    """J_z u on the whole batch: the secant over a short step, or exactly where rounding hides such a displacement."""
    if batch.coarse:
        with suppress(ValueError):  # without derivatives of the encoder, the secant is all there is
            return jacobian_product(batch, direction, None, EncoderProperties(), warn=False)[0]
    return secant(batch, direction, step, None, EncoderProperties())


def jacobian_product(
    batch: Batch, direction: Sequence[Tensor], samples: int | None, encoder: EncoderProperties, *, warn: bool = True
) -> tuple[list[Tensor], EncoderProperties]:
    """J_z u exactly: in forward mode, or by a double backward where an operation has no forward mode, with one warning.

    Raises:
        ValueError: an operation of the encoder has neither.
    """
    if not encoder.double_backward:
        try:
            return _on_samples(
                batch, samples, encoder, lambda inputs, _: _forward_mode(batch, inputs, direction)
            ), encoder
        except (NotImplementedError, RuntimeError) as error:
            if not _lacks_forward_mode(error):
                raise
            encoder = encoder._replace(double_backward=True)
            if warn:
                warnings.warn(
                    f"the encoder has no forward-mode derivative ({str(error).splitlines()[0][:100]}): its displacement is "
                    "computed by a double backward, on the whole batch. displacement='difference' needs neither",
                    stacklevel=5,
                )
    try:
        return _double_backward(batch, direction, encoder), encoder._replace(twice_differentiable=True)
    except RuntimeError as error:
        raise ValueError(
            f"the encoder has neither a forward-mode derivative nor a second backward ({str(error).splitlines()[0][:100]}): "
            "expected one of them for displacement='linearised', use displacement='difference'"
        ) from error


def _on_samples(
    batch: Batch,
    samples: int | None,
    encoder: EncoderProperties,
    product: Callable[[Any, list[Tensor] | None], Product],
) -> list[Tensor]:
    """A product on the first samples, extrapolated to the batch; on the whole batch where ``samples`` is None."""
    replay, leaves = batch.encoding, batch.features.leaves
    if samples is None:
        with replay.without_graph():
            return product(batch.x, leaves)[1]
    alone = encoder.samples_independent and not replay.drew
    base = [leaf[:samples] for leaf in leaves] if alone else None
    with replay.without_graph(), replay.batch_norm.on_subsample(samples) if alone else nullcontext():
        own, displacement = product(first_rows(batch.x, len(leaves[0]), samples), base)
    return extrapolated(leaves, own, displacement)


def _forward_mode(batch: Batch, inputs: Any, direction: Sequence[Tensor]) -> Product:
    # fused attention has neither a forward-mode derivative nor a second backward; its plain form has both
    with (
        _FORWARD_MODE,
        _left_on_error(),
        _without_torch_warnings(),
        sdpa_kernel(SDPBackend.MATH),
        forward_ad.dual_level(),
    ):
        duals = {
            name: forward_ad.make_dual(leaf.detach(), part)
            for (name, leaf), part in zip(batch.options.parameters.items(), direction, strict=True)
        }
        out = batch.features.leaves_of(functional_call(batch.parts.encoder, duals, (inputs,)))
        unpacked = [forward_ad.unpack_dual(leaf) for leaf in out]
    return (
        [each.primal.detach() for each in unpacked],
        [
            torch.zeros_like(each.primal) if each.tangent is None else each.tangent.detach().contiguous()
            for each in unpacked
        ],
    )


def _double_backward(batch: Batch, direction: Sequence[Tensor], encoder: EncoderProperties) -> list[Tensor]:
    """The derivative of v -> J_z^T v, which is linear in v, along the direction."""
    features = batch.features.leaves
    dummies = [torch.zeros_like(leaf, requires_grad=True) for leaf in features]
    leaves = list(batch.options.parameters.values())
    with torch.enable_grad():
        back = torch.autograd.grad(features, leaves, dummies, retain_graph=True, create_graph=True, allow_unused=True)
        if not encoder.twice_differentiable:
            _check_twice_differentiable([one for one in back if one is not None])
        pairs = [(one, part) for one, part in zip(back, direction, strict=True) if one is not None]
        found = torch.autograd.grad([one for one, _ in pairs], dummies, [part for _, part in pairs], allow_unused=True)
    return [torch.zeros_like(leaf) if part is None else part for part, leaf in zip(found, features, strict=True)]


def _check_twice_differentiable(back: Sequence[Tensor]) -> None:
    """Raises for a function marked as once differentiable, which torch would omit from the derivative without an error."""
    if any(node.name() == NOT_TWICE for node, _ in task_graph([back]).task_masks):
        raise RuntimeError("a torch.autograd.Function is marked with @once_differentiable")


@contextmanager
def _left_on_error() -> Iterator[None]:
    """A context around the level of forward mode, which is left also where an interrupt arrives within its entry or exit.

    Torch counts the level in Python and in C++.
    """
    before = getattr(forward_ad, "_current_level", None)
    try:
        yield
    except BaseException:
        if before == -1:  # else the level is the caller's
            with suppress(RuntimeError):  # it is not entered
                torch._C._exit_dual_level(level=0)
            forward_ad._current_level = -1
        raise


@contextmanager
def _without_torch_warnings() -> Iterator[None]:
    """A context without the deprecation warnings that torch gives when it loads its forward-mode formulas."""
    if "torch._decomp.decompositions_for_jvp" in sys.modules:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        yield


def _lacks_forward_mode(error: BaseException) -> bool:
    """Whether the error is that of an operation without a forward-mode derivative."""
    text = str(error).lower()
    return "forward ad" in text or "forward mode" in text or "forward-mode" in text or "jvp" in text
