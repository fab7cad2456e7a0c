"""Encoders of molecules as complete graphs whose edges have distances: the benchmark's edge network, and a small one for CPUs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

ELEMENTS = (1, 6, 7, 8, 9)  # atomic numbers of H, C, N, O and F
HIDDEN = 128  # units of the edge network, as published
PASSES = 3  # of messages, and steps of Set2Set
CENTERS = 32  # Gaussians of a distance
FARTHEST = 8.0  # Angstrom, of the last center
SIZE = 18.0  # atoms of a typical molecule, by which sums over atoms are divided


def element_features(numbers: Tensor) -> Tensor:
    """The element as one of five and the atomic number over 10; (...) -> (..., 6)."""
    number = numbers[..., None]
    known = torch.tensor(ELEMENTS, device=numbers.device, dtype=numbers.dtype)
    return torch.cat([(number == known).to(numbers.dtype), number / 10], dim=-1)


def without_padding(atoms: Tensor) -> Tensor:
    """(B, A, 4) without the last columns in which no molecule has an atom; unchanged on other devices than the CPU.

    On a GPU, the number of columns would have to be waited for; a compiled or exported graph has no such number.
    """
    if atoms.device.type != "cpu" or torch.compiler.is_compiling() or not atoms.shape[0]:
        return atoms
    used = (atoms[..., 0] > 0).any(dim=0).nonzero()
    return atoms[:, : int(used[-1]) + 1] if used.numel() else atoms[:, :1]


class EdgeNetwork(nn.Module):
    r"""Messages by a matrix that a network computes from the distance, a GRU, and Set2Set; the benchmark's model.

    .. math::
        m_i = \mathrm{ReLU}\Big(\frac{1}{n - 1} \sum_{j \ne i} A(d_{ij}) h_j + R h_i + b\Big), \quad
        h_i \leftarrow \mathrm{GRU}(m_i, h_i), \quad A(d) = \sum_k \mathrm{ReLU}(u_k d + v_k) W_k + W_0

    The sum over neighbours is computed before the product with ``W``, which gives the same function as a matrix for each edge
    with a third of the operations and without D^2 numbers for each edge.

    Args:
        width: D, units of an atom.

    Example:
        >>> encoder = EdgeNetwork(width=8)
        >>> water = torch.tensor([[[8.0, 0.0, 0.0, 0.1], [1.0, 0.0, 0.8, -0.5], [1.0, 0.0, -0.8, -0.5]]])
        >>> encoder(water).shape
        torch.Size([1, 8])

    References:
        Gilmer et al., "Neural message passing for quantum chemistry", ICML 2017, edge network and set2set. The model of Navon
        et al., ICML 2022, for eleven tasks is that of PyTorch Geometric's example, with the matrix R as there. Their atoms and
        edges also have features of the chemical bonds, which need a cheminformatics package.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Linear(len(ELEMENTS) + 1, width)
        self.edge = nn.Linear(1, HIDDEN)
        self.message = nn.Linear(HIDDEN * width, width)  # W_k side by side, and the bias b
        self.constant = nn.Linear(width, width, bias=False)  # W_0
        self.root = nn.Linear(width, width, bias=False)
        for layer in (self.message, self.constant):  # as of a layer of 128 inputs and D^2 outputs, the published form
            nn.init.uniform_(layer.weight, -(HIDDEN**-0.5), HIDDEN**-0.5)
        nn.init.zeros_(self.message.bias)
        self.update = nn.GRUCell(width, width)
        self.pooling = Set2Set(width)
        self.output = nn.Linear(2 * width, width)

    def forward(self, atoms: Tensor) -> Tensor:
        """(B, A, 4) atomic numbers, 0 for padding, and coordinates in Angstrom -> (B, D) features."""
        atoms = without_padding(atoms)
        batch, most = atoms.shape[:2]
        numbers, places = atoms[..., 0], atoms[..., 1:]
        present = numbers > 0
        distance = (places[:, :, None] - places[:, None]).square().sum(dim=-1).sqrt()
        pairs = present[:, :, None] & present[:, None] & ~torch.eye(most, dtype=torch.bool, device=atoms.device)
        shares = pairs / pairs.sum(dim=-1, keepdim=True).clamp(min=1)  # (B, A, A): a mean over the neighbours
        hidden = functional.relu(self.edge(distance[..., None])) * shares[..., None]
        weights = torch.cat([hidden, shares[..., None].to(hidden.dtype)], dim=-1)
        weights = weights.transpose(2, 3).reshape(batch, most * (HIDDEN + 1), most)
        state = functional.relu(self.embedding(element_features(numbers)))
        for _ in range(PASSES):
            sums = (weights @ state).reshape(batch, most, HIDDEN + 1, self.width)
            message = (
                self.message(sums[:, :, :HIDDEN].flatten(2)) + self.constant(sums[:, :, HIDDEN]) + self.root(state)
            )
            new = self.update(functional.relu(message).flatten(0, 1), state.flatten(0, 1))
            state = new.view(batch, most, self.width)
        return functional.relu(self.output(self.pooling(state, present)))


class Set2Set(nn.Module):
    """A set of atoms as two vectors, by attention with a recurrent query; (B, A, D) -> (B, 2 D).

    Args:
        width: D.

    References:
        Vinyals et al., "Order matters: sequence to sequence for sets", ICLR 2016.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.LSTMCell(2 * width, width)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        """The query and the attended atoms after :data:`PASSES` steps.

        Args:
            states: (B, A, D).
            present: (B, A) bool, at least one atom of each molecule.
        """
        batch, _, width = states.shape
        both = states.new_zeros(batch, 2 * width)
        memory = (states.new_zeros(batch, width), states.new_zeros(batch, width))
        for _ in range(PASSES):
            memory = self.query(both, memory)
            scores = torch.einsum("bad,bd->ba", states, memory[0])
            shares = scores.masked_fill(~present, -torch.inf).softmax(dim=1)
            both = torch.cat([memory[0], torch.einsum("ba,bad->bd", shares, states)], dim=1)
        return both


class Pairs(NamedTuple):
    """The atoms of a batch in one list, and all pairs of atoms of one molecule, each once.

    Args:
        numbers: (N,) atomic numbers.
        molecule: (N,) index of the atom's molecule.
        first: (E,) index of an atom, ascending.
        second: (E,) index of a later atom of the molecule.
        distance: (E,) in Angstrom.
    """

    numbers: Tensor
    molecule: Tensor
    first: Tensor
    second: Tensor
    distance: Tensor


def all_pairs(atoms: Tensor) -> Pairs:
    """The pairs of a batch; a molecule of one atom has none.

    Args:
        atoms: (B, A, 4) atomic numbers, 0 for padding, and coordinates.

    Example:
        >>> pairs = all_pairs(torch.tensor([[[1.0, 0, 0, 0], [1.0, 3, 4, 0]], [[6.0, 0, 0, 0], [0.0, 0, 0, 0]]]))
        >>> pairs.molecule.tolist(), pairs.first.tolist(), pairs.second.tolist(), pairs.distance.tolist()
        ([0, 0, 1], [0], [1], [5.0])
    """
    present = atoms[..., 0] > 0
    index = (present.flatten().cumsum(0) - 1).view_as(present)
    later = torch.ones(present.shape[1], present.shape[1], dtype=torch.bool, device=atoms.device).triu(1)
    molecule, first, second = (present[:, :, None] & present[:, None] & later).nonzero(as_tuple=True)
    first, second = index[molecule, first], index[molecule, second]
    numbers, places = atoms[present].split([1, 3], dim=1)
    distance = (places[first] - places[second]).square().sum(dim=1).sqrt()
    return Pairs(numbers.squeeze(1), present.nonzero(as_tuple=True)[0], first, second, distance)


class FilterNetwork(nn.Module):
    r"""Messages by a factor for each unit that depends on the distance, and a sum over atoms; a small model for CPUs.

    .. math::
        m_i = \sum_{j \ne i} \big(F \varphi(d_{ij})\big) \odot V h_j, \qquad h_i \leftarrow h_i + \mathrm{MLP}(m_i)

    It is an edge network whose matrix is diagonal, on Gaussians of the distance. Each of the passes has weights of its own.

    Args:
        width: D, units of an atom.

    Example:
        >>> encoder = FilterNetwork(width=8)
        >>> encoder(torch.tensor([[[6.0, 0.0, 0.0, 0.0]], [[8.0, 0.0, 0.0, 0.0]]])).shape  # molecules of one atom
        torch.Size([2, 8])

    References:
        Schuett et al., "SchNet: a continuous-filter convolutional neural network for modeling quantum interactions", NeurIPS
        2017.
    """

    centers: Tensor

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Linear(len(ELEMENTS) + 1, width)
        self.register_buffer("centers", torch.linspace(0.5, FARTHEST, CENTERS), persistent=False)
        self.passes = nn.ModuleList(FilterPass(width) for _ in range(PASSES))
        self.atom = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2 * width))
        self.output = nn.Sequential(nn.SiLU(), nn.Linear(2 * width, width), nn.SiLU())

    def forward(self, atoms: Tensor) -> Tensor:
        """(B, A, 4) atomic numbers, 0 for padding, and coordinates in Angstrom -> (B, D) features."""
        pairs = all_pairs(without_padding(atoms))
        spacing = (FARTHEST - 0.5) / (CENTERS - 1)
        waves = torch.exp(-0.5 * ((pairs.distance[:, None] - self.centers) / spacing).square())
        state = self.embedding(element_features(pairs.numbers))
        for each in self.passes:
            state = state + each(state, waves, pairs)
        found = self.atom(state) / SIZE
        total = found.new_zeros(atoms.shape[0], found.shape[1]).index_add_(0, pairs.molecule, found)
        result: Tensor = self.output(total)
        return result


class FilterPass(nn.Module):
    """One pass of messages of a :class:`FilterNetwork`.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sent = nn.Linear(width, width, bias=False)
        self.filter = nn.Linear(CENTERS, width)
        self.change = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, state: Tensor, waves: Tensor, pairs: Pairs) -> Tensor:
        """The change of (N, D) states.

        Args:
            state: (N, D).
            waves: (E, K) Gaussians of the distances.
            pairs: of the batch.
        """
        filters, sent = self.filter(waves), self.sent(state)  # a filter serves both directions of its pair
        received = torch.zeros_like(sent)
        for receiver, sender in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
            received = received.index_add(0, receiver, filters * sent.index_select(0, sender))
        result: Tensor = self.change(received)
        return result
