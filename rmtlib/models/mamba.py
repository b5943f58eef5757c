"""Mamba (Gu & Dao 2023): selective state spaces, with a state carried over chunks of any length.

One layer, on its normalised input:

    x, gate = in(u)                     x = silu(causal convolution of x)
    dt, B, C = projections of x         a_t = exp(dt_t A),  b_t = dt_t B_t x_t
    h_t = a_t h_{t-1} + b_t             y_t = C_t . h_t + D x_t         out(y * silu(gate))

What has to pass from one chunk to the next is h after its last token and the last W - 1 inputs of the convolution. With
both carried, a text read in chunks of any lengths, also one token at a time, gives what it gives in one piece, forward
and backward.

Shapes: L layers, B batch, S tokens of a chunk, D width, I inner width, N state size of a channel, R rank of dt,
W taps of the convolution, V vocabulary.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmtlib.errors import RmtlibError
from rmtlib.models.config import MambaConfig
from rmtlib.models.interface import LanguageModel, take_rows
from rmtlib.models.precision import vocabulary_scores
from rmtlib.models.selective_scan import selective_scan, selective_scan_by_token
from rmtlib.models.short_convolution import convolve_silu


class MambaState(NamedTuple):
    """Last inputs of the convolutions (L, B, W-1, I) and states of the scans (L, B, I, N); the latter in float32."""

    conv_LBWI: Tensor
    scan_LBIN: Tensor


class MambaLayer(nn.Module):
    """Pre-norm residual layer around one selective state space.

    Its maps `into`, `select`, `step_size`, `log_decay_IN`, `skip_I` and `out` are the published code's in_proj, x_proj,
    dt_proj, A_log, D and out_proj.
    """

    def __init__(self, config: MambaConfig):
        super().__init__()
        D, inner, N, rank = config.d_model, config.d_inner, config.state_size, config.rank
        self.sizes = [rank, N, N]
        self.norm = nn.RMSNorm(D, eps=config.norm_eps)
        self.into = nn.Linear(D, 2 * inner, bias=config.bias)
        self.conv = nn.Conv1d(inner, inner, config.conv_taps, groups=inner, bias=config.conv_bias)
        self.select = nn.Linear(inner, rank + 2 * N, bias=False)
        self.step_size = nn.Linear(rank, inner)
        self.log_decay_IN = nn.Parameter(torch.arange(1.0, N + 1).log().expand(inner, N).clone())
        self.skip_I = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, D, bias=config.bias)
        nn.init.uniform_(self.step_size.weight, -(rank**-0.5), rank**-0.5)
        dt_I = torch.exp(torch.empty(inner).uniform_(math.log(1e-3), math.log(0.1)))  # log-uniform in [0.001, 0.1]
        self.step_size.bias.data = dt_I + torch.log(-torch.expm1(-dt_I))  # softplus of it is dt

    def forward(
        self, u_BSD: Tensor, conv_BWI: Tensor, scan_BIN: Tensor, lengths_B: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The layer's outputs on one chunk, and what it carries on.

        One token takes the recurrence as it is defined and the convolution as one sum: the calls of a scan over a
        chunk, and of a convolution, cost more than their arithmetic. Equal up to rounding.
        """
        one_token = u_BSD.shape[1] == 1
        x_BSI, gate_BSI = self.into(self.norm(u_BSD)).chunk(2, dim=-1)
        seen_BTI = torch.cat([conv_BWI.to(x_BSI.dtype), x_BSI], dim=1)
        if one_token:
            x_BSI = F.silu(self._convolve_last(seen_BTI))
        else:
            x_BSI = convolve_silu(seen_BTI, self.conv.weight, self.conv.bias)
        dt_BSR, B_BSN, C_BSN = self.select(x_BSI).split(self.sizes, dim=-1)
        dtype = scan_BIN.dtype  # float32 or higher, also under autocast
        dt_BSI = F.softplus(self.step_size(dt_BSR).to(dtype))
        if lengths_B is not None:  # no time passes at padding: the state stays
            real_BS = torch.arange(u_BSD.shape[1], device=u_BSD.device) < lengths_B[:, None]
            dt_BSI = dt_BSI * real_BS[..., None]
        decay_IN = -self.log_decay_IN.to(dtype).exp()
        scan = selective_scan_by_token if one_token else selective_scan
        y_BSI, scan_BIN = scan(x_BSI.to(dtype), dt_BSI, decay_IN, B_BSN.to(dtype), C_BSN.to(dtype), scan_BIN)
        y_BSI = (y_BSI + x_BSI * self.skip_I) * F.silu(gate_BSI)
        return u_BSD + self.out(y_BSI.to(u_BSD.dtype)), self._last(seen_BTI, lengths_B).to(conv_BWI.dtype), scan_BIN

    def _convolve_last(self, seen_BWI: Tensor) -> Tensor:
        """The convolution's output at the last of W positions: (B, 1, I)."""
        y_B1I = (seen_BWI * self.conv.weight[:, 0].T.to(seen_BWI.dtype)).sum(1, keepdim=True)
        return y_B1I if self.conv.bias is None else y_B1I + self.conv.bias.to(y_B1I.dtype)

    def _last(self, seen_BTI: Tensor, lengths_B: Tensor | None) -> Tensor:
        """The W - 1 inputs up to each sample's last real token."""
        W1 = self.conv.kernel_size[0] - 1
        if lengths_B is None:
            return seen_BTI[:, seen_BTI.shape[1] - W1 :]
        at_BW = lengths_B[:, None] + torch.arange(W1, device=seen_BTI.device)
        return seen_BTI.gather(1, at_BW[..., None].expand(-1, -1, seen_BTI.shape[2]))


class Mamba(LanguageModel):
    """Mamba with an explicit state: ``hidden, state = model.step(input_ids, state)``, chunk after chunk.

    New step sizes and decays are as in Gu and Dao (2023), section 3.6; for the others see `MambaConfig.init`.
    """

    def __init__(self, config: MambaConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(MambaLayer(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.head = None if config.tied else nn.Linear(config.d_model, config.vocab_size, bias=False)
        nn.init.normal_(self.tokens.weight, std=config.d_model**-0.5)
        if config.init == "huggingface":
            self._initialise_as_hugging_face()

    @torch.no_grad()
    def _initialise_as_hugging_face(self) -> None:
        """What MambaPreTrainedModel._init_weights draws otherwise than PyTorch (transformers 5.23)."""
        for module in (self.tokens, self.head):
            if module is not None:
                nn.init.normal_(module.weight, std=0.1)
        layer: Any
        for layer in self.layers:
            for module in (layer.into, layer.select):
                nn.init.normal_(module.weight, std=0.1)
            for module in (layer.into, layer.conv, layer.out):
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def initial_state(self, batch: int) -> MambaState:
        """Zeros: nothing read yet."""
        c, like = self.config, self.tokens.weight
        dtype = torch.promote_types(like.dtype, torch.float32)
        return MambaState(
            like.new_zeros(c.n_layers, batch, c.conv_taps - 1, c.d_inner),
            like.new_zeros(c.n_layers, batch, c.d_inner, c.state_size, dtype=dtype),
        )

    def state_size(self) -> int:
        """Floats carried from chunk to chunk, per sample: scans and convolutions."""
        c = self.config
        return c.n_layers * c.d_inner * (c.state_size + c.conv_taps - 1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary scores of chosen rows of `hidden`."""
        return vocabulary_scores(hidden, self.tokens.weight if self.head is None else self.head.weight)

    def step(
        self,
        input_ids_BS: Tensor,
        state: MambaState,
        lengths_B: Tensor | None = None,
        *,
        write: bool = True,
        rows_BN: Tensor | None = None,
    ) -> tuple[Tensor, MambaState]:
        """Read one chunk. Arguments and results as `RMT.step`; S may be any number and change from call to call."""
        x_BSD, convs, scans = self.tokens(input_ids_BS), [], []
        for layer, conv_BWI, scan_BIN in zip(self.layers, *state, strict=True):
            x_BSD, conv_BWI, scan_BIN = layer(x_BSD, conv_BWI, scan_BIN, lengths_B)
            convs.append(conv_BWI)
            scans.append(scan_BIN)
        hidden_BND = self.norm(x_BSD if rows_BN is None else take_rows(x_BSD, rows_BN))
        return hidden_BND, MambaState(torch.stack(convs), torch.stack(scans)) if write else state


_NAMES = {
    "mixer.in_proj": "into",
    "mixer.conv1d": "conv",
    "mixer.x_proj": "select",
    "mixer.dt_proj": "step_size",
    "mixer.A_log": "log_decay_IN",
    "mixer.D": "skip_I",
    "mixer.out_proj": "out",
    "norm": "norm",
}


def mamba_from_hf(model: Any) -> Mamba:
    """A `Mamba` with the weights, dtype, device and mode (training or eval) of a Hugging Face MambaForCausalLM.

    Raises:
        RmtlibError: another architecture or activation.
    """
    c = model.config
    if c.model_type != "mamba" or c.hidden_act != "silu":
        raise RmtlibError(
            f"model type {c.model_type!r} with activation {getattr(c, 'hidden_act', None)!r} is not supported; "
            "use a MambaForCausalLM with silu"
        )
    config = MambaConfig(
        vocab_size=c.vocab_size,
        d_model=c.hidden_size,
        n_layers=c.num_hidden_layers,
        state_size=c.state_size,
        expand=c.intermediate_size // c.hidden_size,
        conv_taps=c.conv_kernel,
        dt_rank=int(c.time_step_rank),
        bias=c.use_bias,
        conv_bias=c.use_conv_bias,
        norm_eps=c.layer_norm_epsilon,
        tied=c.tie_word_embeddings,
    )
    first = next(iter(model.parameters()))
    ours = Mamba(config).to(first.device, first.dtype)
    weights = {}
    for name, weight in model.state_dict().items():
        name = name.removeprefix("backbone.").replace("embeddings.", "tokens.").replace("norm_f.", "norm.")
        for theirs, mine in _NAMES.items() if name.startswith("layers.") else ():
            name = name.replace(f".{theirs}", f".{mine}")
        weights[name.replace("lm_head.", "head.")] = weight.detach().clone()
    if config.tied:
        weights.pop("head.weight", None)
    ours.load_state_dict(weights)
    return ours.train(model.training)
