"""What the official VQA program and EvalAI's processor give on made-up answers, for `test_metrics_answers.py`.

Made once with `vqaEval.py` of GT-Vision-Lab/VQA at a013f00 (its four `print` statements written as calls) and `m4c_evaluators.py` of
facebookresearch/mmf at 2dc099a: `python tests/evaluate/golden/vqa.py vqaEval.py m4c_evaluators.py`.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

FILE = Path(__file__).with_suffix(".json")
PIECES = (
    "yes no the a An red Red BLUE two ten none zero 3 3.5 1,000 10,5 dont can't its wont oclock y'all twas somebody'd dog's dogs' t-shirt "
    'and/or (left) [x] {y} "quoted" a.m. U.S. 5. . , ? ! - -- ; : \' ` @home #1 50% $5 5pm + = _ < > \\ ice_cream 20ft. 7:30 １２ 猫'
)
SPACED = ("\t", "\n", "  ", "ice cream", "20 ft.", "no, thanks", "no ,thanks", "what's that?")


def answer(rng: random.Random) -> str:
    return rng.choice(("", " ")).join(rng.choices((*PIECES.split(" "), *SPACED), k=rng.randint(1, 4)))


def questions() -> list[tuple[str, list[str]]]:
    """An answer and ten people's answers each; few different ones, so that they agree."""
    rng = random.Random(0)
    found = []
    for i in range(150):
        some = [answer(rng) for _ in range(rng.choice((1, 2, 2, 3, 6)))]
        found.append((answer(rng) if i % 5 == 0 else rng.choice(some), rng.choices(some, k=10)))
    found += [(text, [right] * 10) for text, right in (("Yes", "yes"), ("yes", "yes"), ("two", "2"), (" yes\n", "yes"))]
    return found + [("yes", ["yes"] * agreeing + ["no"] * (10 - agreeing)) for agreeing in range(10)]


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class One:
    """A question as the official program wants its data sets."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.qa = {0: entry}

    def getQuesIds(self) -> list[int]:  # noqa: N802
        return [0]


def official(program: ModuleType, said: str, answers: list[str]) -> float:
    given = [{"answer": a, "answer_id": i} for i, a in enumerate(answers)]
    right = One({"answers": given, "question_type": "x", "answer_type": "x"})
    judge = program.VQAEval(right, One({"answer": said}), n=12)
    judge.updateProgress = lambda progress: None
    judge.evaluate()
    return judge.evalQA[0] / 100


def main() -> None:
    program, m4c = load(sys.argv[1]), load(sys.argv[2])
    judge, evalai = program.VQAEval(One({}), One({})), m4c.TextVQAAccuracyEvaluator()
    rng = random.Random(1)
    texts = [*judge.contractions, *judge.contractions.values(), *(answer(rng) for _ in range(300))]
    normal = [
        (
            text,
            judge.processDigitArticle(judge.processPunctuation(text.replace("\n", " ").replace("\t", " ").strip())),
            evalai.answer_processor(text),
        )
        for text in dict.fromkeys(texts)
    ]
    scores = [
        (official(program, said, answers), evalai.eval_pred_list([{"pred_answer": said, "gt_answers": answers}]))
        for said, answers in questions()
    ]
    lines = ",\n".join(json.dumps(line, ensure_ascii=False) for line in normal)
    FILE.write_text(f'{{"scores": {json.dumps(scores)},\n"normal": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
