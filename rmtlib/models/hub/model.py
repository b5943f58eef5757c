"""Models with memory as Hugging Face models: wrap a pretrained backbone, train, save, load, generate.

Shapes: B batch, T tokens of the whole input, n new tokens, S segment size, D width, V vocabulary.
"""

import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from rmtlib.errors import RmtlibError
from rmtlib.models.adapters import AdaptsMemory
from rmtlib.models.armt import ARMT
from rmtlib.models.backbones import load_hf
from rmtlib.models.hf_decoder import Backbone, backbone_from_config, backbone_from_hf
from rmtlib.models.hub.cache import MemoryCache
from rmtlib.models.hub.card import write_card
from rmtlib.models.hub.config import (
    TOKEN_IDS,
    ARMTHubConfig,
    MemoryConfig,
    RMTHubConfig,
    check_settings,
    is_token,
    listed,
)
from rmtlib.models.hub.generation import MemoryGeneration
from rmtlib.models.hub.inputs import at_tokens, kept, last_columns, target_rows, token_rows
from rmtlib.models.hub.loading import load
from rmtlib.models.hub.reading import read_loss, read_outputs
from rmtlib.models.interface import State, check_finite, check_state
from rmtlib.models.rmt import RMT
from rmtlib.segments import cut


@dataclass
class MemoryOutput(ModelOutput):
    """What a call returns.

    `loss`: mean nats a label, if there are labels. `logits`: (B, T, V), at padding those of an output of zeros.
    `past_key_values`: a `MemoryCache`, if `use_cache`. `state`: the memory after the last segment; with `use_cache` the
    cache tells it.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: MemoryCache | None = None
    state: State | None = None


class MemoryForCausalLM(AdaptsMemory, MemoryGeneration, PreTrainedModel):
    """A causal language model that reads its input in segments and carries memory from one to the next.

    Base of `RMTForCausalLM` and `ARMTForCausalLM`. Beside Hugging Face's interface it has the package's own
    (`rmtlib.models.interface`): `initial_state`, `step`, `nll`, `logits`, `state_size`.
    """

    config: MemoryConfig
    config_class: Any
    memory_blocks: int  # how often the memory tokens stand in a segment
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _supports_sdpa = True

    def __init__(self, config: Any, decoder: Backbone | None = None):
        super().__init__(config)
        decoder = decoder or backbone_from_config(config.backbone)
        has, needed = decoder.config.position_limit, config.segment_size + self.memory_blocks * config.memory_tokens
        if has is not None and needed > has:
            raise RmtlibError(
                f"segment_size {config.segment_size} and {self.memory_blocks} x {config.memory_tokens} memory_tokens "
                f"need {needed} positions; the backbone has {has}. Use a shorter segment"
            )
        setattr(self, self.base_model_prefix, self.around(decoder, config))
        self.gradient_checkpointing = False
        self.post_init()
        for name, part in self.named_modules():  # an `HFDecoder`'s own tied weights
            if isinstance(part, PreTrainedModel) and part is not self:
                tied = {f"{name}.{k}": f"{name}.{v}" for k, v in part.all_tied_weights_keys.items()}
                self.all_tied_weights_keys |= tied

    @classmethod
    def around(cls, decoder: Backbone, config: Any) -> Any:
        """The model with memory around this decoder."""
        raise NotImplementedError

    @property
    def core(self) -> Any:
        """The model with memory: an `RMT` or an `ARMT`."""
        return getattr(self, self.base_model_prefix)

    def _init_weights(self, module: nn.Module) -> None:
        """The decoder and the memory initialise themselves."""

    @classmethod
    def from_backbone(
        cls,
        backbone: str | PreTrainedModel,
        *,
        memory_tokens: int = 16,
        segment_size: int = 512,
        attn_implementation: str | None = None,
        **settings: Any,
    ) -> Any:
        """Put new memory around a pretrained causal language model, of any type; see `backbone_from_hf`.

        Args:
            backbone: the model, or its name: on the Hugging Face hub, a local folder, or "smollm2".
            memory_tokens: M.
            segment_size: S, in tokens.
            attn_implementation: as Hugging Face's; see `backbone_from_hf`. None: what the backbone has.
            settings: others of the config class, e.g. `bptt`, `memory_mask` (RMT), `d_memory` (ARMT).

        Raises:
            RmtlibError: a model that cannot be a backbone, an unknown setting, or a segment that does not
                fit the backbone's positions.
        """
        check_settings(cls.config_class, settings)
        source = load_hf(backbone)[0] if isinstance(backbone, str) else backbone
        if isinstance(source, MemoryForCausalLM):
            raise RmtlibError(
                f"the backbone is a {type(source).__name__}, which has memory: load it by from_pretrained"
            )
        if not hasattr(source, "state_dict"):
            raise RmtlibError(f"the backbone is {source!r}; give a causal language model of transformers, or its name")
        decoder = backbone_from_hf(source, attn_implementation)
        known = source.config.to_dict()
        there = partial(is_token, vocab_size=decoder.config.vocab_size)  # tiny models have GPT-2's 50,256, Llama has -1
        for key in TOKEN_IDS:
            settings[key] = known.get(key) if all(map(there, listed(known.get(key)))) else None
        settings["backbone_name"] = backbone if isinstance(backbone, str) else source.config._name_or_path or None
        config = cls.config_class(asdict(decoder.config), memory_tokens, segment_size, **settings)
        model = cls(config, decoder)
        model.core.to(decoder.tokens.weight)
        if getattr(source, "generation_config", None) is not None:
            model.generation_config = copy.deepcopy(source.generation_config)
        return model.eval()  # as `from_pretrained` does

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *arguments: Any, **options: Any) -> Any:
        """As Hugging Face's, from safetensors alone, and strict: see `rmtlib.models.hub.loading.load`."""
        original = super().from_pretrained
        if pretrained_model_name_or_path is None:  # a config and weights in memory
            return original(None, *arguments, **options)
        return load(cls, original, str(pretrained_model_name_or_path), *arguments, **options)

    def save_pretrained(self, save_directory: Any, *arguments: Any, **options: Any) -> None:
        """As Hugging Face's, with a model card in README.md unless the folder has one."""
        write_card(self, save_directory)
        super().save_pretrained(save_directory, *arguments, **options)

    def _set_gradient_checkpointing(self, enable: bool = True, *_: Any, **__: Any) -> None:
        """For whole segments. Hugging Face's would also set it in a backbone that is its own module."""
        self.gradient_checkpointing = enable

    def enable_adapters(self) -> None:
        """As transformers' own, which leaves the modules off that are trained as a whole, memory among them."""
        from peft.utils import ModulesToSaveWrapper

        super().enable_adapters()
        for module in self.modules():
            if isinstance(module, ModulesToSaveWrapper):
                module.enable_adapters(enabled=True)

    # The package's own interface.

    def initial_state(self, batch: int) -> State:
        """The state before the first segment."""
        return self.core.initial_state(batch)

    def step(
        self,
        input_ids_BS: Tensor,
        state: State,
        lengths_B: Tensor | None = None,
        *,
        write: bool = True,
        rows_BN: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Read one segment; see `RecurrentModel.step`."""
        return self.core.step(input_ids_BS, state, lengths_B, write=write, rows_BN=rows_BN)

    def nll(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Negative log-likelihood (N) in nats of one target a row."""
        return self.core.nll(hidden_ND, targets_N)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., V) of chosen rows of `hidden` (..., D)."""
        return self.core.logits(hidden)

    def state_size(self) -> int:
        """Floats that pass from segment to segment, per sample."""
        return self.core.state_size()

    # Hugging Face's.

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        state: State | None = None,
        past_key_values: MemoryCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_logits: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        return_dict: bool | None = True,
        **others: Any,
    ) -> MemoryOutput | tuple:
        """Read whole sequences, segment by segment.

        Args:
            input_ids: (B, T), padded on either side.
            attention_mask: (B, T), 0 on padding; padding is taken out before cutting. With `past_key_values` it may
                be longer: its last columns are those of `input_ids`.
            labels: (B, T), the tokens themselves with -100 where there is no loss, as everywhere in Hugging Face.
            state: memory to start from, for a text that continues an earlier call's.
            past_key_values: what earlier tokens left, of an earlier call's output.
            use_cache: return a cache, so that the next tokens continue the segment that is open at the end.
            logits_to_keep: of the last so many columns alone; 0: of all. For a row that ends in padding the last
                column is that of its last token.
            return_logits: with labels, whether logits are returned too: they take B T V floats. None: as the config
                says, else in evaluation only. Without labels they always are.
            num_items_in_batch: the loss is the sum over labels divided by this (Trainer's gradient accumulation).
            return_dict: False for a tuple.
            others: what models of other kinds take, e.g. `inputs_embeds`; all None, as PEFT passes them.

        Raises:
            TypeError: an unknown argument.
            RmtlibError: an input that is no batch of token ids, or, in evaluation, memory that is not finite.
        """
        if unknown := [name for name, value in others.items() if value is not None]:
            raise TypeError(f"{type(self).__name__}.forward() got an unexpected keyword argument {unknown[0]!r}")
        if past_key_values is not None or use_cache:
            if labels is not None:
                raise RmtlibError("labels do not go with past_key_values; give the state of an earlier call instead")
            output = self._continue(input_ids, attention_mask, state, past_key_values, logits_to_keep)
            return output.to_tuple() if return_dict is False else output
        keep_BT = kept(input_ids, attention_mask)
        rows = token_rows(input_ids, keep_BT, self.config.vocab_size)
        targets = None if labels is None else target_rows(labels, keep_BT, self.config.vocab_size)
        segments = [segment.to(self.device) for segment in cut(rows, targets, self.config.segment_size)]
        state = self._start(state, len(rows))
        if return_logits is None:
            return_logits = self.config.return_logits
        with_logits = labels is None or (not self.training if return_logits is None else return_logits)
        total, logits = None, None
        trained = self.training and torch.is_grad_enabled()
        recompute, bptt = trained and self.gradient_checkpointing, self.config.bptt if trained else None
        if with_logits:
            if bptt is not None:
                raise RmtlibError(
                    f"bptt {bptt} needs the loss that the model computes from labels, without logits: "
                    "no label smoothing or loss of your own, return_logits left alone"
                )
            hidden_BTD, total, state = read_outputs(self.core, segments, state, recompute)
            logits = self.logits(last_columns(at_tokens(hidden_BTD, keep_BT.to(self.device)), keep_BT, logits_to_keep))
        else:
            total, state = read_loss(self.core, segments, state, recompute, bptt)
        if not self.training:
            check_finite(state)
        loss = None
        if labels is not None:
            count = sum(len(segment.labelled().targets_K) for segment in segments)
            loss = total / (max(count, 1) if num_items_in_batch is None else num_items_in_batch)
        output = MemoryOutput(loss=loss, logits=logits, state=state)
        return output.to_tuple() if return_dict is False else output

    def _continue(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        state: State | None,
        cache: MemoryCache | None,
        logits_to_keep: int,
    ) -> MemoryOutput:
        """Read more tokens into the open segments of a cache, or of a new one."""
        if attention_mask is not None and input_ids.ndim == 2:
            attention_mask = attention_mask[:, -input_ids.shape[1] :]
        keep_Bn = kept(input_ids, attention_mask)
        if cache is None or not cache.columns or input_ids.shape[1] > 1:
            token_rows(input_ids, keep_Bn, self.config.vocab_size)  # for its checks: these are not generated tokens
        input_ids, keep_Bn = input_ids.to(self.device), keep_Bn.to(self.device)
        if cache is not None and state is not None:
            raise RmtlibError("give past_key_values or a state, not both: the cache goes on from its own state")
        cache = self.new_cache(state, len(input_ids)) if cache is None else cache
        hidden_BnD = cache.read(input_ids, keep_Bn)
        logits = self.logits(last_columns(hidden_BnD, keep_Bn, logits_to_keep))
        return MemoryOutput(logits=logits, past_key_values=cache)

    def new_cache(self, state: State | None, rows: int) -> MemoryCache:
        """A cache that has read nothing, with memory from a state of so many rows or the initial one."""
        start = self._start(state, rows)
        return MemoryCache(self.core, self.config.segment_size, start, rows, checked=not self.training)

    def _start(self, state: State | None, rows: int) -> State:
        if state is None:
            return self.initial_state(rows)
        check_state(state, self.initial_state(rows))
        return state

    # Embeddings.

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of token embeddings."""
        return self.core.decoder.tokens

    def set_input_embeddings(self, value: Any) -> None:
        """Replace the table; its size becomes the vocabulary's."""
        decoder = self.core.decoder
        decoder.tokens = value
        decoder.config = replace(decoder.config, vocab_size=value.num_embeddings)

    def get_output_embeddings(self) -> nn.Module:
        """The projection to the vocabulary; if it is tied, the table of embeddings, which is all there is."""
        decoder = self.core.decoder
        return decoder.tokens if decoder.head is None else decoder.head

    def set_output_embeddings(self, value: Any) -> None:
        """Replace the projection; if it is tied, the table's weight."""
        decoder = self.core.decoder
        if decoder.head is not None:
            decoder.head = value
        else:
            decoder.tokens.weight = value.weight


class RMTForCausalLM(MemoryForCausalLM):
    """A causal language model with recurrent memory.

    Example::

        model = RMTForCausalLM.from_backbone("gpt2", memory_tokens=16, segment_size=512)
        loss = model(input_ids, labels=input_ids).loss           # any length: cut into segments
        with torch.no_grad():                                    # or segment by segment, in constant memory
            hidden, state = model.step(segment_ids, state)
        model.save_pretrained("my-rmt"); RMTForCausalLM.from_pretrained("my-rmt")
    """

    config_class = RMTHubConfig
    memory_blocks = 2
    base_model_prefix = "rmt"

    @classmethod
    def around(cls, decoder: Backbone, config: RMTHubConfig) -> RMT:
        """An `RMT` around this decoder."""
        return RMT(decoder, config.memory_tokens, config.memory_mask)


class ARMTForCausalLM(MemoryForCausalLM):
    """A causal language model with associative memory in every layer. It is used as `RMTForCausalLM` is."""

    config_class = ARMTHubConfig
    memory_blocks = 1
    base_model_prefix = "armt"

    @classmethod
    def around(cls, decoder: Backbone, config: ARMTHubConfig) -> ARMT:
        """An `ARMT` around this decoder."""
        settings = (config.memory_tokens, config.d_memory, config.delta_rule())
        return ARMT(decoder, *settings, normalised=config.normalised)
