"""Two losses of a language model: the next token of new texts, and the predictions of a teacher on other texts.

python examples/llm_two_losses.py
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers import LlamaConfig, LlamaForCausalLM

import paretorch as pt

VOCABULARY = 20


def model() -> LlamaForCausalLM:
    """A tiny model from a configuration; in practice ``from_pretrained``."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes))


def sentences(step: int) -> Tensor:
    """(32, 12) tokens, each of which is the one before plus ``step``."""
    return (torch.randint(0, VOCABULARY, (32, 1)) + step * torch.arange(12)) % VOCABULARY


def next_token(student: LlamaForCausalLM, tokens: Tensor) -> Tensor:
    logits = student(input_ids=tokens).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def distance(student: LlamaForCausalLM, teacher: LlamaForCausalLM, tokens: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of the two predictions."""
    with torch.no_grad():
        target = log_softmax(teacher(input_ids=tokens).logits, -1).flatten(0, 1)
    own = log_softmax(student(input_ids=tokens).logits, -1).flatten(0, 1)
    return kl_div(own, target, reduction="batchmean", log_target=True)


def main() -> None:
    torch.manual_seed(0)
    teacher, student = model(), model()
    optimizer = torch.optim.Adam(teacher.parameters(), lr=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        next_token(teacher, sentences(1)).backward()
        optimizer.step()
    optimizer, balancer, history = torch.optim.Adam(student.parameters(), lr=5e-3), pt.Balancer(pt.UPGrad()), []
    for _ in range(100):
        losses = {"text": next_token(student, sentences(3)), "teacher": distance(student, teacher, sentences(1))}
        optimizer.zero_grad()
        balancer.total(losses).backward()
        optimizer.step()
        history.append({task: loss.item() for task, loss in losses.items()})
    print(", ".join(f"{task} {history[0][task]:.3f} -> {history[-1][task]:.3f}" for task in losses))


if __name__ == "__main__":
    main()
