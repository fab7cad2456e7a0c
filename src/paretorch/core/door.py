"""What Fork and Balancer share: declared tasks, the method's state as buffers, one balanced step, and its record."""

from __future__ import annotations

import itertools
import math
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from paretorch.core import checks
from paretorch.core.contract import Balance, Evidence, Method, Need, Status
from paretorch.core.distributed import Ranks
from paretorch.core.evidence import to_host, wide_dtype

Scale = Literal["calibrated", "paper"]

LIVE: weakref.WeakValueDictionary[int, Door] = (
    weakref.WeakValueDictionary()
)  # by handle: compiled graphs carry numbers only
_HANDLES = itertools.count()


class Seen(NamedTuple):
    """The evidence of one step for all declared tasks, summed over ranks, on the host in float64."""

    present: Tensor  # (all,) bool
    told: Tensor  # (all,) bool: loss and factor are known
    losses: Tensor  # (all,), nan where unknown
    factor: Tensor  # (all,), nan where unknown
    gramian: Tensor | None = None  # (all, all)
    resolution: float = torch.finfo(torch.float64).eps

    def nonfinite(self, values: bool) -> Tensor | None:
        """(all,) bool: present tasks whose gradient (or loss, where that is looked at) is inf or nan; None: no such task."""
        squares = self.losses if self.gramian is None else self.gramian.diagonal()
        suspect = (self.gramian is None or values) and not math.isfinite(torch.where(self.told, self.losses, 0.0).sum())
        if not suspect and math.isfinite(torch.where(self.present, squares, 0.0).sum()):
            return None
        broken = torch.zeros_like(self.present)
        if self.gramian is not None:
            broken |= ~torch.isfinite(squares)
        if self.gramian is None or values:
            broken |= self.told & ~torch.isfinite(self.losses)
        broken &= self.present
        return broken if bool(broken.any()) else None


class Door(nn.Module):
    """Holds a method's state and takes one balanced step at a time. Not made directly: see Fork and Balancer.

    A method without state, without randomness and with ``every=1`` adds no buffer, so that checkpoints of the model without it
    load as before.
    """

    task_names: Tensor
    steps: Tensor
    age: Tensor
    last_weights: Tensor

    def __init__(
        self,
        method: Method[Any],
        *,
        scale: Scale,
        every: int,
        factor: float | None,
        group: dist.ProcessGroup | str | None,
        seed: int,
    ) -> None:
        super().__init__()
        if not isinstance(method, Method):
            raise ValueError(f"expected a balancing method such as paretorch.MGDA(), got {method!r}")
        if scale not in ("calibrated", "paper"):
            raise ValueError(f"scale is 'calibrated' or 'paper', got {scale!r}")
        if every < 1 or (every > 1 and Need.JACOBIAN in method.needs):
            raise ValueError(f"every is at least 1, and 1 for a method without weights; got {every} for {method}")
        if factor is not None and not factor > 0:
            raise ValueError(f"factor is dTotal/dL_t, above zero, got {factor}")
        self.method = method
        self.scale, self.every, self.factor, self.seed = scale, every, factor, seed
        self.ranks = Ranks(group)
        self.tasks: tuple[str, ...] = ()
        self.handle = _register(self)
        self._state_type: type[Any] | None = None
        self._balance: Balance | None = None
        self._said: set[str] = set()
        self._mirror: tuple[int, Tensor] | None = None  # of age and last_weights, to read them without synchronisation
        self._drawn: int | None = None  # of steps, likewise

    def extra_repr(self) -> str:
        """The method and the tasks, in the model's print."""
        return f"{self.method}, tasks={self.tasks}"

    # --- state -----------------------------------------------------------------------------------------------------------

    def _declare(self, tasks: tuple[str, ...]) -> None:
        """Fix the tasks and make the method's state, as buffers."""
        self.tasks = tasks
        like = torch.zeros((), dtype=torch.float64)
        state = self.method.init(tasks, like)
        self._state_type = None if state is None else type(state)
        held = {} if state is None else {f"state_{name}": value for name, value in state._asdict().items()}
        if self.method.random:
            held["steps"] = torch.zeros((), dtype=torch.int64)
        if self.every > 1:
            held["age"] = torch.zeros((), dtype=torch.int64)  # of last_weights, in steps; 0: there are none
            held["last_weights"] = torch.full((len(tasks),), torch.nan, dtype=torch.float64)
        if held:
            held["task_names"] = torch.tensor(list("\n".join(tasks).encode()), dtype=torch.uint8)
        for name, value in held.items():
            self.register_buffer(name, value)

    def state_tensors(self) -> list[Tensor]:
        """The buffers that hold the method's state, field by field."""
        return [tensor for name, tensor in self._buffers.items() if name.startswith("state_") and tensor is not None]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves the state with the model, but leaves its dtypes as they are: half a counter counts nothing."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                dtype = torch.float32 if moved.device.type == "mps" and buffer.dtype == torch.float64 else buffer.dtype
                self._buffers[name] = buffer.to(moved.device, dtype)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Loads by task name: a stored state in another order is brought into this one."""
        stored = state_dict.get(prefix + "task_names")
        if isinstance(stored, Tensor):
            names = tuple(bytes(stored.tolist()).decode().split("\n"))
            if not self.tasks:
                self._declare(names)
            if set(names) != set(self.tasks):
                raise ValueError(
                    f"the stored state is of the tasks {names}, this {type(self).__name__} has {self.tasks}"
                )
            order = [names.index(name) for name in self.tasks]
            state_dict[prefix + "task_names"] = self.task_names
            for name in self._buffers:
                value = state_dict.get(prefix + name)
                if isinstance(value, Tensor) and name != "task_names" and value.ndim and order != sorted(order):
                    square = (
                        Need.JACOBIAN not in self.method.needs and value.ndim == 2 and value.shape[0] == value.shape[1]
                    )
                    state_dict[prefix + name] = value[order][:, order] if square else value[order]
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._mirror = self._drawn = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_balance": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.handle = _register(self)

    # --- one step --------------------------------------------------------------------------------------------------------

    @property
    def balance(self) -> Balance | None:
        """What the last step came to, or None before the first."""
        return self._balance

    def _seen(
        self, told: Tensor | None, gramian: Tensor | None = None, resolution: float = torch.finfo(torch.float64).eps
    ) -> Seen:
        """What all ranks saw together; their losses are averaged.

        Args:
            told: (3, all) sums over calls of loss and of factor, and the number of calls, on this rank.
            gramian: (all, all) of the gradients of the averaged losses, or None where losses are all that is known.
        """
        if told is None and gramian is not None and self.ranks.size == 1:
            present = gramian.diagonal() != 0
            nothing = torch.full_like(gramian[0], torch.nan)
            factor = nothing if self.factor is None else torch.full_like(nothing, self.factor)
            return Seen(present, torch.zeros_like(present), nothing, factor, gramian, resolution)
        if told is None:
            told = torch.zeros(3, len(self.tasks), dtype=torch.float64)
        total = told
        if self.ranks.size > 1:
            calls = told[2].clamp_min(1)
            total = self.ranks.sum(torch.stack([told[0] / calls, told[1] / calls, (told[2] > 0).to(told)]))
        count = total[2]
        known = count > 0
        losses = torch.where(known, total[0] / (count if self.ranks.size == 1 else self.ranks.size), torch.nan)
        factor = torch.where(known, total[1] / count, torch.nan if self.factor is None else self.factor)
        if gramian is None:  # an all-masked loss is exactly zero
            present = known & (losses != 0) & (factor != 0)
        else:
            present = gramian.diagonal() != 0
        return Seen(present, known, losses, factor, gramian, resolution)

    def _reused(self, known: Sequence[int]) -> Balance | None:
        """The last weights, where ``every`` says that they still serve and they cover every task that is present."""
        if self.every == 1:
            return None
        if self._mirror is None:
            self._mirror = (int(self.age), self.last_weights.to("cpu", torch.float64))
        age, weights = self._mirror
        if age in (0, self.every):
            return None
        here = torch.zeros(len(self.tasks), dtype=torch.float64)
        here[list(known)] = 1
        present = self.ranks.sum(here) > 0
        if bool(torch.isnan(weights[present]).any()):
            return None
        self.age += 1
        self._mirror = (age + 1, weights)
        unknown = torch.full_like(weights, torch.nan)
        seen = Seen(present, torch.zeros_like(present), unknown, unknown)
        self._balance = self._recorded(seen, torch.where(present, weights, 0.0), Status.SOLVED)
        return self._balance

    def _solve(self, seen: Seen, jacobian: Tensor | None = None, features: Tensor | None = None) -> Balance:
        """One step of the method on what was seen: state advances, and the record is kept. Weights are for all tasks."""
        result, state = self._ask(seen, jacobian, features)
        if state is not None:
            for held, value in zip(self.state_tensors(), state, strict=True):
                held.copy_(value)
        if self.every > 1 and result.weights is not None:
            self._mirror = (1, torch.where(seen.present, result.weights, torch.nan))
            self.age.fill_(1)
            self.last_weights.copy_(self._mirror[1])
        if self._drawn is not None:
            self._drawn += 1
            self.steps.fill_(self._drawn)
        if result.status is Status.NOT_CONVERGED:
            self._say("solve", f"{self.method} did not reach its tolerance on this Gramian: see .balance.status")
        self._balance = result
        return result

    def _ask(self, seen: Seen, jacobian: Tensor | None, features: Tensor | None) -> tuple[Balance, Any]:
        """The method's answer to what was seen, and its next state; nothing is changed."""
        tasks, losses, factor, gramian = self.tasks, seen.losses, seen.factor.nan_to_num(1.0), seen.gramian
        index = None
        if not bool(seen.present.all()):
            index = seen.present.nonzero().flatten()
            tasks, losses, factor = tuple(self.tasks[task] for task in index.tolist()), losses[index], factor[index]
            gramian = None if gramian is None else gramian[index][:, index]
        if not self.method.homogeneous:
            gramian = None if gramian is None else gramian / factor[:, None] / factor[None, :]
            jacobian = None if jacobian is None else jacobian / factor.to(jacobian)[:, None]
        on_device = jacobian is not None
        evidence = Evidence(
            tasks=tasks,
            present=seen.present,
            losses=None if math.isnan(losses.sum()) else losses,
            gramian=gramian,
            jacobian=jacobian,
            factor=factor,
            generator=self._generator(),
            features=features,
            total=self.ranks.sum_on_device if on_device else self.ranks.sum,
            resolution=seen.resolution,
        )
        held = self.state_tensors()
        values = held if on_device else to_host(held)
        state = None if self._state_type is None else self._state_type(*values)
        act = self.method.calibrated if self.scale == "calibrated" else self.method.balance
        balance, state = act(evidence, state)
        weights = balance.weights
        if weights is not None and index is not None:
            weights = torch.zeros(len(self.tasks), dtype=torch.float64).index_copy(0, index, weights)
        return self._recorded(seen, weights, balance.status, balance.update), state

    def _recorded(self, seen: Seen, weights: Tensor | None, status: Status, update: Tensor | None = None) -> Balance:
        return Balance(weights, status, update, self.tasks, seen.present, seen.gramian, seen.losses, seen.factor)

    def _passed_on(self, seen: Seen, status: Status) -> Balance:
        """A step in which the method is not asked and its state waits: every present task counts as in a plain sum."""
        self._balance = self._recorded(seen, seen.present.to(torch.float64), status)
        return self._balance

    def _generator(self) -> torch.Generator | None:
        """Random numbers that are a function of (seed, step): equal on all ranks, and saved by saving the step."""
        if not self.method.random:
            return None
        if self._drawn is None:
            self._drawn = int(self.steps)
        return torch.Generator().manual_seed((self.seed * 0x9E3779B1 + self._drawn) % 2**63)

    def _say(self, what: str, sentence: str) -> None:
        """Warn once in this door's life."""
        if what not in self._said:
            self._said.add(what)
            warnings.warn(sentence, stacklevel=3)

    # --- what a loop may call beside -------------------------------------------------------------------------------------

    def observe(self, losses: Mapping[str, Tensor | None]) -> None:
        """Tell the losses on the same batch after the optimizer's step, to methods that look at them (FAMO).

        Args:
            losses: scalars by task name; compute them under ``torch.no_grad()``, with the same dropout masks.
        """
        with torch.no_grad():
            given = checks.given_losses(losses, f"{type(self).__name__}.observe")
            checks.known_tasks(given, self.tasks, f"{type(self).__name__}.observe")
            held = self.state_tensors()
            packed = to_host([self._told(given), *held])
            seen = self._seen(packed[0])
            values = torch.where(seen.told, seen.losses, torch.nan)
            state = None if self._state_type is None else self._state_type(*packed[1:])
            state = self.method.observe(values, state)
            for buffer, value in zip(held, state or (), strict=True):
                buffer.copy_(value)

    def end_epoch(self) -> None:
        """Tell methods that count in epochs that one has ended."""
        held = self.state_tensors()
        if self._state_type is not None:
            for buffer, value in zip(held, self.method.end_epoch(self._state_type(*to_host(held))), strict=True):
                buffer.copy_(value)

    def _told(self, given: Mapping[str, Tensor]) -> Tensor:
        """(3, all) losses as they are told: value, factor one, one call; on the losses' device."""
        device = next(iter(given.values())).device if given else torch.device("cpu")
        told = torch.zeros(3, len(self.tasks), device=device)
        told = told.to(wide_dtype(told))
        if given:
            values = torch.stack([loss.detach() for loss in given.values()]).to(told)
            ones = torch.ones_like(values)
            told[:, [self.tasks.index(name) for name in given]] = torch.stack([values, ones, ones])
        return told


def _register(door: Door) -> int:
    handle = next(_HANDLES)
    LIVE[handle] = door
    return handle
