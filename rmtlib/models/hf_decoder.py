"""Any causal language model of transformers as a decoder: Hugging Face's own module behind `Decoder`'s calls.

For architectures that the lean `Decoder` does not hold. It is slower: the last layer computes all positions, not those
alone that are wanted, and segments are not read as a wavefront. Memory enters as `inputs_embeds`; ARMT and PRMT reach
the layers by hooks.

Shapes: B batch, T new positions, P earlier ones, D width, V vocabulary, N chosen rows, Q positions that are wanted.
"""

import inspect
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rmtlib.errors import RmtlibError
from rmtlib.models.config import DecoderConfig, HFDecoderConfig
from rmtlib.models.decoder import Decoder, KeyValues
from rmtlib.models.hf_weights import decoder_from_hf
from rmtlib.models.interface import take_rows

log = logging.getLogger(__name__)


class HFDecoder(nn.Module):
    """A causal language model of transformers with the calls of `Decoder`.

    Args:
        model: e.g. a BloomForCausalLM; one with PEFT adapters inside (LoRA) too.
        adapters: see `HFDecoderConfig`.

    Raises:
        RmtlibError: the model's outputs are not as wide as its embeddings, or it has no embeddings or output map.
    """

    base: Any  # the part of `model` that gives hidden states
    waits_for_device = True  # what its code does is not known here

    def __init__(self, model: Any, adapters: dict[str, dict[str, Any]] | None = None):
        super().__init__()
        self.model = model
        self.kind = model.config.model_type
        c = model.config.get_text_config(decoder=True)
        self.text_config, self.takes_masks = c, False
        base = model.base_model if model.base_model is not model else getattr(model, "model", model)
        self.__dict__["base"] = base  # not a module of its own: it is part of the model
        if base is model or model.get_output_embeddings() is None:
            raise RmtlibError(f"backbone type {self.kind!r} is no causal language model of transformers")
        arguments = inspect.signature(self.base.forward).parameters
        self.takes_positions = "position_ids" in arguments
        self.config = HFDecoderConfig(
            hf=_plain(model.config.to_dict()),
            vocab_size=self.tokens.weight.shape[0],
            d_model=self.tokens.weight.shape[1],
            n_layers=c.num_hidden_layers,
            n_heads=getattr(c, "num_attention_heads", 1),
            max_positions=getattr(c, "max_position_embeddings", None),
            attention=model.config._attn_implementation or "eager",
            adapters=adapters or {},
            tied=self.head.weight is self.tokens.weight,
            keeps_keys=not model._is_stateful and "past_key_values" in arguments,
        )
        if getattr(c, "hidden_size", self.config.d_model) != self.config.d_model:
            raise RmtlibError(
                f"backbone type {self.kind!r} has embeddings of width {self.config.d_model} and outputs of "
                f"{c.hidden_size}; outputs at memory tokens could not be the next memory"
            )

    @classmethod
    def from_config(cls, config: HFDecoderConfig) -> "HFDecoder":
        """With new weights, to be loaded over."""
        from transformers import AutoConfig, AutoModelForCausalLM

        try:
            hf = AutoConfig.for_model(**config.hf)
            hf.get_text_config(decoder=True).vocab_size = config.vocab_size  # may have been resized
            model = AutoModelForCausalLM.from_config(hf, attn_implementation=config.attention)
        except (ValueError, KeyError, TypeError, ImportError) as error:
            raise RmtlibError(f"the config's backbone cannot be built: {_first_line(error)}") from error
        for name, settings in config.adapters.items():
            from peft import PeftConfig, inject_adapter_in_model

            model = inject_adapter_in_model(PeftConfig.from_peft_type(**settings), model, name)
        return cls(model, config.adapters)

    @property
    def tokens(self) -> Any:
        """The table of token embeddings."""
        return self.model.get_input_embeddings()

    @property
    def head(self) -> Any:
        """The map to the vocabulary; tied, it shares the table's weight."""
        return self.model.get_output_embeddings()

    def __setattr__(self, name: str, value: Any) -> None:
        """`tokens` and `head` are parts of the model: they are set there."""
        if name == "tokens":
            self.model.set_input_embeddings(value)
        elif name == "head":
            self.model.set_output_embeddings(value)
        else:
            super().__setattr__(name, value)

    def embedding_scale(self) -> Tensor:
        """Standard deviation of the embeddings' elements, as memory is drawn."""
        return self.tokens.weight.detach().std() * getattr(self.tokens, "scalar_embed_scale", 1.0)  # Gemma

    def embed(self, input_ids_BS: Tensor) -> Tensor:
        """Token embeddings (B, S, D)."""
        return self.tokens(input_ids_BS)

    def embed_last(self, input_ids_BS: Tensor, count: int) -> Tensor:
        """The last `count` rows of `embed`."""
        return self.embed(input_ids_BS[:, -count:])

    def add_positions(self, x_BTD: Tensor, first: int = 0) -> Tensor:
        """The embeddings as they are: the backbone adds positions itself. ValueError if there are more than it has."""
        last, limit = first + x_BTD.shape[1], self.config.position_limit
        if limit is not None and last > limit:
            raise ValueError(f"{last} positions (memory and segment) exceed the backbone's {limit}")
        return x_BTD

    def forward(
        self,
        x_BTD: Tensor,
        *,
        mask: Tensor | None = None,
        cache: KeyValues | None = None,
        rows_BQ: Tensor | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """Run the backbone on embeddings; arguments and results as `Decoder.forward`."""
        x_BTD = self.add_positions(x_BTD, cache.length if cache is not None else 0)
        return self.run(x_BTD, mask=mask, cache=cache, rows_BQ=rows_BQ)

    def run(
        self,
        x_BTD: Tensor,
        *,
        mask: Tensor | None = None,
        cache: KeyValues | None = None,
        rows_BQ: Tensor | None = None,
        before: Callable[[int, Tensor], Tensor] | None = None,
        after: Callable[[int, Tensor], None] | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """Layers and final norm; arguments and results as `Decoder.run`.

        Raises:
            RmtlibError: the backbone takes no mask of the caller's, or its layers cannot be found for `before`.
        """
        if not x_BTD.shape[1]:
            return x_BTD, cache or KeyValues((x_BTD[:, None],), (x_BTD[:, None],))
        if cache is not None and not cache.length:
            cache = None
        if mask is not None:
            mask = self._additive(mask.expand(len(x_BTD), -1, -1, -1), x_BTD.dtype)
        with self._around_layers(before, after, rows_BQ):
            if self.config.keeps_keys:
                hidden_BTD, cache = self._with_keys(x_BTD, mask, cache)
            else:
                hidden_BTD, cache = self._again(x_BTD, mask, cache, before is not None)
        hidden_BTD = hidden_BTD.to(x_BTD.dtype)  # some give float32 whatever their weights have (Mamba)
        return hidden_BTD if rows_BQ is None else take_rows(hidden_BTD, rows_BQ), cache

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Vocabulary scores (..., V) of the rows given."""
        c, scores = self.text_config, self.head(hidden_ND)
        scores = scores * (getattr(c, "logit_scale", None) or 1.0)  # Cohere
        scores = scores / (getattr(c, "logits_scaling", None) or 1.0)  # Granite
        cap = getattr(c, "final_logit_softcapping", None)  # Gemma
        return scores if cap is None else cap * torch.tanh(scores / cap)

    def check(self) -> None:
        """Find out how token by token is read; RmtlibError unless embeddings and outputs give the backbone's logits."""
        x_BTD, reason = self._example(), "its logits are made from more than its outputs"
        for keeps_keys in {self.config.keeps_keys: None, False: None}:
            self.config = replace(self.config, keeps_keys=keeps_keys)
            try:
                with torch.no_grad(), _evaluation(self.model):
                    theirs = self.model(inputs_embeds=x_BTD).logits
                    (first, cache), (whole, _) = self(x_BTD[:, :4]), self(x_BTD)
                    parts = torch.cat([first, self(x_BTD[:, 4:], cache=cache)[0]], dim=1)
                    logits = [self.logits(x) for x in (whole, parts)]
                if all(_same(x, theirs) for x in logits):
                    return
            except Exception as error:  # of any module of transformers
                reason = _first_line(error)
        raise RmtlibError(f"backbone type {self.kind!r} cannot be read through its embeddings: {reason}")

    def _example(self) -> Tensor:
        return self.embed(torch.arange(6, device=self.tokens.weight.device)[None] % self.config.vocab_size)

    def _with_keys(self, x_BTD: Tensor, mask: Tensor | None, cache: KeyValues | None) -> tuple[Tensor, KeyValues]:
        from transformers import DynamicCache

        # No config is given: with it, layers with a sliding window would drop keys, which the mask keeps out anyway.
        past: Any = DynamicCache(None if cache is None else list(zip(cache.keys, cache.values, strict=True)))
        first, options = cache.length if cache else 0, {}
        if mask is not None and self.takes_positions:  # some count them from a mask of two axes
            options["position_ids"] = torch.arange(first, first + x_BTD.shape[1], device=x_BTD.device)[None]
        out = self.base(inputs_embeds=x_BTD, attention_mask=mask, past_key_values=past, use_cache=True, **options)
        layers = [layer for layer in past.layers if layer.is_initialized]
        if not layers:  # transformers keeps none under gradient checkpointing
            return out.last_hidden_state, KeyValues((x_BTD[:, None],), (x_BTD[:, None],))
        return out.last_hidden_state, KeyValues(tuple(x.keys for x in layers), tuple(x.values for x in layers))

    def _again(
        self, x_BTD: Tensor, mask: Tensor | None, cache: KeyValues | None, layered: bool
    ) -> tuple[Tensor, KeyValues]:
        """All positions so far; what is kept of them is their embeddings."""
        if cache is not None and (mask is not None or layered):
            raise RmtlibError(
                f"backbone type {self.kind!r} keeps no keys and values: token by token it can only be read as RMT with "
                "memory_mask='causal'"
            )
        seen_BTD = x_BTD if cache is None else torch.cat([cache.keys[0][:, 0], x_BTD], dim=1)
        out = self.base(inputs_embeds=seen_BTD, attention_mask=mask, use_cache=False)
        kept = KeyValues((seen_BTD[:, None],), (seen_BTD[:, None],))
        return out.last_hidden_state[:, -x_BTD.shape[1] :], kept

    def _additive(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """The mask (B, 1, T, P+T) as transformers takes it: 0 and the lowest number."""
        window, keys = getattr(self.text_config, "sliding_window", None), mask.shape[-1]
        if window and keys > window:
            raise RmtlibError(
                f"{keys} positions with a mask of their own exceed the backbone's attention window of {window}; use a "
                "shorter segment or memory_mask='causal'"
            )
        if not self.takes_masks:
            self.takes_masks = True
            self._check_masks()
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)

    def _check_masks(self) -> None:
        """RmtlibError unless a causal mask of one's own changes nothing, and one that lets all be seen does."""
        x_BTD = self._example()
        everything = torch.ones(1, 1, 6, 6, dtype=torch.bool, device=x_BTD.device)
        try:
            with torch.no_grad(), _evaluation(self.model):
                plain, causal, seen = (self(x_BTD, mask=m)[0] for m in (None, everything.tril(), everything))
            fits = _same(causal, plain) and not torch.equal(causal[:, 0], seen[:, 0])
        except Exception:  # of any module of transformers
            fits = False
        if not fits:
            self.takes_masks = False
            raise RmtlibError(f"backbone type {self.kind!r} takes no mask of the caller's; use memory_mask='causal'")

    def layers(self) -> nn.ModuleList:
        """The backbone's layers. RmtlibError if it has no one list of them."""
        count = self.config.n_layers
        lists = [x for x in self.base.modules() if isinstance(x, nn.ModuleList) and len(x) == count]
        if not lists:
            raise RmtlibError(
                f"backbone type {self.kind!r} has no list of its {count} layers, so that none can be given a memory"
            )
        return lists[0]  # the outermost; that these are run in order is seen when they run

    @contextmanager
    def _around_layers(
        self,
        before: Callable[[int, Tensor], Tensor] | None,
        after: Callable[[int, Tensor], None] | None,
        rows_BQ: Tensor | None,
    ) -> Iterator[None]:
        """Within, `before` changes each layer's input, and `after` is given its output."""
        if before is None and after is None:
            yield
            return
        layers, handles, seen = self.layers(), [], []
        if self.training and any(getattr(x, "gradient_checkpointing", False) for x in self.model.modules()):
            raise RmtlibError(
                "a memory in each layer cannot be trained with the backbone's gradient checkpointing: turn that off"
            )

        def enter(i: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            seen.append(i)
            if before is not None and args:
                args = (before(i, args[0]), *args[1:])
            elif before is not None:
                kwargs = kwargs | {"hidden_states": before(i, kwargs["hidden_states"])}
            return args, kwargs

        def leave(i: int, output: Any) -> None:
            x_BTD = output if isinstance(output, Tensor) else output[0]
            if after is not None:
                after(i, take_rows(x_BTD, rows_BQ) if rows_BQ is not None and i == len(layers) - 1 else x_BTD)

        for i, layer in enumerate(layers):
            handles.append(
                layer.register_forward_pre_hook(lambda _, args, kwargs, i=i: enter(i, args, kwargs), with_kwargs=True)
            )
            handles.append(layer.register_forward_hook(lambda _, __, output, i=i: leave(i, output)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if seen != list(range(len(layers))):
            raise RmtlibError(f"backbone type {self.kind!r} does not run its layers one after the other, each once")


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _same(x: Tensor, expected: Tensor) -> bool:
    """Up to the rounding of their type."""
    bound = 0.1 if x.dtype in (torch.bfloat16, torch.float16) else 1e-3
    return bool((x - expected).float().square().mean().sqrt() <= bound * expected.float().std())


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it: sets become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=sorted))
    return plain


Backbone = Decoder | HFDecoder


def backbone_from_hf(model: Any, attn_implementation: str | None = None) -> Backbone:
    """The lean decoder with this model's weights if it holds them exactly, else the model itself.

    Args:
        model: a causal language model of transformers, or a PEFT model around one, whose adapters then stay inside.
        attn_implementation: of transformers. The lean decoder has "sdpa", which equals "eager" up to rounding; any
            other means the model itself.

    Raises:
        RmtlibError: a model that cannot be held either way.
    """
    adapters = {}
    if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
        adapters = {name: _plain(config.to_dict()) for name, config in model.peft_config.items()}
        if any(config.is_prompt_learning for config in model.peft_config.values()):
            raise RmtlibError("an adapter of virtual tokens is no part of a backbone; use one inside it, e.g. LoRA")
        model = model.get_base_model()
    reason = "it has adapters inside" if adapters else f"attn_implementation is {attn_implementation!r}"
    if not adapters and attn_implementation in (None, "sdpa", "eager"):
        try:
            return decoder_from_hf(model)
        except RmtlibError as error:
            reason = str(error)
    if attn_implementation is not None:
        try:
            model.set_attn_implementation(attn_implementation)
        except (ValueError, ImportError) as error:
            raise RmtlibError(f"attn_implementation {attn_implementation!r}: {_first_line(error)}") from error
    decoder = HFDecoder(model, adapters)
    decoder.check()
    log.warning("the backbone runs as Hugging Face's own module, which is slower: %s", reason)
    return decoder


def backbone_from_config(settings: Mapping[str, Any]) -> Backbone:
    """With new weights, from ``dataclasses.asdict(decoder.config)`` of either kind."""
    if "hf" in settings:
        return HFDecoder.from_config(HFDecoderConfig(**settings))
    return Decoder(DecoderConfig(**settings))
