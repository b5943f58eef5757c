"""RMT and ARMT in EleutherAI's lm-evaluation-harness: its three kinds of request, with memory carried over segments.

    python -m rmtlib.evaluation.harness run --model rmt --model_args pretrained=FOLDER --tasks babilong_qa1 ...

is the harness's own command with the model `rmt` known to it (`pip install 'rmtlib[harness]'`). A context is read
segment by segment, whatever its length: nothing is truncated, and nothing but memory passes from segment to segment.

Shapes: B batch, T tokens of a text, S segment size, K scored tokens, N rows read of a sample, D width, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
except ModuleNotFoundError as error:
    if __name__ != "__main__" or error.name != "lm_eval":
        raise
    raise SystemExit("error: this needs lm-evaluation-harness: pip install 'rmtlib[harness]'") from None

from rmtlib.errors import RmtlibError
from rmtlib.evaluation.prompting import load_answerer
from rmtlib.models.generation import generate
from rmtlib.models.hub import MemoryForCausalLM
from rmtlib.models.reading import read
from rmtlib.segments import cut, next_token_labels, segment_count

MOST_NEW_TOKENS = 256  # of a generation that asks for no number, as in the harness


@register_model("rmt")
class MemoryLM(TemplateLM):
    """A saved model with memory as the harness wants a language model.

    Args:
        pretrained: a folder that `save_pretrained` made, a name on the hub, or the model itself.
        tokenizer: its name, or the tokeniser itself; None: the model's or its backbone's.
        batch_size: texts that are scored at once. Answers are generated one at a time.
        device: "cpu", "cuda", ...; None, and "cuda" without a GPU, which the harness asks for: where it is loaded.

    Raises:
        RmtlibError: a model without memory, or one that cannot be had.
    """

    def __init__(
        self,
        pretrained: Any,
        tokenizer: Any = None,
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
    ):
        super().__init__()
        if isinstance(pretrained, str):
            loaded = load_answerer(pretrained, tokenizer)
            pretrained, tokenizer = loaded.model, loaded.tokenizer
        if not isinstance(pretrained, MemoryForCausalLM):
            raise RmtlibError(f"{type(pretrained).__name__} has no memory: give the harness --model hf for it")
        if not str(batch_size).isdigit():
            raise RmtlibError(f"batch_size is {batch_size!r}; it must be a whole number")
        if device and (torch.cuda.is_available() or not device.startswith("cuda")):
            pretrained = pretrained.to(device)  # type: ignore[arg-type]
        self.model = pretrained.eval()
        self.tokenizer = tokenizer
        self.batch_size, self._device = int(batch_size), self.model.device

    @property
    def eot_token_id(self) -> int:
        """What stands before the first token of a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.tokenizer.get_chat_template(chat_template if isinstance(chat_template, str) else None)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.tokenizer.encode(string, add_special_tokens=bool(add_special_tokens))

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [(context or [self.prefix_token_id], asked) for _, context, asked in requests]
        results: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        for chosen in self._batches([len(context) + len(asked) for context, asked in pairs]):
            for i, result in zip(chosen, self._score([pairs[i] for i in chosen]), strict=True):
                results[i] = result
                if requests[i][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[i][0], result)
        return results

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts: one reading each, with memory instead of windows that overlap."""
        texts = [request.args[0] for request in requests]
        scored = self._loglikelihood_tokens([(None, [], self.tok_encode(text)) for text in texts])
        for text, (total, _) in zip(texts, scored, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return [total for total, _ in scored]

    @torch.no_grad()
    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations up to the first of the stop strings, the end of text or so many tokens."""
        texts = []
        for request in requests:
            context, settings = request.args
            if settings.get("do_sample") and settings.get("temperature", 1.0):
                raise RmtlibError("this task samples; the model rmt answers greedily: set do_sample=false")
            stops = settings.get("until") or []
            prompt_1T = torch.tensor([self.tok_encode(context) or [self.prefix_token_id]], device=self.device)
            core, most = self.model.core, int(settings.get("max_gen_toks", MOST_NEW_TOKENS))
            made_1n = generate(
                core, prompt_1T, core.initial_state(1), self.model.config.segment_size, most, eos_id=self.eot_token_id
            )
            text = self.tokenizer.decode(made_1n[0], skip_special_tokens=True)
            for stop in [stops] if isinstance(stops, str) else stops:
                text = text.split(stop)[0] if stop else text
            self.cache_hook.add_partial("generate_until", request.args, text)
            texts.append(text)
        return texts

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indices of texts of similar lengths, longest first."""
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        for first in range(0, len(order), self.batch_size):
            yield order[first : first + self.batch_size]

    @torch.no_grad()
    def _score(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Of each (context, asked) the log-likelihood of `asked` in nats, and whether greedy decoding gives it."""
        texts = [np.array([*context, *asked]) for context, asked in pairs]
        labels = [
            next_token_labels(text, np.arange(len(text)) >= len(context))
            for text, (context, _) in zip(texts, pairs, strict=True)
        ]
        core, S = self.model.core, self.model.config.segment_size
        total_B = torch.zeros(len(pairs), dtype=torch.float64, device=self.device)
        wrong_B = torch.zeros(len(pairs), dtype=torch.long, device=self.device)
        segments = (segment.to(self.device) for segment in cut(texts, labels, S))
        count = segment_count(max(map(len, texts)), S)
        for segment, hidden_BND in read(core, segments, core.initial_state(len(pairs)), count):
            at = segment.labelled()
            if len(at.targets_K):
                logits_KV = core.logits(at.select(hidden_BND)).float()
                sample_K = at.which_K // hidden_BND.shape[1]
                logp_K = logits_KV.log_softmax(-1).gather(1, at.targets_K[:, None])[:, 0]
                total_B.index_add_(0, sample_K, logp_K.double())
                wrong_B.index_add_(0, sample_K, (logits_KV.argmax(-1) != at.targets_K).long())
        return list(zip(total_B.tolist(), (wrong_B == 0).tolist(), strict=True))


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
