"""Encoders of molecules against plain loops over atoms, and their symmetries."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from paretorch.workloads.models.molecules import (
    CENTERS,
    FARTHEST,
    HIDDEN,
    SIZE,
    EdgeNetwork,
    FilterNetwork,
    element_features,
)

KINDS = (EdgeNetwork, FilterNetwork)


def batch(sizes: tuple[int, ...] = (1, 5, 3), seed: int = 0, most: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.zeros(len(sizes), most or max(sizes), 4)
    for row, size in enumerate(sizes):
        numbers = torch.tensor([1.0, 6, 7, 8, 9])[torch.randint(0, 5, (size,), generator=generator)]
        atoms[row, :size, 0] = numbers
        atoms[row, :size, 1:] = 2 * torch.randn(size, 3, generator=generator)
    return atoms


def made(kind: type[nn.Module], width: int = 8) -> nn.Module:
    torch.manual_seed(3)
    return kind(width).double()


@pytest.mark.parametrize("kind", KINDS)
def test_molecule_encoder_ignores_order_position_padding_and_other_molecules(kind: type[nn.Module]) -> None:
    encoder, atoms = made(kind), batch().double()
    expected = encoder(atoms)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double())[0]
    moved = atoms.clone()
    moved[..., 1:] = atoms[..., 1:] @ rotation + torch.tensor([5.0, -2.0, 1.0])
    torch.testing.assert_close(encoder(moved), expected)
    swapped = atoms.clone()
    swapped[1, :5] = atoms[1, [3, 1, 0, 4, 2]]
    torch.testing.assert_close(encoder(swapped), expected)
    padded = torch.cat([atoms, torch.zeros(3, 4, 4)], dim=1)
    torch.testing.assert_close(encoder(padded), expected)
    alone = torch.cat([encoder(row[None]) for row in atoms])
    torch.testing.assert_close(alone, expected)
    changed = atoms.clone()
    changed[1, 0, 1] += 0.5
    assert not torch.allclose(encoder(changed)[1], expected[1])


@pytest.mark.parametrize("kind", KINDS)
def test_molecule_encoder_trains_on_molecules_of_one_atom(kind: type[nn.Module]) -> None:
    encoder = made(kind)
    encoder(batch((1, 1)).double()).sum().backward()
    gradients = [each.grad for each in encoder.parameters() if each.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert bool(encoder(batch((1, 1)).double()).isfinite().all())


def test_edge_network_equals_a_matrix_for_each_edge() -> None:
    encoder, atoms = EdgeNetwork(8), batch((4,), seed=5)[0].double()
    encoder.double()
    state = functional.relu(encoder.embedding(element_features(atoms[:, 0])))
    matrices = encoder.message.weight.view(8, HIDDEN, 8)  # output, unit of the edge network, input
    for _ in range(3):
        messages = []
        for i in range(4):
            total = torch.zeros(8).double()
            for j in range(4):
                if i != j:
                    hidden = functional.relu(encoder.edge((atoms[i, 1:] - atoms[j, 1:]).norm()[None]))
                    matrix = torch.einsum("okd,k->od", matrices, hidden) + encoder.constant.weight
                    total = total + matrix @ state[j] / 3
            messages.append(functional.relu(total + encoder.message.bias + encoder.root(state[i])))
        state = encoder.update(torch.stack(messages), state)
    both, memory = torch.zeros(1, 16).double(), (torch.zeros(1, 8).double(), torch.zeros(1, 8).double())
    for _ in range(3):
        memory = encoder.pooling.query(both, memory)
        shares = (state @ memory[0][0]).softmax(dim=0)
        both = torch.cat([memory[0], (shares[:, None] * state).sum(dim=0, keepdim=True)], dim=1)
    torch.testing.assert_close(encoder(atoms[None]), functional.relu(encoder.output(both)))


def test_filter_network_equals_loops_over_atoms() -> None:
    encoder, atoms = FilterNetwork(8), batch((4,), seed=5)[0].double()
    encoder.double()
    state = encoder.embedding(element_features(atoms[:, 0]))
    spacing = (FARTHEST - 0.5) / (CENTERS - 1)
    for one in encoder.passes:
        sums = []
        for i in range(4):
            total = torch.zeros(8).double()
            for j in range(4):
                if i != j:
                    distance = (atoms[i, 1:] - atoms[j, 1:]).norm()
                    waves = torch.exp(-0.5 * ((distance - encoder.centers) / spacing) ** 2)
                    total = total + one.filter(waves) * one.sent(state[j])  # type: ignore[operator]
            sums.append(total)
        state = state + one.change(torch.stack(sums))  # type: ignore[operator]
    expected = encoder.output((encoder.atom(state) / SIZE).sum(dim=0, keepdim=True))
    torch.testing.assert_close(encoder(atoms[None]), expected)


def test_edge_network_has_the_published_layers() -> None:
    encoder = EdgeNetwork()
    assert sum(each.numel() for each in encoder.message.parameters()) == 128 * 64 * 64 + 64
    assert tuple(encoder.update.weight_ih.shape) == (3 * 64, 64)
    assert tuple(encoder.pooling.query.weight_ih.shape) == (4 * 64, 2 * 64)
    for layer in (encoder.message, encoder.constant):
        assert layer.weight.abs().max().item() == pytest.approx(128**-0.5, rel=1e-2)
    assert encoder(batch()).shape == (3, 64)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_molecule_encoder_is_exported_for_any_batch(kind: type[nn.Module]) -> None:
    encoder = made(kind)
    exported = torch.export.export(encoder, (batch().double(),), dynamic_shapes={"atoms": {0: torch.export.Dim("b")}})
    other = batch((2, 4), seed=4, most=5).double()
    torch.testing.assert_close(exported.module()(other), encoder(other))
