"""What the package does on a GPU alone, without one: every such branch has a stand-in for its device, and a plain path.

`BRANCHES` lists the files that ask for a GPU, with what each place needs, and the tests that hold for it. A file that
begins to ask for one has to be listed. What only a real GPU shows is in `test_cuda.py`.
"""

import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

from rmtlib.errors import RmtlibError
from rmtlib.evaluation import prompting
from rmtlib.evaluation.halves import in_halves
from rmtlib.experiments.babilong_time.machine import Machine
from rmtlib.experiments.language_modelling import run as language_run
from rmtlib.experiments.language_modelling.settings import read_params
from rmtlib.experiments.registry import get_artifact
from rmtlib.models import delta_rule, selective_scan
from rmtlib.models.armt import ARMT
from rmtlib.models.config import DecoderConfig, MambaConfig, RWKVConfig
from rmtlib.models.decoder import Decoder
from rmtlib.models.precision import full_precision
from rmtlib.models.registry import build
from rmtlib.runs import devices, plan, provenance, queue, scheduler
from rmtlib.runs.folder import RunFolder, read_notes
from rmtlib.runs.training import default_device
from rmtlib.segments import IGNORE, Segment
from rmtlib.training import recompute
from rmtlib.training.trainer import autocast

ASKS = re.compile(r'torch\.cuda|is_cuda|device\.type|"cuda"|nccl|has_gpu\(\)|torch\.compile\(')
PACKAGE = Path(__file__).parent.parent / "rmtlib"
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


class Branch(NamedTuple):
    """One file's: what it needs of the device, what is done without, and which tests hold for it."""

    needs: str
    plain: str
    tests: tuple[str, ...]


BRANCHES = {
    "training/trainer.py": Branch(
        "CUDA's out-of-memory error; bf16 autocast of the device's type",
        "a CPU has no such error; float32 has no autocast",
        (
            "test_out_of_memory_halves_the_micro_batch_and_says_so",
            "test_less_memory_gives_the_same_training_in_more_passes",
            "test_bf16_is_asked_of_the_device_and_float32_of_none",
        ),
    ),
    "training/captured.py": Branch(
        "a CUDA graph of a training step",
        "the step itself",
        (
            "test_every_call_gives_the_loss_and_the_gradients_of_its_own_batch",
            "test_what_cannot_be_recorded_runs_as_it_is",
            "test_without_a_gpu_nothing_is_recorded",
            "test_a_step_as_a_graph_is_the_step",
        ),
    ),
    "training/recompute.py": Branch(
        "the GPU's random numbers, kept and set again beside the CPU's",
        "the CPU's alone",
        ("test_recomputing_keeps_the_random_numbers_of_the_gpu_too",),
    ),
    "models/delta_rule.py": Branch(
        "a CUDA graph that is captured: no look at values then",
        "gamma is solved at once if no bound is reached",
        ("test_a_graph_that_is_captured_is_not_looked_into", "test_compiling_it_needs_no_look_at_values"),
    ),
    "models/selective_scan.py": Branch(
        "longer chunks of the scan",
        "chunks that fit a CPU's cache",
        ("test_the_scan_is_the_same_in_a_gpus_chunks",),
    ),
    "models/precision.py": Branch(
        "no autocast, of the tensor's device", "the same", ("test_bf16_is_asked_of_the_device_and_float32_of_none",)
    ),
    "models/layered.py": Branch(
        "a wavefront up to 8 M numbers a segment",
        "on narrow models alone",
        ("test_on_a_gpu_wide_models_read_diagonally",),
    ),
    "models/hub/truncated.py": Branch(
        "no autocast in a backward pass, of the tensor's device",
        "the same",
        ("test_bf16_gradients_are_those_of_float32_up_to_its_precision",),
    ),
    "experiments/language_modelling/run.py": Branch(
        "torch.compile of a layer, if the settings say so",
        "the step as it is",
        ("test_layers_are_compiled_on_a_gpu_alone", "test_compiled_layers_equal_plain_ones"),
    ),
    "evaluation/halves.py": Branch(
        "CUDA's out-of-memory error: a batch is tested in halves",
        "a CPU has no such error",
        ("test_a_test_that_does_not_fit_is_done_in_halves",),
    ),
    "evaluation/prompting.py": Branch(
        "a language model in bfloat16", "float32", ("test_a_language_model_is_asked_in_bfloat16_on_a_gpu_alone",)
    ),
    "evaluation/harness.py": Branch(
        "the device that the harness asks for",
        "where the model is",
        ("test_without_a_gpu_the_harnesss_own_choice_of_one_is_left_out",),
    ),
    "experiments/babilong_time/machine.py": Branch(
        "waiting for the GPU before the clock is read; a larger product", "none", ("test_the_clock_waits_for_a_gpu",)
    ),
    "runs/training.py": Branch("the GPU if there is one", "the CPU", ("test_the_gpu_is_used_if_there_is_one",)),
    "runs/devices.py": Branch(
        "NCCL, and a GPU for each process", "gloo", ("test_processes_meet_by_nccl_and_take_a_gpu_each",)
    ),
    "runs/provenance.py": Branch(
        "name and peak memory of the GPU, names of all; one that cannot be used is said",
        "None",
        (
            "test_records_name_the_gpu_and_its_peak_memory",
            "test_gpus_have_the_names_that_are_visible",
            "test_a_gpu_that_torch_cannot_use_is_said",
        ),
    ),
    "runs/queue.py": Branch(
        "free memory of the GPU, asked in another process",
        "the machine's",
        ("test_the_queue_asks_the_gpu_for_its_memory",),
    ),
    "runs/rehearsal.py": Branch(
        "more steps of a stage, for a graph", "one step", ("test_counts_become_small_and_nothing_grows",)
    ),
    "runs/rehearsals.py": Branch(
        "an entry of its own for a row, without a planned time",
        "the CPU's entry",
        ("test_a_row_is_rehearsed_on_a_cpu_and_on_a_gpu",),
    ),
    "runs/artifact.py": Branch("the scale gpu", "small", ("test_empty_options_mean_the_defaults",)),
    "runs/plan.py": Branch("times of a GPU", "times of a core", ("test_the_gpu_is_used_if_there_is_one",)),
}
"""There is no pinned memory: copies are asked not to wait, which from memory
that is not pinned they may do all the same (`test_a_segment_that_moves_knows_its_labels_before`)."""


def test_every_place_that_asks_for_a_gpu_is_listed_with_tests_that_exist():
    asking = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(ASKS.search(line) for line in path.read_text().splitlines())
    }
    assert asking == set(BRANCHES)
    written = " ".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for file, branch in BRANCHES.items():
        for name in branch.tests:
            assert f"def {name}(" in written, (file, name)


@pytest.fixture
def asked(monkeypatch):
    """Every autocast that was asked for: (device, type or None, on)."""
    found = []

    def record(device, dtype=None, enabled=True):
        found.append((device, dtype, enabled))
        return nullcontext()

    monkeypatch.setattr(torch, "autocast", record)
    return found


def test_bf16_is_asked_of_the_device_and_float32_of_none(asked):
    for device in (CUDA, CPU):
        autocast(device, "bf16"), autocast(device, "float32")
    assert asked == [("cuda", torch.bfloat16, True), ("cpu", torch.bfloat16, True)]
    (
        full_precision(SimpleNamespace(device=CUDA)),
        full_precision(torch.zeros(1)),
        full_precision(torch.zeros(1, device="meta")),
    )
    assert asked[2:] == [("cuda", None, False), ("cpu", None, False), ("cpu", None, False)]


def test_recomputing_keeps_the_random_numbers_of_the_gpu_too(monkeypatch):
    theirs, put = torch.tensor([7, 8], dtype=torch.uint8), []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: theirs)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: put.append((state, device)))
    kept = recompute._random_states(CUDA)
    drawn = torch.rand(3)
    recompute._set_random_states(kept, CUDA)
    assert torch.equal(torch.rand(3), drawn) and put == [(theirs, CUDA)]
    kept = recompute._random_states(CPU)
    recompute._set_random_states(kept, CPU)
    assert kept[1] is None and len(put) == 1
    assert recompute._cuda(CUDA) == [CUDA] and recompute._cuda(CPU) == []


@pytest.mark.parametrize(
    ("on_gpu", "capturing", "traced"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_graph_that_is_captured_is_not_looked_into(on_gpu, capturing, traced, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    assert delta_rule._is_traced(SimpleNamespace(is_cuda=on_gpu)) == traced


def test_the_scan_is_the_same_in_a_gpus_chunks(monkeypatch):
    torch.manual_seed(0)
    B, S, inner, N = 2, 300, 3, 4
    x, dt = torch.randn(B, S, inner).double(), torch.rand(B, S, inner).double()
    given = (
        x,
        dt,
        -torch.rand(inner, N).double(),
        *torch.randn(2, B, S, N).double(),
        torch.zeros(B, inner, N).double(),
    )
    expected = selective_scan.selective_scan_by_token(*given)
    for numbers in (1, 2**8, selective_scan.CHUNK_ELEMENTS["cuda"]):
        monkeypatch.setitem(selective_scan.CHUNK_ELEMENTS, "cpu", numbers)
        for ours, theirs in zip(selective_scan.selective_scan(*given), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_on_a_gpu_wide_models_read_diagonally():
    """A model without memory stands in for one on a GPU: both are not on a CPU."""
    config = DecoderConfig(50, d_model=512, n_layers=4, n_heads=4)
    with torch.device("meta"):
        there = ARMT(Decoder(config), 4, 8).eval()
    here = ARMT(Decoder(config), 4, 8).eval()
    assert there.prefers_wavefront(1, 512, 8) and not here.prefers_wavefront(1, 512, 8)
    assert there.prefers_wavefront(16, 512, 8)
    assert not there.prefers_wavefront(32, 512, 8)  # large enough to fill the GPU
    assert not there.prefers_wavefront(1, 512, 1)


@pytest.mark.parametrize(("device", "wanted", "compiled"), [(CUDA, True, 2), (CUDA, False, 0), (CPU, True, 0)])
def test_layers_are_compiled_on_a_gpu_alone(device, wanted, compiled, monkeypatch, tmp_path):
    """Up to the first step: a model that goes nowhere stands in for one on the GPU."""
    config = get_artifact("enwik8").config("rmt-10-bptt-1-seg128", "smoke", 0)
    params = read_params(config.to_json()["params"] | {"compile": wanted})
    asked = []
    model = SimpleNamespace(to=lambda place: model, with_cache=lambda cache: model)
    model.compile_layers = lambda: asked.append(model)

    def reached(*_, **__):
        raise InterruptedError

    monkeypatch.setattr(language_run, "default_device", lambda: device)
    monkeypatch.setattr(language_run, "open_corpus", lambda params: SimpleNamespace(train=None))
    monkeypatch.setattr(language_run, "build", lambda *_, **__: model)
    monkeypatch.setattr(language_run, "StreamSource", lambda *_: None)
    monkeypatch.setattr(language_run, "train", reached)
    monkeypatch.setattr(language_run, "no_compiler", lambda device: None)
    with pytest.raises(InterruptedError):
        language_run.execute(params, RunFolder(tmp_path), "bpc")
    assert len(asked) == compiled
    monkeypatch.setattr(language_run, "no_compiler", lambda device: "no gcc")
    with pytest.raises(InterruptedError):
        language_run.execute(params, RunFolder(tmp_path), "bpc")
    assert len(asked) == compiled
    assert read_notes(tmp_path) == ["the layers were not compiled, and are slower for it: no gcc"] * bool(compiled)


def test_a_compiler_that_does_not_work_is_found_out(monkeypatch):
    def broken(function):
        raise RuntimeError("no C compiler\nmore")

    monkeypatch.setattr(torch, "compile", lambda function: function)
    assert language_run.no_compiler(CPU) is None
    monkeypatch.setattr(torch, "compile", broken)
    assert language_run.no_compiler(CPU) == "no C compiler"


@pytest.mark.parametrize("name", ["decoder", "mamba", "rwkv"])
def test_scores_of_a_text_are_not_rounded_to_bf16(name):
    """Of a table of ones and a half, scores around -100 are half a unit apart in bf16."""
    config = {
        "decoder": DecoderConfig(50, 8, 1, 2),
        "mamba": MambaConfig(50, 8, 1),
        "rwkv": RWKVConfig(50, 8, 1, head_width=4),
    }
    model = Decoder(config[name]) if name == "decoder" else build(config[name], seed=0)
    table = (model.tokens if getattr(model, "head", None) is None else model.head).weight
    with torch.no_grad():
        table.copy_(torch.linspace(-12.55, -12.45, 50)[:, None].expand(50, 8))
    hidden = torch.ones(1, 8)
    exact = model.logits(hidden)
    with autocast(CPU, "bf16"):
        trained = model.logits(hidden)
        with torch.no_grad():
            scored = model.logits(hidden)
    assert trained.dtype == torch.bfloat16 and len(trained.unique()) < 5
    assert scored.dtype == torch.float32 and len(scored.unique()) == 50
    torch.testing.assert_close(scored, exact)


def test_a_test_that_does_not_fit_is_done_in_halves(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    tried = []

    def scarce(batch):
        tried.append(len(batch))
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError
        return [i % 3 == 0 for i in batch]

    assert in_halves(scarce, range(7)) == [i % 3 == 0 for i in range(7)]
    assert tried == [7, 3, 1, 2, 4, 2, 2]
    with pytest.raises(RmtlibError, match="one sample of a test does not fit in the GPU's memory"):
        in_halves(lambda batch: scarce([0, 0, 0]), range(2))


def test_the_clock_waits_for_a_gpu(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    first = Machine(CUDA).now()
    assert waited == [CUDA] and Machine(CPU).now() >= first and waited == [CUDA]


def test_the_gpu_is_used_if_there_is_one(monkeypatch):
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert default_device().type == ("cuda" if there else "cpu")
        monkeypatch.setattr(torch.cuda, "device_count", lambda there=there: 3 * there)
        assert scheduler.default_jobs() == (3 if there else min(4, provenance.cores()))
        assert plan._on_gpu("small") == there and plan._on_gpu("gpu")


def test_processes_meet_by_nccl_and_take_a_gpu_each(monkeypatch, tmp_path):
    met, chosen = [], []
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend, **more: met.append(backend))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        devices._meet(0, 2, str(tmp_path))
        devices._choose_gpu(0, 1)
        if there:
            with pytest.raises(RmtlibError, match="--devices 2: there is 1 here"):
                devices._choose_gpu(1, 2)
    assert met == ["nccl", "gloo"] and chosen == [0]


def test_records_name_the_gpu_and_its_peak_memory(monkeypatch):
    assert provenance.gpu_name() is None and provenance.peak_memory()["gpu"] is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "a GPU")
    assert provenance.gpu_name() == "a GPU" and provenance.has_gpu()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert provenance.peak_memory()["gpu"] is None  # asking would start it
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 12)
    assert provenance.peak_memory()["gpu"] == 12 and Machine(CUDA).peak() == 12


@pytest.mark.parametrize(("visible", "names"), [(None, ["0", "1"]), ("3, GPU-5", ["3", "GPU-5"])])
def test_gpus_have_the_names_that_are_visible(visible, names, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert provenance.gpu_ids() == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert provenance.gpu_ids() == names


def test_a_gpu_that_torch_cannot_use_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert provenance.unused_gpu() is None or any(map(os.path.exists, provenance._NVIDIA_DEVICES))
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(provenance, "_NVIDIA_DEVICES", (str(tmp_path / "nvidia0"),))
    assert "cannot use this machine's GPU, so that the CPU trains" in provenance.unused_gpu()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert provenance.unused_gpu() is None


def test_the_queue_asks_the_gpu_for_its_memory(monkeypatch):
    assert queue._memory() == provenance.memory_bytes() and queue._process_bytes() == 0
    said = SimpleNamespace(returncode=0, stdout="123\n", stderr="")
    monkeypatch.setattr(provenance, "has_gpu", lambda: True)
    monkeypatch.setattr(queue.subprocess, "run", lambda *_, **__: said)
    assert queue._memory() == 123.0 and queue._process_bytes() == queue.GPU_PROCESS_BYTES
    said.returncode, said.stderr = 1, "warning\nno driver"
    with pytest.raises(RmtlibError, match="how much memory is free: no driver"):
        queue._memory()


def test_a_segment_that_moves_knows_its_labels_before():
    """On the host: looking them up on a GPU would wait for it. The device without memory stands in for a GPU."""
    labels = torch.full((2, 8), IGNORE)
    labels[0, 5] = labels[1, 2] = labels[1, 3] = 4
    here = Segment(torch.arange(16).view(2, 8), labels, torch.tensor([8, 4]))
    there = here.to("meta")
    assert there.labelled_at is not None and there.labelled() is there.labelled_at
    assert there.labelled().rows_BN.shape == here.labelled().rows_BN.shape == (2, 2)
    assert there.input_ids_BS.device.type == there.lengths_B.device.type == "meta"
    same = here.to("cpu").labelled()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(same, here.labelled(), strict=True))


@pytest.mark.parametrize("gpu", [True, False])
def test_a_language_model_is_asked_in_bfloat16_on_a_gpu_alone(monkeypatch, gpu):
    moved = []
    model = SimpleNamespace(
        to=lambda *where: moved.append(where) or model, config=SimpleNamespace(), eval=lambda: model
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(prompting, "load_hf", lambda name: (model, ""))
    monkeypatch.setattr(prompting, "load_hf_tokenizer", lambda name: (SimpleNamespace(chat_template=None), ""))
    prompting.load_answerer("any")
    assert moved == ([("cuda", torch.bfloat16)] if gpu else [])
