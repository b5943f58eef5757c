"""RWKV-5 (Peng et al. 2024, "Eagle"; version 5.2 of the released code), with a state carried over segments.

One layer is a time mix and a channel mix, each on its normalised input x and its predecessor x':

    r, k, v = maps of lerp(x', x, mix)         g = silu of another
    y_t = r_t (S_{t-1} + u k_t' v_t)           S_t = w S_{t-1} + k_t' v_t          of every head, w = exp(-exp(decay))
    out(groupnorm(y) * g)

    sigmoid(r) * value(relu(key)^2)            the channel mix, with mixtures of its own

w decays each key channel at its own constant rate, u is the bonus of the current token. What passes from one segment to
the next is S of every head and the last x of both mixes. A text read in segments of any lengths, also one token at a
time, gives what it gives in one piece.

Shapes: L layers, B batch, S tokens of a segment, T of a chunk, D width, H heads, E width of a head, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmtlib.models.config import RWKVConfig
from rmtlib.models.interface import LanguageModel, take_rows
from rmtlib.models.precision import full_precision, vocabulary_scores

CHUNK = 16  # tokens whose products are formed at once: they take B * CHUNK^2 * D numbers


class RWKVState(NamedTuple):
    """The last inputs of the time and channel mixes, and every head's S; the latter in float32."""

    time_LBD: Tensor
    channel_LBD: Tensor
    memory_LBHEE: Tensor


def wkv(
    r_BSHE: Tensor,
    k_BSHE: Tensor,
    v_BSHE: Tensor,
    log_decay_HE: Tensor,
    bonus_HE: Tensor,
    memory_BHEE: Tensor,
    real_B: Tensor,
) -> tuple[Tensor, Tensor]:
    """Outputs y (B, S, H, E) and S after the last token (B, H, E, E), chunk by chunk.

    Inside a chunk a token i gets from an earlier j what w^(i-1-j) leaves. These powers are formed as they are, never as
    the quotient w^i / w^(j+1), which overflows if a rate is fast.

    Args:
        log_decay_HE: log w, negative.
        real_B: each sample's real tokens; those after them must have k = 0, and no time passes there.
    """
    outputs = []
    for first in range(0, k_BSHE.shape[1], CHUNK):
        r_BHTE, k_BHTE, v_BHTE = (x[:, first : first + CHUNK].transpose(1, 2) for x in (r_BSHE, k_BSHE, v_BSHE))
        t_T = torch.arange(k_BHTE.shape[2], device=k_BHTE.device)
        gap_TT = t_T[:, None] - 1 - t_T
        kept_HTTE = (log_decay_HE[:, None, None] * gap_TT.clamp(min=0)[..., None]).exp()
        kept_HTTE = kept_HTTE * (gap_TT >= 0)[..., None] + bonus_HE[:, None, None] * (gap_TT == -1)[..., None]
        left_B = (real_B - first).clamp(0, len(t_T))
        ahead_BT = (left_B[:, None] - 1 - t_T).clamp(min=0)
        with full_precision(k_BHTE):
            score_BHTT = torch.einsum("bhie,bhje,hije->bhij", r_BHTE, k_BHTE, kept_HTTE)
            read_BHTE = r_BHTE * (log_decay_HE[:, None] * t_T[:, None]).exp()
            outputs.append((score_BHTT @ v_BHTE + read_BHTE @ memory_BHEE).transpose(1, 2))
            written_BHTE = k_BHTE * (log_decay_HE[:, None] * ahead_BT[:, None, :, None]).exp()
            faded_BHE1 = (log_decay_HE * left_B[:, None, None]).exp()[..., None]
            memory_BHEE = faded_BHE1 * memory_BHEE + written_BHTE.mT @ v_BHTE
    return torch.cat(outputs, dim=1) if outputs else torch.zeros_like(v_BSHE), memory_BHEE


def wkv_by_token(
    r_BSHE: Tensor,
    k_BSHE: Tensor,
    v_BSHE: Tensor,
    log_decay_HE: Tensor,
    bonus_HE: Tensor,
    memory_BHEE: Tensor,
    real_B: Tensor,
) -> tuple[Tensor, Tensor]:
    """The definition, token after token; what tests compare `wkv` with."""
    outputs = []
    for t in range(k_BSHE.shape[1]):
        pair_BHEE = k_BSHE[:, t, :, :, None] * v_BSHE[:, t, :, None]
        outputs.append((r_BSHE[:, t, :, None] @ (memory_BHEE + bonus_HE[..., None] * pair_BHEE))[:, :, 0])
        after_BHEE = log_decay_HE.exp()[..., None] * memory_BHEE + pair_BHEE
        memory_BHEE = torch.where((t < real_B)[:, None, None, None], after_BHEE, memory_BHEE)
    return torch.stack(outputs, dim=1) if outputs else torch.zeros_like(v_BSHE), memory_BHEE


def _shifted(x_BSD: Tensor, last_BD: Tensor, real_B: Tensor) -> tuple[Tensor, Tensor]:
    """Every token's predecessor (B, S, D), and the last real token (B, D)."""
    seen_BTD = torch.cat([last_BD[:, None].to(x_BSD.dtype), x_BSD], dim=1)
    last_B1D = seen_BTD.gather(1, real_B[:, None, None].expand(-1, 1, seen_BTD.shape[2]))
    return seen_BTD[:, :-1], last_B1D[:, 0].to(last_BD.dtype)


def _mixtures(count: int, width: int, power: float, more: float = 0.0) -> Tensor:
    """Shares (count, width) of the token itself in the mixture with its predecessor, growing with the channel."""
    return ((torch.arange(width) / width) ** power + more).expand(count, width).clone()


class TimeMix(nn.Module):
    """Reads and writes the heads' S. New decays, bonuses and mixtures as released (V5-R4)."""

    def __init__(self, config: RWKVConfig, depth: int):
        super().__init__()
        D, H, E = config.d_model, config.n_heads, config.head_width
        share, rest = depth / max(config.n_layers - 1, 1), 1 - depth / config.n_layers
        self.receptance, self.key, self.value, self.gate, self.out = (nn.Linear(D, D, bias=False) for _ in range(5))
        self.norm = nn.GroupNorm(H, D, eps=64e-5)
        mixtures = [(rest, 0.0), (rest, 0.3 * share), (rest / 2, 0.0), (rest / 2, 0.0)]
        self.mix_4D = nn.Parameter(torch.cat([_mixtures(1, D, power, more) for power, more in mixtures]))  # k, v, r, g
        n_D = torch.arange(D)
        place_D = n_D / max(D - 1, 1)
        self.decay_HE = nn.Parameter((-6 + 5 * place_D ** (0.7 + 1.3 * share)).view(H, E))
        zigzag_D = ((n_D + 1) % 3 - 1) * 0.1
        self.bonus_HE = nn.Parameter((share * (1 - place_D) + zigzag_D).view(H, E))

    def forward(
        self, x_BSD: Tensor, last_BD: Tensor, memory_BHEE: Tensor, real_B: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs, the last real x, and S after it."""
        before_BSD, last_BD = _shifted(x_BSD, last_BD, real_B)
        k_in, v_in, r_in, g_in = (torch.lerp(before_BSD, x_BSD, mix_D) for mix_D in self.mix_4D.to(x_BSD.dtype))
        dtype, heads = memory_BHEE.dtype, self.decay_HE.shape  # float32 or higher, also under autocast
        r, k, v = (
            linear(x).to(dtype).unflatten(-1, heads)
            for linear, x in ((self.receptance, r_in), (self.key, k_in), (self.value, v_in))
        )
        real_BS = torch.arange(x_BSD.shape[1], device=x_BSD.device) < real_B[:, None]
        k = k * real_BS[..., None, None]
        y_BSHE, memory_BHEE = wkv(r, k, v, -self.decay_HE.to(dtype).exp(), self.bonus_HE.to(dtype), memory_BHEE, real_B)
        y_BSD = self.norm(y_BSHE.flatten(0, 1).flatten(1).to(self.norm.weight.dtype)).view(x_BSD.shape)
        return self.out(y_BSD.to(x_BSD.dtype) * F.silu(self.gate(g_in))), last_BD, memory_BHEE


class ChannelMix(nn.Module):
    """The layer's other half: a gated map of each token, mixed with its predecessor."""

    def __init__(self, config: RWKVConfig, depth: int):
        super().__init__()
        D = config.d_model
        self.key = nn.Linear(D, config.inner_width, bias=False)
        self.value = nn.Linear(config.inner_width, D, bias=False)
        self.receptance = nn.Linear(D, D, bias=False)
        self.mix_2D = nn.Parameter(_mixtures(2, D, 1 - depth / config.n_layers))  # k, r

    def forward(self, x_BSD: Tensor, last_BD: Tensor, real_B: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs, and the last real x."""
        before_BSD, last_BD = _shifted(x_BSD, last_BD, real_B)
        k_in, r_in = (torch.lerp(before_BSD, x_BSD, mix_D) for mix_D in self.mix_2D.to(x_BSD.dtype))
        return self.receptance(r_in).sigmoid() * self.value(self.key(k_in).relu().square()), last_BD


class RWKVLayer(nn.Module):
    """Pre-norm residual layer of a time mix and a channel mix."""

    def __init__(self, config: RWKVConfig, depth: int):
        super().__init__()
        self.time_norm, self.channel_norm = nn.LayerNorm(config.d_model), nn.LayerNorm(config.d_model)
        self.time, self.channel = TimeMix(config, depth), ChannelMix(config, depth)


class RWKV(LanguageModel):
    """RWKV-5 with an explicit state: ``hidden, state = model.step(input_ids, state)``, segment after segment.

    New linear maps as PyTorch draws them, embeddings N(0, 1/D); a norm follows the embeddings, as released.
    """

    def __init__(self, config: RWKVConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.first_norm, self.norm = nn.LayerNorm(config.d_model), nn.LayerNorm(config.d_model)
        self.layers = nn.ModuleList(RWKVLayer(config, depth) for depth in range(config.n_layers))
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        nn.init.normal_(self.tokens.weight, std=config.d_model**-0.5)

    def initial_state(self, batch: int) -> RWKVState:
        """Zeros: nothing read yet."""
        c, like = self.config, self.tokens.weight
        dtype = torch.promote_types(like.dtype, torch.float32)
        last_LBD = like.new_zeros(c.n_layers, batch, c.d_model)
        heads = (c.n_heads, c.head_width, c.head_width)
        return RWKVState(last_LBD, last_LBD.clone(), like.new_zeros(c.n_layers, batch, *heads, dtype=dtype))

    def state_size(self) -> int:
        """Floats carried from segment to segment, per sample."""
        c = self.config
        return c.n_layers * c.d_model * (2 + c.head_width)

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary scores of chosen rows of `hidden`."""
        return vocabulary_scores(hidden, self.head.weight)

    def step(
        self,
        input_ids_BS: Tensor,
        state: RWKVState,
        lengths_B: Tensor | None = None,
        *,
        write: bool = True,
        rows_BN: Tensor | None = None,
    ) -> tuple[Tensor, RWKVState]:
        """Read one segment. Arguments and results as `RMT.step`; S may be any number and change from call to call."""
        B, S = input_ids_BS.shape
        real_B = torch.full((B,), S, device=input_ids_BS.device) if lengths_B is None else lengths_B
        x_BSD, after = self.first_norm(self.tokens(input_ids_BS)), []
        layer: Any
        for layer, time_BD, channel_BD, memory_BHEE in zip(self.layers, *state, strict=True):
            mixed_BSD, time_BD, memory_BHEE = layer.time(layer.time_norm(x_BSD), time_BD, memory_BHEE, real_B)
            x_BSD = x_BSD + mixed_BSD
            mixed_BSD, channel_BD = layer.channel(layer.channel_norm(x_BSD), channel_BD, real_B)
            x_BSD = x_BSD + mixed_BSD
            after.append((time_BD, channel_BD, memory_BHEE))
        hidden_BND = self.norm(x_BSD if rows_BN is None else take_rows(x_BSD, rows_BN))
        return hidden_BND, RWKVState(*map(torch.stack, zip(*after, strict=True))) if write else state
