"""Static weights of a model of one's own, or of a workload by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, overload

from torch import Tensor, nn

from paretorch.balance import static_weights
from paretorch.balance.static_weights import StaticWeights
from paretorch.training.balanced_run import SHARE, balanced_weights
from paretorch.training.names.constructors import parse
from paretorch.training.run import Run


@overload
def find_weights(
    model: nn.Module,
    losses_of: Callable[[Any, Any], Mapping[str, Tensor | None]],
    batches: Iterable[Any],
    **options: Any,
) -> StaticWeights: ...


@overload
def find_weights(model: str | Path, **options: Any) -> StaticWeights: ...


def find_weights(
    model: nn.Module | str | Path,
    losses_of: Callable[[Any, Any], Mapping[str, Tensor | None]] | None = None,
    batches: Iterable[Any] | None = None,
    **options: Any,
) -> StaticWeights:
    r"""Plain static weights, at which the weighted gradients of all tasks have the same norm along a short balanced run.

    .. math:: w_t = \frac{c}{\exp\bigl(\frac{1}{|K|} \sum_{k \in K} \log \lVert g_{t,k} \rVert\bigr)}, \qquad
              \frac{1}{T} \sum_t w_t = 1,

    where :math:`g_{t,k}` is the gradient of the loss of task t on the shared parameters in step k, and K are the steps after
    the first tenth in which the task is present.

    Args:
        model: a model, which is unchanged afterwards; or a workload as on the command line, ``"digits(ink=True)"`` or a path.
        losses_of: for a model: model, batch -> scalar losses by task; a task that is absent is left out, or None.
        batches: for a model: what ``losses_of`` receives.
        **options: for a model, those of ``paretorch.balance.static_weights.find_weights``: ``steps``, ``method``,
            ``optimizer``, ``shared``. For a workload, fields of :class:`~paretorch.training.Run`, such as ``epochs``, and
            ``share``, the part of the run that is trained, a third by default.

    Returns:
        the weights by task, with the norms.

    Raises:
        ValueError: fewer than two tasks, losses that are not scalars or share no parameter, a task without a gradient, too few
            batches or steps, or a method that compares no gradients.
        FloatingPointError: a loss or gradient that is not finite; the message names the task.
        TypeError: a model without ``losses_of`` and ``batches``, or a workload with them.

    Example:
        >>> import paretorch as pt
        >>> found = pt.find_weights("tabular(table='diabetes')", epochs=6, batch_size=32)
        >>> list(found)
        ['progression', 'bmi', 'bp']

    References:
        Yang et al., "AutoScale: Linear Scalarization Guided by Multi-Task Optimization Metrics", 2025, arXiv:2508.13979, in
        which weights with similar gradient norms perform well.
    """
    if isinstance(model, nn.Module):
        if losses_of is None or batches is None:
            raise TypeError(
                "find_weights(model, losses_of, batches): a model needs a function of its losses, and batches"
            )
        return static_weights.find_weights(model, losses_of, batches, **options)
    if losses_of is not None or batches is not None:
        raise TypeError("find_weights(workload): a workload has its own losses and batches, so give its name alone")
    call = parse(str(model))
    share = options.pop("share", SHARE)
    run = Run(call.name, call.named, **{"method": "IMTLG()", "surface": "parameters", "test": False, **options})
    return balanced_weights(run, share)
