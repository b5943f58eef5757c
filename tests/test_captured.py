"""A step as a CUDA graph gives what the step gives; where there is no GPU, a stand-in repeats what it recorded."""

from functools import partial

import numpy as np
import pytest
import torch
from test_rmt import make
from test_training import S, V, batch

from rmtlib.models.config import TransformerXLConfig
from rmtlib.models.transformer_xl import TransformerXL
from rmtlib.segments import Segment, next_token_labels
from rmtlib.training import captured
from rmtlib.training.bptt import Read, accumulate, replayed_loss
from rmtlib.training.captured import WARM_UPS, Captured, GraphsDropped
from rmtlib.training.curriculum import Stage, TrainConfig
from rmtlib.training.sources import CurriculumSource


def recorded_on_the_cpu(log, models, run, pool):
    """As `captured.record`: nothing is added yet, and what it returns writes to the outputs of the recording."""
    gradients = [p.grad for model in models for p in model.parameters() if p.grad is not None]
    before = [gradient.clone() for gradient in gradients]
    outputs = run()
    for gradient, value in zip(gradients, before, strict=True):
        gradient.copy_(value)
    log.append("recorded")

    def replay():
        log.append("replayed")
        for kept, new in zip(captured._leaves(outputs), captured._leaves(run()), strict=True):
            kept.copy_(new)

    return replay, outputs, "pool"


class OnAGPU:
    """How `Captured` sees a GPU: the host's tensors are on another device than the model."""

    def __init__(self, monkeypatch):
        self.log, self.models = [], []
        monkeypatch.setattr(captured, "record", partial(recorded_on_the_cpu, self.log, self.models))

    def made(self, function, model):
        self.models.append(model)
        made = Captured(model, function)
        made.possible = True
        return made


@pytest.fixture
def gpu(monkeypatch):
    return OnAGPU(monkeypatch)


def one_step(model, call):
    model.zero_grad(set_to_none=True)
    outputs = call()
    return outputs, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(a, b):
    for x, y in zip(captured._leaves(a[0]), captured._leaves(b[0]), strict=True):
        torch.testing.assert_close(x, y)
    assert a[1].keys() == b[1].keys()
    for name in a[1]:
        torch.testing.assert_close(a[1][name], b[1][name])


def drawn(seed, lengths=(25, 13)):
    torch.manual_seed(seed)
    return [
        Segment(torch.randint(0, V, s.input_ids_BS.shape), s.labels_BS, s.lengths_B).to("cpu")
        for s in batch(list(lengths), {1, 4})
    ]


def test_every_call_gives_the_loss_and_the_gradients_of_its_own_batch(gpu):
    model = make()
    add = lambda segments: accumulate(model, segments, scale=0.5)  # noqa: E731
    fast = gpu.made(add, model)
    for i in range(WARM_UPS + 3):
        segments = drawn(i)
        assert_same(one_step(model, lambda s=segments: fast(s)), one_step(model, lambda s=segments: add(s)))
    assert gpu.log == ["recorded"] + ["replayed"] * 3


def test_shapes_have_graphs_of_their_own(gpu):
    model = make()
    add = lambda segments: accumulate(model, segments)  # noqa: E731
    fast = gpu.made(add, model)
    for i in range(WARM_UPS + 2):
        for lengths in ((25, 13), (S, S)):
            segments = drawn(i, lengths)
            assert_same(one_step(model, lambda s=segments: fast(s)), one_step(model, lambda s=segments: add(s)))
    assert gpu.log == ["recorded", "replayed"] * 2 + ["replayed"] * 2


def test_a_parameter_without_gradient_stays_without(gpu):
    model = make()
    model.unused = torch.nn.Parameter(torch.ones(2))
    fast = gpu.made(lambda segments: accumulate(model, segments), model)
    for _ in range(WARM_UPS + 2):
        _, gradients = one_step(model, lambda: fast(drawn(0)))
    assert "replayed" in gpu.log
    assert gradients.keys() == dict(model.named_parameters()).keys() - {"unused"}


@pytest.mark.parametrize(("first_is_captured", "replayed"), [(True, 4), (False, 0)])
def test_gradients_that_are_there_are_added_to(first_is_captured, replayed, gpu):
    """Those of another part of the step by graphs, those of elsewhere without one: they lie where no graph writes."""
    model = make()
    add = lambda segments: accumulate(model, segments)  # noqa: E731
    fast = gpu.made(add, model)
    for _ in range(WARM_UPS + 1):
        one_step(model, lambda: fast(drawn(0)))
    gpu.log.clear()

    def both(call):
        (call if first_is_captured else add)(drawn(0))
        call(drawn(1))

    expected = one_step(model, lambda: both(add))
    for _ in range(2):
        assert_same(one_step(model, lambda: both(fast)), expected)
    assert gpu.log.count("replayed") == replayed


def test_states_pass_from_call_to_call(gpu):
    xl = dict(vocab_size=V, d_model=16, n_layers=2, n_heads=2, d_head=8, d_ff=32, dropout=0.0, memory_tokens=2)
    torch.manual_seed(0)
    model = TransformerXL(TransformerXLConfig(**xl)).double()

    def add(reads):
        loss, mean, state = replayed_loss(model, reads, "stored")
        loss.backward()
        return mean, state

    def losses(call):
        state, found, earlier = None, [], None
        for i in range(WARM_UPS + 4):
            torch.manual_seed(i)
            x = torch.randint(0, V, (2, S))
            read = Read(Segment(x, x, None).to("cpu"), state)
            model.zero_grad(set_to_none=True)
            mean, state = call([read] if earlier is None else [earlier, read])
            state = type(state)(*(y.detach() for y in state))
            found.append(mean.item())
            earlier = read
        return found

    assert losses(gpu.made(add, model)) == pytest.approx(losses(add))
    assert "replayed" in gpu.log


def test_what_cannot_be_recorded_runs_as_it_is(monkeypatch, capsys):
    def refused(run, pool):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(captured, "record", refused)
    model = make()
    fast = Captured(model, lambda segments: accumulate(model, segments))
    fast.possible = True
    for i in range(WARM_UPS + 2):
        segments = drawn(i)
        plain = one_step(model, lambda s=segments: accumulate(model, s))
        assert_same(one_step(model, lambda s=segments: fast(s)), plain)
    assert capsys.readouterr().out == "note: no CUDA graph: operation not permitted when stream is capturing\n"


def test_without_a_gpu_nothing_is_recorded(monkeypatch):
    monkeypatch.setattr(captured, "record", lambda *_: pytest.fail("recorded"))
    model = make()
    fast = Captured(model, lambda segments: accumulate(model, segments))
    for _ in range(WARM_UPS + 2):
        one_step(model, lambda: fast(drawn(0)))


def test_tensors_of_the_host_are_copied_into_place_at_once():
    elsewhere = torch.device("cpu", 0)  # not the device of a tensor on the CPU, by name
    segments = drawn(0)
    places, flat = captured._places((segments, 0.5), elsewhere)
    assert [x.tolist() for x in places] == [x.tolist() for x in captured._leaves(segments)]
    assert len(flat) == 1 and all(x.untyped_storage().data_ptr() == flat[torch.int64].data_ptr() for x in places)


def test_out_of_memory_gives_the_graphs_memory_back(gpu):
    model = make()

    def add(segments):
        if fails:
            raise torch.cuda.OutOfMemoryError
        return accumulate(model, segments)

    fails, fast = [], gpu.made(add, model)
    for _ in range(WARM_UPS + 1):
        one_step(model, lambda: fast(drawn(0)))
    fails.append(True)
    with pytest.raises(GraphsDropped):  # the trainer tries the same batch again
        one_step(model, lambda: fast(drawn(0, (S, S))))
    assert not fast.graphs and not fast.gradients and fast.pool is None and not fast.possible
    with pytest.raises(torch.cuda.OutOfMemoryError) as plain:  # now for want of memory for the pass itself
        one_step(model, lambda: fast(drawn(0, (S, S))))
    assert not isinstance(plain.value, GraphsDropped)
    fails.clear()
    assert_same(one_step(model, lambda: fast(drawn(0, (S, S)))), one_step(model, lambda: add(drawn(0, (S, S)))))


def test_out_of_memory_in_a_recording_costs_the_graphs_alone(gpu, monkeypatch):
    model = make()
    add = partial(accumulate, model)
    fast = gpu.made(add, model)

    def record(run, pool):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(captured, "record", record)
    for _ in range(WARM_UPS):
        one_step(model, lambda: fast(drawn(0)))
    with pytest.raises(GraphsDropped):  # not to halve a batch that has fitted
        one_step(model, lambda: fast(drawn(0)))
    assert not fast.possible and not fast.gradients
    assert_same(one_step(model, lambda: fast(drawn(0))), one_step(model, lambda: add(drawn(0))))


def test_a_softmax_with_clusters_waits_for_the_device():
    xl = dict(vocab_size=V, d_model=16, n_layers=1, n_heads=2, d_head=8, d_ff=32)
    for cutoffs in ((), (V // 2,)):
        model = TransformerXL(TransformerXLConfig(**xl, cutoffs=cutoffs))
        waits = [m for m in model.modules() if getattr(m, "waits_for_device", False)]
        assert bool(waits) == bool(cutoffs)


def test_a_source_records_each_batch_of_a_shape_whatever_its_labels_count(gpu, monkeypatch):
    class Sample:
        def __init__(self, index):
            random = np.random.default_rng(index)
            self.tokens = random.integers(0, V, 50)
            self.labels = next_token_labels(self.tokens, random.random(50) < 0.1)

    def steps(model, possible):
        stages = (Stage(2, 4, 1e-3), Stage(2, 4, 1e-3))
        source = CurriculumSource(TrainConfig(stages, 25, 4, 0), lambda stage, index: Sample(index))
        found = []
        for stage in range(2):
            optimizer = source.new_optimizer(model)
            for step in range(WARM_UPS + 3):
                optimizer.zero_grad(set_to_none=True)
                source._step(model).possible = possible
                gpu.models[:] = [model]
                batch = source.next_batch(stage, step, 4 * step)
                loss = source.backward(model, batch, 4)
                found.append((torch.tensor(loss), {name: p.grad.clone() for name, p in model.named_parameters()}))
        return found

    model = make()
    for fast, plain in zip(steps(model, True), steps(model, False), strict=True):
        assert_same(fast, plain)
    assert gpu.log.count("recorded") == 2 and gpu.log.count("replayed") == 6  # once a stage
