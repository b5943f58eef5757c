"""BABILong's prompts for language models that were not trained on its tasks: instruction, examples, form of the answer.

The texts of `PROMPTS` and the layout are quoted from the benchmark's released code (github.com/booydar/babilong, file
babilong/prompts.py at commit ffa075f, Apache License 2.0), letter by letter: a model's answers depend on them. Earlier
versions differ in line breaks and in two mistakes of qa3's text that this one mended.
"""

from dataclasses import dataclass

from rmtlib.data.babi import check_task
from rmtlib.errors import RmtlibError

SOURCE = "github.com/booydar/babilong, babilong/prompts.py, commit ffa075fb7aff504275037efc04d3aeaa5b1f65b0"
NEW_TOKENS = 15  # of an answer; scripts/run_model_on_babilong.py, commit 090b625
PROMPT_ROOM = 300  # tokens of a nominal length that data/create_tasks.py leaves to the prompt (commit 2b54e1e)


@dataclass(frozen=True)
class Prompt:
    """What stands before a context. `between` is what separates two examples."""

    instruction: str
    examples: tuple[str, ...]
    answer_form: str
    between: str = "\n"

    def write(self, context: str, question: str, shots: int | None = None) -> str:
        """The whole prompt.

        Args:
            shots: the first so many examples; None: all, as in the papers' few-shot runs. 0: neither examples nor
                instruction, the context and the question alone, as in the released zero-shot runs.

        Raises:
            RmtlibError: more examples than there are.
        """
        if shots is not None and not 0 <= shots <= len(self.examples):
            most = len(self.examples)
            raise RmtlibError(f"{shots} examples: this task's prompt has {most}; give a number from 0 to {most}")
        before = ""
        if shots != 0:
            examples = self.between.join(f"<example>\n{text}\n</example>" for text in self.examples[:shots])
            before = f"{self.instruction}\n\n{examples}\n\n{self.answer_form}\n\n"
        return f"{before}<context>\n{context.strip()}\n</context>\n\nQuestion: {question}".strip()


_CARRIED = (
    "You need to answer the question based only on the information from the facts.\n"
    "If a person got an item in the first location and travelled to the second location "
    "the item is also in the second location. "
    "If a person dropped an item in the first location and moved to the second location "
    "the item remains in the first location."
)
_FACTS_ALONE = "You need to answer the question based only on the information from the facts."

PROMPTS: dict[str, Prompt] = {
    "qa1": Prompt(
        "I will give you context with the facts about positions of different persons hidden in some random text "
        f"and a question. {_FACTS_ALONE} "
        "If a person was in different locations, use the latest location to answer the question.",
        (
            "Charlie went to the hallway. Judith come back to the kitchen. Charlie travelled to balcony. "
            "Where is Charlie?\n"
            "Answer: The most recent location of Charlie is balcony.",
            "Alan moved to the garage. Charlie went to the beach. Alan went to the shop. Rouse travelled to balcony. "
            "Where is Alan?\n"
            "Answer: The most recent location of Alan is shop.",
        ),
        "Always return your answer in the following format: "
        "The most recent location of ’person’ is ’location’. Do not write anything else after that.",
        between="\n\n",
    ),
    "qa2": Prompt(
        "I give you context with the facts about locations and actions of different persons "
        f"hidden in some random text and a question.{_CARRIED}",
        (
            "Charlie went to the kitchen. Charlie got a bottle. Charlie moved to the balcony. Where is the bottle?\n"
            "Answer: The bottle is in the balcony.",
            "Alan moved to the garage. Alan got a screw driver. Alan moved to the kitchen. "
            "Where is the screw driver?\n"
            "Answer: The screw driver is in the kitchen.",
        ),
        "Always return your answer in the following format: The ’item’ is in ’location’. "
        "Do not write anything else after that.",
    ),
    "qa3": Prompt(
        "I give you context with the facts about locations and actions of different persons "
        f"hidden in some random text and a question. {_CARRIED}",
        (
            "John journeyed to the bedroom. Mary grabbed the apple. Mary went back to the bathroom. "
            "Daniel journeyed to the bedroom. Daniel moved to the garden. Mary travelled to the kitchen. "
            "Where was the apple before the kitchen?\n"
            "Answer: Before the kitchen the apple was in the bathroom.",
            "John went back to the bedroom. John went back to the garden. John went back to the kitchen. "
            "Sandra took the football. Sandra travelled to the garden. Sandra journeyed to the bedroom. "
            "Where was the football before the bedroom?\n"
            "Answer: Before the bedroom the football was in the garden.",
        ),
        "Always return your answer in the following format: "
        "Before the $location_1$ the $item$ was in the $location_2$. Do not write anything else after that.",
    ),
    "qa4": Prompt(
        "I will give you context with the facts about different people, their location and actions, hidden in "
        f"some random text and a question. {_FACTS_ALONE}",
        (
            "The hallway is south of the kitchen. The bedroom is north of the kitchen. "
            "What is the kitchen south of?\n"
            "Answer: bedroom",
            "The garden is west of the bedroom. The bedroom is west of the kitchen. What is west of the bedroom?\n"
            "Answer: garden",
        ),
        "Your answer should contain only one word - location. Do not write anything else after that.",
    ),
    "qa5": Prompt(
        "I will give you context with the facts about locations and their relations hidden in some random text "
        f"and a question. {_FACTS_ALONE}",
        (
            "Mary picked up the apple there. Mary gave the apple to Fred. Mary moved to the bedroom. "
            "Bill took the milk there. Who did Mary give the apple to?\n"
            "Answer: Fred",
            "Jeff took the football there. Jeff passed the football to Fred. Jeff got the milk there. "
            "Bill travelled to the bedroom. Who gave the football?\n"
            "Answer: Jeff",
            "Fred picked up the apple there. Fred handed the apple to Bill. Bill journeyed to the bedroom. "
            "Jeff went back to the garden. What did Fred give to Bill?\n"
            "Answer: apple",
        ),
        "Your answer should contain only one word. Do not write anything else after that. Do not explain your answer.",
    ),
}


def prompt_of(task: str) -> Prompt:
    """The prompt of a task. Raises RmtlibError for an unknown one."""
    check_task(task)
    return PROMPTS[task]


def nominal_tokens(length: str) -> int:
    """Tokens of a context of nominal length "0k" (the facts alone: 0), "1k", ..., "1M", in GPT-2's tokens.

    As in the generator of the published sets: "4k" is 4,000 tokens, of which 300 are left to the prompt.

    Raises:
        RmtlibError: not such a length.
    """
    number, unit = length[:-1], length[-1:]
    if unit not in ("k", "M") or not (number.isascii() and number.isdigit()):
        raise RmtlibError(f"length {length!r} is no context length; give one like 0k, 4k, 128k or 1M")
    tokens = int(number) * (1000 if unit == "k" else 1_000_000)
    return max(tokens - PROMPT_ROOM, 0)
