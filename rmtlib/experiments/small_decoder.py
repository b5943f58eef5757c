"""The small decoder that stands for a pretrained model where none can be trained on: its settings at each scale."""

from rmtlib.models.config import DecoderConfig
from rmtlib.training.pretrain_config import PretrainConfig
from rmtlib.training.stream_config import StreamConfig

SMALL_DECODERS = {
    "smoke": PretrainConfig(
        text="synthetic",
        tokenizer="bpe-300-synthetic",
        decoder=DecoderConfig(300, d_model=32, n_layers=2, n_heads=2, positions="rotary", norm="rms", bias=False),
        train=StreamConfig(
            steps=60,
            segment_size=64,
            batch_size=4,
            lr=1e-2,
            seed=0,
            warmup=5,
            clip_norm=1.0,
            evaluate_every=30,
            log_every=10,
            order="rotated",
        ),
        validation_tokens=2_000,
    ),
    "small": PretrainConfig(
        text="books",
        tokenizer="bpe-4096-books",
        decoder=DecoderConfig(4096, d_model=128, n_layers=4, n_heads=4, positions="rotary", norm="rms", bias=False),
        train=StreamConfig(
            steps=700,
            segment_size=512,
            batch_size=4,
            lr=4e-3,
            seed=0,
            warmup=50,
            clip_norm=1.0,
            evaluate_every=175,
            log_every=25,
            order="rotated",
        ),
        validation_tokens=50_000,
    ),
}
"""Contexts of up to 64 and 512 tokens. The seed is not that of the run: all seeds of a row start from one decoder."""
