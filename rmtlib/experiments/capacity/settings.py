"""The settings of an associative-retrieval run, and what it costs. Light to import: no torch."""

from dataclasses import dataclass, replace

from rmtlib.models.config import ARMTConfig, DecoderConfig, DeltaRule, MambaConfig, PRMTConfig, RMTConfig
from rmtlib.models.size import armt_state, decoder_weights, mamba_weights
from rmtlib.runs.cost import activations, kept_numbers, recompute_from, training_passes, transformer_cost
from rmtlib.runs.spec import Cost
from rmtlib.settings import at_least
from rmtlib.training.curriculum import TrainConfig


@dataclass(frozen=True)
class ModelConfig:
    """A model of this artifact. Without a backbone of its own kind: `d_memory`, `rule` and `normalised` are ARMT's."""

    kind: str  # "armt", "rmt", "prmt" or "mamba"
    backbone: DecoderConfig | MambaConfig
    memory_tokens: int = 0
    d_memory: int = 0
    rule: DeltaRule | None = None
    normalised: bool = False

    @property
    def delta_rule(self) -> DeltaRule:
        """ARMT's update."""
        return self.rule or DeltaRule()

    def model(self) -> RMTConfig | ARMTConfig | PRMTConfig | MambaConfig:
        """The config that `models.registry` builds."""
        if isinstance(self.backbone, MambaConfig):
            return self.backbone
        if self.kind == "armt":
            return ARMTConfig(self.backbone, self.memory_tokens, self.d_memory, self.delta_rule, self.normalised)
        return {"rmt": RMTConfig, "prmt": PRMTConfig}[self.kind](self.backbone, self.memory_tokens)

    @property
    def parameters(self) -> int:
        """Weights."""
        if isinstance(self.backbone, MambaConfig):
            return mamba_weights(self.backbone)
        D, L, M = self.backbone.d_model, self.backbone.n_layers, self.memory_tokens
        own = L * (D * D + 2 * D * self.d_memory + D + 1) if self.kind == "armt" else 0
        return decoder_weights(self.backbone) + own + M * D * (L if self.kind == "prmt" else 1)

    @property
    def state_size(self) -> int:
        """Floats that pass from segment to segment, per sample."""
        b = self.backbone
        if isinstance(b, MambaConfig):
            return b.n_layers * b.d_inner * (b.state_size + b.conv_taps - 1)
        if self.kind == "armt":
            return armt_state(b.n_layers, b.d_model, self.d_memory, self.delta_rule.nu)
        return self.memory_tokens * b.d_model * (b.n_layers if self.kind == "prmt" else 1)

    def flops_per_token(self, segment_size: int) -> float:
        """Of a forward pass, memory positions included."""
        if self.kind == "mamba":
            return 2.0 * self.parameters + 10 * self.state_size
        blocks = 1 if self.kind == "armt" else 2
        positions = (segment_size + blocks * self.memory_tokens) / segment_size
        return positions * (2.0 * self.parameters + (2 * self.state_size if self.kind == "armt" else 0))


@dataclass(frozen=True)
class Params:
    """All that a run depends on. The stages of `train` count pairs; every sample has one segment more, the query."""

    task: str
    value_size: int
    model: ModelConfig
    train: TrainConfig
    key_sizes: tuple[int, ...]  # one for each stage
    vary_pairs: bool  # every batch has 1 to so many pairs
    enough: float  # validation score at which a stage ends
    clip_value: float | None  # clip every entry of the gradient, instead of its norm
    train_samples: int | None  # a fixed set of so many, from a file; None: always new ones
    validation_samples: int
    test_pairs: tuple[int, ...]
    test_samples: int
    evaluation_batch: int  # samples evaluated at once

    def __post_init__(self) -> None:
        at_least(self, 1, "train_samples", "validation_samples", "test_samples", "evaluation_batch")
        if len(self.key_sizes) != len(self.train.stages):
            raise ValueError(
                f"key_sizes are {self.key_sizes}; there must be one for each of {len(self.train.stages)} stages"
            )

    @property
    def train_pairs(self) -> int:
        """The most pairs that training has seen."""
        return max(stage.segments for stage in self.train.stages)

    def segment_size(self, key_size: int) -> int:
        """Tokens of a pair with its separators."""
        return key_size + self.value_size + 2

    @property
    def segment_sizes(self) -> tuple[int, ...]:
        """Of each stage."""
        return tuple(self.segment_size(key_size) for key_size in self.key_sizes)


def _tokens(params: Params) -> tuple[list[float], int]:
    """Tokens of every training stage, and of all tests."""
    trained = []
    for stage, size in zip(params.train.stages, params.segment_sizes, strict=True):
        mean = (stage.segments + 1) / 2 if params.vary_pairs else stage.segments
        trained.append(stage.steps * params.train.batch_size * (mean + 1) * size)
    size = params.segment_sizes[-1]
    return trained, sum(params.test_samples * (pairs + 1) * size for pairs in params.test_pairs)


def work(params: Params) -> list[float]:
    """FLOP of every training stage with its validations, then of the tests."""
    train, model = params.train, params.model
    trained, tested = _tokens(params)
    parts = []
    for stage, size, tokens in zip(train.stages, params.segment_sizes, trained, strict=True):
        checks = -(-stage.steps // (stage.evaluate_every or train.evaluate_every))
        validated = checks * params.validation_samples * (stage.segments + 1) * size
        parts.append((training_passes(train.recomputes(stage)) * tokens + validated) * model.flops_per_token(size))
    return [*parts, tested * model.flops_per_token(params.segment_sizes[-1])]


def cost(params: Params) -> Cost:
    """Tokens, FLOP, memory and disk of a run, by arithmetic; stages that end early make it less."""
    model, train = params.model, params.train
    trained, tested = _tokens(params)
    disk = 0
    if params.train_samples is not None:
        pairs = zip(train.stages, params.key_sizes, strict=True)
        disk = sum(params.train_samples * stage.segments * (k + params.value_size) for stage, k in pairs)
    return transformer_cost(
        tokens=sum(trained) + tested,
        work=work(params),
        weights=model.parameters,
        kept=_kept(params),
        precision=train.precision,
        disk_bytes=disk,
    )


def _kept(params: Params) -> float:
    """Numbers kept for the backward pass, in the stage with the most of them."""
    model, train, rebuilds = params.model, params.train, params.model.kind == "armt"
    stages = ((stage.segments + 1, train.recomputes(stage)) for stage in train.stages)
    one = (_activations(params), model.state_size)
    return train.batch_size * max(kept_numbers(n, *one, recomputes=again, rebuilds=rebuilds) for n, again in stages)


def _activations(params: Params) -> float:
    """Of a sample's segment."""
    b, positions = params.model.backbone, params.segment_sizes[-1] + 2 * params.model.memory_tokens
    return activations(b.n_layers, b.d_model, positions)


def recomputing(params: Params) -> Params:
    """The same, with recomputation in the stages whose numbers a GPU would not hold."""
    a_segment = params.train.batch_size * (_activations(params) + params.model.state_size)
    pairs = recompute_from(4 * a_segment) - 1
    return replace(params, train=replace(params.train, recompute=True, recompute_from=pairs))
