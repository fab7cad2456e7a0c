"""Models, data and Trainers of Hugging Face for the loops in ``framework_loops``. Imported by the spawned processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import BertConfig, BertModel, BertPreTrainedModel, TrainingArguments
from transformers.utils import logging

import paretorch as pt
from framework_loops import METHODS, Loop, optimizer_of, samples, vector
from paretorch.integrations.transformers import BalancedTrainer
from small_models import total

logging.set_verbosity_error()


class Net(nn.Module):
    """The small model, with the inputs and outputs of a model of transformers."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.task_losses = loop.model()

    def forward(self, x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> dict[str, Any]:
        losses = self.task_losses((x, {"a": a, "b": b, "c": c}))
        return {"loss": total(losses), "losses": losses}


class Ordered(BalancedTrainer):
    """Batches in the order of the data set."""

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        assert self.train_dataset is not None
        return SequentialSampler(self.train_dataset)


def arguments(folder: Path, loop: Loop, **options: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 12,
        "gradient_accumulation_steps": loop.micro,
        "max_grad_norm": loop.clip,
        "bf16": loop.autocast,
    }
    return TrainingArguments(str(folder), **settings | options)


def trainer(
    loop: Loop, folder: Path, ranks: int = 1, model: Any = None, optimizer: Any = None, **options: Any
) -> BalancedTrainer:
    model = Net(loop) if model is None else model
    shared = model.task_losses.net.encoder if options.get("ddp_find_unused_parameters") else None
    optimizer = optimizer_of(model.parameters()) if optimizer is None else optimizer
    return Ordered(
        model,
        arguments(folder, loop, **options),
        train_dataset=samples(loop, ranks),
        eval_dataset=samples(Loop(steps=3)),
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
        losses="losses",
        balancer=loop.balancer(shared=shared),
    )


def trained_on_ranks(rank: int, folder: Path, cases: tuple[tuple[Loop, bool], ...]) -> list[Tensor]:
    """The parameters of each case on this rank of DistributedDataParallel, and the losses of an evaluation."""
    os.environ["LOCAL_RANK"] = str(rank)
    results = []
    for loop, unused in cases:
        one = trainer(loop, folder, 2, ddp_find_unused_parameters=unused, per_device_eval_batch_size=5)
        one.train()
        results.append(vector(one.model))
    metrics = one.evaluate()
    return [*results, torch.tensor([metrics[name] for name in ("eval_loss", *(f"eval_loss_{t}" for t in "abc"))])]


# --- a transformer -------------------------------------------------------------------------------------------------------

BERT: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


class TopicAndScore(BertPreTrainedModel):  # type: ignore[misc]
    """A tiny BERT with a class and a number to predict."""

    def __init__(self, config: BertConfig, by: str = "balancer", method: str = "upgrad") -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.heads = nn.ModuleDict({"topic": nn.Linear(16, 3), "score": nn.Linear(16, 1)})
        self.fork = pt.Fork(METHODS[method](), ("topic", "score")) if by == "fork" else None
        self.post_init()

    def forward(self, input_ids: Tensor, topic: Tensor, score: Tensor, **_: Any) -> dict[str, Any]:
        z = self.bert(input_ids).pooler_output
        branch = {"topic": z, "score": z} if self.fork is None else self.fork(z)
        outputs = {task: head(branch[task]) for task, head in self.heads.items()}
        losses = {
            "topic": nn.functional.cross_entropy(outputs["topic"], topic),
            "score": (outputs["score"].squeeze(1) - score).square().mean(),
        }
        return {"loss": losses["topic"] + losses["score"], "losses": losses, "score": outputs["score"]}


def bert(by: str, dtype: torch.dtype = torch.float64) -> TopicAndScore:
    torch.manual_seed(3)
    model: TopicAndScore = TopicAndScore(BertConfig(**BERT), by).to(dtype)
    return model


def texts(count: int, dtype: torch.dtype = torch.float64) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 50, (count, 8), generator=generator)
    scores = 3 * torch.randn(count, generator=generator, dtype=torch.float64)
    return [{"input_ids": x, "topic": x[0] % 3, "score": y.to(dtype)} for x, y in zip(ids, scores, strict=True)]
