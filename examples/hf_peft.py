"""Two tasks with LoRA: a frozen encoder with adapters, whose parameters are those that the Balancer compares.

python examples/hf_peft.py
"""

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import BertConfig, BertModel

import paretorch as pt


class TopicAndScore(nn.Module):
    """A small BERT with a head per task."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        self.bert = BertModel(BertConfig(vocab_size=30, **sizes))  # in practice: from_pretrained
        self.heads = nn.ModuleDict({"topic": nn.Linear(32, 3), "score": nn.Linear(32, 1)})

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        pooled = self.bert(input_ids).pooler_output
        return {task: head(pooled) for task, head in self.heads.items()}


def main() -> None:
    torch.manual_seed(0)
    layers, heads = ["query", "key", "value", "dense"], ["heads.topic", "heads.score"]
    model = get_peft_model(
        TopicAndScore(), LoraConfig(r=8, lora_alpha=32, target_modules=layers, modules_to_save=heads)
    )
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    adapters = [p for name, p in trained.items() if "lora_" in name]
    balancer = pt.Balancer(pt.IMTLG(), tasks=("topic", "score"), shared=adapters)
    optimizer = torch.optim.Adam(trained.values(), lr=5e-3)

    def losses_of(x: Tensor) -> dict[str, Tensor]:
        outputs = model(input_ids=x)
        return {
            "topic": cross_entropy(outputs["topic"], x[:, 0] % 3),
            "score": 100 * mse_loss(outputs["score"].squeeze(1), (x < 15).float().mean(1)),
        }

    history = []
    for _ in range(200):
        losses = losses_of(torch.randint(0, 30, (32, 8)))
        optimizer.zero_grad()
        balancer.total(losses).backward()
        optimizer.step()
        history.append({task: loss.item() for task, loss in losses.items()})
    means = [{task: sum(row[task] for row in part) / 10 for task in losses} for part in (history[:10], history[-10:])]
    print(", ".join(f"{task} {means[0][task]:.3f} -> {means[1][task]:.3f}" for task in losses))


if __name__ == "__main__":
    main()
