"""Settings as parameters of a run: what stays out of the hash, and what may be missing."""

from dataclasses import asdict, replace

import pytest

from rmtlib.errors import RmtlibError
from rmtlib.experiments.capacity.artifact import MemoryCapacity
from rmtlib.experiments.capacity.settings import Params
from rmtlib.models.config import DecoderConfig, MambaConfig
from rmtlib.runs.storage import plain, strict
from rmtlib.settings import to_params

SHAPE = DecoderConfig(10, 8, 1, 1)


def test_an_added_field_at_its_default_stays_out():
    assert to_params(SHAPE) == {name: x for name, x in asdict(SHAPE).items() if name != "init_std"}
    assert to_params(replace(SHAPE, init_std=0.02)) == asdict(replace(SHAPE, init_std=0.02))
    nested = {"models": (SHAPE, MambaConfig(10, 8, 1))}
    assert not any(name in str(to_params(nested)) for name in ("init_std", "init"))


def test_only_an_added_field_may_be_missing():
    data = to_params(SHAPE)
    assert strict(DecoderConfig, data) == SHAPE
    with pytest.raises(RmtlibError, match="unknown or missing: d_model$"):
        strict(DecoderConfig, {name: x for name, x in data.items() if name != "d_model"})
    with pytest.raises(RmtlibError, match="unknown or missing: init_stdev$"):
        strict(DecoderConfig, data | {"init_stdev": 0.02})


@pytest.mark.parametrize("row", ["rmt-remember", "mamba-remember"])
def test_memory_capacity_starts_as_released_at_paper_scale_alone(row):
    backbones = {}
    for scale in ("smoke", "small", "gpu", "paper"):
        params = MemoryCapacity().config(row, scale, 0).to_json()["params"]
        backbones[scale] = params["model"]["backbone"]
        assert plain(to_params(Params.from_json(params))) == params
    told = {scale: {"init_std", "init"} & set(backbone) for scale, backbone in backbones.items()}
    assert told == {"smoke": set(), "small": set(), "gpu": set(), "paper": {"init" if "mamba" in row else "init_std"}}
    assert backbones["paper"].get("init_std", 0.02) == 0.02 and backbones["paper"].get("init", "huggingface") != "torch"
