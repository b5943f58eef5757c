"""PEFT on models with memory: an adapter trains, saves and loads the memory with its own weights.

    peft_model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]))

PEFT freezes a model and trains what its config's `modules_to_save` names: modules, while memory is made of bare
parameters (`memory_MD`). So as long as a model has adapters, its memory stands in a module, `recurrent_memory`, inside
PEFT's `ModulesToSaveWrapper`: one copy for each adapter, and the original for `disable_adapter`. The parameters keep
their names: `model.memory_MD` is the copy in use. When the adapters are merged or unloaded, the memory becomes bare
parameters again, so that a saved model has the same tensors with and without this.

All is done when PEFT sets `peft_config` on the model that it adapts, and when it deletes it: nothing of PEFT is
changed, and this module does not import it before.
"""

from functools import cache
from typing import Any

from torch import Tensor, nn

from rmtlib.errors import RmtlibError

MEMORY = "recurrent_memory"
ALSO_CALLED = {
    "tokens": ("embed_tokens", "wte", "embed_in"),
    "position_embedding": ("wpe",),
    "norm": ("ln_f", "final_layer_norm"),
    "head": ("lm_head", "embed_out"),
}
"""What families of models call the parts of a decoder that are no maps of its blocks (those: `models.names`)."""


class Memory(nn.Module):
    """Holds the memory parameters of a model with adapters, by their names."""

    weight = None  # PEFT reads it of every module that it unloads


class AdaptsMemory(nn.Module):
    """Mixin of a model that PEFT can adapt: it has memory itself (`HasMemory`), or a part of it has."""

    @property
    def peft_config(self) -> dict[str, Any]:
        """The adapters' configs, by adapter; no such attribute without adapters."""
        if "_peft_config" not in self.__dict__:
            raise AttributeError("peft_config")
        return self.__dict__["_peft_config"]

    @peft_config.setter
    def peft_config(self, configs: dict[str, Any]) -> None:
        for config in configs.values():
            self._check_names(config)
        self.__dict__["_peft_config"] = configs
        for part in self._parts_with_memory():
            part.give_memory_to(configs)

    @peft_config.deleter
    def peft_config(self) -> None:
        del self.__dict__["_peft_config"]
        for part in self._parts_with_memory():
            part.take_memory_back()

    def _parts_with_memory(self) -> list["HasMemory"]:
        return [part for part in self.modules() if isinstance(part, HasMemory)]

    def _check_names(self, config: Any) -> None:
        """PEFT passes over a name that it does not find if it finds another."""
        there = [module.replace(".base_layer", "") for module, _ in self.named_modules()]
        targets = getattr(config, "target_modules", None)
        for name in targets if isinstance(targets, (list, set, tuple)) else ():
            if not any(module == name or module.endswith(f".{name}") for module in there):
                raise RmtlibError(f"target_modules has {name!r}, and no module here has that name{self._own(name)}")
        for name in config.modules_to_save or ():
            if name != MEMORY and not any(module.endswith(name) for module in there):
                raise RmtlibError(f"modules_to_save has {name!r}, and no module here ends in it{self._own(name)}")

    def _own(self, name: str) -> str:
        """What this model calls it, for a message."""
        called = next((own for own, others in ALSO_CALLED.items() if name in others), None)
        parts = {module.rpartition(".")[2] for module, _ in self.named_modules()}
        if called == "head" and called not in parts:
            return ": the output map is the table of embeddings, `tokens`"
        return f": it is called {called!r}" if called in parts else ""

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """As `nn.Module`, which reports what does not fit in many lines; an adapter that does not fit is one line."""
        if "_peft_config" in self.__dict__:
            self._give_names(state_dict, prefix)
            self._check_adapter({k.removeprefix(prefix): x for k, x in state_dict.items() if k.startswith(prefix)})
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _give_names(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """Rename an adapter's memory from how it is saved, without the adapter's name, to where it is kept."""
        for place, module in self.named_modules(prefix=prefix.removesuffix(".")):
            adapter = getattr(module, "loading", None) if isinstance(module, _wrapper()) else None
            for name in module.original_module._parameters if adapter else ():
                if (x := state_dict.pop(f"{place}.{name}", None)) is not None:
                    state_dict[f"{place}.modules_to_save.{adapter}.{name}"] = x

    def _check_adapter(self, given: dict[str, Tensor]) -> None:
        own = self.state_dict()
        for name, x in given.items():
            if name not in own:
                raise RmtlibError(
                    f"the adapter has weights for {name}, which this model lacks: it is of another backbone "
                    "or kind of memory"
                )
            if x.shape != own[name].shape:
                what = "memory (memory_tokens, d_memory)" if f"{MEMORY}." in name else "backbone"
                raise RmtlibError(
                    f"the adapter's {name} has shape {tuple(x.shape)}, this model's {tuple(own[name].shape)}: "
                    f"it is of another {what}"
                )
        for adapter in self.peft_config:
            of_adapter = {name for name in own if adapter in name.split(".")}
            if of_adapter & set(given):
                needed = {name for name in of_adapter if f"{MEMORY}." in name or ".lora_" in name}
                if missing := sorted(needed - set(given)):
                    raise RmtlibError(
                        f"the adapter lacks {missing[0]} and {len(missing) - 1} more weights of this model: it is of "
                        "another backbone, or was saved without memory"
                    )


class HasMemory(AdaptsMemory):
    """Mixin of a model whose own bare parameters are its memory: RMT, RMT-R, ARMT, PRMT."""

    def give_memory_to(self, configs: dict[str, Any]) -> None:
        """Let the adapters of these configs train and save the memory."""
        if MEMORY in self._modules or not self._parameters:
            return
        memory = Memory()
        memory._parameters.update(self._parameters)  # PEFT may make `register_parameter` lose the values (meta device)
        self._parameters.clear()
        for adapter, config in configs.items():
            config.modules_to_save = [*(name for name in config.modules_to_save or [] if name != MEMORY), MEMORY]
            if MEMORY in self._modules:
                self._modules[MEMORY].update(adapter)  # type: ignore[union-attr, operator]
            else:
                self.add_module(MEMORY, _wrapper()(memory, adapter))
                self._modules[MEMORY].set_adapter(adapter, inference_mode=config.inference_mode)  # type: ignore

    def take_memory_back(self) -> None:
        """The memory in use as bare parameters again."""
        memory = self._modules.pop(MEMORY, None)
        if memory is not None:
            self._parameters.update(getattr(memory, "original_module", memory)._parameters)

    def __getattr__(self, name: str) -> Any:
        memory = self.__dict__.get("_modules", {}).get(MEMORY)
        if memory is None or name not in memory._modules.get("original_module", memory)._parameters:
            return super().__getattr__(name)
        if not memory.disable_adapters and not memory.active_adapters and len(memory.modules_to_save):
            raise RmtlibError(  # PEFT tells a model of its first adapter alone; the others' configs must say it
                f"the adapter in use has no memory: give its config modules_to_save=[{MEMORY!r}], or disable it"
            )
        return getattr(memory, name)

    def prepare_inputs_for_generation(self, *_: Any, **__: Any) -> dict[str, Any]:
        """PEFT asks a model with task_type CAUSAL_LM for this."""
        raise RmtlibError("this model has no `generate`; wrap it as RMTForCausalLM, or use rmtlib.models.generation")


@cache
def _wrapper() -> Any:
    """PEFT's wrapper of a module that each adapter has a copy of, for memory."""
    from peft.utils import ModulesToSaveWrapper

    class MemoryToSave(ModulesToSaveWrapper):
        """PEFT ends in a KeyError if an adapter's file lacks a module. Here it looks up none: the model does."""

        loading: str | None = None  # the adapter whose file is read

        def adapter_state_dict_load_map(self, adapter_name: str) -> dict[str, str]:
            self.loading = adapter_name if adapter_name in self._adapters else None
            return {}

    return MemoryToSave
