"""The two modules that torch does not have: the input layer of a table, and private dropout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InputLayer(nn.Module):
    """Numbers pass; each category's code becomes one-hot columns or a row of its embedding.

    Code 0, "never seen in training", becomes zeros, so it adds nothing to the next layer's sums.

    A number with bins is also told bin by bin how far it fills it: ``clamp((x - left) / (right -
    left), 0, 1)``. So the next layer sums a function of it that is linear within each bin, and may
    have a corner or a steep rise wherever the rows lie close. Source: Gorishniy, Rubachev, Babenko
    (NeurIPS 2022), piecewise linear encoding.

    Parameters
    ----------
    n_numbers : how many leading columns are numbers
    n_codes : for each category column after them, its number of codes besides 0
    embedding : for each category the width of its embedding; 0 means one-hot
    bins : for each number how many bins it has, 0 for none; empty if no number has any. Where they
        begin and end is in the buffer ``edges``, all numbers' edges one after another, ascending

    Shape
    -----
    Input (N, n_numbers + n_categories); output (N, n_numbers + sum of bins + sum of widths).

    Examples
    --------
    >>> layer = InputLayer(1, [3], [0])
    >>> layer(torch.tensor([[0.5, 2.0], [0.1, 0.0]]))
    tensor([[0.5000, 0.0000, 1.0000, 0.0000],
            [0.1000, 0.0000, 0.0000, 0.0000]])
    >>> layer = InputLayer(1, [], [], bins=[2])
    >>> layer.edges.copy_(torch.tensor([0.0, 1.0, 3.0]))
    tensor([0., 1., 3.])
    >>> layer(torch.tensor([[0.5], [2.0], [9.0]]))
    tensor([[0.5000, 0.5000, 0.0000],
            [2.0000, 1.0000, 0.5000],
            [9.0000, 1.0000, 1.0000]])
    """

    edges: Tensor

    def __init__(
        self,
        n_numbers: int,
        n_codes: Sequence[int],
        embedding: Sequence[int],
        dtype: torch.dtype | None = None,
        bins: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.n_numbers = n_numbers
        self.n_codes = list(n_codes)
        self.embedding = list(embedding)
        self.bins = list(bins)
        if any(self.bins):
            steps = [torch.linspace(0, 1, n + 1, dtype=dtype) for n in self.bins if n]
            self.register_buffer("edges", torch.cat(steps))
        # One entry for each category, so that names tell which one an array belongs to.
        self.tables = nn.ModuleList(
            # zeros to be drawn later; the plain constructor would use the global generator, and
            # skip_init would import torch's compiler, which takes seconds
            nn.Embedding.from_pretrained(
                torch.zeros(n + 1, width, dtype=dtype), freeze=False, padding_idx=0
            )
            if width
            else nn.Identity()
            for n, width in zip(self.n_codes, self.embedding)
        )

    @property
    def out_features(self) -> int:
        """How many columns come out."""
        widths = sum(w or n for n, w in zip(self.n_codes, self.embedding))
        return self.n_numbers + sum(self.bins) + widths

    def forward(self, X: Tensor) -> Tensor:
        """(N, n_numbers + n_categories) to (N, out_features)."""
        pieces = [X[:, : self.n_numbers]]
        start = 0
        for k, n in enumerate(self.bins):
            if n:
                edges = self.edges[start : start + n + 1]
                share = (X[:, k : k + 1] - edges[:-1]) / (edges[1:] - edges[:-1])
                pieces.append(share.clamp(0, 1))
                start += n + 1
        codes = X[:, self.n_numbers :].long()
        for k, (n, width) in enumerate(zip(self.n_codes, self.embedding)):
            if width:
                pieces.append(self.tables[k](codes[:, k]))
            else:
                pieces.append(F.one_hot(codes[:, k], n + 1)[:, 1:].to(X.dtype))
        return torch.cat(pieces, dim=1)

    def extra_repr(self) -> str:
        """What ``print(network)`` shows."""
        ways = [
            f"embedding {n}→{w}" if w else f"one-hot {n}"
            for n, w in zip(self.n_codes, self.embedding)
        ]
        bins = f", bins={self.bins}" if any(self.bins) else ""
        return f"numbers={self.n_numbers}, categories=[{', '.join(ways)}]{bins}"


class Dropout(nn.Dropout):
    """``nn.Dropout`` that draws from its own generator, so that no global random state is touched.

    Without a generator it is ``nn.Dropout``.
    """

    generator: torch.Generator | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Set a share ``p`` to zero and scale up the rest, while training."""
        if not self.training or self.p == 0 or self.generator is None:
            return super().forward(input)
        keep = torch.empty_like(input).bernoulli_(1 - self.p, generator=self.generator)
        return input * keep.div_(1 - self.p)


def set_dropout_generator(network: nn.Module, generator: torch.Generator | None) -> None:
    """Let every `Dropout` of the network draw from this generator, or from torch's global one."""
    for module in network.modules():
        if isinstance(module, Dropout):
            module.generator = generator
