"""BABILong for language models that were not trained on it: prompts, samples as texts, scores, and the command."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ByT5Tokenizer, LlamaConfig, LlamaForCausalLM

from rmtlib.cli import main
from rmtlib.data import babilong_texts
from rmtlib.data.babilong_prompts import PROMPTS, nominal_tokens, prompt_of
from rmtlib.data.babilong_texts import HUB_NAME, TaskTexts, open_texts
from rmtlib.data.text import HFTokenizer
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.outcomes import unpack_outcomes
from rmtlib.evaluation.prompting import Answerer, load_answerer, score
from rmtlib.models.hub import RMTForCausalLM
from rmtlib.runs.prompted import Prompting, evaluate


@pytest.fixture(autouse=True)
def made_up(monkeypatch, tmp_path):
    """An empty folder; samples in bytes instead of GPT-2's pieces, and made-up words as background."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RMTLIB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(babilong_texts.GPT2Tokenizer, "load", lambda: HFTokenizer("bytes", ByT5Tokenizer()))


def texts(task: str = "qa1") -> TaskTexts:
    return open_texts(task, questions="simulator", background="synthetic")


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    return LlamaForCausalLM(LlamaConfig(vocab_size=384, max_position_embeddings=2048, **shape)).eval()


# Prompts


def test_a_prompt_is_instruction_examples_form_context_and_question():
    assert prompt_of("qa4").write(" The hallway is north.\n", "What is north?", shots=1) == (
        "I will give you context with the facts about different people, their location and actions, hidden in some "
        "random text and a question. You need to answer the question based only on the information from the facts.\n\n"
        "<example>\nThe hallway is south of the kitchen. The bedroom is north of the kitchen. "
        "What is the kitchen south of?\nAnswer: bedroom\n</example>\n\n"
        "Your answer should contain only one word - location. Do not write anything else after that.\n\n"
        "<context>\nThe hallway is north.\n</context>\n\nQuestion: What is north?"
    )
    bare = "<context>\nThe hallway is north.\n</context>\n\nQuestion: What is north?"
    assert prompt_of("qa4").write("The hallway is north.", "What is north?", shots=0) == bare


@pytest.mark.parametrize(("task", "examples"), [("qa1", 2), ("qa2", 2), ("qa3", 2), ("qa4", 2), ("qa5", 3)])
def test_all_examples_stand_in_the_prompt_unless_fewer_are_asked_for(task, examples):
    prompt = prompt_of(task)
    assert [prompt.write("c", "q", n).count("<example>") for n in (None, 1, 0)] == [examples, 1, 0]
    assert prompt.write("c", "q") == prompt.write("c", "q", examples)
    with pytest.raises(RmtlibError, match=f"this task's prompt has {examples}"):
        prompt.write("c", "q", examples + 1)


def test_examples_are_answered_as_the_form_asks():
    """Every example's answer is right by the benchmark's scorer: its answer is the only label that is named."""
    assert "\n</example>\n\n<example>\n" in prompt_of("qa1").write("", "")  # as released: qa1 alone has an empty line
    assert "\n</example>\n<example>\n" in prompt_of("qa5").write("", "")
    for prompt in PROMPTS.values():
        assert all(text.count("\nAnswer: ") == 1 for text in prompt.examples)


def test_lengths_leave_room_for_the_prompt_as_the_published_sets_do():
    assert [nominal_tokens(name) for name in ("0k", "1k", "128k", "1M")] == [0, 700, 127_700, 999_700]
    for wrong in ("4", "k", "4K", "-1k", "1.5k", ""):
        with pytest.raises(RmtlibError, match="is no context length"):
            nominal_tokens(wrong)


# Samples as texts


def test_texts_are_the_samples_of_the_builder_decoded():
    source = texts()
    for i, sample in enumerate(source.samples("1k", 5)):
        built = source.builder.build(i, 700)
        assert sample.question == built.question.question and sample.target == built.question.answer
        assert built.asked_at == 700 and len(sample.input) in (698, 699)  # without the blank before, or one at the cut
        assert source.builder.tokenizer.decode(built.tokens[:700]).strip() == sample.input
        places = [sample.input.index(fact) for fact in dict.fromkeys(built.question.facts)]
        assert places == sorted(places) and sample.question not in sample.input
    assert [sample.input for sample in source.samples("0k", 3)] == [
        " ".join(source.builder.questions[i].facts) for i in range(3)
    ]


def test_questions_whose_facts_do_not_fit_are_left_out():
    source = texts("qa2")
    assert source.count("0k", 2000) == len(source.builder.questions)
    assert 0 < source.count("1k", 2000) < len(source.builder.questions)
    assert source.count("1k", 7) == 7


def test_the_written_folder_is_read_as_the_published_data_set_is(tmp_path, capsys):
    datasets = pytest.importorskip("datasets")
    options = ["--background", "synthetic", "--lengths", "0k,1k", "--tasks", "qa1,qa5", "--samples", "4"]
    assert main(["evaluate", "babilong", *options, "--write", "set"]) == 0
    out = capsys.readouterr().out
    assert "1k: 4 of qa1, 4 of qa5" in out and "cd set && lm_eval" in out
    read = datasets.load_dataset(str(tmp_path / "set" / HUB_NAME), name="1k", split="qa5", cache_dir=str(tmp_path))
    expected = list(open_texts("qa5", background="synthetic").samples("1k", 4))
    assert [dict(row) for row in read] == [vars(sample) for sample in expected]


# Answers and scores


class Parrot:
    """A model by hand: it says what is next on its list, in sentences as the prompt asks for."""

    def __init__(self, answers: list[str]):
        self.answers, self.prompts = answers, []

    def answer(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return self.answers[len(self.prompts) - 1]


def test_both_scores_are_counted_sample_by_sample():
    samples = list(texts().samples("0k", 4))
    wrong = next(room for room in ("garden", "office") if room != samples[2].target)
    said = [samples[0].target, f"The most recent location is {samples[1].target}. Or", wrong, "nowhere"]
    parrot: Any = Parrot(said)
    found = score(parrot, "qa1", samples, None)
    assert found["n"] == 4 and found["correct"] == {"babilong": 2, "strict": 1} and found["answers"] == said
    assert unpack_outcomes(found["outcomes"]["babilong"], 4) == [True, True, False, False]
    assert unpack_outcomes(found["outcomes"]["strict"], 4) == [True, False, False, False]
    assert parrot.prompts == [prompt_of("qa1").write(s.input, s.question) for s in samples]


def test_an_answer_is_greedy_and_of_fifteen_tokens():
    model, tokenizer = tiny_llama(), ByT5Tokenizer()
    answerer = Answerer(model, tokenizer)
    ids = tokenizer("Where is Mary?", return_tensors="pt").input_ids
    prompt = ids.shape[1]
    for _ in range(15):
        token = model(ids).logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, token], dim=1)
        if int(token) == tokenizer.eos_token_id:
            break
    assert answerer.answer("Where is Mary?") == tokenizer.decode(ids[0, prompt:], skip_special_tokens=True).strip()


def test_a_chat_template_is_the_users_message_and_refused_if_there_is_none(tmp_path):
    tokenizer = ByT5Tokenizer()
    tiny_llama().save_pretrained("llama")
    tokenizer.save_pretrained("llama")
    with pytest.raises(RmtlibError, match="has no chat template; leave out --chat"):
        load_answerer("llama", chat=True)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %}>"
    ids = Answerer(tiny_llama(), tokenizer, chat=True).encode("Where?")
    assert tokenizer.decode(ids[0]) == "[user: Where?]>"


# The command


@pytest.fixture
def folders(made_up) -> None:
    """A tiny Llama, and an RMT around it without a tokeniser of its own."""
    tiny_llama().save_pretrained("llama")
    ByT5Tokenizer().save_pretrained("llama")
    RMTForCausalLM.from_backbone("llama", memory_tokens=2, segment_size=256).save_pretrained("rmt")


def command(*options: str) -> int:
    return main(["evaluate", "babilong", "--background", "synthetic", "--samples", "2", "--tasks", "qa4", *options])


def test_a_window_that_is_too_short_is_said_and_memory_has_none(folders, capsys):
    assert command("--model", "llama", "--lengths", "0k,2k", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert [line["length"] for line in content["results"]] == ["0k", "2k"]
    assert content["results"][0]["n"] == 2
    assert "the model has 2,048" in content["results"][1]["cannot_be_read"]
    assert {"packages", "hardware", "code", "config", "data"} <= set(content)
    assert command("--model", "llama", "--lengths", "0k,2k") == 0
    assert "too long" in capsys.readouterr().out
    assert command("--model", "rmt", "--lengths", "2k", "--json") == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["n"] == 2


def test_the_same_command_goes_on_and_other_settings_are_refused(folders, capsys):
    assert command("--model", "llama", "--out", "file.json") == 0
    first = json.loads(Path("file.json").read_text())["results"]
    assert command("--model", "llama", "--out", "file.json", "--lengths", "0k,1k") == 0
    assert json.loads(Path("file.json").read_text())["results"][:1] == first

    def unasked(*_: Any, **__: Any) -> Any:
        raise AssertionError("nothing is missing")

    settings = Prompting("llama", samples=2, background="synthetic")
    content, _ = evaluate(settings, ["qa4"], ["1k", "0k"], out=Path("file.json"), load=unasked)
    assert len(content["results"]) == 2
    capsys.readouterr()
    assert command("--model", "llama", "--out", "file.json", "--shots", "0") == 2
    assert capsys.readouterr().err == "error: file.json has results with shots None, not 0; give another --out\n"
    for damaged in ({}, content | {"results": [{"task": "qa4", "length": "0k"}]}, {"config": content["config"]}):
        Path("file.json").write_text(json.dumps(damaged))
        assert command("--model", "llama", "--out", "file.json") == 2
        assert "is no result file of this command" in capsys.readouterr().err


def test_answers_of_other_weights_in_the_same_folder_are_not_taken_over(folders, capsys):
    assert command("--model", "rmt") == 0
    model = RMTForCausalLM.from_pretrained("rmt")
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1.0)
    model.save_pretrained("rmt")
    capsys.readouterr()
    assert command("--model", "rmt") == 2
    assert "has results of other weights than rmt has now; give another --out" in capsys.readouterr().err
    assert command("--model", "rmt", "--out", "new.json") == 0


def test_a_model_without_a_tokeniser_is_told_how_to_get_one(capsys):
    RMTForCausalLM.from_backbone(tiny_llama(), memory_tokens=2, segment_size=256).save_pretrained("rmt")
    capsys.readouterr()
    assert command("--model", "rmt") == 2
    assert "'rmt' comes without a tokeniser that can be read; give --tokenizer NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda name, x: {}, "missing tensor model.layers.0.self_attn.q_proj.weight"),
        (lambda name, x: {name: x[:8].clone()}, r"q_proj.weight has shape \(8, 16\), not \(16, 16\)"),
    ],
)
def test_a_plain_model_with_a_damaged_file_is_not_filled_up_with_drawn_weights(folders, spoil, said):
    tensors = load_file("llama/model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file(tensors | spoil(name, tensors.pop(name)), "llama/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RmtlibError, match=said):
        load_answerer("llama")


def test_offline_a_name_that_is_unknown_asks_no_network(monkeypatch):
    asked = []

    def no_network(host: Any, *_: Any, **__: Any) -> Any:
        asked.append(host)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    with pytest.raises(RmtlibError, match="RMTLIB_OFFLINE is set"):
        load_answerer("nowhere-at-all")
    assert asked == [] and not huggingface_hub.constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lengths", "4"], "length '4' is no context length"),
        (["--tasks", "qa9"], "unknown bAbI task 'qa9'"),
        ([], "no model is named: give --model NAME"),
        (["--model", "m", "--write", "d"], "--write asks no model"),
        (["--model", "m", "--shots", "9"], "9 examples: this task's prompt has 2"),
        (["--model", "m", "--shots", "-1"], "a whole number from 0 up"),
        (["--model", "nowhere"], "cannot be loaded"),
    ],
)
def test_mistakes_are_one_line(options, message, capsys):
    assert main(["evaluate", "babilong", "--background", "synthetic", *options]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
