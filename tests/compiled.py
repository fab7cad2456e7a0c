"""What test_compile.py runs in a process of its own: compiled against eager, printed as JSON."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import torch
from torch import Tensor, nn

import paretorch as pt

# And where the losses are recorded: not at all, inside the compiled function, or outside it.
METHODS: dict[str, tuple[pt.Method[Any], str]] = {
    "mgda": (pt.MGDA(), ""),
    "graddrop": (pt.GradDrop(), ""),
    "pcgrad": (pt.PCGrad(), ""),
    "famo": (pt.FAMO(), "inside"),
    "dwa": (pt.DWA(window=2), "inside"),
    "loss+": (pt.MGDA(normalize="loss+"), "inside"),
    "gradnorm": (pt.GradNorm(), "inside"),
    "gradvac": (pt.GradVac(beta=0.3), "outside"),
    "uncertainty": (pt.Uncertainty(), "inside"),
    "excess": (pt.ExcessMTL(step=0.3), "inside"),
    "recorded outside": (pt.MGDA(normalize="loss+"), "outside"),
}


class CompiledNet(nn.Module):
    def __init__(self, method: pt.Method[Any], every: int = 1, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6))
        self.heads = nn.ModuleDict({"a": nn.Linear(6, 2), "b": nn.Linear(6, 1)})
        self.fork = pt.Fork(method, ("a", "b"), every=every, **options)
        self.double()

    def forward(self, x: Tensor, records_losses: bool, use: Tensor) -> dict[str, Tensor]:
        branch = self.fork(self.encoder(x))
        losses: dict[str, Tensor] = {
            "a": self.heads["a"](branch["a"]).square().mean(),
            "b": (self.heads["b"](branch["b"]) - 5).square().mean() * use,
        }
        return self.fork.losses(losses) if records_losses else losses


def compare(name: str) -> dict[str, Any]:
    """With ``aot`` before the name no kernels are made of the graph: its copies of the state are not optimised away."""
    torch._dynamo.reset()
    method, records_losses = METHODS[name.removeprefix("aot ")]
    eager, compiled = CompiledNet(method), CompiledNet(method)
    step = torch.compile(compiled, fullgraph=True, backend="aot_eager" if name.startswith("aot ") else "inductor")
    x = torch.randn(7, 5, dtype=torch.float64)
    worst = 0.0
    for turn in range(4):
        use = torch.tensor(
            0.0 if turn == 2 and not records_losses else 1.0, dtype=torch.float64
        )  # exact zeros: task b is absent
        for model, call in ((eager, eager), (compiled, step)):
            model.zero_grad()
            losses = call(x, records_losses == "inside", use)
            losses = model.fork.losses(losses) if records_losses == "outside" else losses
            (losses["a"] + losses["b"]).backward()
            if method.observes:
                model.fork.observe({"a": torch.tensor(0.5 + turn), "b": torch.tensor(2.0)})
        pairs = list(zip(eager.parameters(), compiled.parameters(), strict=True))
        for p, q in pairs:
            assert p.grad is not None
            assert q.grad is not None
            assert torch.isfinite(q.grad).all()
            worst = max(worst, float((p.grad - q.grad).abs().max()))
        states = zip(eager.fork.state_dict().values(), compiled.fork.state_dict().values(), strict=True)
        worst = max([worst, *(float((s.double() - t.double()).nan_to_num().abs().max()) for s, t in states)])
        with torch.no_grad():
            for p in (*eager.parameters(), *compiled.parameters()):
                assert p.grad is not None
                p.sub_(0.01 * p.grad)
    assert compiled.fork.balance is not None
    assert compiled.fork.balance.present is not None
    return {"worst": worst, "status": compiled.fork.balance.status.value}


def missing_tasks(name: str) -> dict[str, Any]:
    """Steps in which tasks are missing, where the whole model is compiled and the losses are recorded outside."""
    torch._dynamo.reset()
    made: dict[str, tuple[pt.Method[Any], int]] = {
        "famo": (pt.FAMO(), 1), "mgda": (pt.MGDA(), 3), "log losses": (pt.LogLosses(pt.MGDA()), 1),
    }  # fmt: skip
    method, every = made[name]
    eager, compiled = CompiledNet(method, every), CompiledNet(method, every)
    step = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    x, worst = torch.randn(7, 5, dtype=torch.float64), 0.0
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for names in ("ab", "a", "ab", "b", "ab", "ab"):
            for model, call in ((eager, eager), (compiled, step)):
                model.zero_grad()
                losses = call(x, False, torch.tensor(1.0, dtype=torch.float64))
                losses = model.fork.losses({task: losses[task] for task in names})
                sum(losses.values()).backward()  # type: ignore[union-attr]
                if method.observes:
                    model.fork.observe(losses)
            for p, q in zip(eager.parameters(), compiled.parameters(), strict=True):
                absent = torch.zeros_like(p)
                one, two = (absent if grad is None else grad for grad in (p.grad, q.grad))
                worst = max(worst, float((one - two).abs().max()))
                with torch.no_grad():
                    p.sub_(0.01 * one)
                    q.sub_(0.01 * two)
    return {"worst": worst, "warnings": [str(each.message) for each in found if "branch" in str(each.message)]}


def error_of_balancer_without_shared() -> str:
    model = CompiledNet(pt.MGDA())
    parts = torch.compile(
        lambda x: (model.heads["a"](model.encoder(x)).square().mean(), model.heads["b"](model.encoder(x)).mean())
    )
    a, b = parts(torch.randn(7, 5, dtype=torch.float64))
    try:
        pt.Balancer(pt.MGDA()).backward({"a": a, "b": b})
    except ValueError as error:
        return str(error)
    return "nothing was raised"


BACKWARDS: dict[str, dict[str, Any]] = {"weighted heads": {"heads": "weighted"}, "gap": {"gap": 1}}


def own_backwards(name: str) -> dict[str, Any]:
    """A Fork that runs backwards of its own: the error of a whole compiled model, and parts that are compiled apart."""
    torch._dynamo.reset()
    x, use = torch.randn(7, 5, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    whole, apart, eager = (CompiledNet(pt.MGDA(), **BACKWARDS[name]) for _ in range(3))
    for part in (apart.encoder, *apart.heads.values()):
        part.compile(backend="aot_eager")
    try:
        losses = torch.compile(whole, fullgraph=True, backend="aot_eager")(x, False, use)
        sum(whole.fork.losses(losses).values()).backward()  # type: ignore[union-attr]
        error = "nothing was raised"
    except RuntimeError as found:
        error = str(found)
    for model in (apart, eager):
        sum(model.fork.losses(model(x, False, use)).values()).backward()  # type: ignore[union-attr]
    pairs = zip(apart.parameters(), eager.parameters(), strict=True)
    worst = max(float((p.grad - q.grad).abs().max()) for p, q in pairs if p.grad is not None and q.grad is not None)
    return {"error": error, "worst": worst}


class EndedNet(CompiledNet):
    """Where the compiled graph ends: "trunk", "after the fork", "between the heads", "at a branch"; "one loss" for both tasks."""

    def __init__(self, end: str, **options: Any) -> None:
        super().__init__(pt.UPGrad(), **options)
        self.end = end

    def forward(self, x: Tensor, *_: Any) -> dict[str, Tensor]:
        branch = self.fork(self.encoder(x))
        if self.end == "trunk":
            return branch  # type: ignore[no-any-return]
        if self.end == "after the fork":
            torch._dynamo.graph_break()
        a = self.heads["a"](branch["a"]).square().mean()
        if self.end == "between the heads":
            torch._dynamo.graph_break()
        if self.end == "at a branch":
            return {"a": a, "b": branch["b"]}
        b = (self.heads["b"](branch["b"]) - 5).square().mean()
        losses: dict[str, Tensor] = {"a": a, "b": b} if self.end != "one loss" else dict.fromkeys("ab", a + b)
        return self.fork.losses(losses) if self.end == "one loss" else losses

    def losses(self, made: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.end == "trunk":
            return {
                "a": self.heads["a"](made["a"]).square().mean(),
                "b": (self.heads["b"](made["b"]) - 5).square().mean(),
            }
        return made | {"b": (made["b"] - 5).square().mean()} if self.end == "at a branch" else made


def ended_graphs(end: str) -> dict[str, Any]:
    """Branches that leave the compiled graph, with two backends and with copies."""
    worst, x = 0.0, torch.randn(7, 5, dtype=torch.float64)
    for backend, options in (("aot_eager", {}), ("aot_eager", {"copies": True}), ("inductor", {})):
        torch._dynamo.reset()
        eager, compiled = (EndedNet(end, **options) for _ in range(2))
        step = torch.compile(compiled, backend=backend)
        for model, call in ((eager, eager), (compiled, step)):
            sum(model.losses(call(x)).values()).backward()  # type: ignore[union-attr]
        for p, q in zip(eager.parameters(), compiled.parameters(), strict=True):
            one, two = (torch.zeros_like(p) if grad is None else grad for grad in (p.grad, q.grad))
            worst = max(worst, float((one - two).abs().max()))
        assert compiled.fork.balance is not None
        assert compiled.fork.balance.present is not None
        assert compiled.fork.balance.present.all()
    return {"worst": worst}


if __name__ == "__main__":
    torch.set_num_threads(1)
    results: dict[str, Any] = {name: compare(name) for name in sys.argv[1:]}
    results["missing"] = {name: missing_tasks(name) for name in ("famo", "mgda", "log losses")}
    results["own backwards"] = {name: own_backwards(name) for name in BACKWARDS}
    ends = ("trunk", "after the fork", "between the heads", "at a branch", "one loss")
    results["ended graphs"] = {end: ended_graphs(end) for end in ends}
    results["balancer"] = error_of_balancer_without_shared()
    print(json.dumps(results))
