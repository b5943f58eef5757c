"""Softmax over a vocabulary whose rare words stand in clusters (Grave et al. 2017), weights tied to the embedding.

The head holds the most frequent words and one entry for each cluster; a word of a cluster has the probability of the
cluster times its own within it. Ids must be sorted by frequency. PyTorch's `AdaptiveLogSoftmaxWithLoss` has tails of
reduced width and weights of its own, so it cannot be tied to a table of one width, as Transformer-XL's is (div_val 1).

Shapes: N rows, D width, V vocabulary, H entries of the head, C clusters.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmtlib.segments import IGNORE


class AdaptiveSoftmax(nn.Module):
    """Output layer without a weight matrix of its own; `forward` and `log_probabilities` take the embedding table.

    Args:
        vocab_size: V.
        d_model: D.
        cutoffs: first id of each cluster, ascending, e.g. (20_000, 40_000, 200_000). Empty: a plain softmax.
        special: one entry more, outside the vocabulary, with id V: the target of the auxiliary memory loss.

    Raises:
        ValueError: cutoffs that do not ascend between 0 and V.
    """

    def __init__(self, vocab_size: int, d_model: int, cutoffs: Sequence[int] = (), special: bool = False):
        super().__init__()
        if list(cutoffs) != sorted(set(cutoffs)) or (cutoffs and not 0 < cutoffs[0] <= cutoffs[-1] < vocab_size):
            raise ValueError(f"cutoffs {tuple(cutoffs)} do not ascend between 0 and the vocabulary of {vocab_size}")
        self.bounds = (*cutoffs, vocab_size)
        self.waits_for_device = bool(cutoffs)  # `forward` asks which rows have words of a cluster
        self.special_id = vocab_size if special else None
        extra = len(cutoffs) + special
        self.bias_V = nn.Parameter(torch.zeros(vocab_size))
        self.extra_CD = nn.Parameter(torch.randn(extra, d_model) * 0.02)  # the clusters, then the special entry
        self.extra_bias_C = nn.Parameter(torch.zeros(extra))

    def _head(self, hidden_ND: Tensor, table_VD: Tensor) -> Tensor:
        """Log-probabilities (N, H + C + special): frequent words, clusters, special entry."""
        first = self.bounds[0]
        words_NH = F.linear(hidden_ND, table_VD[:first], self.bias_V[:first])
        if len(self.extra_bias_C):
            words_NH = torch.cat([words_NH, F.linear(hidden_ND, self.extra_CD, self.extra_bias_C)], dim=-1)
        return _log_softmax(words_NH)

    def _tail(self, hidden_ND: Tensor, table_VD: Tensor, low: int, high: int) -> Tensor:
        return _log_softmax(F.linear(hidden_ND, table_VD[low:high], self.bias_V[low:high]))

    def forward(self, hidden_ND: Tensor, targets_N: Tensor, table_VD: Tensor) -> Tensor:
        """Negative log-likelihood (N) in nats of each row's target, 0 for the target IGNORE.

        A cluster is scored for the rows that need it.
        """
        head_NH = self._head(hidden_ND, table_VD)
        first, clusters = self.bounds[0], len(self.bounds) - 1
        entry_N = targets_N.clamp(min=0)
        for c, (low, high) in enumerate(pairwise(self.bounds)):
            entry_N[(targets_N >= low) & (targets_N < high)] = first + c
        if self.special_id is not None:
            entry_N[targets_N == self.special_id] = first + clusters
        nll_N = -head_NH.gather(1, entry_N[:, None])[:, 0].masked_fill(targets_N == IGNORE, 0)
        for low, high in pairwise(self.bounds):
            rows = ((targets_N >= low) & (targets_N < high)).nonzero()[:, 0]
            if len(rows):
                tail = self._tail(hidden_ND[rows], table_VD, low, high)
                nll_N = nll_N.index_add(0, rows, -tail.gather(1, targets_N[rows, None] - low)[:, 0])
        return nll_N

    def log_probabilities(self, hidden_ND: Tensor, table_VD: Tensor) -> Tensor:
        """All of them (N, V, and one more with a special entry); they sum to one."""
        head_NH = self._head(hidden_ND, table_VD)
        first = self.bounds[0]
        parts = [head_NH[:, :first]]
        for c, (low, high) in enumerate(pairwise(self.bounds)):
            parts.append(head_NH[:, first + c, None] + self._tail(hidden_ND, table_VD, low, high))
        if self.special_id is not None:
            parts.append(head_NH[:, -1:])
        return torch.cat(parts, dim=-1)


def _log_softmax(scores: Tensor) -> Tensor:
    return scores.log_softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
