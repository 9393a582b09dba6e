"""Files of predictions in every form, their scores under several protocols, and what makes the difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.golden.protocols import choice_cases, free_cases
from evaluate.test_choice import Talker, letter_of, rows
from fakes import square
from tonggan.evaluate.metrics.answers import vqa_accuracy
from tonggan.evaluate.predictions import Choice, Free, Predictions, Turn, read_predictions
from tonggan.evaluate.scoring import plain, score
from tonggan.evaluate.scoring_page import page, write
from tonggan.evaluate.tasks.answers import answers
from tonggan.evaluate.tasks.choice import choice
from tonggan.types import Answer, Dropped, Row, UsageError

PETS = ("cat", "dog", "bird", "horse")
HEAD = ("index", "question", "A", "B", "C", "D", "answer", "prediction")
TABLE = [
    (1, "which?", *PETS, "B", "The answer is dog"),
    (2, "which?", *PETS, "C", "(C)"),
    (3, "which?", "3", "4", "", "", "B", "4"),
]


def table(path: Path, rows: list[tuple[Any, ...]], head: tuple[str, ...] = HEAD) -> Path:
    mark = "," if path.suffix == ".csv" else "\t"
    path.write_text("\n".join(mark.join(map(str, line)) for line in (head, *rows)) + "\n", encoding="utf-8")
    return path


def lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def scores(predictions: Predictions) -> dict[str, float]:
    return {one.protocol: one.estimate.value for one in score(predictions).scores}


# -------------------------------------------------------------------------------------------------- ours


@pytest.mark.parametrize("circular", [False, True])
def test_our_own_results_score_as_they_did(tmp_path: Path, circular: bool) -> None:
    replies = {
        0: lambda words: f"答案是{letter_of(words, '红色')}",
        1: lambda words: "红色",
        2: lambda words: "不好说",
        3: lambda words: "A",
    }
    model = Talker(lambda words: replies[int(words[1]) % 4](words))
    result = choice(model, rows(8), circular=circular)
    result.write(tmp_path, "choice")
    found = read_predictions(tmp_path / "choice.items.jsonl")
    assert found.form == "Tonggan's items" and len(found.items) == 8 and found.circular == circular
    (ours,) = score(found, ["ours"]).scores
    assert ours.estimate.value == result.metrics["choice zh acc"].value
    assert ours.highest == result.metrics["choice zh acc lenient"].value > ours.lowest == ours.estimate.value
    assert ours.rules == {"letter": 2 * 4**circular, "exact": 4 * 4**circular, "unread": 2 * 4**circular}


def test_a_refusal_is_a_text_to_other_programs_and_a_failed_request_is_no_reply(tmp_path: Path) -> None:
    outcomes = {0: Answer("B", "refused"), 1: Answer("", "error", error="B: no such host")}
    choice(Talker(lambda words: outcomes[int(words[1])]), rows(2)).write(tmp_path, "choice")
    scored = score(read_predictions(tmp_path / "choice.items.jsonl"))
    assert scored.scores[0].rules == {"unanswered": 1}
    assert [marked.reads[0].choice for marked in scored.marked["vlmevalkit"]] == [1]
    (dropped,) = scored.predictions.dropped
    assert dropped == Dropped("choice.items.jsonl:2", "the request failed: B: no such host")


def test_choices_made_by_numbers_are_no_replies(tmp_path: Path) -> None:
    choice(Talker(lambda words: "A"), rows(2), way="logprob").write(tmp_path, "choice")
    with pytest.raises(UsageError, match=r"made by numbers \(logprob\)"):
        read_predictions(tmp_path / "choice.items.jsonl")


def test_results_without_the_order_of_choices_are_refused(tmp_path: Path) -> None:
    old = {"id": "a", "said": ["B"], "right": "dog", "question": "which?"}
    with pytest.raises(UsageError, match=r"none of its Tonggan's items can be scored.*`shown`"):
        read_predictions(lines(tmp_path / "old.items.jsonl", [old]))
    new = old | {"id": "b", "shown": [list(PETS)]}
    wrong = new | {"id": "c", "right": "mule"}
    found = read_predictions(lines(tmp_path / "mixed.items.jsonl", [old, new, wrong]))
    assert [item.id for item in found.items] == ["b"]
    assert [one.where for one in found.dropped] == ["mixed.items.jsonl:1", "mixed.items.jsonl:3"]
    assert "'mule' is not among its choices" in found.dropped[1].reason


def free_rows() -> list[Row]:
    """Ten annotators, who agree in the first question and the last, and not in the others."""
    given = [("3",) * 10, ("red",) * 6 + ("a red",) * 4, ("dog",) * 3 + ("cat",) * 7, ("3.5",) * 9 + ("4",), ("yes",) * 10]
    return [
        Row(f"q{i}", images=(square(255, 0, 0),), question=f"Number {i}: what is it?", answers=some, group=f"g{i // 2}")
        for i, some in enumerate(given)
    ]


def test_our_own_free_answers_under_the_protocols_for_free_answers(tmp_path: Path) -> None:
    said = ["3.", "the red", "<think>It barks, or not?</think>\n\ndog", "3.5.", "Yes"]
    result = answers(Talker(lambda words: said[int(words.split()[1][:-1])]), free_rows(), metric="vqa")
    result.write(tmp_path, "answers")
    found = read_predictions(tmp_path / "answers.items.jsonl")
    assert found.form == "Tonggan's items" and not found.dropped and not found.notes
    assert found.items[2] == Free("answers en q2", "g1", "Number 2: what is it?", "dog", ("dog",) * 3 + ("cat",) * 7)
    by_name = {name: [one.score for one in marked] for name, marked in score(found).marked.items()}
    assert by_name["official"] == pytest.approx([0, 1, 0.9, 1, 0])
    assert by_name["official"] == [item["vqa"] for item in result.items]
    # All agree on 3, so that the official program compares to the letter; of the others only VLMEvalKit's keeps a period after a digit.
    assert [by_name[name][0] for name in ("official", "vlmevalkit", "lmms-eval", "evalai")] == [0, 0, 1, 1]
    assert [by_name[name][4] for name in ("official", "vlmevalkit", "lmms-eval", "evalai")] == [0, 1, 1, 1]
    with pytest.raises(UsageError, match="'ours' does not read free answers"):
        score(found, ["ours"])


def test_free_answers_that_count_for_nothing_are_told(tmp_path: Path) -> None:
    ways: list[Answer | str] = [
        Answer("3", "refused"),
        Answer("", "error", error="no such host"),
        Answer("<think>dog, because", "truncated"),
        "3.5",
        "yes",
    ]
    asked = [row if i < 3 else row.with_(answers=row.answers[: 4 - i]) for i, row in enumerate(free_rows())]
    asked += [row.with_(id=f"{row.id} again", answers=row.answers[:2]) for row in free_rows()[3:4]]
    asked = [row for row in asked if row.answers]
    answers(Talker(lambda words: ways[int(words.split()[1][:-1])]), asked, metric="vqa").write(tmp_path, "a")
    found = read_predictions(tmp_path / "a.items.jsonl")
    assert [(item.id, item.reply) for item in found.items if isinstance(item, Free)] == [
        ("answers en q0", "3"), ("answers en q2", ""), ("answers en q3 again", "3.5"),
    ]  # fmt: skip
    assert [one.reason.split(":")[0] for one in found.dropped] == ["the request failed", "a single right answer"]
    assert [note.split(",")[0].split(":")[0] for note in found.notes] == [
        "how asking ended", "1 empty replies", "1 questions have fewer than 4 annotators' answers",
    ]  # fmt: skip
    assert "refused 1, truncated 1" in found.notes[0] and "33 % with two" in found.notes[2]


def test_older_results_of_free_answers_are_refused(tmp_path: Path) -> None:
    old = {"id": "a", "said": ["red"], "right": "red | crimson", "outcome": ["answered"]}
    with pytest.raises(UsageError, match=r"none of its Tonggan's items can be scored.*a free answer, or an older result"):
        read_predictions(lines(tmp_path / "old.items.jsonl", [old]))
    new = old | {"id": "b", "answers": ["red"] * 4, "vqa": 1.0}
    broken = [new | {"id": "c", "outcome": []}, {name: new[name] for name in new if name != "id"}, new | {"id": "d", "said": []}]
    found = read_predictions(lines(tmp_path / "mixed.items.jsonl", [old, new, *broken]))
    assert [item.id for item in found.items] == ["b"] and len(found.dropped) == 4


def test_accepted_wordings_are_not_taken_for_annotators(tmp_path: Path) -> None:
    matched = {"id": "a", "said": ["猫"], "right": "猫 | 猫咪 | 小猫", "answers": ["猫", "猫咪", "小猫"], "acc": 1, "outcome": ["answered"]}
    with pytest.raises(UsageError, match="wordings that are all accepted, not annotators"):
        read_predictions(lines(tmp_path / "match.items.jsonl", [matched]))


def test_questions_of_the_rarer_kind_are_listed(tmp_path: Path) -> None:
    free = {"said": ["red"], "right": "red", "answers": ["red"] * 4, "vqa": 1.0}
    chosen = {"id": "c", "said": ["B"], "right": "dog", "shown": [list(PETS)]}
    found = read_predictions(lines(tmp_path / "both.items.jsonl", [free | {"id": "a"}, chosen, free | {"id": "b"}]))
    assert [item.id for item in found.items] == ["a", "b"]
    assert found.dropped == [Dropped("c", "a question with choices among free answers")]


# -------------------------------------------------------------------------------------------- VLMEvalKit


def test_a_table_is_the_same_in_every_format(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    for line in ([name.capitalize() for name in HEAD], *TABLE):
        book.active.append([float(cell) if isinstance(cell, int) else cell or None for cell in line])
    book.save(tmp_path / "p.xlsx")
    records = [{name: cell for name, cell in zip(HEAD, line, strict=True) if cell != ""} for line in TABLE]
    (tmp_path / "p.json").write_text(json.dumps(records), encoding="utf-8")
    files = [tmp_path / "p.xlsx", tmp_path / "p.json", table(tmp_path / "p.tsv", TABLE), table(tmp_path / "p.csv", TABLE)]
    read = [read_predictions(file).items for file in files]
    assert read[0] == read[1] == read[2] == read[3]
    assert read[0][0] == Choice("1", "1", "which?", (Turn("The answer is dog", PETS, 1),))
    assert isinstance(read[0][2], Choice) and read[0][2].turns == (Turn("4", ("3", "4"), 1),)


def test_rotations_are_one_question(tmp_path: Path) -> None:
    turned = ("dog", "bird", "horse", "cat")
    rows = [
        (7, "which?", *PETS, "B", "B"),
        (1_000_007, "which?", *turned, "A", "A"),
        (8, "which?", *PETS, "B", "B"),
        (1_000_008, "which?", *turned, "A", "B"),
        (1_000_009, "which?", *PETS, "B", "B"),
    ]
    found = read_predictions(table(tmp_path / "p.tsv", rows))
    assert [item.id for item in found.items] == ["7", "8"] and found.circular
    assert [(one.where, one.reason) for one in found.dropped] == [("1000009", "a rotation of question 9, which is not in the table")]
    for one in score(found).scores:
        assert (one.estimate.value, one.vanilla.value) == (0.5, 1.0)


def test_rows_that_cannot_be_marked_are_listed(tmp_path: Path) -> None:
    rows = [
        TABLE[0],
        (4, "how many?", "", "", "", "", "17", "17"),
        (5, "which?", *PETS, "E", "B"),
        (6, "which?", *PETS, "", "B"),
    ]
    found = read_predictions(table(tmp_path / "p.tsv", rows))
    assert [(one.where, one.reason) for one in found.dropped] == [
        ("p.tsv:3", "fewer than two options: an open question"),
        ("p.tsv:4", "the answer 'E' is not the letter of an option"),
        ("p.tsv:5", "no answer to mark by"),
    ]


def test_a_table_of_free_answers(tmp_path: Path) -> None:
    rows = [(1, "what?", "['3.'] * 10", "3."), (2, "what?", str(["dog"] * 7 + ["cat"] * 3), "a dog")]
    found = read_predictions(table(tmp_path / "p.tsv", rows, ("index", "question", "answer", "prediction")))
    assert found.items == [Free("2", "2", "what?", "a dog", ("dog",) * 7 + ("cat",) * 3)]
    assert scores(found) == dict.fromkeys(("official", "vlmevalkit", "lmms-eval", "evalai"), 1.0)


# --------------------------------------------------------------------------------------------- lmms-eval

PROMPT = "Which?\nA. cat\nB. dog\n\nWhich?\nA. ant\nB. bee\nC. fly\n\nAnswer with the letter."


@pytest.mark.parametrize(
    ("record", "options", "right", "reply"),
    [
        ({"doc": {"options": "['cat', 'dog']"}, "target": "B", "resps": [["B."]], "filtered_resps": ["B."]}, ("cat", "dog"), 1, "B."),
        ({"doc": {"choices": ["cat", "dog"]}, "target": "0", "resps": ["A"]}, ("cat", "dog"), 0, "A"),
        ({"doc": {"A": "cat", "B": "dog", "D": "x"}, "target": "dog", "filtered_resps": "dog"}, ("cat", "dog"), 1, "dog"),
        ({"input": PROMPT, "target": "(C)", "filtered_resps": "C"}, ("ant", "bee", "fly"), 2, "C"),
        ({"input": PROMPT, "target": "c", "resps": [["It is C", "B"]], "filtered_resps": ["C"]}, ("ant", "bee", "fly"), 2, "It is C"),
        ({"input": PROMPT, "target": "C", "resps": ["<think>A?</think>\nB"], "filtered_resps": "B"}, ("ant", "bee", "fly"), 2, "B"),
        ({"input": PROMPT, "target": "C", "resps": ["", "B"]}, ("ant", "bee", "fly"), 2, ""),
        ({"doc": {"options": ["3", "2", "1"]}, "target": "1", "resps": ["1"]}, ("3", "2", "1"), 2, "1"),  # a text before a number
    ],
)
def test_samples(tmp_path: Path, record: dict[str, Any], options: tuple[str, ...], right: int, reply: str) -> None:
    found = read_predictions(lines(tmp_path / "s.jsonl", [{"doc_id": 5} | record]))
    (item,) = found.items
    assert isinstance(item, Choice) and item.id == "5"
    assert item.turns == (Turn(reply, options, right),)
    assert any("filtered by lmms-eval" in note for note in found.notes) == ("It is C" in str(record))


def test_samples_with_free_answers_and_without_anything(tmp_path: Path) -> None:
    records = [
        {"doc_id": 1, "doc": {"answers": [{"answer": "dog"}] * 3, "image_id": 9}, "target": "dog", "resps": ["dog"]},
        {"doc_id": 2, "target": "dog", "resps": ["dog"]},
        {"doc_id": 3, "doc": {"options": ["a", "b"]}, "target": "dog", "resps": ["dog"]},
        {"doc_id": 4, "target": "dog", "resps": []},
    ]
    found = read_predictions(lines(tmp_path / "s.jsonl", records))
    assert found.items == [Free("1", "9", "", "dog", ("dog", "dog", "dog"))]
    assert [one.reason.split(",")[0].split(" is ")[0] for one in found.dropped] == ["no options", "the target 'dog'", "no reply"]


def test_samples_of_old_versions_are_one_list(tmp_path: Path) -> None:
    record = {"doc_id": 1, "doc": {"options": list(PETS)}, "target": "B", "resps": [["B"]]}
    (tmp_path / "s.json").write_text(json.dumps({"args": {}, "logs": [record]}), encoding="utf-8")
    assert scores(read_predictions(tmp_path / "s.json"))["official"] == 1.0


# --------------------------------------------------------------------------------------------------- VQA


def vqa(tmp_path: Path, results: Any) -> tuple[Path, Path]:
    cases = free_cases()
    annotations = [
        {"question_id": i, "image_id": i // 2, "answers": [{"answer": a, "answer_id": j} for j, a in enumerate(answers)]}
        for i, (_, answers) in enumerate(cases)
    ]
    (tmp_path / "annotations.json").write_text(json.dumps({"annotations": annotations}), encoding="utf-8")
    given = [{"question_id": i, "answer": reply} for i, (reply, _) in enumerate(cases)]
    (tmp_path / "results.json").write_text(json.dumps(results(given)), encoding="utf-8")
    return tmp_path / "results.json", tmp_path / "annotations.json"


def test_vqa_results_by_their_own_program_and_others(tmp_path: Path) -> None:
    results, annotations = vqa(tmp_path, lambda given: given)
    scored = score(read_predictions(results, annotations=annotations))
    marks = [vqa_accuracy(reply, answers) for reply, answers in free_cases()]
    found = {one.protocol: one for one in scored.scores}
    assert found["official"].estimate.value == pytest.approx(sum(marks) / len(marks))
    assert set(found["official"].rules) == {"as-is", "normalised"}
    assert len({one.estimate.value for one in scored.scores}) == 4
    last = next(pair for pair in scored.pairs if (pair.one, pair.other) == ("vlmevalkit", "official"))
    assert any((group.rule, group.other_rule) == ("normalised-periods", "as-is") for group in last.groups)


def test_vqa_answers_without_their_question_or_the_other_way_round(tmp_path: Path) -> None:
    results, annotations = vqa(tmp_path, lambda given: [*given[1:], {"question_id": "x", "answer": "yes"}])
    found = read_predictions(results, annotations=annotations, limit=3)
    assert [item.id for item in found.items] == ["1", "2", "3"]
    assert [(one.where, one.reason) for one in found.dropped] == [("0", "no answer in the results"), ("x", "not in annotations.json")]


# ------------------------------------------------------------------------------------------------ errors


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def refused(name: str, text: str, says: str, **more: Any) -> None:
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=says):
            read_predictions(tmp_path / name, **more)

    refused("a.jsonl", '{"id": 1, "reply": "B"}\n', r"not known\. Found: id, reply\. Expected one of: Tonggan's items: said, right")
    refused("a.jsonl", '{"said": ["B"], "right"', r"a\.jsonl:1: not readable as JSON")
    refused("a.jsonl", "[1]\n", "expected an object with fields, found list")
    refused("a.json", "{}", "expected a JSON list of predictions, found dict")
    refused("a.json", "[]", "no predictions in it")
    refused("a.txt", "B", r"end in \.jsonl, \.json, \.csv, \.tsv, \.xlsx, not \.txt")
    refused("a.xlsx", "no", "not readable as Excel")
    refused("a.json", '[{"question_id": 1, "answer": "yes"}]', "with --annotations")
    with pytest.raises(UsageError, match="no such file"):
        read_predictions(tmp_path / "none.jsonl")
    twice = table(tmp_path / "p.tsv", [TABLE[0], TABLE[1], TABLE[0]])
    with pytest.raises(UsageError, match="ids that occur more than once: 1, for example '1'"):
        read_predictions(twice)
    with pytest.raises(UsageError, match="goes with VQA results"):
        read_predictions(twice, annotations=twice)
    results, annotations = vqa(tmp_path, lambda given: [given[0], given[0]])
    with pytest.raises(UsageError, match="occur more than once"):
        read_predictions(results, annotations=annotations)
    with pytest.raises(UsageError, match="as VQA publishes them"):
        read_predictions(results, annotations=results)


# --------------------------------------------------------------------------------------------- explaining


def made(turns: list[list[tuple[str, tuple[str, ...], int]]]) -> Predictions:
    items = [
        Choice(str(i), str(i // 2), "which?", tuple(Turn(reply, options, right) for reply, options, right in one))
        for i, one in enumerate(turns)
    ]
    return Predictions(Path("made.tsv"), "made", items)


def test_a_random_choice_is_an_expected_value_between_two_ends() -> None:
    scored = score(made([[("答案是B", PETS, 1)], [("(B)", PETS, 1)], [("(A)", PETS, 1)], [("hm", ("x", "y"), 0)]]), ["official"])
    (official,) = scored.scores
    assert official.estimate.value == pytest.approx((1 / 4 + 1 + 0 + 1 / 2) / 4)
    assert (official.lowest, official.highest) == (0.25, 0.75)
    assert official.left == {"random": 2} and official.rules == {"random": 2, "bracket": 2}


def test_rotations_multiply_what_is_drawn() -> None:
    (official,) = score(made([[("hm", PETS, 1), ("hm", PETS, 0)]]), ["official"]).scores
    assert (official.estimate.value, official.lowest, official.highest) == (1 / 16, 0, 1)
    assert official.vanilla.value == 1 / 4


def test_differences_are_grouped_by_the_rules_that_fired() -> None:
    replies = [("The answer is dog", PETS, 1)] * 3 + [("The answer is dog", PETS, 3), ("(B)", PETS, 1), ("Say horse", PETS, 3)]
    (pair,) = score(made([[one] for one in replies]), ["vlmevalkit", "ours"]).pairs
    assert (pair.one, pair.other) == ("ours", "vlmevalkit")  # in the order of the table of protocols
    assert pair.count == 4
    assert [(group.rule, group.other_rule, group.ids, round(group.points, 3)) for group in pair.groups] == [
        ("text", "answer-is-inside", ("0", "1", "2"), 0.5),
        ("text", "answer-is-inside", ("3",), -0.167),
    ]
    assert pair.difference.value == pytest.approx(2 / 6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.sampled_from(choice_cases()), min_size=1, max_size=3), min_size=1, max_size=12))
def test_groups_add_up_and_bounds_hold(cases: list[list[tuple[str, list[str]]]]) -> None:
    scored = score(made([[(reply, tuple(options), len(reply) % len(options)) for reply, options in one] for one in cases]))
    value = {one.protocol: one.estimate.value for one in scored.scores}
    for one in scored.scores:
        assert 0 <= one.lowest <= one.estimate.value + 1e-9 <= one.highest + 2e-9 <= 1 + 2e-9
        assert sum(one.rules.values()) == sum(map(len, cases))
    for pair in scored.pairs:
        gap = value[pair.one] - value[pair.other]
        assert sum(group.points for group in pair.groups) == pytest.approx(gap) == pytest.approx(pair.difference.value)
        assert len({name for group in pair.groups for name in group.ids}) == pair.count <= len(cases)


def test_protocols_are_named_and_fit_the_answers() -> None:
    items = made([[("B", PETS, 1)]])
    with pytest.raises(UsageError, match="did you mean 'official'"):
        score(items, ["oficial"])
    with pytest.raises(UsageError, match="'evalai' does not read questions with choices; for these there are: ours, vlmevalkit"):
        score(items, ["evalai"])
    free = Predictions(Path("made"), "made", [Free("1", "1", "", "yes", ("yes",) * 10)])
    with pytest.raises(UsageError, match="'ours' does not read free answers"):
        score(free, ["ours"])


def test_what_is_written(tmp_path: Path) -> None:
    scored = score(read_predictions(table(tmp_path / "p.tsv", [*TABLE, (4, "which?", *PETS, "", "<b>")])))
    assert write(scored, tmp_path / "out") == tmp_path / "out" / "report.html"
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for words in ("The same answers under other rules", "同样的回答，换一套规则", "the first letter of the word after", "那个单词的首字母"):
        assert words in html
    assert "D (answer is dog)" in html and "no answer to mark by" in html
    told = json.loads((tmp_path / "out" / "score.json").read_text(encoding="utf-8"))
    assert told == json.loads(json.dumps(plain(scored)))
    assert {one["protocol"] for one in told["scores"]} == {"ours", "official", "vlmevalkit", "lmms-eval"}
    first, *_ = [json.loads(line) for line in (tmp_path / "out" / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    assert first["protocols"]["vlmevalkit"] == {
        "score": 0.0, "lowest": 0.0, "highest": 0.0, "read": ["D"], "rule": ["answer-is-inside"], "seen": ["answer is dog"],
    }  # fmt: skip


def test_the_page_of_free_answers_shows_scores() -> None:
    items = [Free(str(i), str(i), "", reply, tuple(answers)) for i, (reply, answers) in enumerate(free_cases())]
    html = page(score(Predictions(Path("made"), "made", items))).html()
    assert "as EvalAI does" in html and "逐字比较" in html
    assert "questions read differently" in html.lower()
