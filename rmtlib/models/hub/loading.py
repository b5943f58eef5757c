"""Loading a saved model strictly: a folder that is not wholly this model is an error, in one line.

Hugging Face's own loading only warns, and leaves memory that is missing in a file uninitialised.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from rmtlib.errors import RmtlibError
from rmtlib.models.backbones import check_tensors, from_pretrained, refuse_pickles
from rmtlib.models.hub.config import settings_of

MOST = 1 << 40
"""Bytes of a saved model's file: no bound but the disk's room."""
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def load(cls: Any, original: Callable[..., Any], where: str, *arguments: Any, **options: Any) -> Any:
    """What `original`, Hugging Face's `from_pretrained`, makes of a folder or a name on the hub.

    Raises:
        RmtlibError: another kind of model, weights as a pickle, a file that cannot be read, or a tensor that is
            missing, unexpected or of another shape.
    """
    what = f"{cls.__name__} {where!r}"
    refuse_pickles(what, where)
    of_hub = {name: options[name] for name in HUB_OPTIONS if name in options}
    if not isinstance(options.get("config"), PretrainedConfig) and not (Path(where) / "adapter_config.json").is_file():
        values, _ = from_pretrained(what, PretrainedConfig.get_config_dict, where, **of_hub)
        check_kind(cls, what, where, values)
        dtype = values.get("dtype")
        if dtype is not None and not isinstance(getattr(torch, str(dtype), None), torch.dtype):
            raise RmtlibError(f"{what}: config.json has dtype {dtype!r}, which PyTorch has not")
    wants_info = options.pop("output_loading_info", False)
    strict = {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}

    def read(where: str, **of_hub: Any) -> Any:
        try:
            return original(where, *arguments, **(options | strict | of_hub))
        except TypeError as error:  # what Hugging Face does not know it hands to the model
            if "unexpected keyword argument" not in str(error):
                raise
            name, known = str(error).split("'")[1], sorted(settings_of(cls.config_class))
            if name in known:
                raise RmtlibError(f"{what}: set {name} in the config that is given") from error
            raise RmtlibError(f"{what}: no setting is called {name!r}; there are {', '.join(known)}") from error

    model, info = from_pretrained(what, read, where, most=MOST, **of_hub)
    check_tensors(what, info)
    return (model, info) if wants_info else model


def check_kind(cls: Any, what: str, where: str, config: dict[str, Any]) -> None:
    """Raises RmtlibError unless this is the config of a saved `cls`."""
    kind, wanted = config.get("model_type") if isinstance(config, dict) else None, cls.config_class.model_type
    if kind == wanted:
        return
    if kind is None:
        raise RmtlibError(f"{what}: no config.json with a model_type is there; give a folder that save_pretrained made")
    remedy = f"use {cls.__name__}.from_backbone({where!r})"
    if kind.startswith("rmtlib-"):
        remedy = "use AutoModelForCausalLM"
    raise RmtlibError(f"{what} is a {kind!r}, not a saved {wanted!r}; {remedy}")
