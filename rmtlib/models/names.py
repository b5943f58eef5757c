"""What families of models call the linear maps of a block, so that `target_modules=["q_proj", "v_proj"]` finds them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class MapNames(NamedTuple):
    """Names of the linear maps of a block, by role.

    `query_key_value` is one name if the three are one fused map, else three.
    """

    query_key_value: tuple[str, ...]
    out: str
    up: str
    gate: str
    down: str


MAP_NAMES: Mapping[str, MapNames] = MappingProxyType(
    {
        "rmtlib": MapNames(("qkv",), "out", "up", "gate", "down"),
        "llama": MapNames(("q_proj", "k_proj", "v_proj"), "o_proj", "up_proj", "gate_proj", "down_proj"),
        "gpt2": MapNames(("c_attn",), "c_proj", "c_fc", "gate", "c_proj"),
        "gpt_neox": MapNames(("query_key_value",), "dense", "dense_h_to_4h", "gate", "dense_4h_to_h"),
    }
)
"""Llama's names are also those of Mistral and Qwen. GPT-2 and GPT-NeoX have no gate."""
