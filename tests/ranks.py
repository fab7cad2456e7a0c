"""Runs a function on several gloo ranks of this machine, and what those functions do. Imported by the spawned processes."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import paretorch as pt
from forked_processes import run_forked
from small_models import TASKS, Net, data, gradients, losses_of, total


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def on_ranks(function: Callable[..., Any], ranks: int, folder: Path, *arguments: Any) -> list[Any]:
    """What ``function(rank, *arguments)`` returned on each rank."""
    run_forked(_rank, (ranks, free_port(), function, str(folder), arguments), ranks)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(ranks)]


def _rank(
    rank: int, ranks: int, port: int, function: Callable[..., Any], folder: str, arguments: tuple[Any, ...]
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(ranks))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    try:
        torch.save(function(rank, *arguments), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


METHODS: dict[str, Callable[[], pt.Method[Any]]] = {
    "mgda": pt.MGDA,
    "upgrad": pt.UPGrad,
    "pcgrad": pt.PCGrad,
    "graddrop": pt.GradDrop,
    "loss+": lambda: pt.MGDA(normalize="loss+"),
    "uncertainty": pt.Uncertainty,
    "famo": pt.FAMO,
}


def rank_data(rank: int) -> tuple[Tensor, dict[str, Tensor]]:
    return data(seed=100 + rank)


def present_on(rank: int, split: str) -> tuple[str, ...]:
    """Which tasks have labels on a rank: all; or only some, and on the last rank of ``nothing`` none."""
    if split == "all":
        return TASKS
    return {0: ("a",), 1: ("b", "c"), 2: ("a", "c"), 3: ()}[rank] if split == "some" else ((), TASKS)[rank == 0]


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


class LossRecordingModel(nn.Module):
    """A model whose outputs are its losses, which it records in the Fork inside of the wrapped module."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, targets: dict[str, Tensor], present: tuple[str, ...]) -> Tensor:
        outputs = self.net(x)
        losses = losses_of({task: outputs[task] for task in present}, targets)
        return total(self.net.fork.losses(losses))


def every_case(rank: int, cases: tuple[tuple[str, str, str, str], ...], steps: int) -> dict[str, Any]:
    """All cases in one set of processes: starting them costs more than running them."""
    return {
        "/".join((by, method, ddp, split)): forked_steps(rank, method, DDP[ddp], split, steps)
        if by == "fork"
        else balanced_steps(rank, method, DDP[ddp], split, steps, by)
        for by, method, ddp, split in cases
    }


DDP: dict[str, dict[str, Any]] = {
    "plain": {},
    "unused": {"find_unused_parameters": True},
    "static": {"static_graph": True},
}


class Present(nn.Module):
    """Computes the outputs of the tasks that are present: DDP requires a gradient for every parameter behind an output."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, present: tuple[str, ...]) -> dict[str, Tensor]:
        z = self.net.encoder(x)
        return {task: self.net.heads[task](z) for task in present}


def forked_steps(rank: int, method: str, ddp: dict[str, Any], split: str, steps: int) -> dict[str, Any]:
    net = Net(fork=pt.Fork(METHODS[method](), TASKS))
    return steps_of_fork(rank, DistributedDataParallel(LossRecordingModel(net), **ddp), split, steps)


def sharded_steps(rank: int, cases: tuple[tuple[str, str, str], ...], steps: int) -> dict[str, Any]:
    """Steps of a Fork in a model whose parameters ``fully_shard`` has sharded, by parts of the model."""
    from torch.distributed.fsdp import fully_shard

    shard: Any = fully_shard
    results = {}
    for method, parts, split in cases:
        net = Net(fork=pt.Fork(METHODS[method](), TASKS))
        model = LossRecordingModel(net)
        sharded = {
            "root": [model],
            "encoder": [net.encoder],
            "layers": [net.encoder[0], net.encoder[2], *net.heads.values(), model],
        }
        for part in sharded[parts]:
            shard(part)
        if parts == "encoder":  # what is outside is averaged by the user
            for parameter in net.heads.parameters():
                parameter.register_hook(averaged)
        results[f"{method}/{parts}/{split}"] = steps_of_fork(rank, model, split, steps)
    return results


def averaged(gradient: Tensor) -> Tensor:
    gradient = gradient.clone()
    dist.all_reduce(gradient)
    return gradient / dist.get_world_size()


def steps_of_fork(rank: int, model: Any, split: str, steps: int) -> dict[str, Any]:
    """Steps of gradient descent of a :class:`LossRecordingModel`, wrapped or sharded, on the data of a rank."""
    net = getattr(model, "module", model).net
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    grads = []
    for _ in range(steps):
        optimizer.zero_grad()
        x, targets = rank_data(rank)
        loss = model(x, targets, present_on(rank, split))
        loss.backward()
        grads.append(gradients(net))
        optimizer.step()
        if net.fork.method.observes:
            with torch.no_grad():
                losses = losses_of(net(x), targets)
            net.fork.observe({t: losses[t] for t in present_on(rank, split)})
    return {"gradients": torch.stack(grads), "state": state_of(net.fork)}


class TotalLoss(nn.Module):
    """Returns the Balancer's total from its forward, as models do that compute their own loss."""

    def __init__(self, net: Net, balancer: pt.Balancer) -> None:
        super().__init__()
        self.net, self.balance = net, [balancer]

    def forward(self, x: Tensor, targets: dict[str, Tensor]) -> Tensor:
        return self.balance[0].total(losses_of(self.net(x), targets))


def balanced_steps(
    rank: int, method: str, ddp: dict[str, Any], split: str, steps: int, by: str = "balancer"
) -> dict[str, Any]:
    """Steps by ``backward``, by the backward of 8 times the ``total``, by that of a model's own loss, or by micro-batches."""
    net, present = Net(), present_on(rank, split)
    parts = 3 if by == "accumulated" else 1
    balancer = pt.Balancer(
        METHODS[method](), TASKS, shared=net.encoder if ddp or split != "all" else None, accumulate=parts
    )
    inside = by == "total inside"
    model = DistributedDataParallel(TotalLoss(net, balancer) if inside else Present(net), **ddp)
    grads = []
    for _ in range(steps):
        model.zero_grad()
        x, targets = rank_data(rank)
        if inside:
            model(x, targets).backward()
        elif by == "total":
            (8 * balancer.total(losses_of(model(x, present), targets))).backward()
            for p in net.parameters():
                if p.grad is not None:
                    p.grad /= 8
        else:
            for part, rows in enumerate(x.chunk(parts)):
                labels = {task: target.chunk(parts)[part] for task, target in targets.items()}
                with nullcontext() if part + 1 == parts else model.no_sync():
                    losses = losses_of(model(rows, present), labels)
                    balancer.backward({task: loss / parts for task, loss in losses.items()})
        grads.append(gradients(net))
        with torch.no_grad():
            for p in net.parameters():
                if p.grad is not None:
                    p.sub_(0.05 * p.grad)
    return {"gradients": torch.stack(grads), "state": state_of(balancer)}


def total_in_a_wrapper_that_searches(rank: int) -> list[str]:
    """The errors of a total within the forward of wrappers that search its graph for parameters."""
    answers = []
    for options in (DDP["unused"], DDP["static"]):
        model = DistributedDataParallel(TotalLoss(Net(), pt.Balancer(pt.MGDA(), TASKS)), **options)
        answers.append(raised(lambda: model(*rank_data(rank))))  # noqa: B023
    return answers


def refusals(rank: int) -> list[str]:
    """The errors of ranks that declare different names, of static graphs, of a model without outputs, of totals in wrappers."""
    own = [names_that_differ(rank), static_graph_refused(rank), static_graph_with_weighted_heads(), no_outputs()]
    return [*own, *total_in_a_wrapper_that_searches(rank)]


def names_that_differ(rank: int) -> str:
    fork = pt.Fork(pt.MGDA(), ("a", "b") if rank == 0 else ("b", "a"))
    try:
        fork(torch.ones(2, 3, requires_grad=True) * 1)
    except ValueError as error:
        return str(error)
    return "nothing was raised"


def alone_in_a_group(rank: int) -> Tensor:
    """``group=None`` keeps to this process; a process group of its own keeps to its ranks."""
    fork = pt.Fork(pt.MGDA(), ("a", "b"), group=None)
    z = torch.full((2, 3), float(rank + 1), requires_grad=True)
    branch = fork(z)
    (branch["a"].square().sum() + branch["b"].sum()).backward()
    assert fork.balance is not None
    assert fork.balance.gramian is not None
    halves = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    own_half = halves[rank // 2]
    assert isinstance(own_half, dist.ProcessGroup)
    half = pt.Fork(pt.MGDA(), ("a", "b"), group=own_half)
    branch = half(z)
    (branch["a"].square().sum() + branch["b"].sum()).backward()
    assert half.balance is not None
    assert half.balance.gramian is not None
    return torch.stack([fork.balance.gramian[0, 0], half.balance.gramian[0, 0]])


def static_graph_refused(rank: int) -> str:
    net = Net()
    model = DistributedDataParallel(net, static_graph=True)
    x, targets = rank_data(rank)
    try:
        pt.Balancer(pt.MGDA(), shared=net.encoder).backward(losses_of(model(x), targets))
    except ValueError as error:
        return str(error)
    return "nothing was raised"


def static_graph_with_weighted_heads() -> str:
    model = DistributedDataParallel(Net(fork=pt.Fork(pt.MGDA(), TASKS, heads="weighted")), static_graph=True)
    return raised(lambda: model(rank_data(0)[0]))


class PresentOfFork(nn.Module):
    """The outputs of the present tasks, by a Fork."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, present: tuple[str, ...]) -> dict[str, Tensor]:
        assert self.net.fork is not None
        branch = self.net.fork(self.net.encoder(x))
        return {task: self.net.heads[task](branch[task]) for task in present}


def no_outputs() -> str:
    """A second step in which the wrapped model returns nothing on any rank."""
    net = Net(fork=pt.Fork(pt.MGDA(), TASKS))
    model = DistributedDataParallel(PresentOfFork(net), find_unused_parameters=True)
    x, targets = rank_data(0)
    assert net.fork is not None
    total(net.fork.losses(losses_of(model(x, TASKS), targets))).backward()
    model(x, ())
    return raised(lambda: net.fork.losses({}))


# --- wrappers of the model -----------------------------------------------------------------------------------------------


def raised(step: Callable[[], object]) -> str:
    """What a step raises, or a sentence that it raises nothing."""
    try:
        step()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def missing_losses(rank: int) -> dict[str, Any]:
    """Four steps under find_unused_parameters, of which rank 1 lacks one task's loss, though its output was computed."""
    found: dict[str, Any] = {}
    for by in ("balancer", "plain"):
        net = Net()
        model = DistributedDataParallel(net, find_unused_parameters=True)
        balancer = pt.Balancer(pt.Equal() if by == "plain" else pt.MGDA(), TASKS, shared=net.encoder)
        grads = []
        for step in range(4):
            model.zero_grad()
            x, targets = data(seed=31 * step + rank)
            losses = losses_of(model(x), targets)
            if rank == 1:
                del losses["b"]
            if rank == 1 and step == 3:
                losses = {task: 0 * loss for task, loss in losses.items()}
            if by == "plain":
                total(losses).backward()
            else:
                balancer.backward(losses)
            grads.append(gradients(net))
        found[by] = torch.stack(grads)
    return found


# the present tasks of each rank, micro-batch by micro-batch; DDP averages a head that any rank uses in the last one
ABSENT: dict[str, tuple[list[tuple[str, ...]], list[tuple[str, ...]]]] = {
    "everywhere": ([TASKS, ()], [TASKS, ("b",)]),
    "last": ([TASKS, ("a", "b")], [TASKS, TASKS]),
    "last twice": ([("c",), ("a",)], [TASKS, ("b", "c")]),
}


class FeaturesAndOutputs(Present):
    def forward(self, x: Tensor, present: tuple[str, ...]) -> Any:
        z = self.net.encoder(x)
        return {task: self.net.heads[task](z) for task in present}, z


def absent_tasks(rank: int) -> dict[str, Any]:
    """Gradients of steps, and of accumulated micro-batches, in which ranks lack tasks; a zero is given where there is none."""
    found: dict[str, Any] = {}
    for method in (pt.UPGrad(), pt.Uncertainty(), pt.IMTLL()):
        for case, present in ABSENT.items():
            net, parts = Net(), 1 if case == "everywhere" else 2
            model = DistributedDataParallel(FeaturesAndOutputs(net), find_unused_parameters=True)
            balancer = pt.Balancer(method, TASKS, shared=net.encoder, accumulate=parts)
            grads = []
            for place, tasks in enumerate(present[rank]):
                if place % parts == 0:
                    model.zero_grad()
                x, targets = data(seed=31 * place + rank)
                with nullcontext() if (place + 1) % parts == 0 else model.no_sync():
                    outputs, z = model(x, tasks)
                    balancer.backward(losses_of(outputs, targets) or {"a": 0 * z.sum()})
                if (place + 1) % parts == 0:
                    grads.append(gradients(net))
            found[f"{method}/{case}"] = torch.stack(grads)
    return found


def no_losses(rank: int) -> list[str]:
    """The errors of all ranks if one gives no losses and the wrapper would block on gradients of the heads."""
    answers = []
    for method in (pt.MGDA(), pt.Uncertainty()):
        for unused in (False, True):
            net = Net()
            model = DistributedDataParallel(net, find_unused_parameters=unused)
            x, targets = data(seed=rank)
            losses = losses_of(model(x), targets)
            balancer = pt.Balancer(method, TASKS, shared=net.encoder)
            answers.append(raised(lambda: balancer.backward({} if rank == 1 else losses)))  # noqa: B023
    return answers


def no_recorded_losses(rank: int, unused: bool) -> dict[str, Any]:
    """Steps in which a rank records no losses, outside of the forward that DDP wraps; and in a copy of the model."""
    found: dict[str, Any] = {}
    for method in (pt.MGDA(), pt.FAMO()):
        net = Net(fork=pt.Fork(method, TASKS))
        model = DistributedDataParallel(net, find_unused_parameters=unused)
        grads = []
        for step in range(4):
            model.zero_grad()
            x, targets = data(seed=31 * step + rank)
            losses = losses_of(model(x), targets)
            outputs = {} if (rank == 1 and step in (1, 2)) or (rank == 0 and step == 3) else losses
            total(net.fork.losses(outputs)).backward()
            grads.append(gradients(net))
        copy.deepcopy(model.module)(x)
        found[repr(method)] = torch.stack(grads)
    return found


@dataclass
class Outputs:
    """Outputs by name, in an object that torch does not open."""

    a: Tensor
    b: Tensor
    c: Tensor


class OutputsInAnObject(nn.Module):
    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Outputs]:
        return {"outputs": Outputs(**self.net(x))}


def nothing_of_an_object(rank: int) -> dict[str, Any]:
    """Steps in which a rank has no task, and the model returns its outputs in an object."""
    net = Net(fork=pt.Fork(pt.MGDA(), TASKS))
    model = DistributedDataParallel(OutputsInAnObject(net))
    grads = []
    for step in range(3):
        model.zero_grad()
        x, targets = data(seed=31 * step + rank)
        outputs = vars(model(x)["outputs"])
        total(net.fork.losses({} if rank == 1 and step != 2 else losses_of(outputs, targets))).backward()
        grads.append(gradients(net))
    return {"gradients": torch.stack(grads)}


def skipped_steps(rank: int) -> dict[str, Any]:
    """By method: whether a step in which a Balancer skips every task leaves ``.grad`` None, and by how much Adam moves then."""
    found: dict[str, Any] = {}
    for method in (pt.MGDA(), pt.GradDrop(), pt.FAMO()):
        for unused in (False, True):
            net = Net()
            model = DistributedDataParallel(net, find_unused_parameters=unused)
            balancer = pt.Balancer(method, TASKS, shared=net.encoder, nonfinite="skip")
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
            for step in range(3):
                optimizer.zero_grad()
                x, targets = data(seed=31 * step + rank)
                losses = losses_of(model(x), targets)
                balancer.backward({task: loss * (torch.nan if step == 1 else 1) for task, loss in losses.items()})
                before = [parameter.detach().clone() for parameter in net.parameters()]
                optimizer.step()
                if step == 1:
                    moved = max(
                        float((p - q).detach().abs().max()) for p, q in zip(net.parameters(), before, strict=True)
                    )
                    none = all(parameter.grad is None for parameter in net.parameters())
                    found[f"{method}/{unused}"] = [none, moved]
    return found


BROKEN = (
    "loss",
    "gradient",
)  # what is nan of task b on rank 1, in the second step; behind a nan gradient the loss is finite


def broken_losses(outputs: dict[str, Tensor], targets: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The losses, of which that of task b, or its gradient, is nan."""
    losses = losses_of(outputs, targets)
    bad = outputs["b"].sum() * torch.nan if kind == "loss" else (0 * outputs["b"]).sqrt().sum()
    return losses | {"b": losses["b"] + bad}


def skipped_tasks(rank: int) -> dict[str, Any]:
    """Three steps of Balancers under plain DDP that skip a task in the second one; the heads' gradients that are None."""
    found: dict[str, Any] = {}
    for method in (pt.MGDA(), pt.UPGrad(), pt.FAMO()):
        for kind in BROKEN:
            for parts in (1, 2):
                net = Net()
                model = DistributedDataParallel(net)
                balancer = pt.Balancer(method, TASKS, shared=net.encoder, nonfinite="skip", accumulate=parts)
                grads, none = [], []
                for step in range(3):
                    model.zero_grad()
                    x, targets = data(seed=31 * step + rank)
                    for part, rows in enumerate(x.chunk(parts)):
                        labels = {task: target.chunk(parts)[part] for task, target in targets.items()}
                        is_broken = step == 1 and rank == 1 and part + 1 == parts
                        with nullcontext() if part + 1 == parts else model.no_sync():
                            outputs = model(rows)
                            losses = broken_losses(outputs, labels, kind) if is_broken else losses_of(outputs, labels)
                            balancer.backward({task: loss / parts for task, loss in losses.items()})
                    grads.append(gradients(net))
                    none.append(all(parameter.grad is None for parameter in net.heads["b"].parameters()))
                found[f"{method}/{kind}/{parts}"] = torch.stack(grads)
                found[f"{method}/{kind}/{parts}/none"] = torch.tensor(none)
    return found


WRAPPED = ("plain", "unused", "root", "layers")


def wrapped(net: Net, how: str) -> nn.Module:
    """A model under DistributedDataParallel, or sharded."""
    if how in DDP:
        return DistributedDataParallel(net, **DDP[how])
    from torch.distributed.fsdp import fully_shard

    shard: Any = fully_shard
    for part in [net] if how == "root" else [net.encoder[0], net.encoder[2], *net.heads.values(), net]:
        shard(part)
    return net


def forked_errors(rank: int, how: str) -> dict[str, Any]:
    """Gradients of three steps of Forks, of which the second one raises or skips; and how often an error was caught."""
    found: dict[str, Any] = {}
    for method in (pt.MGDA(), pt.FAMO()):
        for nonfinite in ("raise", "skip"):
            for kind in BROKEN:
                net = Net(fork=pt.Fork(method, TASKS, nonfinite=nonfinite))
                model, grads, caught = wrapped(net, how), [], 0
                for step in range(3):
                    net.zero_grad()
                    x, targets = data(seed=31 * step + rank)
                    outputs = model(x)
                    is_broken = step == 1 and rank == 1
                    losses = broken_losses(outputs, targets, kind) if is_broken else losses_of(outputs, targets)
                    try:
                        total(net.fork.losses(losses)).backward()
                    except FloatingPointError as error:
                        assert "of 'b' is not finite" in str(error)  # noqa: PT017
                        caught += 1
                    grads.append(gradients(net))
                found[f"{method}/{nonfinite}/{kind}"] = torch.stack(grads)
                found[f"{method}/{nonfinite}/{kind}/caught"] = torch.tensor(caught)
    return found


def nothing_in_the_first_step(rank: int, unused: bool) -> dict[str, Any]:
    """Steps in which a rank has no task from the first one on; its model returns all outputs, one, or the features too."""
    found: dict[str, Any] = {}
    for returned in ("outputs", "features", "one") if unused else ("outputs", "features"):
        net = Net(fork=pt.Fork(pt.MGDA(), TASKS))
        model = DistributedDataParallel(Returning(net), find_unused_parameters=unused)
        grads = []
        for step in range(3):
            model.zero_grad()
            x, targets = data(seed=31 * step + rank)
            outputs, _ = model(x, "features" if rank == 0 else returned)
            losses = losses_of(outputs, targets) if rank == 0 else {}
            total(net.fork.losses(losses)).backward()
            grads.append(gradients(net))
        found[returned] = torch.stack(grads)
    return found


class Returning(nn.Module):
    """Returns the outputs of all tasks, that of one, or the features in addition."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, returned: str) -> Any:
        z = self.net.encoder(x)
        outputs = {
            task: head(branch)
            for (task, head), branch in zip(self.net.heads.items(), self.net.fork(z).values(), strict=True)
        }
        return ({"a": outputs["a"]} if returned == "one" else outputs), (z if returned == "features" else None)


def uneven_inputs(rank: int) -> list[str]:
    """Batches run out on rank 1 first, under join(), for Fork and Balancer."""
    answers = []
    for by in ("fork", "balancer", "fork outside"):
        fork = pt.Fork(pt.MGDA(), TASKS)
        net = Net(fork=fork if by == "fork" else None)
        model = DistributedDataParallel(net)
        balancer = pt.Balancer(pt.MGDA(), TASKS, shared=net.encoder)

        def train() -> None:
            with model.join():  # noqa: B023
                for step in range(3 - rank):
                    x, targets = data(seed=step)
                    losses = losses_of(model(x), targets)  # noqa: B023
                    if by == "balancer":  # noqa: B023
                        balancer.backward(losses)  # noqa: B023
                    elif by == "fork":  # noqa: B023
                        total(losses).backward()
                    else:
                        branch = fork(x.requires_grad_())  # noqa: B023
                        (branch["a"].sum() + branch["b"].square().sum()).backward()

        answers.append(raised(train))
    return answers


def divided(rank: int) -> dict[str, str]:
    """Balancer and multi-task optimizer on parameters of which each rank holds a part."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    divide: Any = fully_shard
    parallelize: Callable[..., object] = parallelize_module
    answers: dict[str, str] = {}
    for how in ("encoder", "layers", "heads", "tensor parallel"):
        for when in ("before", "after", "found"):
            net = Net().float()
            makes: dict[str, Callable[[], Callable[..., object]]] = {
                "balancer": lambda: pt.Balancer(pt.MGDA(), shared=None if when == "found" else net.encoder).backward,  # noqa: B023
                "optimizer": lambda: pt.MTAdamV2(net.parameters()).step,  # noqa: B023
            }
            steps = {name: make() for name, make in makes.items()} if when == "before" else {}
            if how == "tensor parallel":
                plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
                parallelize(net.encoder, init_device_mesh("cpu", (2,)), plan)
            else:
                for layer in (net.encoder[0], net.encoder[2]) if how == "layers" else ():
                    divide(layer)
                for part in (*net.heads.values(), net.encoder) if how == "heads" else (net.encoder,):
                    divide(part)
            steps = steps or {name: make() for name, make in makes.items()}
            for name, step in steps.items():
                x, targets = data(seed=rank)
                losses = losses_of(net(x.float()), {task: target.float() for task, target in targets.items()})
                answers[f"{how}, {name} made {when}"] = raised(lambda: step(losses))  # noqa: B023
    return answers
