"""What a call gives, checked and taken apart: the tokens of each sample without its padding.

Shapes: B batch, T tokens of the whole input, D width, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rmtlib.errors import RmtlibError
from rmtlib.segments import IGNORE, next_token_labels


def kept(input_ids_BT: Tensor, attention_mask_BT: Tensor | None) -> Tensor:
    """True (B, T) at every token, False at padding. Raises RmtlibError if the input is no batch of token ids."""
    shape, kind = tuple(input_ids_BT.shape), input_ids_BT.dtype
    if len(shape) != 2:
        raise RmtlibError(f"input_ids have shape {shape}, not (batch, tokens); for one text give input_ids[None]")
    if not shape[0]:
        raise RmtlibError("input_ids are an empty batch; give at least one text")
    if kind.is_floating_point or kind.is_complex or kind == torch.bool:
        raise RmtlibError(f"input_ids are {kind}, not token ids; give whole numbers, e.g. input_ids.long()")
    if attention_mask_BT is None:
        return torch.ones_like(input_ids_BT, dtype=torch.bool)
    if attention_mask_BT.shape != input_ids_BT.shape:
        raise RmtlibError(f"attention_mask has shape {tuple(attention_mask_BT.shape)}, input_ids {shape}")
    return attention_mask_BT.bool()


def check_vocabulary(tokens: np.ndarray, count: int, what: str) -> None:
    """Raises RmtlibError if one of the ids is not of the vocabulary."""
    if len(tokens) and not (0 <= tokens.min() and tokens.max() < count):
        wrong = tokens[(tokens < 0) | (tokens >= count)][0]
        raise RmtlibError(f"{what} hold id {wrong}; the vocabulary has 0 to {count - 1}: is it the model's tokenizer?")


def token_rows(input_ids_BT: Tensor, kept_BT: Tensor, vocabulary: int) -> list[np.ndarray]:
    """Each sample's tokens. Raises RmtlibError if there are none or if one is not of the vocabulary."""
    ids, keep = input_ids_BT.cpu().numpy(), kept_BT.cpu().numpy()
    rows = [ids[b][keep[b]] for b in range(len(ids))]
    if not any(map(len, rows)):
        raise RmtlibError("the input has no tokens; give at least one that is not padding")
    check_vocabulary(np.concatenate(rows), vocabulary, "input_ids")
    return rows


def target_rows(labels_BT: Tensor, kept_BT: Tensor, vocabulary: int) -> list[np.ndarray]:
    """At each token of a sample the label of the one after it (see `next_token_labels`)."""
    if labels_BT.shape != kept_BT.shape:
        raise RmtlibError(f"labels have shape {tuple(labels_BT.shape)}, input_ids {tuple(kept_BT.shape)}")
    labels, keep = labels_BT.cpu().numpy(), kept_BT.cpu().numpy()
    rows = [labels[b][keep[b]] for b in range(len(labels))]
    check_vocabulary(np.concatenate([row[row != IGNORE] for row in rows]), vocabulary, "labels")
    return [next_token_labels(row, row != IGNORE) for row in rows]


def at_tokens(values_BND: Tensor | Sequence[Tensor], kept_BT: Tensor) -> Tensor:
    """Values (B, T, D) at the tokens from those without padding, row b's first ones of `values_BND[b]`; 0 elsewhere."""
    B, T = kept_BT.shape
    if bool(kept_BT.all()):
        return values_BND[:, :T] if isinstance(values_BND, Tensor) else torch.stack([x_ND[:T] for x_ND in values_BND])
    out_BTD = values_BND[0].new_zeros(B, T, values_BND[0].shape[-1])
    for b, keep_T in enumerate(kept_BT):
        out_BTD[b, keep_T] = values_BND[b][: int(keep_T.sum())]
    return out_BTD


def last_columns(values_BTD: Tensor, kept_BT: Tensor, count: int) -> Tensor:
    """The last `count` columns, 0 for all; the very last one is that of each row's last token."""
    if not count:
        return values_BTD
    after_BT = kept_BT.long() * torch.arange(1, kept_BT.shape[1] + 1, device=kept_BT.device)
    rows_B = torch.arange(len(values_BTD), device=values_BTD.device)
    ends_BD = values_BTD[rows_B, after_BT.argmax(1).to(values_BTD.device)]
    return torch.cat([values_BTD[:, -count:-1], ends_BD[:, None]], dim=1)
