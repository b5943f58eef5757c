"""What a run takes in memory and on disk, for every family of models: one arithmetic over its model's counts."""

from rmtlib.models.size import decoder_weights
from rmtlib.runs.spec import Cost
from rmtlib.training.pretrain_config import PretrainConfig

PROCESS_BYTES = 400e6  # Python and torch themselves
TRAINING_BYTES = 16  # a weight, its gradient and AdamW's two moments, in float32
CHECKPOINT_BYTES = 32  # weights, best weights and two moments; twice while a checkpoint is replaced
GPU_BYTES = 60e9  # of a GPU's 80 GB, for what the backward pass needs; the rest is weights, logits and gaps
ACTIVATIONS = 22
"""Numbers kept for the backward pass, a position, layer and width. Korthikanti et al. (2022) count 34 bytes, 17 numbers
of two bytes each; autocast keeps some of them in float32. RMT on BABILong at medium scale has held 19 on a GPU."""


def training_passes(recompute: bool = False, *, frozen: bool = False) -> float:
    """Forward passes that a training step costs: the forward pass, and the backward pass, which costs two of them.

    With recomputation every segment is run once more; frozen weights need no gradient, adapters on them little.
    """
    return (2.2 if frozen else 3) + recompute


def activations(layers: int, width: int, positions: float) -> float:
    """Numbers kept for the backward pass of so many positions."""
    return ACTIVATIONS * layers * width * positions


def recompute_from(bytes_a_segment: float) -> int:
    """The fewest segments whose numbers for the backward pass a GPU does not hold (`TrainConfig.recompute_from`)."""
    return int(GPU_BYTES // bytes_a_segment) + 1


def kept_numbers(segments: int, activations: float, state: float, *, recomputes: bool, rebuilds: bool) -> float:
    """Numbers kept for the backward pass of so many segments, from those of one and the size of the state.

    With recomputation the activations of one segment are there at a time; of n states about 2 sqrt(n), if the model
    is `training.recompute.Rebuilds`, else all.
    """
    if not recomputes:
        return segments * (activations + state)
    return activations + state * (min(segments, 2 * segments**0.5) if rebuilds else segments)


def transformer_cost(
    *,
    tokens: float,
    work: list[float],
    weights: int,
    trained: int | None = None,
    kept: float,
    precision: str,
    float32_bytes: float = 0.0,
    disk_bytes: int = 0,
) -> Cost:
    """The cost of a run.

    Args:
        work: FLOP of its parts.
        trained: those of the weights that training changes; None: all.
        kept: numbers kept for the backward pass at once, in the run's precision.
        float32_bytes: what else is in memory, e.g. the logits.
        disk_bytes: what else is on disk beside the checkpoint.
    """
    bytes_each = 2 if precision == "bf16" else 4
    trained = weights if trained is None else trained
    weight_bytes = TRAINING_BYTES * trained + bytes_each * (weights - trained)
    return Cost(
        tokens=int(tokens),
        flops=sum(work),
        memory_bytes=int(PROCESS_BYTES + weight_bytes + bytes_each * kept + float32_bytes),
        disk_bytes=CHECKPOINT_BYTES * trained + disk_bytes,
        precision=precision,
        weights=weights,
    )


def pretraining_cost(config: PretrainConfig) -> Cost:
    """What it takes to train the small decoder, its validations included."""
    c, train = config.decoder, config.train
    batch = train.batch_size * train.segment_size
    checks = -(-train.steps // train.evaluate_every)
    read = training_passes(False) * train.steps * batch + checks * config.validation_tokens
    weights = decoder_weights(c)
    per_token = 2 * weights + 2 * c.n_layers * c.d_model * train.segment_size  # its table is read, and is the head
    return transformer_cost(
        tokens=train.steps * batch,
        work=[float(read * per_token)],
        weights=weights,
        kept=activations(c.n_layers, c.d_model, batch),
        precision=train.precision,
        float32_bytes=12 * batch * c.vocab_size,  # logits
    )
