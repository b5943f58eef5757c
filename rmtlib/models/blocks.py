"""Memory blocks around the text of a segment: [read | text | write | padding].

The write block follows each sample's last real token. Padding stands behind everything: causal attention never looks
there, and it shifts no position. So a sample gives the same outputs and the same memory in every batch.

Shapes: B batch, l layers that run at once, S text tokens, T = read + S + write positions, M tokens of a block, D width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Blocks(NamedTuple):
    """How many memory tokens stand before and after the text, and how long each sample's text is.

    `lengths`: real tokens, (B), or (l, B) for the segments of several layers; None if all texts are full.
    """

    read: int
    text: int
    write: int
    lengths: Tensor | None = None

    def arrange(self, x_BTD: Tensor) -> Tensor:
        """From [read | text and padding | write] to [read | text | write | padding]."""
        columns_BT = self._columns()
        return x_BTD if columns_BT is None else x_BTD.gather(1, columns_BT[..., None].expand_as(x_BTD))

    def text_rows(self, x_BTD: Tensor) -> Tensor:
        """The text positions (B, S, D); what stands in rows of padding is undefined."""
        return x_BTD[:, self.read : self.read + self.text]

    def write_positions(self, x: Tensor) -> Tensor:
        """Where the write block stands in `x` (B, T, D) or (l, B, T, D), as `gather` and `scatter` want it."""
        end = x.shape[-2] - self.write if self.lengths is None else self.read + self.lengths[..., None]
        positions = end + torch.arange(self.write, device=x.device)
        return positions[..., None].expand(*x.shape[:-2], self.write, x.shape[-1])

    def write_rows(self, x: Tensor) -> Tensor:
        """The write block of `x`: (B, M, D) or (l, B, M, D)."""
        if self.lengths is None:
            return x[..., x.shape[-2] - self.write :, :]
        return x.gather(-2, self.write_positions(x))

    def chosen(self, rows_BN: Tensor) -> Tensor:
        """Where these rows of the text stand, and behind them the write block: (B, N + write)."""
        write_M = self.read + torch.arange(self.write, device=rows_BN.device)
        write_BM = write_M + (self.text if self.lengths is None else self.lengths[:, None])
        return torch.cat([self.read + rows_BN, write_BM.expand(len(rows_BN), -1)], dim=1)

    def split(self, x_BTD: Tensor, rows_BN: Tensor | None) -> tuple[Tensor, Tensor]:
        """Text and write block of all positions, or of those that `chosen` gave for these rows."""
        if rows_BN is None:
            return self.text_rows(x_BTD), self.write_rows(x_BTD)
        N = rows_BN.shape[1]
        return x_BTD[:, :N], x_BTD[:, N:]

    def unless_empty(self, after: Tensor, before: Tensor) -> Tensor:
        """`after` for samples that have text; the others keep `before`. Both are (B, M, D) or (l, B, M, D)."""
        return after if self.lengths is None else torch.where(self.lengths[..., None, None] > 0, after, before)

    def in_memory(self, device: torch.device) -> Tensor:
        """1 in the read block, 2 in the write block, 0 elsewhere: (1 or B, T)."""
        block_T = torch.zeros(self.read + self.text + self.write, dtype=torch.long, device=device)
        block_T[: self.read], block_T[self.read + self.text :] = 1, 2
        columns_BT = self._columns()
        return block_T[None] if columns_BT is None else block_T[columns_BT]

    def mask(self, device: torch.device) -> Tensor:
        """Causal, but all-to-all inside the read and inside the write block: (1 or B, T, T), True = may look."""
        block_BT = self.in_memory(device)
        same_BTT = (block_BT[:, :, None] == block_BT[:, None, :]) & (block_BT[:, :, None] > 0)
        T = block_BT.shape[1]
        return same_BTT | torch.ones(T, T, dtype=torch.bool, device=device).tril()

    def _columns(self) -> Tensor | None:
        """Which column of [read | text and padding | write] stands at each position (B, T); None if each its own."""
        if self.lengths is None or not self.write:
            return None
        t_T = torch.arange(self.read + self.text + self.write, device=self.lengths.device)
        end_B1 = self.read + self.lengths[:, None]
        write_BT = t_T - end_B1 + self.read + self.text
        return torch.where(t_T < end_B1, t_T, torch.where(t_T < end_B1 + self.write, write_BT, t_T - self.write))


def stack(blocks: Sequence[Blocks]) -> Blocks:
    """The blocks of segments of one shape that stand in successive layers."""
    first = blocks[0]
    if all(b.lengths is None for b in blocks):
        return first
    like = next(b.lengths for b in blocks if b.lengths is not None)
    return first._replace(
        lengths=torch.stack([torch.full_like(like, b.text) if b.lengths is None else b.lengths for b in blocks])
    )
