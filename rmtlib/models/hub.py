"""RMT as a Hugging Face model: wrap a pretrained backbone, save, load, generate.

Shapes: B batch, T tokens of the whole input, S segment size, V vocabulary.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from rmtlib.errors import RmtlibError
from rmtlib.models.adapters import AdaptsMemory
from rmtlib.models.backbones import load_hf
from rmtlib.models.decoder import Decoder, DecoderConfig
from rmtlib.models.generation import generate, greedy, sampler
from rmtlib.models.hf_weights import decoder_from_hf
from rmtlib.models.interface import select
from rmtlib.models.rmt import RMT, MemoryMask, RMTState
from rmtlib.segments import IGNORE, cut, next_token_labels


class RMTHubConfig(PretrainedConfig):
    """`decoder` holds the fields of a `DecoderConfig`; the others are those of `RMT` and of segmentation."""

    model_type = "rmtlib-rmt"

    def __init__(
        self,
        decoder: dict[str, Any] | None = None,
        memory_tokens: int = 16,
        segment_size: int = 512,
        memory_mask: MemoryMask = "causal",
        **kwargs: Any,
    ):
        self.decoder = decoder or asdict(DecoderConfig(vocab_size=50_257, d_model=768, n_layers=12, n_heads=12))
        self.memory_tokens = memory_tokens
        self.segment_size = segment_size
        self.memory_mask = memory_mask
        super().__init__(**kwargs)


@dataclass
class RMTOutput(ModelOutput):
    """`loss` (mean nats a label) if labels were given, else `logits` (B, T, V); `state` after the last segment."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: RMTState | None = None


class RMTForCausalLM(AdaptsMemory, PreTrainedModel):
    """A causal language model with recurrent memory.

    Example::

        model = RMTForCausalLM.from_backbone("gpt2", memory_tokens=16, segment_size=512)
        loss = model(input_ids, labels=input_ids).loss           # any length: cut into segments
        with torch.no_grad():                                    # or segment by segment, in constant memory
            hidden, state = model.step(segment_ids, state)
        model.save_pretrained("my-rmt"); RMTForCausalLM.from_pretrained("my-rmt")
    """

    config_class = RMTHubConfig
    base_model_prefix = "rmt"

    def __init__(self, config: RMTHubConfig, decoder: Decoder | None = None):
        super().__init__(config)
        decoder = decoder or Decoder(DecoderConfig(**config.decoder))
        positions, needed = decoder.config.max_positions, config.segment_size + 2 * config.memory_tokens
        if decoder.config.positions == "learned" and needed > positions:
            raise RmtlibError(
                f"segment_size {config.segment_size} and twice memory_tokens {config.memory_tokens} need {needed} "
                f"positions; the backbone has {positions}. Use a shorter segment"
            )
        self.rmt = RMT(decoder, config.memory_tokens, config.memory_mask)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """`Decoder` and `RMT` initialise themselves."""

    @classmethod
    def from_backbone(
        cls,
        backbone: str | PreTrainedModel,
        *,
        memory_tokens: int = 16,
        segment_size: int = 512,
        memory_mask: MemoryMask = "causal",
    ) -> "RMTForCausalLM":
        """Put new memory around a pretrained GPT-2, GPT-NeoX or Llama model.

        Args:
            backbone: the model, or its name: on the Hugging Face hub, a local folder, or "smollm2".

        Raises:
            RmtlibError: an architecture that `Decoder` does not hold, or a segment that does not fit its positions.
        """
        source = load_hf(backbone)[0] if isinstance(backbone, str) else backbone
        decoder = decoder_from_hf(source)
        special = {key: source.config.to_dict().get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        config = RMTHubConfig(asdict(decoder.config), memory_tokens, segment_size, memory_mask, **special)
        model = cls(config, decoder)
        model.rmt.to(decoder.tokens.weight)
        return model.eval()  # as `from_pretrained` does

    def initial_state(self, batch: int) -> RMTState:
        """See `RMT.initial_state`."""
        return self.rmt.initial_state(batch)

    def step(
        self,
        input_ids_BS: Tensor,
        state: RMTState,
        lengths_B: Tensor | None = None,
        *,
        write: bool = True,
        rows_BN: Tensor | None = None,
    ) -> tuple[Tensor, RMTState]:
        """See `RMT.step`."""
        return self.rmt.step(input_ids_BS, state, lengths_B, write=write, rows_BN=rows_BN)

    def nll(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """See `RMT.nll`."""
        return self.rmt.nll(hidden_ND, targets_N)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `RMT.logits`."""
        return self.rmt.logits(hidden)

    def state_size(self) -> int:
        """See `RMT.state_size`."""
        return self.rmt.state_size()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        state: RMTState | None = None,
        return_dict: bool = True,
    ) -> RMTOutput:
        """Read whole sequences, segment by segment.

        Args:
            input_ids: (B, T), padded on either side.
            attention_mask: (B, T), 0 on padding; padding is taken out before cutting.
            labels: (B, T), the tokens themselves with -100 where there is no loss, as everywhere in Hugging Face.
                With labels no logits are returned: only the labelled rows are ever projected.
            state: memory to start from, for a text that continues an earlier call's.
            return_dict: taken and ignored, because Hugging Face's trainer passes it.
        """
        device, S = input_ids.device, self.config.segment_size
        keep = _kept(input_ids, attention_mask)
        if labels is not None and labels.shape != input_ids.shape:
            raise RmtlibError(f"labels have shape {tuple(labels.shape)}, input_ids {tuple(input_ids.shape)}")
        rows = [ids[k].cpu().numpy() for ids, k in zip(input_ids, keep, strict=True)]
        if not any(map(len, rows)):
            raise RmtlibError("the input has no tokens; give at least one that is not padding")
        targets = None
        if labels is not None:
            kept = [row[k].cpu().numpy() for row, k in zip(labels, keep, strict=True)]
            targets = [next_token_labels(row, row != IGNORE) for row in kept]
        state = self.initial_state(len(rows)) if state is None else state
        losses, logits, count = [], [], 0
        for segment in cut(rows, targets, S):
            segment = segment.to(device)
            hidden_BSD, state = self.step(segment.input_ids_BS, state, segment.lengths_B)
            if labels is None:
                logits.append(self.logits(hidden_BSD))
                continue
            labelled_BS = segment.labels_BS != IGNORE
            if labelled_BS.any():
                losses.append(self.nll(hidden_BSD[labelled_BS], segment.labels_BS[labelled_BS]).sum())
                count += int(labelled_BS.sum())
        if labels is not None:
            return RMTOutput(loss=torch.stack(losses).sum() / count if count else None, state=state)
        longest = torch.cat(logits, dim=1)
        out = longest.new_zeros(*input_ids.shape, longest.shape[-1])
        for b, k in enumerate(keep):
            out[b, k] = longest[b, : int(k.sum())]
        return RMTOutput(logits=out, state=state)

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        max_new_tokens: int = 20,
        eos_token_id: int | None = None,
        pad_token_id: int | None = None,
        do_sample: bool = False,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        state: RMTState | None = None,
    ) -> Tensor:
        """Continue prompts, with memory, across segment borders.

        Returns:
            (B, T + new tokens): `input_ids` as given, then the new tokens, padded with `pad_token_id` (default: EOS).
        """
        keep = _kept(input_ids, attention_mask)
        lengths = keep.sum(1).tolist()
        if min(lengths) < 1:
            raise RmtlibError("a prompt has no tokens; give each at least one")
        eos = eos_token_id if eos_token_id is not None else self.config.to_dict().get("eos_token_id")
        pad = next((x for x in (pad_token_id, eos) if x is not None), 0)
        state = self.initial_state(len(lengths)) if state is None else state
        choose = sampler(temperature, generator) if do_sample else greedy
        new, used = input_ids.new_full((len(lengths), max_new_tokens), pad), 0
        for length in sorted(set(lengths)):  # rows of equal length together: no row sees another's padding
            rows = [b for b, n in enumerate(lengths) if n == length]
            prompts = torch.stack([input_ids[b, keep[b]] for b in rows])
            part = select(state, torch.tensor(rows, device=input_ids.device))
            made = generate(
                self.rmt, prompts, part, self.config.segment_size, max_new_tokens, eos_id=eos, choose=choose
            )
            for b, row in zip(rows, made, strict=True):
                stop = row.shape[0] if eos is None else int((row == eos).long().cumsum(0).le(1).sum())
                new[b, :stop] = row[:stop]
                used = max(used, stop)
        return torch.cat([input_ids, new[:, :used]], dim=1)


def _kept(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """(B, T), True where there is a token. Raises RmtlibError if the input is no batch of token ids."""
    shape, kind = tuple(input_ids.shape), input_ids.dtype
    if len(shape) != 2:
        raise RmtlibError(f"input_ids have shape {shape}, not (batch, tokens); for one text give input_ids[None]")
    if not shape[0]:
        raise RmtlibError("input_ids are an empty batch; give at least one text")
    if kind.is_floating_point or kind.is_complex or kind == torch.bool:
        raise RmtlibError(f"input_ids are {kind}, not token ids; give whole numbers, e.g. input_ids.long()")
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    if attention_mask.shape != input_ids.shape:
        raise RmtlibError(f"attention_mask has shape {tuple(attention_mask.shape)}, input_ids {shape}")
    return attention_mask.bool()
