"""The SFTTrainer of TRL with two losses against a plain loop."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

pytest.importorskip("trl")

from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

import paretorch as pt
from framework_loops import METHODS, difference, optimizer_of, vector
from paretorch.integrations.transformers import BalancedTrainer

pytestmark = pytest.mark.filterwarnings("ignore")  # those of trl
STEPS, MICRO = 3, 2


class BalancedSFT(BalancedTrainer, SFTTrainer):  # type: ignore[misc]
    """Needs no code: the losses are those of the function that it is given."""


class Losses:
    """The next token, and the squared logarithm of the softmax's denominator; keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Tensor]] = []

    def __call__(self, model: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
        self.batches.append({name: value.clone() for name, value in inputs.items() if isinstance(value, Tensor)})
        return losses_of(model, inputs)


def losses_of(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
    logits = model(input_ids=inputs["input_ids"]).logits
    text = cross_entropy(logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten())
    return {"text": text, "scale": logits.logsumexp(-1).square().mean()}


def language_model() -> Any:
    torch.manual_seed(7)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=20, num_attention_heads=2, pad_token_id=0, eos_token_id=1, **sizes)
    return LlamaForCausalLM(config).double()


def trainer(model: Any, folder: Path, **options: Any) -> BalancedSFT:
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    generator = torch.Generator().manual_seed(8)
    rows = torch.randint(2, 20, (STEPS * MICRO * 4, 9), generator=generator).tolist()
    settings = SFTConfig(
        str(folder),
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        bf16=False,
        gradient_checkpointing=False,
        num_train_epochs=1,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=MICRO,
        max_grad_norm=0.1,
        max_length=16,
    )
    optimizer = optimizer_of(model.parameters())
    return BalancedSFT(
        model,
        settings,
        train_dataset=Dataset.from_list([{"input_ids": row} for row in rows]),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"),
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
        **options,
    )


@pytest.mark.parametrize("method", ["upgrad", "uncertainty"])
def test_sft_trainer_with_two_losses_equals_the_plain_loop(method: str, tmp_path: Path) -> None:
    model, losses = language_model(), Losses()
    tasks = ("text", "scale")
    start = copy.deepcopy(model)
    one = trainer(model, tmp_path, losses=losses, balancer=pt.Balancer(METHODS[method](), tasks, accumulate=MICRO))
    one.train()
    assert len(losses.batches) == STEPS * MICRO
    assert any("balance/weight/scale" in entry for entry in one.state.log_history)

    balancer, optimizer = pt.Balancer(METHODS[method](), tasks), optimizer_of(start.parameters())
    assert difference(vector(model), vector(start)) > 1e-4
    for step in range(STEPS):
        group = [losses_of(start, batch) for batch in losses.batches[MICRO * step : MICRO * (step + 1)]]
        optimizer.zero_grad()
        balancer.backward({task: torch.stack([each[task] for each in group]).mean() for task in tasks})
        nn.utils.clip_grad_norm_(start.parameters(), 0.1)
        optimizer.step()
    assert difference(vector(model), vector(start)) <= 1e-9  # this model normalises and rotates in float32
