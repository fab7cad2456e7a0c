"""The first example of the README trains every task."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

README = Path(__file__).parent.parent / "README.md"
SUM = "sum(losses.values()).backward()"


def first_example() -> str:
    found = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found is not None
    return found.group(1)


def trained_errors(code: str, seed: int) -> dict[str, float]:
    """The share of wrong signs and the mean error of the size on new data, after the code has run."""
    torch.manual_seed(seed)
    names: dict[str, Any] = {}
    exec(compile(code, str(README), "exec"), names)
    x = torch.randn(100_000, 8, generator=torch.Generator().manual_seed(seed + 1))
    total = x.sum(dim=1)
    with torch.no_grad():
        z = names["encoder"](x)
        wrong = names["heads"]["sign"](z).argmax(dim=1) != (total > 0).long()
        size = functional.l1_loss(names["heads"]["size"](z).squeeze(1), 100 * total.abs())
    return {"sign": float(wrong.float().mean()), "size": float(size)}


@pytest.mark.parametrize("seed", [0, 7])
def test_first_example_of_the_readme_is_as_good_as_a_tuned_sum_in_every_task(seed: int) -> None:
    """600 steps: at most 1.2 times the better error of the plain sum and of weights tuned on the size's error or the sign's."""
    code = first_example()
    assert "range(600)" in code
    plain = code.replace("branch = fork(encoder(x))", 'branch = dict.fromkeys(("sign", "size"), encoder(x))')
    plain = plain[: plain.index("print(")]
    assert SUM in plain
    found = trained_errors(code, seed)
    weighted = [
        trained_errors(plain.replace(SUM, f'(losses["sign"] + {weight} * losses["size"]).backward()'), seed)
        for weight in (1, 1e-2, 1e-3, 1e-4)
    ]
    for task, error in found.items():
        assert error <= 1.2 * min(each[task] for each in weighted), task
