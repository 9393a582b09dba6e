"""What pycocoevalcap gives on made-up captions, for `test_metrics_captioning.py`.

Made once with pycocoevalcap 1.2 on tokenised text (its Java parts are not used): `python tests/evaluate/golden/captioning.py`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
WORDS = ["a", "the", "two", "dog", "cat", "man", "red", "ball", "on", "with", "grass", "runs", "sits", "beside"]


def sentence(rng: random.Random, longest: int, words: Sequence[str] = WORDS) -> list[str]:
    return rng.choices(words, k=rng.randint(1, longest))


def cases() -> dict[str, tuple[list[list[str]], list[list[list[str]]]]]:
    """By name: the candidates, and each picture's references, as tokens."""
    found = {
        "by hand": (
            [["a", "dog", "runs", "on", "grass"], ["a", "cat", "sits"]],
            [
                [["a", "dog", "runs", "on", "the", "grass"], ["the", "dog", "runs"]],
                [["the", "cat", "sits", "with", "a", "ball"], ["a", "red", "cat"], ["a", "cat", "sits"]],
            ],
        ),
        "one picture": ([["a", "dog"]], [[["a", "dog"], ["a", "red", "dog"]]]),
        "nothing said": ([[], ["a"], []], [[["a", "dog"]], [["the", "cat"], []], [[]]]),
        "repeated words": ([["the"] * 7, ["a", "a", "dog", "dog"]], [[["the", "cat", "the"], ["the"]], [["a", "dog"], ["a", "a", "a"]]]),
        "the same for all": ([["a", "man"]] * 4, [[["a", "man", "sits"], ["a", "man"]]] * 4),
        "Chinese characters": (
            [list("一只狗在草地上跑"), list("两只猫")],
            [[list("一只狗在草地上奔跑"), list("狗在跑")], [list("两只猫坐着"), list("猫")]],
        ),
    }
    for seed in range(4):
        rng = random.Random(seed)
        pictures = 3 + 4 * seed
        references = [[sentence(rng, 14) for _ in range(rng.randint(1, 5))] for _ in range(pictures)]
        # Half of the candidates are a reference with a word changed, so that long n-grams are found too.
        candidates = [sentence(rng, 14) if rng.random() < 0.5 else [*rng.choice(refs)[:-1], rng.choice(WORDS)] for refs in references]
        found[f"random {seed}"] = (candidates, references)
    return found


def measured(candidates: list[list[str]], references: list[list[list[str]]]) -> dict[str, Any]:
    """The reference's corpus scores, and each picture's."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    said = {i: [" ".join(words)] for i, words in enumerate(candidates)}
    right = {i: [" ".join(words) for words in refs] for i, refs in enumerate(references)}
    bleu, bleu_each = Bleu(4).compute_score(right, said, verbose=0)
    rouge, rouge_each = Rouge().compute_score(right, said)
    cider, cider_each = Cider().compute_score(right, said)
    return {
        "bleu": list(map(float, bleu)),
        "bleu_each": [list(map(float, each)) for each in bleu_each],
        "rouge": float(rouge),
        "rouge_each": rouge_each.tolist(),
        "cider": float(cider),
        "cider_each": cider_each.tolist(),
    }


def main() -> None:
    lines = [json.dumps({"name": name, **measured(*case)}) for name, case in cases().items()]
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
