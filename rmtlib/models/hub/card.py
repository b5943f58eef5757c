"""The model card that a saved folder gets: what the model is, how it was made, how to load it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmtlib.models.hub.config import ARMTHubConfig

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*|gpt2(-(medium|large|xl))?")
CARD = """---
library_name: rmtlib
{base}pipeline_tag: text-generation
tags:
- {kind}
---

# {name}

A causal language model with memory: it reads its input in segments and passes a fixed number of values from one to the
next, so that memory use does not grow with the length of a text.

{facts}

## Use

```python
from rmtlib import {name}

model = {name}.from_pretrained("path/to/this/folder")
loss = model(input_ids, labels=input_ids).loss         # any length: cut into segments
new = model.generate(input_ids, max_new_tokens=100)    # memory is kept across segment borders
state = model(input_ids).state                         # and goes on: model(more_ids, state=state)
```

After `import rmtlib.models.hub`, `AutoModelForCausalLM` loads it too.
"""


def write_card(model: Any, folder: str | Path) -> None:
    """Write README.md into the folder, unless one is there."""
    path = Path(folder) / "README.md"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(card(model), encoding="utf-8")


def card(model: Any) -> str:
    """The text of the card. `model.config.record`, a mapping that whoever trained it may set, is shown as well."""
    config = model.config
    facts = {
        "Backbone": config.backbone_name or "a new decoder",
        "Layers, width, vocabulary": f"{config.num_hidden_layers}, {config.hidden_size}, {config.vocab_size}",
        "Parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "Memory tokens": config.memory_tokens,
        "Segment size": f"{config.segment_size} tokens",
        "Passed from segment to segment": f"{model.state_size():,} numbers a text",
    }
    if isinstance(config, ARMTHubConfig):
        facts |= {"Key width of the associations": config.d_memory, "Update": _listed(config.rule)}
    if config.bptt is not None:
        facts["Gradient through earlier segments"] = config.bptt
    facts |= {f"Record: {name}": value for name, value in (getattr(config, "record", None) or {}).items()}
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    name = config.backbone_name
    return CARD.format(
        base=f"base_model: {name}\n" if name and HUB_NAME.fullmatch(name) and not Path(name).exists() else "",
        kind=config.model_type,
        name=type(model).__name__,
        facts=f"| | |\n|---|---|\n{rows}",
    )


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
