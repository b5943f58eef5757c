"""The straightforward way to do the same: wrapped Hugging Face models, einsum updates, text tokenised anew each time.

What people write first, and what the released code does; with the same weights the results are the same.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORE = -100


class NaiveRMT(nn.Module):
    """RMT around a Hugging Face model: all logits of all segments are kept, joined and shifted."""

    def __init__(self, model: Any, memory: Tensor):
        super().__init__()
        self.model, self.memory = model, nn.Parameter(memory.detach().clone())

    def forward(self, segments: Sequence[Tensor], labels: Sequence[Tensor] | None = None) -> Tensor:
        """Logits of all positions, or the loss where next-token labels are given."""
        M, memory, logits = len(self.memory), self.memory.expand(len(segments[0]), -1, -1), []
        for ids in segments:
            x = torch.cat([memory, self.model.get_input_embeddings()(ids), memory], dim=1)
            out = self.model(inputs_embeds=x, output_hidden_states=True, use_cache=False)
            memory = out.hidden_states[-1][:, -M:]
            logits.append(out.logits[:, M:-M])
        return _finish(logits, labels)


class NaiveAssociativeLayer(nn.Module):
    """A layer with associative memory as released: six-step DPFP, three-operand einsum, everything one by one."""

    def __init__(self, layer: nn.Module, armt: Any, index: int):
        super().__init__()
        self.layer, self.tokens = layer, armt.memory_tokens
        take = lambda stacked: nn.Parameter(stacked[index].detach().clone())  # noqa: E731
        self.query, self.key, self.value = take(armt.query_LED), take(armt.key_LED), take(armt.value_LDD)
        self.beta, self.bias = take(armt.beta_L1D), take(armt.beta_bias_L1)
        self.state: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def phi(x: Tensor) -> Tensor:
        x = torch.cat([F.relu(x), F.relu(-x)], dim=-1)
        rolled = torch.cat([x.roll(shifts=j, dims=-1) for j in (1, 2, 3)], dim=-1)
        return torch.cat([x] * 3, dim=-1) * rolled

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.state is not None:
            A, z = self.state
            q = self.phi(hidden @ self.query.T)
            found = torch.einsum("btk,bkd->btd", q, A) / (torch.einsum("bk,btk->bt", z, q)[..., None] + 1e-5)
            hidden = hidden + found
        out = self.layer(hidden, *args, **kwargs)
        self.update((out[0] if isinstance(out, tuple) else out)[:, -self.tokens :])
        return out

    def update(self, memory: Tensor) -> None:
        keys, values = self.phi(memory @ self.key.T), memory @ self.value.T
        beta = torch.sigmoid(memory @ self.beta.T + self.bias)[..., 0]
        if self.state is None:
            A = keys.new_zeros(len(keys), keys.shape[-1], values.shape[-1])
            z, gamma = keys.new_zeros(len(keys), keys.shape[-1]), torch.ones_like(beta)
        else:
            A, z = self.state
            presence = torch.einsum("bk,bmk->bm", z, keys) + 1e-5
            values = values - torch.einsum("bmk,bkd->bmd", keys, A) / presence[..., None]
            gamma = (1 - presence / (torch.einsum("bmk,bmk->bm", keys, keys) + 1e-5)).clamp(0, 1).detach()
        A = A + torch.einsum("bmk,bmd,bm->bkd", keys, values, beta)
        self.state = A, z + torch.einsum("bmk,bm->bk", keys, gamma)


class NaiveARMT(nn.Module):
    """ARMT around a Hugging Face model, its layers wrapped in place; `layers` is the model's list of them."""

    def __init__(self, model: Any, layers: nn.ModuleList, armt: Any):
        super().__init__()
        self.model, self.memory = model, nn.Parameter(armt.memory_MD.detach().clone())
        self.layers = [NaiveAssociativeLayer(layer, armt, i) for i, layer in enumerate(layers)]
        for i, layer in enumerate(self.layers):
            layers[i] = layer

    def forward(self, segments: Sequence[Tensor], labels: Sequence[Tensor] | None = None) -> Tensor:
        """Logits of all positions, or the loss where next-token labels are given."""
        logits = []
        for layer in self.layers:
            layer.state = None
        for ids in segments:
            memory = self.memory.expand(len(ids), -1, -1)
            x = torch.cat([self.model.get_input_embeddings()(ids), memory], dim=1)
            out = self.model(inputs_embeds=x, output_hidden_states=True, use_cache=False)
            logits.append(out.logits[:, : ids.shape[1]])
        return _finish(logits, labels)


def _finish(logits: list[Tensor], labels: Sequence[Tensor] | None) -> Tensor:
    joined = torch.cat(logits, dim=1)
    if labels is None:
        return joined
    return F.cross_entropy(joined.flatten(0, 1), torch.cat(list(labels), dim=1).flatten(), ignore_index=IGNORE)


def write_with_einsum(A: Tensor, z: Tensor, keys: Tensor, values: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """The released update of one segment, on tensors: (B, K, D), (B, K), (B, M, K), (B, M, D), (B, M)."""
    presence = torch.einsum("bk,bmk->bm", z, keys) + 1e-5
    gamma = (1 - presence / (torch.einsum("bmk,bmk->bm", keys, keys) + 1e-5)).clamp(0, 1).detach()
    values = values - torch.einsum("bmk,bkd->bmd", keys, A) / presence[..., None]
    return A + torch.einsum("bmk,bmd,bm->bkd", keys, values, beta), z + torch.einsum("bmk,bm->bk", keys, gamma)


def sentences_one_by_one(text: str, tokenizer: Any, tokens: int) -> np.ndarray:
    """Background of so many tokens as released: split into sentences and tokenise each, for every sample anew."""
    from rmtlib.data.text import split_sentences

    found: list[int] = []

    def forever() -> Iterator[str]:
        while True:
            yield from split_sentences(text)

    for sentence in forever():
        found += tokenizer.encode(sentence).ids
        if len(found) >= tokens:
            return np.array(found[:tokens])
    raise AssertionError
