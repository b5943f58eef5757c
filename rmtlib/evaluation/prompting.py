"""Answers of a language model that was not trained on BABILong: prompt, greedy generation, the benchmark's score.

As the benchmark's released runner has it (scripts/run_model_on_babilong.py, see `data.babilong_prompts`): one prompt at
a time, 15 new tokens, greedy, special tokens left out, blanks stripped. Any Hugging Face causal model, and this
package's RMT and ARMT, whose memory is carried from segment to segment and on into the answer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from rmtlib.data.babilong_prompts import NEW_TOKENS, prompt_of
from rmtlib.data.babilong_texts import TextSample
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.outcomes import pack_outcomes
from rmtlib.evaluation.question_answering import babilong_match, strict_match
from rmtlib.models.backbones import load_hf, load_hf_tokenizer
from rmtlib.models.hub import MemoryForCausalLM

SCORERS = ("babilong", "strict")
"""The benchmark's scorer for answers in sentences, and the fine-tuning papers' exact match."""


class TooLong(RmtlibError):
    """A prompt has more tokens than the model has positions."""


@dataclass(frozen=True)
class Answerer:
    """A model with its tokeniser.

    Attributes:
        chat: prompts are put into the tokeniser's chat template, as one message of the user.
        notes: where model and tokeniser come from.
    """

    model: Any
    tokenizer: Any
    chat: bool = False
    notes: tuple[dict[str, Any], ...] = ()

    @property
    def positions(self) -> int | None:
        """Tokens that the model can read at once; None: no bound, as with memory or a recurrent state."""
        if isinstance(self.model, MemoryForCausalLM):
            return None
        config = self.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None)

    def encode(self, prompt: str) -> torch.Tensor:
        """Token ids (1, T)."""
        if not self.chat:
            return self.tokenizer(prompt, return_tensors="pt", add_special_tokens=True)["input_ids"]
        message = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return self.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def answer(self, prompt: str) -> str:
        """What the model writes after the prompt.

        Raises:
            TooLong: prompt and answer need more positions than there are.
        """
        ids_1T = self.encode(prompt).to(self.model.device)
        needed = ids_1T.shape[1] + NEW_TOKENS
        if self.positions is not None and needed > self.positions:
            raise TooLong(f"{needed:,} positions are needed, the model has {self.positions:,}")
        end = self.tokenizer.eos_token_id
        greedy: dict[str, Any] = {"num_beams": 1, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if self.tokenizer.pad_token_id is None:
            greedy["pad_token_id"] = end
        mask_1T = torch.ones_like(ids_1T)
        made = self.model.generate(input_ids=ids_1T, attention_mask=mask_1T, max_new_tokens=NEW_TOKENS, **greedy)
        return self.tokenizer.decode(made[0, ids_1T.shape[1] :], skip_special_tokens=True).strip()


def load_answerer(name: str, tokenizer: str | None = None, *, chat: bool = False) -> Answerer:
    """A model by its name on the hub, its folder, or "smollm2", in bfloat16 on a GPU if there is one.

    Args:
        tokenizer: whose; None: the model's own, for a model with memory else its backbone's.

    Raises:
        RmtlibError: model or tokeniser cannot be had, or the tokeniser has no chat template.
    """
    model, note = load_hf(name)
    if torch.cuda.is_available():
        model = model.to("cuda", torch.bfloat16)
    try:
        loaded, more = load_hf_tokenizer(tokenizer or name)
    except RmtlibError as error:
        backbone = getattr(model.config, "backbone_name", None)
        if tokenizer:
            raise
        if not backbone:
            raise RmtlibError(f"{name!r} comes without a tokeniser that can be read; give --tokenizer NAME") from error
        loaded, more = load_hf_tokenizer(backbone)
    if chat and not loaded.chat_template:
        raise RmtlibError(f"the tokeniser of {name!r} has no chat template; leave out --chat")
    return Answerer(model.eval(), loaded, chat, (note, more))


def score(answerer: Answerer, task: str, samples: Iterable[TextSample], shots: int | None) -> dict[str, Any]:
    """Both scores of a model on some samples, as a result file keeps them.

    Args:
        shots: examples in the prompt, see `Prompt.write`.

    Returns:
        "n", "correct" and "outcomes" by scorer, and the "answers"; if a prompt has too many tokens for the model
        "cannot_be_read" with the reason instead.
    """
    right: dict[str, list[bool]] = {scorer: [] for scorer in SCORERS}
    answers = []
    for sample in samples:
        try:
            answer = answerer.answer(prompt_of(task).write(sample.input, sample.question, shots))
        except TooLong as error:
            return {"cannot_be_read": str(error)}
        answers.append(answer)
        right["babilong"].append(babilong_match(task, answer, sample.target, sample.question))
        right["strict"].append(strict_match(answer, sample.target))
    return {
        "n": len(answers),
        "correct": {scorer: sum(outcomes) for scorer, outcomes in right.items()},
        "outcomes": {scorer: pack_outcomes(outcomes) for scorer, outcomes in right.items()},
        "answers": answers,
    }
