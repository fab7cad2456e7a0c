"""Training on several gloo ranks whose traffic is counted, or whose parameters are sharded. Imported by spawned processes."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import paretorch as pt
from ranks import METHODS, LossRecordingModel, rank_data, state_of
from small_models import TASKS, Net, gradients, losses_of, total

# Numbers that a rank sends, in units of the tensor that it gives, for many ranks.
SENT = {"all_reduce": 2.0, "reduce_scatter_single": 1.0, "reduce_scatter_tensor": 1.0}


def traffic(rank: int, kinds: tuple[str, ...], method: str, width: int, tasks: int) -> dict[str, dict[str, int]]:
    """The numbers that a rank sends in a step after the first: by the library, and by DDP."""
    names = tuple(f"task {number}" for number in range(tasks))
    found = {}
    for kind in kinds:
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        heads = nn.ModuleDict({name: nn.Linear(width, 1) for name in names})
        fork = pt.Fork(METHODS[method](), names) if kind == "fork" else None

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.encoder, self.heads, self.fork = encoder, heads, fork  # noqa: B023

            def forward(self, x: Tensor) -> dict[str, Tensor]:
                z = self.encoder(x)
                branch = self.fork(z) if self.fork is not None else dict.fromkeys(names, z)
                return {name: head(branch[name]).square().mean() for name, head in self.heads.items()}

        model = DistributedDataParallel(Model())
        sent: Counter[str] = Counter()
        model.register_comm_hook(sent, lambda state, bucket: _counted_bucket(state, bucket))  # without annotations
        balancer = pt.Balancer(METHODS[method](), names, shared=encoder)
        for step in range(2):
            x = torch.randn(8, width, generator=torch.Generator().manual_seed(10 * step + rank))
            losses = model(x)
            sent.clear()
            with _Counted(sent):
                if kind == "fork":
                    total(losses).backward()
                else:
                    balancer.backward(losses)
        found[kind] = {**sent, "encoder": sum(p.numel() for p in encoder.parameters())}
        found[kind]["model"] = sum(p.numel() for p in model.parameters())
    return found


def _counted_bucket(sent: Counter[str], bucket: Any) -> Any:
    numbers = int(SENT["all_reduce"] * bucket.buffer().numel())
    sent["ddp"] += numbers
    sent["library"] -= numbers  # the hook calls torch.distributed as well
    world = dist.group.WORLD
    assert world is not None
    return allreduce_hook(world, bucket)


class _Counted:
    """Counts what Python code sends by torch.distributed."""

    def __init__(self, sent: Counter[str]) -> None:
        self.sent, self.former = sent, {}  # type: ignore[var-annotated]

    def __enter__(self) -> None:
        for name, share in SENT.items():
            if hasattr(dist, name):
                self.former[name] = getattr(dist, name)
                setattr(dist, name, self._counting(self.former[name], share))

    def __exit__(self, *_: object) -> None:
        for name, function in self.former.items():
            setattr(dist, name, function)

    def _counting(self, function: Callable[..., Any], share: float) -> Callable[..., Any]:
        def call(*tensors: Tensor, **options: Any) -> Any:
            self.sent["library"] += int(share * tensors[-1].numel())
            return function(*tensors, **options)

        return call


# --- FSDP2 ---------------------------------------------------------------------------------------------------------------


def shard(model: LossRecordingModel, parts: str, mesh: Any = None) -> None:
    from torch.distributed.fsdp import fully_shard

    divide: Any = fully_shard
    options = {} if mesh is None else {"mesh": mesh}
    net = model.net
    for part in [net.encoder[0], net.encoder[2], *net.heads.values()] if parts == "layers" else []:
        divide(part, **options)
    divide(model, **options)


class Checkpointed(nn.Module):
    """A module that is computed again in the backward."""

    def __init__(self, module: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.module, self.reentrant = module, reentrant

    def __getitem__(self, place: int) -> nn.Module:
        return self.module[place]  # type: ignore[index,no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = checkpoint(self.module, x, use_reentrant=self.reentrant)
        return found


def one_run(rank: int, world: int, setting: str, method: str, parts: str | None, steps: int) -> dict[str, Any]:
    """Steps under a setting of training; sharded by ``parts``, or in one process on the data of all ranks.

    Args:
        rank: of this process.
        world: the number of ranks whose data are used.
        setting: ``checkpointing``, ``clipping``, ``accumulation``, ``hsdp``.
        method: a key of ``METHODS``.
        parts: what is sharded; None: nothing, and the batches of all ranks are averaged in this process.
        steps: number of steps.
    """
    alone = parts is None
    net = Net(fork=pt.Fork(METHODS[method](), TASKS, group=None if alone else "all"))
    if setting == "checkpointing":
        net.encoder = Checkpointed(net.encoder, reentrant=False)
    model = LossRecordingModel(net)
    if parts is not None:
        mesh = None
        if setting == "hsdp":
            from torch.distributed.device_mesh import init_device_mesh

            mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("replicate", "shard"))
        shard(model, parts, mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    found, lengths = [], []
    micro_batches = 2 if setting == "accumulation" else 1
    for step in range(steps):
        optimizer.zero_grad()
        for part in range(micro_batches):
            sources = [rank] if parts is not None else range(world)
            batches = [rank_data(10 * (micro_batches * step + part) + source) for source in sources]
            if parts is not None:
                x, targets = batches[0]
            else:  # equal batches: the mean over the joined batch is the mean over ranks
                x = torch.cat([each for each, _ in batches])
                targets = {task: torch.cat([each[task] for _, each in batches]) for task in TASKS}
            (model(x, targets, TASKS) / micro_batches).backward()
        if setting == "clipping":
            length: Any = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            lengths.append(length.full_tensor() if hasattr(length, "full_tensor") else length)
        found.append(gradients(net))
        optimizer.step()
    result = {"gradients": torch.stack(found), "state": state_of(net.fork)}
    return {**result, "lengths": torch.stack(lengths)} if lengths else result


def every_setting(rank: int, world: int, cases: tuple[tuple[str, str, str], ...], steps: int) -> dict[str, Any]:
    """All cases (setting, method, parts) in one set of processes."""
    return {"/".join(case): one_run(rank, world, *case, steps) for case in cases}


def saved_and_loaded(rank: int, folder: str, parts: tuple[str, str]) -> dict[str, Tensor]:
    """Two steps, a distributed checkpoint, two more; then the last two again from the checkpoint, sharded in another way."""
    dcp: Any = importlib.import_module("torch.distributed.checkpoint")
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    def made(how: str, seed: int) -> tuple[LossRecordingModel, torch.optim.Optimizer]:
        model = LossRecordingModel(Net(seed=seed, fork=pt.Fork(pt.Uncertainty(), TASKS)))
        shard(model, how)
        return model, torch.optim.Adam(model.parameters(), lr=0.01)

    def train(model: LossRecordingModel, optimizer: torch.optim.Optimizer, steps: range) -> Tensor:
        for step in steps:
            optimizer.zero_grad()
            x, targets = rank_data(10 * step + rank)
            model(x, targets, TASKS).backward()
            optimizer.step()
        return gradients(model.net)

    model, optimizer = made(parts[0], seed=0)
    train(model, optimizer, range(2))
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=str(Path(folder) / "checkpoint"))
    unbroken = train(model, optimizer, range(2, 4))
    model, optimizer = made(parts[1], seed=1)
    weights, moments = get_state_dict(model, optimizer)
    stored: dict[str, Any] = {"model": weights, "optimizer": moments}
    dcp.load(stored, checkpoint_id=str(Path(folder) / "checkpoint"))
    set_state_dict(model, optimizer, model_state_dict=stored["model"], optim_state_dict=stored["optimizer"])
    return {"unbroken": unbroken, "resumed": train(model, optimizer, range(2, 4))}


def tensor_parallel(rank: int, steps: int) -> dict[str, Tensor]:
    """An encoder whose layers two ranks share, with the same batch on both, against one process."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    parallelize: Callable[..., object] = parallelize_module
    found = {}
    for how in ("one process", "tensor parallel"):
        net = Net(fork=pt.Fork(pt.MGDA(), TASKS, group=None))  # features are whole on every rank: nothing to sum
        if how == "tensor parallel":
            plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
            parallelize(net.encoder, init_device_mesh("cpu", (dist.get_world_size(),)), plan)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        grads = []
        for step in range(steps):
            optimizer.zero_grad()
            x, targets = rank_data(step)
            total(losses_of(net(x), targets)).backward()
            grads.append(gradients(net))
            optimizer.step()
        found[how] = torch.stack(grads)
    return found
