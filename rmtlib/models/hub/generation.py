"""Where Hugging Face's `generate` is told of memory: which cache it carries, and from which state it starts."""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin

from rmtlib.errors import RmtlibError
from rmtlib.models.hub.cache import MemoryCache
from rmtlib.models.interface import State, check_state, select


class MemoryGeneration(GenerationMixin):
    """`generate` for a model with memory; ``generate(input_ids, state=state)`` continues an earlier text."""

    _is_stateful = True  # what was written into memory cannot be taken back: no assistant models

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What `forward` takes of all that `generate` carries along."""
        generic: Any = super()
        inputs = generic.prepare_inputs_for_generation(*args, **kwargs)
        forward: Any = self.forward  # type: ignore[attr-defined]
        return {name: x for name, x in inputs.items() if name in inspect.signature(forward).parameters}

    @classmethod
    def can_generate(cls) -> bool:
        """True: Hugging Face's own test looks at names of base classes."""
        return True

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], mode: Any, batch_size: int, *rest: Any
    ) -> Any:
        if generation_config.output_hidden_states or generation_config.output_attentions:
            raise RmtlibError("a model with memory returns no hidden states or attentions; ask for scores or logits")
        model: Any = self
        generic: Any = super()
        generic._prepare_cache_for_generation(generation_config, model_kwargs, mode, batch_size, *rest)
        if generation_config.use_cache and model_kwargs.get("past_key_values") is None:
            rows = batch_size * max(generation_config.num_beams or 1, generation_config.num_return_sequences or 1)
            model_kwargs["past_key_values"] = model.new_cache(model_kwargs.pop("state", None), rows)

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, *args: Any, state: State | None = None, **kwargs: Any
    ) -> Any:
        generic: Any = super()
        input_ids, model_kwargs = generic._expand_inputs_for_generation(expand_size, *args, **kwargs)
        if state is not None:
            model: Any = self
            check_state(state, model.initial_state(len(input_ids) // expand_size))
            rows = torch.arange(len(input_ids) // expand_size, device=state[0].device)
            model_kwargs["state"] = select(state, rows.repeat_interleave(expand_size))
        return input_ids, model_kwargs

    def _reorder_cache(self, cache: MemoryCache | State | None, beam_idx: Tensor) -> MemoryCache | State | None:
        """Let the cache follow its beams. Without one this gets the state, which all beams of a text start from."""
        if isinstance(cache, MemoryCache):
            cache.reorder_cache(beam_idx)
        return cache

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        start = {"state": model_kwargs.get("state")}  # without a cache all tokens are read anew, from the same state
        return super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs) | start
