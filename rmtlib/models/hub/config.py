"""The configs of the Hugging Face models: what a saved folder's config.json holds."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from transformers import PretrainedConfig

from rmtlib.errors import RmtlibError
from rmtlib.models.config import DecoderConfig, DeltaRule, HFDecoderConfig
from rmtlib.models.rmt import MemoryMask

TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
GPT2 = DecoderConfig(vocab_size=50_257, d_model=768, n_layers=12, n_heads=12)


class MemoryConfig(PretrainedConfig):
    """What all models with memory share.

    Attributes:
        backbone: the fields of a `DecoderConfig`, or of an `HFDecoderConfig`, which has the key "hf".
        memory_tokens: M.
        segment_size: S, in tokens.
        backbone_name: what the backbone was loaded from, for the model card.
        bptt: through how many earlier segments the gradient of a loss goes; None: through all.
        return_logits: whether a call with labels also returns logits; None: in evaluation it does, in training not.
    """

    keys_to_ignore_at_inference = ["past_key_values", "state"]
    smallest_memory = 0

    def __init__(
        self,
        backbone: Mapping[str, Any] | None = None,
        memory_tokens: int = 16,
        segment_size: int = 512,
        *,
        backbone_name: str | None = None,
        bptt: int | None = None,
        return_logits: bool | None = None,
        **kwargs: Any,
    ):
        if not isinstance(backbone, Mapping | None):
            raise RmtlibError(
                f"backbone is {backbone!r}; it must be the fields of a DecoderConfig. A pretrained one: from_backbone"
            )
        self.backbone = dict(asdict(GPT2) if backbone is None else backbone)
        self.memory_tokens = memory_tokens
        self.segment_size = segment_size
        self.backbone_name = backbone_name
        self.bptt = bptt
        self.return_logits = return_logits
        for name, least in (("memory_tokens", self.smallest_memory), ("segment_size", 1), ("bptt", 0)):
            check_count(name, getattr(self, name), least, optional=name == "bptt")
        check_finite("backbone", self.backbone)
        self.decoder_config()
        super().__init__(**kwargs)
        for name in TOKEN_IDS:
            for token in listed(getattr(self, name, None)):
                if not is_token(token, self.vocab_size):
                    raise RmtlibError(f"{name} is {token!r}; the vocabulary has the ids 0 to {self.vocab_size - 1}")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As Hugging Face's, which would set what `from_pretrained` is given without looking at it.

        Raises:
            RmtlibError: a setting that is impossible, or that the saved weights do not fit.
        """
        for name in kwargs:
            if name in ("backbone", "backbone_name") or isinstance(vars(MemoryConfig).get(name), property):
                raise RmtlibError(f"{name} is the saved model's and cannot be set")
        given = {name: kwargs.pop(name) for name in settings_of(cls) & set(kwargs)}
        for name in ("memory_tokens", "d_memory"):
            if name in given and given[name] != config_dict.get(name):
                raise RmtlibError(f"{name} is {config_dict.get(name)} in the saved model and cannot be {given[name]}")
        return super().from_dict(config_dict | given, **kwargs)

    def decoder_config(self) -> DecoderConfig | HFDecoderConfig:
        """The backbone's shape. Raises RmtlibError if the config has none."""
        return from_fields(HFDecoderConfig if "hf" in self.backbone else DecoderConfig, "backbone", self.backbone)

    # What Hugging Face's code asks of a config.

    @property
    def vocab_size(self) -> int:
        return self.backbone["vocab_size"]

    @vocab_size.setter
    def vocab_size(self, count: int) -> None:
        self.backbone = self.backbone | {"vocab_size": count}

    @property
    def hidden_size(self) -> int:
        return self.backbone["d_model"]

    @property
    def num_hidden_layers(self) -> int:
        return self.backbone["n_layers"]

    @property
    def num_attention_heads(self) -> int:
        return self.backbone["n_heads"]

    @property
    def tie_word_embeddings(self) -> bool:
        return self.decoder_config().tied


class RMTHubConfig(MemoryConfig):
    """Of an `RMTForCausalLM`. `memory_mask`: see `RMT`; the others: see `MemoryConfig`."""

    model_type = "rmtlib-rmt"

    def __init__(
        self,
        backbone: Mapping[str, Any] | None = None,
        memory_tokens: int = 16,
        segment_size: int = 512,
        memory_mask: MemoryMask = "causal",
        **kwargs: Any,
    ):
        self.memory_mask = memory_mask
        if memory_mask not in ("causal", "bidirectional"):
            raise RmtlibError(f"memory_mask is {memory_mask!r}; it must be 'causal' or 'bidirectional'")
        super().__init__(backbone, memory_tokens, segment_size, **kwargs)


class ARMTHubConfig(MemoryConfig):
    """Of an `ARMTForCausalLM`. `rule`: the fields of a `DeltaRule`; the others: see `ARMT` and `MemoryConfig`."""

    model_type = "rmtlib-armt"
    smallest_memory = 1

    def __init__(
        self,
        backbone: Mapping[str, Any] | None = None,
        memory_tokens: int = 16,
        segment_size: int = 512,
        d_memory: int = 64,
        rule: DeltaRule | Mapping[str, Any] | None = None,
        normalised: bool = False,
        **kwargs: Any,
    ):
        self.d_memory = d_memory
        rule = DeltaRule(bounded=True) if rule is None else rule
        self.rule = asdict(rule) if isinstance(rule, DeltaRule) else dict(rule)
        self.normalised = normalised
        check_count("d_memory", d_memory, 1)
        check_finite("rule", self.rule)
        self.delta_rule()
        super().__init__(backbone, memory_tokens, segment_size, **kwargs)

    def delta_rule(self) -> DeltaRule:
        """The update. Raises RmtlibError if the config has none."""
        return from_fields(DeltaRule, "rule", self.rule)


def check_settings(config_class: type, settings: Mapping[str, Any]) -> None:
    """Raises RmtlibError if one of these is no setting of the config class: Hugging Face would take any name."""
    known = settings_of(config_class)
    if unknown := sorted(set(settings) - known):
        raise RmtlibError(f"no setting is called {unknown[0]!r}; there are {', '.join(sorted(known))}")


def settings_of(config_class: type) -> set[str]:
    """The settings of a config class that a user chooses."""
    classes = (cls for cls in config_class.__mro__ if issubclass(cls, MemoryConfig))
    known = {name for cls in classes for name in inspect.signature(cls.__init__).parameters}
    return known - {"self", "kwargs", "backbone", "backbone_name"}


def check_count(name: str, value: Any, least: int, *, optional: bool = False) -> None:
    """Raises RmtlibError unless `value` is a whole number from `least` up, or None if it is optional."""
    if optional and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RmtlibError(f"{name} is {value!r}; it must be a whole number from {least} up{' or None' * optional}")


def listed(value: Any) -> list[Any]:
    """The ids that a config names by one number, several or none."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def is_token(value: Any, vocab_size: int) -> bool:
    """Whether it is an id of the vocabulary."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < vocab_size


def check_finite(name: str, values: Mapping[str, Any]) -> None:
    """Raises RmtlibError if one of the values is an infinite number or none."""
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RmtlibError(f"{name}: {key} is {value}; it must be a finite number")


def from_fields(cls: Any, name: str, values: Mapping[str, Any]) -> Any:
    """A `cls` with these fields. Raises RmtlibError if they do not make one."""
    if unknown := sorted(set(values) - {field.name for field in fields(cls)}):
        raise RmtlibError(f"{name}: unknown setting {unknown[0]!r}")
    whole = {field.name for field in fields(cls) if field.type in ("int", int, "int | None", int | None)}
    for key in sorted(whole & set(values)):
        if isinstance(values[key], (float, str)):
            raise RmtlibError(f"{name}: {key} is {values[key]!r}; it must be a whole number")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise RmtlibError(f"{name}: {error}") from error
