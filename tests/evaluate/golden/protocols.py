"""What VLMEvalKit, MMMU's program and lmms-eval read in made-up replies, for `test_protocols.py`.

Made once by running their own functions: `matching_util.py`, `vqa_eval.py` and `smp/misc.py` of open-compass/VLMEvalKit at e8e78f0,
`eval_utils.py` of MMMU-Benchmark/MMMU at bb0b95a (the file is of aa9b70d), `mmmu_mcq_utils.py` and `vqa_eval_metric.py` of
EvolvingLMMs-Lab/lmms-eval at 75571cf: `python tests/evaluate/golden/protocols.py` with these six files in this order. Only outputs are
kept, in the order of `choice_cases` and `free_cases`. `?` stands for an option drawn at random, null for a reply that VLMEvalKit gives to
its judge, Z for none of the options.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import random
import re
import statistics
import sys
from pathlib import Path
from string import ascii_uppercase
from types import ModuleType, SimpleNamespace
from typing import Any

FILE = Path(__file__).with_suffix(".json")
OPTIONS = [
    ["cat", "dog", "bird", "horse"],
    ["猫", "狗", "鸟", "马"],
    ["3", "4", "3.5", "1,000"],
    ["Shanghai", "Beijing"],
    ["cat", "black cat", "Category", "concatenate"],
    ["", "", "dog"],
    ["$2,616,000", "None of the above", "a", "A and B", "both (A) and (B)"],
    ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
]
BY_HAND = (
    "", "A", "a", "B.", "(C)", "C)", "**D**", "Z", "E", "A B", "B and A", "(A) or (B)", "A, B", "A dog.", "I think so", "I", "NASA flew",
    "The answer is dog", "the answer is Beijing", "The answer is a cat", "The correct answer is **B**. Here's why: it barks a lot",
    "Answer: B", "Answer: b", "answer is C", "The answer  is\n(D)", "Option A is wrong because it has no ears, so (B).", "So B. Not A.",
    "So the correct answer is C.", "Choose the option of $2,616,000", "cat", "A black cat", "It is a category of its own, I would say",
    "It is not a cat, it is a very big dog", "答案是B", "答案是 B 。", "选B，因为图中是狗", "（B）", "B。", "图中有一只猫", "是熊猫",
    "答案：(C)狗", "Sorry, I can't help with images of people yet. A", "Cannot determine the answer", "I can't process this file.",
    "I'm sorry, but without the image provided I cannot say B", "I cannot tell (A)", "Failed to obtain answer via API.",
    "Failed to obtain answer via API. dog", "There are 3.5 of them", "There are 4 of them in the picture, as far as I see", "3", "1,000",
    "A.", "'A.'", "A'.", "!A?", "?A!", ".A,", "U.S.A. is big", "A.B.", "B.A. is what it says", "D.\nBecause of C", "None of the above",
    "The cat and the dog sit beside the bird", "B\n\nThe picture shows a dog", "A is right and so one two three four five",
    "five six seven eight nine ten B", "B one two three four", "B one two three", "<think>Is it A? No.</think>\nB", "\\boxed{B}", "#A#",
    "{B}", "B]", "“B”", "B's", "A/B", "C-", "the answer is\tA.", "The answer is ABC", "THE ANSWER IS b", "answer is **c**",
    "answer is ** d", "answer is e", "my answer is Dog, answer is A", "nan", "None", "Banana", "an", "both (A) and (B)", "A and B",
    "The letters are E F G H I and so on", "option  B  ", "B \n", " \tB", "(a)", "(E)", "I.",
)  # fmt: skip
PIECES = (
    "A B C D E I Z a b c (A) (B) (C) A. B. C. D. B, A: **B** cat dog bird horse Dog black category 猫 狗 马 答案是 选 B。 （A） is the The "
    "answer answer: correct option not and or so because it . , 3 4 3.5 1,000 two five Beijing Shanghai NASA USA. ?"
)
FREE = (
    "yes no the a An red Red BLUE two ten none zero 3 3. 3.5 3.5. 1,000 1,,000 10,5 dont can't its dog's t-shirt and/or (left) [x] "
    '"quoted" a.m. U.S. 5. . , ? ! - ; : \' 50% $5 5pm + = _ 7:30. 猫 ice_cream 20ft.'
)


def choice_cases() -> list[tuple[str, list[str]]]:
    rng = random.Random(0)
    cases = [(reply, options) for reply in BY_HAND for options in OPTIONS]
    joined = [(" " if rng.random() < 0.8 else "").join(rng.choices((*PIECES.split(), "\n"), k=rng.randint(1, 12))) for _ in range(400)]
    return cases + [(reply, rng.choice(OPTIONS)) for reply in joined]


def free_cases() -> list[tuple[str, list[str]]]:
    rng = random.Random(1)

    def answer() -> str:
        return rng.choice(("", " ")).join(rng.choices(FREE.split(), k=rng.randint(1, 3)))

    found = []
    for i in range(250):
        some = [answer() for _ in range(rng.choice((1, 2, 3)))]
        said = answer() if i % 6 == 0 else rng.choice(some) + rng.choice(("", "", ".", ",", "?", "'s", " .", "- "))
        found.append((said.swapcase() if i % 5 == 0 else said, rng.choices(some, k=10)))
    return [
        *found,
        ("Yes", ["yes"] * 10),
        ("", ["yes"] * 10),
        ("3.", ["3"] * 10),
        ("red,blue", ["red blue"] * 10),
        ("1,,000 (x)", ["1000 x"] * 5 + ["2"] * 5),
    ]


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"original_{Path(path).stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stand_in(misc: str) -> None:
    """What the files of VLMEvalKit import from it: a logger, two helpers, and its own `process_punctuation`."""
    space: dict[str, Any] = {"re": re}
    for node in ast.parse(Path(misc).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "process_punctuation":
            exec(compile(ast.Module([node], []), misc, "exec"), space)
    smp, log = ModuleType("vlmeval.smp"), ModuleType("vlmeval.smp.log")
    vars(smp).update(istype=lambda text, kind: True, listinstr=None, process_punctuation=space["process_punctuation"])
    vars(log).update(get_logger=lambda name: None)
    sys.modules |= {"vlmeval": ModuleType("vlmeval"), "vlmeval.smp": smp, "vlmeval.smp.log": log}


def main() -> None:
    matching, vqa_eval, misc, eval_utils, mcq_utils, metric = sys.argv[1:]
    stand_in(misc)
    vlm, marker, mmmu, lmms, evalai = (load(path) for path in (matching, vqa_eval, eval_utils, mcq_utils, metric))
    mmmu.random = lmms.random = SimpleNamespace(choice=lambda letters: "?")
    choices = []
    for reply, options in choice_cases():
        texts = dict(zip(ascii_uppercase, options, strict=False))
        # An empty cell is no option, and an empty reply is the word nan: that is how pandas reads the table.
        inferred = vlm.can_infer(reply or "nan", {letter: text for letter, text in texts.items() if text})
        official = mmmu.parse_multi_choice_response(reply, list(texts), texts)
        choices.append([inferred or None, official, lmms.parse_mmmu_multi_choice_response(reply, list(texts), texts)])
    processor, free = evalai.EvalAIAnswerProcessor(), []
    for reply, answers in free_cases():
        line = marker.process_line({"answer": repr(answers), "prediction": reply or "nan"}, method="vqa_score")
        free.append([round(score, 6) for score in (statistics.mean(line["match"]), vqav2(processor, reply, answers))])
    FILE.write_text(f'{{"choices": {json.dumps(choices)},\n"free": {json.dumps(free)}}}\n', encoding="utf-8")


def vqav2(processor: Any, reply: str, answers: list[str]) -> float:
    """The order in which lmms-eval's VQAv2 task calls its processor, and the formula that all share."""
    said, *given = (
        processor.process_digit_article(processor.process_punctuation(text.replace("\n", " ").replace("\t", " ").strip()))
        for text in (reply, *answers)
    )
    others = [[other for place, other in enumerate(given) if place != i] for i in range(len(given))]
    return statistics.mean(min(1, sum(other == said for other in some) / 3) for some in others)


if __name__ == "__main__":
    main()
