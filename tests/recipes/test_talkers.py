"""Models that talk, taught by recipes: every kind from rows to answers, what is held out, what is shown, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_systems import SHAPE, numbers, run_of

from tonggan import load
from tonggan.backends import load_local
from tonggan.config import ConfigError
from tonggan.data.chat import ChatProcessor
from tonggan.data.lessons import conversation_of
from tonggan.data.loader import Loader
from tonggan.data.rows import Dataset
from tonggan.data.sources import scenes
from tonggan.evaluate.tasks.answers import answers
from tonggan.evaluate.tasks.questions import questions
from tonggan.recipes.adapt import adapt_config
from tonggan.recipes.config import AnswersEvaluation, DataConfig, RunConfig
from tonggan.recipes.measuring import measure, shown
from tonggan.recipes.progress import Progress
from tonggan.recipes.run import Run
from tonggan.steps.language import LanguageConfig
from tonggan.types import Audio, ChatOptions, Image, Message, Row, Text, TongganError, UsageError

PICTURES = {"source": "scenes", "options": {"n": 24, "size": 32}, "split": None}
ASKED = {"source": "scenes", "options": {"n": 24, "size": 32, "ask": True}, "split": None}
TALKS = {"source": "scenes", "options": {"n": 20, "size": 32, "dialogues": True}, "split": None}
CLIPS = {"source": "scenes", "options": {"n": 16, "size": 32, "ask": True, "moving": True}, "split": None}
TONES = {"source": "scenes", "options": {"n": 16, "size": 32, "ask": True, "sounding": True}, "split": None}
WORDS = {"vocab_size": 400, "context": 192, "width": 24, "layers": 2, "heads": 2, "mlp_width": 32}
EARS = {"kind": "log_mel", "bins": 16, "context": 300, "width": 24, "layers": 1, "heads": 2, "mlp_width": 32}
VIT = {**SHAPE, "pre_norm": False, "patch_bias": True}
SPEAKER = {**WORDS, "layers": 1, "style": "t5"}
GIT_WORDS = {**WORDS, "layers": 1, "context": 48}
CROSS = {**WORDS, "layers": 1, "context": 80, "cross_from": 0}
BOUNDS = {"start": (1,), "ends": (2,)}
CHAT = {"kind": "chat", "image": SHAPE, "image_token": 400, "text": WORDS}
EARS_ALONE = {"kind": "chat", "audio": EARS, "audio_token": 400, "audio_projector": {"kind": "mlp", "stack": 8}, "text": WORDS}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "language model": ({"kind": "gpt", "text": WORDS}, {}, {"source": "CAPTIONS", "split": None}),
    "language model that chats": (
        {"kind": "gpt", "text": WORDS},
        {"chat": {"bos_token": "<|startoftext|>"}},
        {"source": "TEXTS", "split": None},
    ),
    "chat": (CHAT, {}, TALKS),
    "chat about clips": (CHAT, {"clips": {"frames": 2}}, CLIPS),
    "chat about tones": (CHAT | {"audio": EARS, "audio_token": 401, "audio_projector": {"kind": "mlp", "stack": 8}}, {}, TONES),
    "chat about what is heard alone": (EARS_ALONE, {}, {"source": "SOUNDS", "split": None}),
    "flamingo": (
        {"kind": "flamingo", "image": SHAPE, "resampler": {"queries": 3, "layers": 1, "heads": 2, "head_width": 8}, "text": WORDS}
        | {"image_token": 400, "added_words": 1, "every": 2},
        {},
        ASKED,
    ),
    "captioner": ({"kind": "captioner", "image": VIT, "text": CROSS, **BOUNDS}, {}, PICTURES),
    "answers": ({"kind": "captioner", "image": VIT, "text": CROSS, "question": True, **BOUNDS}, {}, {"source": "QUESTIONS", "split": None}),
    "git": ({"kind": "git", "image": SHAPE, "text": GIT_WORDS, **BOUNDS}, {}, PICTURES),
    "encoder-decoder": (
        {"kind": "encoder_decoder", "source": {"kind": "text", "context": 64, "layers": 1, "heads": 2, "mlp_width": 32}, "text": SPEAKER},
        {},
        {"source": "TEXTS", "split": None},
    ),
    "listener": (
        {"kind": "encoder_decoder", "source": EARS, "text": {**SPEAKER, "style": "whisper", "activation": "gelu"}},
        {},
        {"source": "SOUNDS", "split": None},
    ),
}


@pytest.fixture
def data(tmp_path: Path) -> Any:
    """A data configuration with what the names in capitals stand for."""
    texts = [Row(f"t{i}", question=f"{i}?", answers=(f"{i} {i}",), meta={"lang": "en"}) for i in range(20)]
    tones = list(scenes.generate(12, size=32, sounding=True))
    made_of = {
        "TEXTS": texts,
        "QUESTIONS": [row.with_(images=(Image(array=_white()),)) for row in texts],
        "CAPTIONS": [row.with_(images=(), audios=()) for row in tones],
        "SOUNDS": [row.with_(images=()) for row in tones],
    }

    def made(config: dict[str, Any]) -> dict[str, Any]:
        name = config["source"]
        if name in made_of and not (tmp_path / name).exists():
            Dataset.from_rows(made_of[name]).write(tmp_path / name)
        return config | ({"source": str(tmp_path / name)} if name in made_of else {})

    return made


def talking(shape: dict[str, Any], source: dict[str, Any], data: dict[str, Any], **more: Any) -> RunConfig:
    more.setdefault("stage", {"train": {"steps": 2, "eval_every": 2, "log_every": 1}})
    config = run_of(shape, {"data": data, "step": {"kind": "language"}}, evaluation={"kind": "loss", "data": data}, **more)
    return RunConfig.parse({**json.loads(config.model_dump_json()), "model": {"config": shape, "vocab_size": 400, **source}})


def by_heart(steps: int) -> dict[str, Any]:
    return {"train": {"steps": steps, "log_every": 1, "eval_every": steps}, "optim": {"lr": 6e-3, "warmup": 5}}


SLOW = {"language model", "chat", "chat about clips", "chat about tones", "captioner"}
"""Kinds of which the others show as much in less time."""


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) if kind in SLOW else kind for kind in KINDS])
def test_what_was_taught_is_asked(kind: str, tmp_path: Path, data: Any) -> None:
    """Rows become lessons, the model is saved with what writes them, opened again, and asked as it was taught."""
    shape, source, rows = KINDS[kind]
    config = talking(shape, source, data(rows), show=2)
    run = Run(config, tmp_path / "run", quiet=True)
    assert run.train().stopped == "done" and not run.dropped, run.dropped[:3]
    assert numbers(tmp_path / "run")["eval/words"] > 0
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text("utf-8").splitlines()]
    shown_rows = [] if kind == "language model" else [1, 1]  # nothing is asked of it
    assert [one["look"] for one in samples] == shown_rows and all(one["right"] for one in samples)
    model = load(tmp_path / "run")
    row = run.rows(config.stages[0].streams[0].data, frozenset())[0]
    taught = conversation_of(row, instructed=model.instructed)
    asked = taught[: next(i for i, message in enumerate(taught) if message.role == "assistant")]
    asked = asked or (Message("user", (Text("three"),)),)  # a language model goes on from words
    (answer,) = model.chat([list(asked)], ChatOptions(max_tokens=4))
    assert answer.error is None, answer.error
    assert "chat" in model.can


def test_what_another_run_said_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    progress = Progress(talking(CHAT, {}, ASKED), tmp_path)
    progress.begin(resume=False)
    progress.samples("main", [{"said": "before"}])
    progress.begin(resume=True)
    assert (tmp_path / "samples.jsonl").is_file()
    progress.begin(resume=False)
    assert not (tmp_path / "samples.jsonl").exists()


def test_samples_are_of_rows_in_which_something_is_asked_and_answered(tmp_path: Path) -> None:
    run = Run(talking(CHAT, {}, ASKED), tmp_path / "run", quiet=True)
    asked = run.rows(DataConfig.model_validate(ASKED), frozenset())[0]
    silent = [Row("text", texts=(Text("a star", "en"),)), Row("mute", question="What?"), Row("alien", texts=(Text("uccello", "it"),))]
    collate = run._lessons(LanguageConfig(), None)
    assert [one["row"] for one in shown(run.local(), collate, [*silent, asked, asked.with_(id="another")], 1)] == [asked.id]


def test_answers_are_measured_in_the_languages_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Run(talking(CHAT, {}, ASKED), tmp_path / "run", quiet=True).local()
    rows = list(scenes.generate_questions(8, size=32))
    rows += [Row("own", question="图里有什么？", answers=("鸟",), images=rows[0].images)]
    asked: list[int] = []
    answer = model.chat
    monkeypatch.setattr(model, "chat", lambda several, options=None: asked.append(len(several)) or answer(several, options))
    evaluation = AnswersEvaluation(data=DataConfig.model_validate(ASKED))
    for langs in (None, ("zh",)):
        measure(evaluation, model, rows, langs)
    assert sum(asked) == 9 + 1 + sum(row.meta["lang"] == "zh" for row in rows[:-1]) < 18
    with pytest.raises(UsageError, match="none of 9 questions is in ja"):
        measure(evaluation, model, rows, ("ja",))


def test_a_run_spells_who_speaks_in_one_token(tmp_path: Path) -> None:
    """A text counts as often as it is said: what stands in every conversation is learnt before any single caption."""
    words = Run(talking(CHAT, {}, ASKED), tmp_path / "run", quiet=True).parts.processor.text
    assert words is not None
    assert [len(ids) for ids in words.pieces(["user\n", "assistant\n"])] == [2, 2], "a word and the line's end"


@pytest.mark.slow
def test_a_row_learnt_by_heart_is_said(tmp_path: Path) -> None:
    """What stands before the answer, where it ends, the placeholders and the tokenizer are the same in training and in use."""
    config = talking(
        CHAT, {}, ASKED, stage={"train": {"steps": 150, "log_every": 1, "eval_every": 150}, "optim": {"lr": 6e-3, "warmup": 5}}
    )
    run = Run(config, tmp_path / "run", limit=4, quiet=True)
    run.train()
    rows = list(run.rows(config.stages[0].streams[0].data, frozenset()))
    assert numbers(tmp_path / "run")["eval/loss"] < 0.05
    asked = [conversation_of(row) for row in rows]
    answers = load(tmp_path / "run").chat([list(one[:1]) for one in asked], ChatOptions(max_tokens=20))
    assert [one.text for one in answers] == [one[1].parts[0].text for one in asked]  # type: ignore[union-attr]
    assert all(one.outcome == "answered" for one in answers), "the end was learnt too"


@pytest.mark.slow
def test_letters_and_marks_are_said_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        Row("a", question="Ｗhat？", answers=("它是Ａ号（大的）。Yes, a CAT!",), images=(Image(array=_white()),), meta={"lang": "zh"})
    ] * 1
    Dataset.from_rows([row.with_(id=f"{i}") for i, row in enumerate(rows * 8)]).write(tmp_path / "rows")
    data = {"source": str(tmp_path / "rows"), "split": None}
    config = talking(CHAT, {}, data, stage=by_heart(100))
    Run(config, tmp_path / "run", quiet=True).train()
    (answer,) = load(tmp_path / "run").chat([[Message("user", (Image(array=_white()), Text("Ｗhat？")))]], ChatOptions(max_tokens=60))
    assert answer.text == "它是Ａ号（大的）。Yes, a CAT!"


def test_questions_and_captions_choose_what_is_best(tmp_path: Path) -> None:
    config = run_of(
        CHAT,
        {"name": "captions", "data": PICTURES, "step": {"kind": "language"}},
        {"name": "questions", "data": ASKED, "step": {"kind": "language", "pack": True}},
        evaluation={"kind": "answers", "data": {**ASKED, "split": "train"}},
        looks=[
            {"kind": "captions", "data": {**PICTURES, "split": "train"}, "langs": ["zh"]},
            {"kind": "answers", "data": {**TALKS, "options": {"n": 16, "size": 32, "ask": True}, "split": "train"}},
        ],
        stage={"train": {"steps": 2, "eval_every": 2, "log_every": 1}},
    )
    Run(config, tmp_path / "run", quiet=True).train()
    found = numbers(tmp_path / "run")
    assert {"eval/right", "eval/acc", "eval/zh acc", "eval/answers zh acc", "eval/captions cider-d"} <= found.keys()
    assert found["eval/right"] == found["eval/acc"], "each look by its own name"


def test_a_decoder_brings_its_template_and_its_words(tmp_path: Path) -> None:
    """A language model with conversations becomes a part of one that sees; placeholders stand behind its words."""
    talks = {"source": "scenes", "options": {"n": 20, "size": 32, "dialogues": True}, "split": None}
    texts = [row.with_(messages=tuple(_words_only(m) for m in row.messages)) for row in scenes.generate_dialogues(30, size=32)]
    Dataset.from_rows(texts).write(tmp_path / "texts")
    shape = {"kind": "gpt", "text": WORDS}
    base = talking(shape, {"chat": {"template": TURNS, "ends": ["<|endoftext|>"]}}, {"source": str(tmp_path / "texts"), "split": None})
    Run(base, tmp_path / "base", quiet=True).train()
    seeing = RunConfig.parse(
        {
            **json.loads(talking(CHAT, {}, talks).model_dump_json()),
            "model": {
                "config": {"kind": "chat", "image": SHAPE, "image_token": 400, "text": {}},
                "towers": {"text": str(tmp_path / "base")},
            },
        }
    )
    run = Run(seeing, tmp_path / "seeing", quiet=True)
    chat = run.parts.processor.chat
    assert isinstance(chat, ChatProcessor) and chat.config.template == TURNS
    assert chat.config.image is not None and chat.config.image.id == chat.tokenizer.vocab_size == 400
    run.train()
    assert load_local(tmp_path / "seeing").can >= {"chat"}


def test_lora_teaches_a_chat_model_beside_its_base(tmp_path: Path) -> None:
    Run(talking(CHAT, {}, ASKED), tmp_path / "base", quiet=True).train()
    lora = {"kind": "lora", "rank": 2, "targets": ["attention.q", "attention.v"], "parts": ["text"]}
    plain = json.loads(talking(CHAT, {}, TALKS).model_dump_json())
    plain["stages"][0]["adapt"] = lora
    config = RunConfig.parse({**plain, "model": {"start": str(tmp_path / "base")}})
    Run(config, tmp_path / "run", quiet=True).train()
    (answer,) = load(tmp_path / "run").chat([[Message("user", (Image(array=_white()), Text("?")))]], ChatOptions(max_tokens=3))
    assert answer.error is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"show": 1, "evaluation": None}, "show are taken when the evaluation is"),
        ({"stream": {"augment": {"flip": 0.5}}}, "augment changes single pictures"),
        ({"stream": {"data": PICTURES | {"langs": ["ja"]}}}, "no row that a model can learn to talk from"),
        ({"evaluation": {"kind": "answers", "data": PICTURES}}, "has a question and an answer"),
        ({"evaluation": {"kind": "retrieval", "data": PICTURES}}, "no common space"),
        ({"stream": {"step": {"kind": "language", "room": 9}}}, "room is that of packed rows"),
    ],
    ids=["show", "augment", "language", "answers", "retrieval", "room"],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    stream = {"data": PICTURES, "step": {"kind": "language"}, **change.pop("stream", {})}
    with pytest.raises((UsageError, ConfigError, TongganError), match=why):
        Run(run_of(CHAT, stream, **change), tmp_path / "run", quiet=True).train()


def test_what_has_no_template_or_another_length_says_so(tmp_path: Path) -> None:
    shape, _, rows = KINDS["captioner"]
    for other, changes, why in (
        (shape, {"template": "x"}, r"model\.chat: a captioner takes one message"),
        (CHAT, {"context": 9}, "as long as the model's context"),
    ):
        with pytest.raises(UsageError, match=why):
            Run(talking(other, {"chat": changes}, rows), tmp_path / "run", quiet=True)


TURNS = "{%- for m in messages -%}[{{ m.role }}] {% for p in m.content %}{{ p.text if p.type == 'text' else '<image>' }}{% endfor %}{{ eos_token }}{%- endfor -%}{%- if add_generation_prompt -%}[assistant] {% endif -%}"  # noqa: E501


def _white() -> Any:
    import numpy as np

    return np.full((32, 32, 3), 255, np.uint8)


def _words_only(message: Message) -> Message:
    return Message(message.role, tuple(part for part in message.parts if not isinstance(part, Image | Audio)))


@pytest.mark.parametrize("kind", ["captioner", "git", "encoder-decoder"])
def test_an_adapter_goes_into_the_blocks_that_say_words(kind: str, tmp_path: Path, data: Any) -> None:
    """Of every system; where it looks at what it read, too."""
    shape, source, rows = KINDS[kind]
    Run(talking(shape, source, data(rows)), tmp_path / "base", quiet=True).save(tmp_path / "base")
    given = str(tmp_path / "TEXTS") if rows["source"] == "TEXTS" else str(scenes.generate(30, size=32).write(tmp_path / "mine"))
    config = adapt_config(str(tmp_path / "base"), given, tmp_path / "run", minutes=1)
    plain = json.loads(config.model_dump_json())
    plain["stages"][0]["train"] |= {"minutes": None, "steps": 1}
    plain["stages"][0]["streams"][0]["loader"]["batch_size"] = 4
    run = Run(RunConfig.parse(plain), tmp_path / "run", quiet=True)
    assert run.train().stopped == "done"
    added = {name for name, _ in run.model.named_parameters() if ".lora." in name}
    assert added and not any(name.startswith(("image.", "encoder.")) for name in added)
    assert any(".cross." in name for name in added) == (kind != "git")


def test_rows_that_are_too_long_do_not_keep_a_run_from_beginning(tmp_path: Path) -> None:
    rows = [row.with_(split=None) for row in scenes.generate(12, size=32)]
    rows += [Row(f"long {i}", question="? " * 400, answers=("yes",), images=rows[0].images) for i in range(16)]
    Dataset.from_rows(rows).write(tmp_path / "mine")
    config = talking(CHAT, {}, {"source": str(tmp_path / "mine"), "split": None})
    plain = json.loads(config.model_dump_json())
    plain["evaluation"] = plain["stages"][0]["train"]["eval_every"] = None
    run = Run(RunConfig.parse(plain), tmp_path / "run", quiet=True)
    (stream,) = run.trainer(0, run.config.stages[0]).streams
    assert isinstance(stream.batches, Loader)
    assert not any(id.startswith("long") for id in stream.batches.largest().ids)


def test_own_dialogues_are_learnt_beside_a_model(tmp_path: Path) -> None:
    """A LLaVA file: an adapter, packed, held-out dialogues of other pictures, what it says of them, and its score after."""
    Run(talking(CHAT, {}, TALKS), tmp_path / "base", quiet=True).train()
    made = []
    for number, row in enumerate(scenes.generate_dialogues(14, 3, size=32)):
        said = [
            {"from": "human" if m.role == "user" else "gpt", "value": "".join(p.text for p in m.parts if isinstance(p, Text))}
            for m in row.messages
        ]
        said[0]["value"] = "<image>\n" + said[0]["value"]
        picture = f"{number // 2}.png"  # two dialogues about each
        (tmp_path / picture).write_bytes(next(p.data for p in row.messages[0].parts if isinstance(p, Image)) or b"")
        made.append({"id": str(number), "image": picture, "conversations": said})
    (tmp_path / "mine.json").write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    config = adapt_config(str(tmp_path / "base"), str(tmp_path / "mine.json"), tmp_path / "run", minutes=1)
    plain = json.loads(config.model_dump_json())
    plain["stages"][0]["train"] |= {"minutes": None, "steps": 2, "eval_every": 2}
    config = RunConfig.parse(plain)
    (stage,) = config.stages
    assert stage.adapt is not None and stage.adapt.kind == "lora" and stage.streams[0].step.pack  # type: ignore[union-attr]
    before = load_local(tmp_path / "base").identity.weights
    Run(config, tmp_path / "run", quiet=True).train()
    kept = Dataset.read(tmp_path / "run" / "data")
    sides: dict[Path | None, set[str | None]] = {}
    for row in kept:
        sides.setdefault(next(p.path for p in row.messages[0].parts if isinstance(p, Image)), set()).add(row.split)
    assert len(sides) == 7 and {"train", "val"} <= set(kept.splits)
    assert all(len(side) == 1 for side in sides.values()), "no picture is on both sides"
    assert len((tmp_path / "run" / "samples.jsonl").read_text("utf-8").splitlines()) >= 2
    asked, dropped = questions(list(kept))
    result = answers(load(tmp_path / "run"), asked)
    assert not dropped and len(result.items) == 14
    assert {one for item in result.items for one in item["outcome"]} <= {"answered", "truncated"}
    assert load_local(tmp_path / "base").identity.weights == before, "the base is as it was"
