"""What a GPU may change: every way of training on CUDA against float64 on the CPU. Run by `make gpu`; needs torch and pytest."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import paretorch as pt
from paretorch.optim import AdaTask, MTAdam, MTAdamV2, Preconditioned
from paretorch.pareto import EPO
from paretorch.workloads import MultiTaskModel, Splits, TensorStream, Workload

# Another device than CUDA runs the same code where there is no GPU.
DEVICE = torch.device(os.environ.get("PARETORCH_TEST_DEVICE", "cuda"))
IS_CUDA = DEVICE.type == "cuda"
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(IS_CUDA and not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TASKS = ("a", "b", "c")
METHODS = [
    pt.MGDA(),
    pt.UPGrad(),
    pt.IMTLG(),
    pt.NashMTL(),
    pt.GradNorm(),
    pt.FAMO(),
    pt.Uncertainty(),
    pt.ExcessMTL(step=0.3),
    pt.MGDA(normalize="loss+"),
]


@pytest.fixture(autouse=True)
def full_precision_products() -> Iterator[None]:
    """References are in float64: float32 products are not computed in TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


class Net(nn.Module):
    """A convolution, a normalization and two linear layers, and a head for each task."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.GroupNorm(2, 8),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(288, 16),
            nn.Tanh(),
            nn.Linear(16, 12),
        )
        self.heads = nn.ModuleDict({task: nn.Linear(12, 4) for task in TASKS})

    def losses(self, branch: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            task: functional.cross_entropy(self.heads[task](z).float(), targets[task]) * (1 + 9 * (task == "b"))
            for task, z in branch.items()
        }

    def double_losses(self, branch: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            task: functional.cross_entropy(self.heads[task](z), targets[task]) * (1 + 9 * (task == "b"))
            for task, z in branch.items()
        }


def data(device: torch.device, dtype: torch.dtype, count: int = 24) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64)
    targets = {task: torch.randint(4, (count,), generator=generator).to(device) for task in TASKS}
    return x.to(device, dtype), targets


def forked(net: Net, method: pt.Method[Any], device: torch.device, dtype: torch.dtype, steps: int = 3) -> list[Tensor]:
    """The gradients after some steps of gradient descent with a Fork."""
    net, fork = copy.deepcopy(net).to(device, dtype), pt.Fork(method, TASKS).to(device)
    x, targets = data(device, dtype)
    for _ in range(steps):
        _backward_of(net)
        losses = fork.losses(net.double_losses(fork(net.encoder(x)), targets))
        torch.stack(list(losses.values())).sum().backward()
        if method.observes:
            with torch.no_grad():
                fork.observe({task: loss.detach() for task, loss in losses.items()})
    return _gradients(net)


def balanced(
    net: Net, method: pt.Method[Any], device: torch.device, dtype: torch.dtype, **options: Any
) -> list[Tensor]:
    """The gradients after some steps of gradient descent with a Balancer."""
    net, balancer = copy.deepcopy(net).to(device, dtype), pt.Balancer(method, TASKS, **options).to(device)
    x, targets = data(device, dtype)
    for _ in range(3):
        _backward_of(net)
        losses = net.double_losses(dict.fromkeys(TASKS, net.encoder(x)), targets)
        balancer.total(losses).backward()
        if method.observes:
            balancer.observe({task: loss.detach() for task, loss in losses.items()})
    return _gradients(net)


def _backward_of(net: nn.Module) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.01 * parameter.grad)
            parameter.grad = None


def _gradients(net: nn.Module) -> list[Tensor]:
    return [parameter.grad.double().cpu() for parameter in net.parameters() if parameter.grad is not None]


def assert_near(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """The distance of the gradients, relative to the length of the expected one."""
    assert len(found) == len(expected) > 0
    one, other = (torch.cat([part.flatten() for part in parts]) for parts in (found, expected))
    assert float((one - other).norm() / other.norm()) <= tolerance


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)], ids=["double", "single"]
)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_fork_gradients_equal_those_of_the_cpu(method: pt.Method[Any], dtype: torch.dtype, tolerance: float) -> None:
    net = Net()
    expected = forked(net, method, torch.device("cpu"), torch.float64)
    assert_near(forked(net, method, DEVICE, dtype), expected, tolerance)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)], ids=["double", "single"]
)
@pytest.mark.parametrize("method", [*METHODS, pt.Momentum(pt.MGDA())], ids=str)
def test_balancer_gradients_equal_those_of_the_cpu(
    method: pt.Method[Any], dtype: torch.dtype, tolerance: float
) -> None:
    net = Net()
    expected = balanced(net, method, torch.device("cpu"), torch.float64)
    assert_near(balanced(net, method, DEVICE, dtype), expected, tolerance)


def test_balancer_of_many_tasks_equals_that_of_the_cpu() -> None:
    """Ten tasks on linear layers: inner products are computed without gradients."""
    torch.manual_seed(2)
    encoder = nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 128))
    heads = nn.ModuleList(nn.Linear(128, 3) for _ in range(10))
    net, x = nn.ModuleDict({"encoder": encoder, "heads": heads}), torch.randn(16, 20, dtype=torch.float64)
    found = []
    for device, dtype in ((torch.device("cpu"), torch.float64), (DEVICE, torch.float32)):
        own = copy.deepcopy(net).to(device, dtype)
        z = own["encoder"](x.to(device, dtype))
        outputs = [head(z) for head in own["heads"].children()]
        losses = {f"t{task}": (output - task).square().mean() for task, output in enumerate(outputs)}
        pt.Balancer(pt.UPGrad()).backward(losses)
        found.append(_gradients(own))
    assert_near(found[1], found[0], 1e-4)


@pytest.mark.parametrize("by", ["fork", "total"])
def test_scaler_skips_an_overflow_and_recovers(by: str) -> None:
    net = Net().to(DEVICE)
    x, targets = data(DEVICE, torch.float32)
    fork, balancer = pt.Fork(pt.MGDA(), TASKS).to(DEVICE), pt.Balancer(pt.MGDA(), TASKS, nonfinite="pass").to(DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    start = 2.0**40 if IS_CUDA else 2.0**126
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=start, growth_interval=10_000)
    dtype = torch.float16 if IS_CUDA else torch.bfloat16
    before = [parameter.detach().clone() for parameter in net.parameters()]
    skipped, losses_of_steps = 0, list[float]()
    for _ in range(60):
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, dtype=dtype):
            z = net.encoder(x)
            losses = net.losses(fork(z) if by == "fork" else dict.fromkeys(TASKS, z), targets)
        total = torch.stack(list(losses.values())).sum() if by == "fork" else balancer.total(losses)
        scale = scaler.get_scale()
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() < scale:
            skipped += 1
            if not losses_of_steps:
                assert all(map(torch.equal, before, (parameter.detach() for parameter in net.parameters())))
        else:
            losses_of_steps.append(float(total.detach()))
    assert skipped >= 1
    assert scaler.get_scale() < start
    assert losses_of_steps[-1] < losses_of_steps[0]
    status = (fork if by == "fork" else balancer).balance
    assert status is not None
    assert status.status.value == "solved"


def test_scale_of_the_losses_does_not_change_a_method_that_is_not_homogeneous() -> None:
    net = Net().to(DEVICE, torch.float64)
    x, targets = data(DEVICE, torch.float64)
    found = []
    for factor in (1.0, 1024.0):
        net.zero_grad()
        losses = net.double_losses(dict.fromkeys(TASKS, net.encoder(x)), targets)
        (pt.Balancer(pt.GradNorm()).total(losses) * factor).backward()
        found.append([part / factor for part in _gradients(net)])
    assert_near(found[1], found[0], 1e-12)


def test_state_moves_with_the_module_and_is_restored() -> None:
    net, method = Net().to(DEVICE), pt.FAMO()
    x, targets = data(DEVICE, torch.float32)

    def step(fork: pt.Fork) -> list[Tensor]:
        net.zero_grad()
        losses = fork.losses(net.losses(fork(net.encoder(x)), targets))
        torch.stack(list(losses.values())).sum().backward()
        fork.observe({task: 0.5 * loss.detach() for task, loss in losses.items()})
        return _gradients(net)

    first = pt.Fork(method, TASKS).to(DEVICE)
    step(first)
    assert all(buffer.device.type == DEVICE.type for buffer in first.buffers())
    second = pt.Fork(method, TASKS).to(DEVICE)
    second.load_state_dict({name: value.cpu() for name, value in first.state_dict().items()})
    assert_near(step(second), step(first), 1e-12)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("method", [pt.MGDA(), pt.FAMO()], ids=str)
def test_compiled_model_with_a_fork_equals_the_eager_one(method: pt.Method[Any], mode: str) -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.fork = Net(), pt.Fork(method, TASKS)

        def forward(self, x: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
            return self.fork.losses(self.net.losses(self.fork(self.net.encoder(x)), targets))

    torch._dynamo.reset()
    eager, compiled = Forked().to(DEVICE), Forked().to(DEVICE)
    call = torch.compile(compiled, fullgraph=True, mode=mode)
    x, targets = data(DEVICE, torch.float32)
    for _ in range(4):
        for model, function in ((eager, eager), (compiled, call)):
            if mode == "reduce-overhead":
                torch.compiler.cudagraph_mark_step_begin()
            _backward_of(model)
            torch.stack(list(function(x, targets).values())).sum().backward()
        assert_near(_gradients(compiled), _gradients(eager), 1e-4)


def test_compiled_encoder_under_a_balancer_equals_the_eager_one() -> None:
    torch._dynamo.reset()
    net = Net().to(DEVICE)
    encoder = torch.compile(net.encoder)
    x, targets = data(DEVICE, torch.float32)
    found = []
    for encode in (net.encoder, encoder):
        net.zero_grad()
        losses = net.losses(dict.fromkeys(TASKS, encode(x)), targets)
        pt.Balancer(pt.UPGrad(), TASKS, shared=net.encoder).backward(losses)
        found.append(_gradients(net))
    assert_near(found[1], found[0], 1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: MTAdam(parameters, lr=1e-2),
        lambda parameters: MTAdamV2(parameters, lr=1e-2),
        lambda parameters: MTAdamV2(parameters, lr=1e-2, mode="equal"),
        lambda parameters: AdaTask(parameters, lr=1e-2),
        lambda parameters: Preconditioned(parameters, pt.UPGrad(), lr=1e-2),
    ],
    ids=["MTAdam", "MTAdamV2", "MTAdamV2 equal", "AdaTask", "Preconditioned"],
)
def test_optimizer_steps_equal_those_of_the_cpu(make: Callable[[Any], Any]) -> None:
    start = list(Net().double().parameters())
    moved = []
    for device in (torch.device("cpu"), DEVICE):
        net = Net().to(device, torch.float64)
        optimizer = make(net.parameters())
        x, targets = data(device, torch.float64)
        for _ in range(4):
            optimizer.step(net.double_losses(dict.fromkeys(TASKS, net.encoder(x)), targets))
        moved.append([now.detach().cpu() - old.detach() for now, old in zip(net.parameters(), start, strict=True)])
    assert_near(moved[1], moved[0], 1e-6)


def losses_on_features(net: Net, targets: dict[str, Tensor], z: Tensor) -> dict[str, Tensor]:
    return net.double_losses(dict.fromkeys(TASKS, z), targets)


@pytest.mark.parametrize("search_type", [pt.Backtracking, pt.FastBacktracking])
def test_line_search_steps_equal_those_of_the_cpu(search_type: Any) -> None:
    taken = []
    for device in (torch.device("cpu"), DEVICE):
        net = Net().to(device, torch.float64)
        x, targets = data(device, torch.float64)
        search = search_type(net.encoder, dict(net.heads.items()), pt.MGDA(), max_step=1.0)
        losses_of = partial(losses_on_features, net, targets)
        steps = [search.step(x, losses_of) for _ in range(4)]
        assert steps[0].accepted
        taken.append(([step.step for step in steps], [p.detach().cpu() for p in net.parameters()]))
    assert taken[1][0] == pytest.approx(taken[0][0], rel=1e-6)
    assert_near(taken[1][1], taken[0][1], 1e-6)


@dataclass(frozen=True)
class Distances(Workload):
    """Two regressions of random linear maps."""

    title = "for tests"

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("left", "right")

    def data(self) -> Splits:
        train, validation, test = ((self._stream(seed),) for seed in range(3))
        return Splits(train, validation, test)

    def _stream(self, seed: int) -> TensorStream:
        x = torch.randn(48, 5, generator=torch.Generator().manual_seed(seed))
        return TensorStream(x, {"left": x.sum(dim=1), "right": x[:, 0] - x[:, 1]})

    def model(self) -> nn.Module:
        encoder = nn.Sequential(nn.Linear(5, 8), nn.Tanh())
        return MultiTaskModel(encoder, {task: nn.Linear(8, 1) for task in self.tasks})

    def losses(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        return {task: functional.mse_loss(output[:, 0], targets[task]) for task, output in outputs.items()}

    def metrics(self) -> dict[str, tuple[Any, ...]]:
        return {}


@pytest.mark.parametrize("algorithm", [pt.MT2O(), EPO()], ids=str)
def test_front_by_vmap_equals_the_loop_on_the_cpu(algorithm: Any) -> None:
    fronts = [
        pt.fit_front(
            Distances(),
            algorithm,
            preferences=pt.preferences(2, 3, margin=0.1),
            epochs=3,
            batch_size=16,
            starts="independent",
            execution=execution,
            device=device,
        )
        for device, execution in (("cpu", "loop"), (DEVICE.type, "vmap"))
    ]
    torch.testing.assert_close(fronts[1].losses, fronts[0].losses, rtol=1e-3, atol=1e-4)
