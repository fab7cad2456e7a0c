"""The leaves on which a Balancer compares gradients, and the graphs in which they cannot be found."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from paretorch.core import checks
from paretorch.core.gradients.graph import CHECKPOINT_NODE, DDP_NODE, FSDP_NODE, OPAQUE, TaskGraph
from paretorch.core.gradients.ranks import Ranks

MOST_NAMES = 6  # of parameters in a message


class Leaves(NamedTuple):
    """The leaves that the losses reach."""

    compared: list[Tensor]  # those on which gradients are compared
    others: list[Tensor]
    others_shared: list[bool]  # which of the others several losses reach
    of_one_task: bool = False  # compared is all that one task's loss reaches: which of it is shared is unknown


class EarlierLeaves:
    """The leaves that earlier steps compared, as weak references. Copies are empty."""

    def __init__(self) -> None:
        self.of_rows: list[weakref.ref[Tensor]] = []  # those of the gradients in the method's state
        self.of_several_tasks: list[weakref.ref[Tensor]] = []  # those of the last step with several tasks

    def __reduce__(self) -> tuple[type[EarlierLeaves], tuple[()]]:
        return EarlierLeaves, ()


class GivenLeaves:
    """The parameters that ``shared=`` names. Those of a module are read again where the graph shows that they have changed.

    Raises:
        ValueError: there are none, or all are frozen.
    """

    def __init__(self, shared: nn.Module | Iterable[Tensor]) -> None:
        self._module = shared if isinstance(shared, nn.Module) else None
        self.leaves = given_leaves(shared)

    def in_graph(self, graph: TaskGraph) -> dict[Tensor, str]:
        """The parameters at the time of this graph, in order, with names for messages."""
        if self._module is None or graph.opaque:
            return self.leaves
        reached = {id(leaf) for leaf in graph.leaves}
        own = {id(leaf) for leaf in self.leaves}
        several = (id(leaf) for leaf, tasks in zip(graph.leaves, graph.leaf_tasks, strict=True) if len(tasks) > 1)
        if not own <= reached or any(leaf not in own for leaf in several):  # a layer may have been replaced or added
            self.leaves = given_leaves(self._module)
        return self.leaves


def given_leaves(shared: nn.Module | Iterable[Tensor]) -> dict[Tensor, str]:
    """The parameters that ``shared=`` names, in order, without repetitions, with names for messages.

    The names are those of a module; of an iterable, the shapes.
    """
    if not isinstance(shared, nn.Module | Iterable) or isinstance(shared, str | Tensor):
        raise ValueError(f"shared is a module or an iterable of parameters, got a {type(shared).__name__}")
    tensors = list(shared.parameters()) if isinstance(shared, nn.Module) else list(shared)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise ValueError(f"shared is a module or parameters, got an item of type {type(tensor).__name__}")
    names = {tensor: f"one of shape {tuple(tensor.shape)}" for tensor in tensors}  # frozen ones may be unfrozen later
    if isinstance(shared, nn.Module):
        names = {tensor: repr(name) for name, tensor in shared.named_parameters()}
    if not any(leaf.requires_grad for leaf in names):
        raise ValueError(_frozen(names))
    return names


def _frozen(names: Mapping[Tensor, str]) -> str:
    """The error for shared parameters of which none is trained."""
    if not names:
        return "shared= has no parameter: give the encoder that computes the features, or leave shared= out"
    listed = [*names.values()]
    more = f" and {len(listed) - MOST_NAMES} more" if len(listed) > MOST_NAMES else ""
    return (
        f"every parameter of shared= is frozen: {', '.join(listed[:MOST_NAMES])}{more} {'has' if len(listed) == 1 else 'have'} "
        "requires_grad=False. Heads on a frozen encoder do not influence each other: call sum(losses.values()).backward() "
        "without the Balancer, or unfreeze some with requires_grad_(True)"
    )


def compared_leaves(
    given: Mapping[Tensor, str] | None,
    graph: TaskGraph,
    tasks: int,
    declared: int,
    ranks: Ranks,
    before: Sequence[Tensor] = (),
    single_allowed: bool = True,
) -> Leaves:
    """The leaves that are compared in this step, and the others that have a gradient.

    Args:
        given: the leaves that ``shared=`` names, with their names; None: those that two losses or more reach.
        graph: of the losses.
        tasks: the number of losses.
        declared: the number of declared tasks.
        ranks: whose losses are averaged.
        before: leaves of earlier steps, which are compared again: gradients in a method's state are of these leaves.
        single_allowed: whether one task may be compared on all that it reaches.

    Raises:
        ValueError: there is nothing to compare.
    """
    check_whole(given or (), graph, ranks, "a Balancer")
    check_graph(graph, given is None)
    shared_leaves = {
        id(leaf): leaf for leaf, tasks in zip(graph.leaves, graph.leaf_tasks, strict=True) if len(tasks) > 1
    }
    if given is None:
        parameters: list[Tensor] = [leaf for leaf in shared_leaves.values() if isinstance(leaf, nn.Parameter)]
        compared = parameters or list(shared_leaves.values())  # inputs that require grad are no parameters
        compared = list({id(leaf): leaf for leaf in (*before, *compared) if leaf.requires_grad}.values())
        if not compared and tasks == 1 and not single_allowed:
            raise ValueError(
                "one task's loss does not show which parameters it shares with others, and the state of this method has "
                "gradients on the shared ones: give Balancer(..., shared=encoder)"
            )
        of_one_task = not compared and tasks == 1
        compared = graph.leaves if of_one_task else compared
        if not compared:
            raise ValueError(
                "the losses share no parameter that requires grad, so there is nothing to balance. Where the encoder is frozen "
                "(requires_grad=False, or run under torch.no_grad()), the heads do not influence each other: call "
                "sum(losses.values()).backward() without the Balancer, or unfreeze it with requires_grad_(True). Where it is not "
                "frozen, check that one encoder computes the features of all losses, and that no head reads detached features"
            )
    else:
        compared = [leaf for leaf in given if leaf.requires_grad]
        if not compared:
            raise ValueError(_frozen(given))
        of_one_task, reached = False, {id(leaf) for leaf in graph.leaves}
        # a task that is absent may be the one that reaches them
        if tasks == declared and not graph.opaque and reached.isdisjoint(map(id, compared)):
            raise ValueError(
                "no loss reaches any parameter of shared=: is it of another model, or of a copy of this one? Give the "
                "encoder that computed the losses"
            )
    checks.check_real(compared, "a Balancer")
    inside = {id(leaf) for leaf in compared}
    others = [leaf for leaf in graph.leaves if id(leaf) not in inside]
    # Which task reaches which leaf is unknown: leaves that shared= does not name belong to heads.
    hidden = bool(graph.opaque - {DDP_NODE})
    return Leaves(compared, others, [id(leaf) in shared_leaves and not hidden for leaf in others], of_one_task)


def check_whole(parameters: Iterable[Tensor], graph: TaskGraph, ranks: Ranks, where: str) -> None:
    """Refuse parameters, and graphs of parameters, that are sharded over ranks."""
    if FSDP_NODE in graph.opaque or ranks.shards(graph.leaves):
        raise ValueError(
            f"{where} takes one backward for each task, and under FSDP each of these would free and reduce the parameters: "
            "use paretorch.Fork at the encoder's output, which is exact under fully_shard"
        )
    for leaf in (*parameters, *graph.leaves):
        if type(leaf).__name__ == "DTensor" or getattr(leaf, "_is_flat_param", False):
            raise ValueError(
                f"{where} takes whole parameters, got one that is sharded over ranks ({type(leaf).__name__}, as FSDP and tensor "
                "parallelism make them): use paretorch.Fork at the encoder's output, which is exact under fully_shard"
            )


def check_graph(graph: TaskGraph, found: bool) -> None:
    """Refuse the graphs in which per-task backwards would be wrong, or the shared parameters cannot be found."""
    if CHECKPOINT_NODE in graph.opaque:
        raise ValueError(
            "a Balancer cannot follow the graph into reentrant checkpointing: use checkpoint(..., use_reentrant=False)"
        )
    if any(_is_static(node) for node in graph.ddp_nodes):
        raise ValueError(
            "a Balancer cannot run under DistributedDataParallel(static_graph=True), which counts the backwards of its first "
            "step: leave static_graph out, or use a Fork"
        )
    if found and graph.opaque:
        names = ", ".join(sorted(OPAQUE[name] for name in graph.opaque))
        raise ValueError(f"the shared parameters cannot be found through {names}: give Balancer(..., shared=encoder)")


def _is_static(sink: Any) -> bool:
    """Whether a node of DistributedDataParallel belongs to a static graph."""
    wrapper = getattr(sink, "ddp_weakref", None)
    module = wrapper() if wrapper is not None else None
    return bool(module is not None and module.static_graph)


def check_ranks_agree(ranks: Ranks, compared: Sequence[Tensor]) -> None:
    """All ranks must compare the same leaves, for their inner products to be summed."""
    found = ranks.gathered((len(compared), sum(leaf.numel() for leaf in compared)))
    if not compared or any(other != found[0] for other in found):
        raise ValueError(
            "the ranks found different shared parameters (as happens where a task is present on some of them only): "
            "give Balancer(..., shared=encoder)"
        )


def check_losses_given(ranks: Ranks, are_given: bool, shared: Sequence[Tensor] | None) -> None:
    """Refuse, on all ranks, a rank without losses whose wrapper waits for the gradients of parameters of one task."""
    stuck = not are_given and ranks.ddp_has_others(shared or ())
    if float(ranks.sum(torch.tensor(float(stuck)))) > 0:
        raise RuntimeError(
            "a rank gave no losses, and DistributedDataParallel waits there for parameters that no backward reaches: give "
            "that rank one of its outputs times zero, balancer.backward({task: 0 * output.sum()}), which counts as absent"
        )
