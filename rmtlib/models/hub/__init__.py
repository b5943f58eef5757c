"""Models with memory as Hugging Face models. Importing this registers them with `AutoModelForCausalLM`."""

from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from rmtlib.models.hub.cache import MemoryCache
from rmtlib.models.hub.config import ARMTHubConfig, MemoryConfig, RMTHubConfig
from rmtlib.models.hub.model import ARMTForCausalLM, MemoryForCausalLM, MemoryOutput, RMTForCausalLM

for _model in (RMTForCausalLM, ARMTForCausalLM):
    AutoConfig.register(_model.config_class.model_type, _model.config_class, exist_ok=True)
    AutoModelForCausalLM.register(_model.config_class, _model, exist_ok=True)
    # By this table of names Trainer knows whose labels it has to shift, and `pipeline` what generates text.
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[_model.config_class.model_type] = _model.__name__

__all__ = [
    "ARMTForCausalLM",
    "ARMTHubConfig",
    "MemoryCache",
    "MemoryConfig",
    "MemoryForCausalLM",
    "MemoryOutput",
    "RMTForCausalLM",
    "RMTHubConfig",
]
