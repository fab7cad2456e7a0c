"""Lightning's own loop against a plain one, with a Fork and with a Balancer."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

from lightning.pytorch.loggers import CSVLogger

from framework_loops import METHODS, Loop, difference, plain, vector
from lightning_loops import Module, fit, fitted_on_ranks, refusal_of_unused
from paretorch.integrations.lightning import BalanceLogger
from ranks import on_ranks

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers and missing loops
CASES = [
    *(Loop(by, method, micro=2, clip=0.5) for by in ("fork", "balancer") for method in METHODS),
    *(Loop(by, checkpointed=True) for by in ("fork", "balancer")),
]


@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
@pytest.mark.parametrize("loop", CASES, ids=str)
def test_lightning_equals_the_plain_loop(loop: Loop, manual: bool) -> None:
    module = Module(loop, manual)
    fit(module)
    assert difference(vector(module.task_losses), plain(loop)) <= 1e-12
    assert difference(vector(loop.model()), plain(loop)) > 1e-3


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_lightning_step_of_fewer_micro_batches_is_taken(by: str) -> None:
    loop = Loop(by, micro=3, ragged=True)
    module = Module(loop)
    fit(module)
    assert difference(vector(module.task_losses), plain(loop, mean=False)) <= 1e-12


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_lightning_in_bfloat16_equals_the_plain_loop(by: str) -> None:
    loop = Loop(by, dtype=torch.float32, autocast=True)
    module = Module(loop)
    fit(module)
    assert difference(vector(module.task_losses), plain(loop)) <= 1e-6
    assert difference(vector(module.task_losses), plain(replace(loop, autocast=False))) > 1e-5


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_lightning_resumed_equals_uninterrupted(by: str, tmp_path: Path) -> None:
    loop = Loop(by, "gradvac")
    straight = Module(loop)
    fit(straight, max_epochs=2)
    fit(Module(loop)).save_checkpoint(tmp_path / "half.ckpt")
    resumed = Module(loop)
    fit(resumed, resume=tmp_path / "half.ckpt", max_epochs=2)
    assert torch.equal(vector(resumed.task_losses), vector(straight.task_losses))
    balancing: Any = [each.balancer if by == "balancer" else each.task_losses.net.fork for each in (resumed, straight)]
    torch.testing.assert_close(*(dict(each.state_dict()) for each in balancing), rtol=0, atol=0, equal_nan=True)


@pytest.mark.long
def test_lightning_on_two_ranks_equals_one_process(tmp_path: Path) -> None:
    loops = [Loop(by, method, micro=2, clip=0.5) for by in ("fork", "balancer") for method in METHODS]
    cases = (
        *((loop, manual, False) for loop in loops for manual in (False, True)),
        *((Loop("fork"), manual, True) for manual in (False, True)),
    )
    found = on_ranks(fitted_on_ranks, 2, tmp_path, cases)
    differences = {case: difference(each, plain(case[0], 2)) for case, *each in zip(cases, *found, strict=True)}
    assert {case: value for case, value in differences.items() if not value <= 1e-12} == {}


@pytest.mark.long
@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
def test_lightning_total_in_a_strategy_that_searches_parameters_names_the_option(tmp_path: Path, manual: bool) -> None:
    for answer in on_ranks(refusal_of_unused, 2, tmp_path, manual):
        assert "find_unused_parameters=True" in answer


# --- BalanceLogger -------------------------------------------------------------------------------------------------------


def logged(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("by", ["fork", "balancer"])
def test_balance_logger_writes_the_record_of_every_second_step(by: str, tmp_path: Path) -> None:
    loop = Loop(by, steps=6, micro=2)
    module, logger = Module(loop), CSVLogger(tmp_path, name="", version="")
    fit(module, logger=logger, callbacks=[BalanceLogger(every_n_steps=2)])
    rows = [row for row in logged(tmp_path) if row["balance/weight/a"]]
    assert [row["step"] for row in rows] == ["1", "3", "5"]
    record: Any = module.balancer if by == "balancer" else module.task_losses.net.fork
    for name, value in record.balance.scalars("balance").items():
        assert float(rows[-1][name]) == pytest.approx(value)
    assert rows[0]["balance/norm/b"] != rows[1]["balance/norm/b"]


def test_balance_logger_names_several_forks_by_their_place(tmp_path: Path) -> None:
    class Two(Module):
        def __init__(self) -> None:
            super().__init__(Loop("fork"))
            self.other = Loop("fork").model()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return sum(self.other(batch).values()) + super().training_step(batch, index)  # type: ignore[no-any-return]

    fit(Two(), logger=CSVLogger(tmp_path, name="", version=""), callbacks=[BalanceLogger(1, "b")], max_steps=1)
    names = logged(tmp_path)[0]
    assert {"b/task_losses.net.fork/weight/a", "b/other.net.fork/weight/a"} <= names.keys()


def test_balance_logger_follows_the_interval_of_the_trainer_and_needs_no_logger(tmp_path: Path) -> None:
    fit(Module(Loop()), callbacks=[BalanceLogger()])
    logger = CSVLogger(tmp_path, name="", version="")
    fit(Module(Loop()), logger=logger, log_every_n_steps=4, callbacks=[BalanceLogger()])
    assert [row["step"] for row in logged(tmp_path) if row["balance/weight/a"]] == ["3"]


def test_balance_logger_refuses_an_interval_that_is_not_a_number_of_steps() -> None:
    with pytest.raises(ValueError, match="every_n_steps"):
        BalanceLogger(every_n_steps=0)


def test_balance_logger_logs_nothing_of_a_model_without_balancing(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    fit(Module(Loop("plain")), logger=logger, callbacks=[BalanceLogger(1)])
    assert not (tmp_path / "metrics.csv").exists()
