"""Two tasks in the Trainer of Hugging Face: a small BERT that predicts a class and a number.

python examples/hf_trainer.py
"""

import tempfile

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import BertConfig, BertModel, BertPreTrainedModel, TrainingArguments

import paretorch as pt
from paretorch.integrations.transformers import BalancedTrainer


class TopicAndScore(BertPreTrainedModel):
    """Its output has the losses by task, in the field that ``losses=`` of the Trainer names."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.topic, self.score = nn.Linear(config.hidden_size, 3), nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(self, input_ids: Tensor, topic: Tensor, score: Tensor) -> dict[str, dict[str, Tensor]]:
        pooled = self.bert(input_ids).pooler_output
        losses = {
            "topic": cross_entropy(self.topic(pooled), topic),
            "score": 100 * mse_loss(self.score(pooled).squeeze(1), score),
        }
        return {"losses": losses}


def main() -> None:
    torch.manual_seed(0)
    texts = torch.randint(0, 30, (1600, 8))
    samples = [{"input_ids": x, "topic": x[0] % 3, "score": (x < 15).float().mean()} for x in texts]
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    options = {"num_train_epochs": 4, "per_device_train_batch_size": 32, "learning_rate": 4e-3, "report_to": "none"}
    with tempfile.TemporaryDirectory() as folder:
        trainer = BalancedTrainer(
            TopicAndScore(BertConfig(vocab_size=30, **sizes)),
            TrainingArguments(folder, gradient_accumulation_steps=2, use_cpu=True, **options),
            train_dataset=samples[:-200],
            eval_dataset=samples[-200:],
            losses="losses",
            balancer=pt.Balancer(pt.IMTLG(), tasks=("topic", "score"), accumulate=2),
        )
        before = trainer.evaluate()
        trainer.train()
        after = trainer.evaluate()
    names = {task: f"eval_loss_{task}" for task in ("topic", "score")}
    print(", ".join(f"{task} {before[name]:.3f} -> {after[name]:.3f}" for task, name in names.items()))


if __name__ == "__main__":
    main()
