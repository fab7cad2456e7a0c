"""Names of tasks that a head of the model can and cannot have."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from command_line import call
from paretorch.workloads import MultiTaskModel
from paretorch.workloads.base import check_head_names


@pytest.mark.parametrize("task", ["type", "keys", "a.b", "", "training", "float", "forward", "_modules", "a."])
def test_task_name_that_no_head_can_have_is_refused_with_the_cure(tmp_path: Path, task: str) -> None:
    with pytest.raises(ValueError, match=r"no task can be called .*Rename it, for example to '(.+)';") as found:
        MultiTaskModel(nn.Linear(1, 1), {task: nn.Linear(1, 1), "other": nn.Linear(1, 1)})
    better = str(found.value).partition("for example to '")[2].partition("'")[0]
    assert set(MultiTaskModel(nn.Linear(1, 1), {better: nn.Linear(1, 1)}).heads) == {better}
    with pytest.raises(KeyError):
        nn.ModuleDict({task: nn.Linear(1, 1)})
    (tmp_path / "mine.py").write_text(
        "from paretorch.workloads.synthetic import Synthetic\n"
        "from torch import nn\n"
        "class Mine(Synthetic):\n"
        f"    tasks = property(lambda self: ({task!r}, 'other'))\n"
        f"    def model(self): return nn.ModuleDict({{{task!r}: nn.Linear(1, 1)}})\n"
    )
    for command in (["train"], ["front", "--models", "2"]):
        code, printed = call(*command, str(tmp_path / "mine.py"), "--out", str(tmp_path / "run"))
        assert code == 2, printed
        assert f"no task can be called {task!r}" in printed


def test_column_name_that_no_head_can_have_is_refused_with_the_cure(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n % 3},{n * 2}\n" for n in range(60))
    (tmp_path / "t.csv").write_text("x,type,size\n" + rows)
    workload = f"tabular(path='{tmp_path / 't.csv'}', targets=('type', 'size'))"
    code, printed = call("train", workload, "--out", str(tmp_path / "run"), "--epochs", "1")
    assert code == 2, printed
    assert "no task can be called 'type'" in printed
    assert "Rename it, for example to 'type_'; if tasks are columns of a table, rename the column" in printed


@pytest.mark.parametrize("task", ["left", "a b", "a-b", "Größe", "a/b", "1", "Type", "type_"])
def test_task_name_with_other_characters_is_accepted(task: str) -> None:
    check_head_names([task])
    assert set(nn.ModuleDict({task: nn.Linear(1, 1)})) == {task}
