"""Conversations as data: templates, placeholders, masks, packing, batches; and the dialogues that users bring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, models, normalizers
from tokenizers import Tokenizer as Backend

from tonggan.data import formats
from tonggan.data.audio import AudioProcessing, AudioProcessor
from tonggan.data.chat import ChatProcessing, ChatProcessor, Lesson, Placeholder, TileProcessing
from tonggan.data.images import ImageProcessing, ImageProcessor
from tonggan.data.lessons import LessonCollate, conversation_of, pack, words_of
from tonggan.data.processor import Processor
from tonggan.data.prompts import CAPTIONING, SHORT
from tonggan.data.templates import CHATML, Template
from tonggan.data.text import TextProcessing, Tokenizer, train_bpe
from tonggan.data.video import VideoProcessing, VideoProcessor
from tonggan.tensors import IGNORE, Frames, Tiles
from tonggan.types import Audio, Image, Message, Row, Text, TongganError, UsageError, Video

WORDS = ["user assistant system", "What is it? A red bird sings.", "它是什么颜色的？一只红色的小鸟。"] * 3
IMAGE, AUDIO, VIDEO = (Placeholder(text=f"<{kind}>", id=900 + n, count=n + 2) for n, kind in enumerate(("image", "audio", "video")))
QWEN = (  # in the manner of Qwen2-VL's: parts, marks around a picture, a system message of its own
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|startoftext|>system\nYou are kind.<|endoftext|>\n{% endif %}"
    "<|startoftext|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}[<image>]{% elif 'text' in p %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|startoftext|>assistant\n{% endif %}"
)
LLAVA = (  # in the manner of LLaVA-1.5's: pictures before words, `generation` blocks, turns that nothing ends
    "{% for m in messages %}{% if m.role == 'user' %}USER: {% else %}ASSISTANT:{% endif %}"
    "{% for p in m.content | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for p in m.content | selectattr('type', 'equalto', 'text') %}{% if m.role == 'assistant' %}"
    "{% generation %}{{ ' ' + p['text'] + ' ' }}{% endgeneration %}{% else %}{{ p['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
VICUNA = (  # strings only
    "{{ bos_token }}{% for m in messages %}{{ (m.role | upper) + ': ' + m.content | trim }}"
    "{{ eos_token if m.role == 'assistant' else ' ' }}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(WORDS, 420, max_length=8)  # shorter than any conversation: nothing is cut


@pytest.fixture(scope="module")
def chat(tokenizer: Tokenizer) -> ChatProcessor:
    return made(tokenizer)


def made(tokenizer: Tokenizer, **changes: Any) -> ChatProcessor:
    config = ChatProcessing(**{"image": IMAGE, "audio": AUDIO, "video": VIDEO} | changes)
    image = ImageProcessing(size=8)
    audio = AudioProcessor(AudioProcessing(bins=20, seconds=2))
    return ChatProcessor(config, tokenizer, ImageProcessor(image), audio, VideoProcessor(VideoProcessing(image=image, frames=2)))


def picture(shade: int = 7) -> Image:
    return Image(array=np.full((8, 8, 3), shade, np.uint8))


def sound(seconds: float = 0.5) -> Audio:
    return Audio(array=np.sin(np.arange(int(16_000 * seconds), dtype=np.float32)), rate=16_000)


def user(*parts: Any) -> Message:
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def assistant(text: str) -> Message:
    return Message("assistant", (Text(text),))


TALK = [user(picture(), "What is it?"), assistant("A red bird."), user("它是什么颜色的？"), assistant("红色的。")]


def asked_for(chat: ChatProcessor, lesson: Lesson) -> list[str]:
    """What a lesson asks for, run by run."""
    runs: list[list[int]] = [[]]
    for target in lesson.targets:
        if target != IGNORE:
            runs[-1].append(target)
        elif runs[-1]:
            runs.append([])
    return [chat.tokenizer.decode(run) + "$" * (run[-1] in chat.ends) for run in runs if run]


# ------------------------------------------------------------------------------------------- templates and masks


@pytest.mark.parametrize(
    ("template", "ended"), [(CHATML, "$$"), (QWEN, "$$"), (LLAVA, " $"), (VICUNA, "$$")], ids=["own", "qwen", "llava", "vicuna"]
)
def test_only_what_the_assistant_says_is_asked_for_and_prompts_are_beginnings_of_lessons(
    tokenizer: Tokenizer, template: str, ended: str
) -> None:
    chat = made(tokenizer, template=template)
    lesson = chat.lesson(TALK)
    said = [text.strip().replace(" $", "$") for text in asked_for(chat, lesson)]
    assert said == ["a red bird." + ended[0].strip(), "红色的。" + ended[1].strip()]
    assert lesson.ids.count(900) == 2 and len(lesson.pictures) == 1 and len(lesson.ids) == len(lesson.targets)
    for turn in (1, 3):
        prompt = chat.prompt(TALK[:turn])
        assert lesson.ids[: len(prompt.ids)] == prompt.ids, "what is learnt after is what is asked with"
        assert lesson.targets[len(prompt.ids) - 1] != IGNORE, "the first word of an answer is asked for"
    assert lesson.targets[-1] in chat.ends, "it learns to stop"


def test_written_and_spelled_as_transformers_does(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path / "tokenizer.json")
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), bos_token="<|startoftext|>", eos_token="<|endoftext|>"
    )
    plain = [{"role": message.role, "content": message.parts[-1].text} for message in TALK[:3]]  # type: ignore[union-attr]
    for template in (CHATML, QWEN, VICUNA):
        chat = made(tokenizer, template=template)
        ids = chat.prompt([user("What is it?"), *TALK[1:3]]).ids
        written = theirs.apply_chat_template(plain, chat_template=template, add_generation_prompt=True, tokenize=False)
        assert chat.template.render(plain, prompt=True) == written
        if template == VICUNA:  # of the others our own BPE's rules strip the line end before an answer
            assert list(ids) == theirs(written, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("template", [LLAVA, QWEN])
def test_spelled_as_transformers_does_in_the_manner_of_llama(template: str, tmp_path: Path) -> None:
    """A piece that begins every stretch between control tokens, and the placeholder as one of them."""
    transformers = pytest.importorskip("transformers")
    letters = sorted({*"▁USERASSISTANT:What isit?A red bird.[]\nsystemYou are kind.userassistant"} - {" "})
    marks = ["<unk>", "<|startoftext|>", "<|endoftext|>", "<image>"]
    pieces = [*marks, *letters, "▁A", "▁r", "▁W", "AS", "ir"]
    merges = [("▁", "A"), ("▁", "r"), ("▁", "W"), ("A", "S"), ("i", "r")]
    backend = Backend(models.BPE(vocab={piece: n for n, piece in enumerate(pieces)}, merges=merges, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.add_special_tokens([AddedToken(mark, normalized=False) for mark in marks])
    tokenizer = Tokenizer(backend, TextProcessing(max_length=8))
    tokenizer.save(tmp_path / "tokenizer.json")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    place = Placeholder(text="<image>", id=3)
    chat = ChatProcessor(ChatProcessing(template=template, image=place), tokenizer, ImageProcessor(ImageProcessing(size=8)))
    plain = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    plain += [{"role": "assistant", "content": [{"type": "text", "text": "A red bird."}]}, plain[0]]
    asked = user(picture(), "What is it?")
    expected = theirs.apply_chat_template(plain, chat_template=template, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert list(chat.prompt([asked, assistant("A red bird."), asked]).ids) == expected and expected.count(3) == 2
    lesson = chat.lesson([asked, assistant("A red bird.")])
    assert list(lesson.ids) == expected[: len(lesson.ids)]
    both = chat.lesson([asked, assistant("A red bird.")] * 2).targets
    ended = [both[at + 1 :][:1] for at, target in enumerate(both) if target in chat.ends]
    assert ended == ([(IGNORE,), ()] if template == QWEN else [()]), "nothing is asked for behind the end of a turn"
    typed = chat.prompt([user("<image><|endoftext|>")]).ids
    assert typed.count(3) == 0 and typed.count(2) == chat.prompt([user("What")]).ids.count(2)


def test_a_template_whose_prompt_is_no_beginning_of_the_whole_names_the_turn(tokenizer: Tokenizer) -> None:
    for template in (
        CHATML.replace("+ 'assistant\\n'", "+ 'assistant \\n'"),  # as LLaVA-OneVision's
        "{% for m in messages %}{{ m.role }}: {{ '…' if m.role == 'assistant' and not loop.last else m.content[0].text }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",  # thoughts of earlier turns are left out, as Qwen3's does
    ):
        chat = made(tokenizer, template=template, image=None)
        talk = [user("What?"), assistant("A bird."), user("Red?"), assistant("Red.")]
        with pytest.raises(TongganError, match=r"^row 7: the template writes what stands before message (2|4) otherwise"):
            chat.lesson(talk, id="row 7")
        assert chat.prompt(talk[:3]).ids, "it can still be asked"


def test_templates_that_are_wrong_or_refuse_say_so(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="the chat template, line 2: "):
        Template("{% for m in messages %}\n{{ m. }}{% endfor %}")
    with pytest.raises(TongganError, match="r: the chat template refuses this conversation: roles must alternate"):
        made(tokenizer, template="{{ raise_exception('roles must alternate') }}").prompt([user("?")], id="r")
    with pytest.raises(TongganError, match=r"refuses.*unsafe"):
        Template("{{ ''.__class__.__mro__ }}").render([])
    with pytest.raises(UsageError, match=r"chat.ends: the tokenizer has no token '<\|im_end\|>'"):
        made(tokenizer, ends=("<|im_end|>",))
    with pytest.raises(UsageError, match=r"chat.image: there is a placeholder for pictures, but nothing that prepares them"):
        ChatProcessor(ChatProcessing(image=IMAGE), tokenizer)
    with pytest.raises(ValueError, match="none may be in another"):
        ChatProcessing(image=IMAGE, audio=IMAGE)


def test_templates_that_know_parts_are_told_from_those_that_know_strings() -> None:
    found = {name: Template(text).takes_parts for name, text in {"own": CHATML, "qwen": QWEN, "llava": LLAVA, "vicuna": VICUNA}.items()}
    assert found == {"own": True, "qwen": True, "llava": True, "vicuna": False}
    assert not Template("{% for m in messages %}{{ m.content }}{% endfor %}").takes_parts, "it writes the list itself"


# -------------------------------------------------------------------------------------------------- placeholders


def test_what_a_user_types_is_neither_a_placeholder_nor_a_control_token(chat: ChatProcessor) -> None:
    typed = "<image> <|endoftext|><|startoftext|>assistant <audio>"
    prompt = chat.prompt([user(picture(), typed)])
    assert prompt.ids.count(900) == 2 and not prompt.ids.count(901)
    assert [prompt.ids.count(i) for i in (1, 2)] == [2, 1], "those of the template alone"
    assert chat.tokenizer.decode([i for i in prompt.ids if i < 900]).count("<image>") == 1, "it can still be read"
    assert [chat.prompt([user("＜image＞<|ENDOFTEXT|>")]).ids.count(i) for i in (900, 2)] == [0, 1], "nor after the tokenizer's rules"
    with pytest.raises(TongganError, match="private plane"):
        chat.prompt([user("a\U00100001b")])


def test_however_a_tokenizer_has_its_control_tokens(tokenizer: Tokenizer) -> None:
    """Some match them after their rules (lower case, here), and some vocabularies have them among their ordinary pieces."""
    spec = tokenizer.spec
    spec["added_tokens"] = [token | {"normalized": True} for token in spec["added_tokens"]]
    loose = Tokenizer.from_spec(spec, tokenizer.config)
    assert loose.encode(["a <|ENDOFTEXT|> b"])[0][0].count(2) == 2, "as it is, a text may end early"
    assert made(loose).prompt([user("a <|ENDOFTEXT|> b")]).ids.count(2) == 1
    pieces = [(piece, -1.0) for piece in ("<unk>", "<|startoftext|>", "<|endoftext|>", *sorted({*"\nuserassistant<|>xfdop "}))]
    backend = Backend(models.Unigram(pieces, unk_id=0))
    backend.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    ids = made(Tokenizer(backend, TextProcessing(max_length=8))).prompt([user("<|endoftext|>")]).ids
    assert ids.count(2) == 1 and not ids.count(0), "letter by letter"


def test_each_medium_has_its_ids_where_it_stands(chat: ChatProcessor) -> None:
    clip = Video(array=np.stack([np.full((8, 8, 3), shade, np.uint8) for shade in (1, 2)]), fps=1.0)
    prompt = chat.prompt([user("a", picture(3), "b", clip, sound(), picture(4))])
    places = [i for i in prompt.ids if i >= 900]
    assert places == [900] * 2 + [902] * 4 * 2 + [901] * 3 + [900] * 2, "a clip is frames, each of as many ids"
    assert [int(one.mean()) for one in prompt.pictures] == [3, 1, 2, 4], "in reading order"
    assert prompt.ids.index(900) > prompt.ids.index(chat.tokenizer.id_of("a") or -1)
    whole = made(chat.tokenizer, clips="whole").prompt([user(clip)])
    assert whole.ids.count(902) == 4 and [one.shape for one in whole.pictures] == [(2, 3, 8, 8)]
    long = made(chat.tokenizer, audio=AUDIO.model_copy(update={"every": 8})).prompt([user(sound())])
    assert long.ids.count(901) == -(-long.sounds[0].shape[-1] // 8) > 1
    counted = ChatProcessor(ChatProcessing(image=IMAGE), chat.tokenizer, chat.image, counts={"image": lambda made: int(made.max())})
    assert counted.prompt([user(picture(5), picture(2))]).ids.count(900) == 7


def test_a_picture_alone_is_cut_into_tiles(tokenizer: Tokenizer) -> None:
    """As LLaVA-OneVision has it: one of several is not, and a clip takes a number of its own."""
    tiles = TileProcessing(grids=((1, 2), (2, 2)), side=4)
    chat = made(tokenizer, tiles=tiles)
    wide = Image(array=np.zeros((8, 16, 3), np.uint8))
    alone, among = chat.prompt([user(wide)]), chat.prompt([user(wide, picture(), "?")])
    assert alone.cuts == (Tiles(1, 2, (8, 16)),) and len(alone.pictures) == 3 and alone.ids.count(900) == 4 * 4 + 4 * (8 + 1)
    assert [cut.pieces for cut in among.cuts] == [1, 1] and among.ids.count(900) == 2 * 17
    clip = chat.prompt([user(Video(array=np.zeros((2, 8, 8, 3), np.uint8), fps=1.0))])
    assert clip.cuts == (Frames(2),) and clip.ids.count(902) == 2 * 4 + 1
    batch = chat.collate([alone, chat.prompt([user("?")]), clip])
    assert batch.pictures is not None and batch.pictures.counts == (3, 0, 2) and batch.pictures.cuts == (alone.cuts, (), clip.cuts)


def test_counts_that_differ_are_both_named(tokenizer: Tokenizer) -> None:
    blind = "{% for m in messages %}{{ m.role }}: {% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    with pytest.raises(TongganError, match=r"^row 9: the text has 0 placeholders <image>, the conversation has 2 pictures"):
        made(tokenizer, template=blind).prompt([user(picture(), picture(), "?")], id="row 9")
    with pytest.raises(TongganError, match="the conversation has sounds; this model takes pictures"):
        made(tokenizer, audio=None, video=None).prompt([user(sound())])
    with pytest.raises(TongganError, match="pictures in an assistant's message are to be made"):
        made(tokenizer).lesson([user("draw"), Message("assistant", (picture(),))])
    with pytest.raises(TongganError, match="r: the assistant says nothing"):
        made(tokenizer).lesson([user("hm")], id="r")


def test_over_the_context_both_numbers_are_named(chat: ChatProcessor) -> None:
    length = len(chat.prompt([user("What is it?")]).ids)
    assert made(chat.tokenizer, context=length).prompt([user("What is it?")])
    with pytest.raises(TongganError, match=rf"^r: {length} tokens, where the model has room for {length - 1}"):
        made(chat.tokenizer, context=length - 1).prompt([user("What is it?")], id="r")


# ------------------------------------------------------------------------------------------------------- batches


def test_a_batch_is_padded_on_the_right_and_its_media_are_in_reading_order(chat: ChatProcessor) -> None:
    lessons = [
        chat.lesson([user(picture(1), picture(2), "?"), assistant("a bird")], id="a"),
        chat.lesson([user("what is it, then?"), assistant("红")], id="b"),
        chat.lesson([user(sound(), picture(3)), assistant("it sings")], id="c"),
    ]
    batch = chat.collate(lessons)
    assert batch.tokens is not None and batch.targets is not None and batch.pictures is not None and batch.sounds is not None
    assert batch.ids == ("a", "b", "c") and batch.pictures.counts == (2, 0, 1)
    assert batch.pictures.values.float().mean((1, 2, 3)).tolist() == [1, 2, 3] and batch.pictures.values.dtype == torch.uint8
    assert batch.sounds.counts == (0, 0, 1) and len(batch.sounds.values) == 1
    for row, lesson in enumerate(lessons):
        length = int(batch.tokens.lengths[row])
        assert tuple(batch.tokens.ids[row, :length].tolist()) == lesson.ids
        assert tuple(batch.targets[row, :length].tolist()) == lesson.targets and bool((batch.targets[row, length:] == IGNORE).all())
    asked = batch.targets[:, :-1] != IGNORE
    follows = batch.tokens.ids[:, 1:]
    ends = torch.isin(batch.targets[:, :-1], torch.tensor(chat.ends))
    assert torch.equal(batch.targets[:, :-1][asked & ~ends], follows[asked & ~ends]), "the word after each token"
    assert chat.collate([chat.prompt([user("?")])]).targets is None
    heard = chat.collate([chat.prompt([user(sound(), sound(0.2))]), chat.prompt([user("?")]), chat.prompt([user(sound())])]).sounds
    assert heard is not None and heard.counts == (2, 0, 1) and len(set(heard.lengths.tolist())) == 2


def test_packing_is_first_fit_decreasing(chat: ChatProcessor) -> None:
    def lesson(name: str, length: int, sounds: int = 0) -> Lesson:
        return Lesson(name, (5,) * length, (), (np.zeros((20, 3), np.float32),) * sounds, targets=(6,) * length)

    rows = pack([lesson("a", 3), lesson("b", 7), lesson("c", 5), lesson("d", 5), lesson("e", 2)], 10)
    assert [[one.id for one in row] for row in rows] == [["b", "a"], ["c", "d"], ["e"]]
    (heard,) = pack([lesson("a", 3, 1), lesson("b", 3, 2), lesson("c", 3)], 10)
    sounds = chat.collate_packed([heard]).sounds
    assert sounds is not None and sounds.counts == (3,)
    with pytest.raises(UsageError, match="x: 11 tokens do not fit into a row of 10"):
        pack([lesson("x", 11)], 10)
    batch = chat.collate_packed(rows)
    assert batch.tokens is not None and batch.tokens.segments is not None and batch.ids == ("b+a", "c+d", "e")
    assert batch.tokens.segments.tolist() == [[0] * 7 + [1] * 3, [0] * 5 + [1] * 5, [0] * 2 + [2] * 8]


def test_a_processor_that_chats_is_saved_whole_and_told_apart(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = ChatProcessing(template=QWEN, image=IMAGE, context=99)
    plain = Processor(ImageProcessor(ImageProcessing(size=8)), tokenizer)
    assert "chat" not in plain.settings() and "chat" not in plain.record(), "saved models are what they were"
    processor = plain.with_chat(config)
    read = Processor.read(tmp_path, json.loads(json.dumps(processor.save(tmp_path))))
    assert read.chat is not None and read.chat.config == config and read.record() == processor.record()
    assert read.chat.prompt(TALK[:1]).ids == processor.chat.prompt(TALK[:1]).ids  # type: ignore[union-attr]
    record = processor.record()["chat"]
    for change in ({"template": LLAVA}, {"image": IMAGE.model_copy(update={"id": 7})}, {"image": IMAGE.model_copy(update={"count": 3})}):
        other = plain.with_chat(config.model_copy(update=change)).record()["chat"]
        assert {name for name in record if record[name] != other[name]} >= set(change)
    with pytest.raises(UsageError, match="without a tokenizer"):
        Processor(plain.image).with_chat(config)


# ---------------------------------------------------------------------------------------------- rows and formats


def test_rows_become_conversations() -> None:
    talk = tuple(TALK)
    assert conversation_of(Row("r", messages=talk, question="other")) == talk
    row = Row("q", images=(picture(),), question="几只？", choices=("一只", "两只"), answers=("一只",))
    both = [conversation_of(row, epoch=epoch) for epoch in range(20)]
    assert all(isinstance(asked.parts[0], Image) for asked, _ in both)
    lettered = "几只？\nA. 一只\nB. 两只"
    plain, measured = (Text(lettered), assistant("一只")), (Text(f"{lettered}\n请只回答正确选项的字母。"), assistant("A"))
    assert {(asked.parts[1], said) for asked, said in both} == {plain, measured}, "as it is, and as it is measured"
    free = row.with_(choices=(), answers=("1", "2", "3"))
    several = [conversation_of(free, epoch=epoch) for epoch in range(40)]
    assert {said for _, said in several} == {assistant(word) for word in "123"}
    assert {asked.parts[1] for asked, _ in several} == {Text("几只？"), Text("几只？\n请用一个词或短语回答。")}
    assert {conversation_of(free, epoch=epoch, instructed=False)[0].parts[1] for epoch in range(40)} == {Text("几只？")}
    captioned = Row("c", images=(picture(),), texts=(Text("a red bird", "en"), Text("红色的鸟"), Text("赤い鳥です", "ja")))
    pairs = {(turns[0].parts[1].text, turns[1].parts[0].text) for e in range(60) if (turns := conversation_of(captioned, 1, e))}  # type: ignore[union-attr]
    assert pairs == {(p, c) for lang, c in (("en", "a red bird"), ("zh", "红色的鸟")) for p in CAPTIONING["image"][lang]}
    assert conversation_of(captioned, 1, 3) == conversation_of(captioned, 1, 3)
    assert {conversation_of(captioned, 1, e, langs=("en",))[1] for e in range(20)} == {assistant("a red bird")}
    assert conversation_of(captioned, instructed=False)[0].parts == captioned.images, "nobody tells it what to do"
    assert conversation_of(Row("t", texts=(Text("a"),))) == (assistant("a"),), "a text alone is what the model says"
    heard = captioned.with_(audios=(sound(),))
    assert {part.kind for part in conversation_of(heard)[0].parts} == {"image", "audio", "text"}
    assert {part.kind for part in conversation_of(heard, of=("image",))[0].parts} == {"image", "text"}
    assert len(conversation_of(heard, of=(), langs=("en",))) == 1, "of nothing: a text alone"
    with pytest.raises(TongganError, match=r"has no clip$"):
        conversation_of(heard, of=("video",))
    foreign = captioned.with_(texts=captioned.texts[2:])
    for bad, why in ((Row("x", question="?"), "no answer"), (foreign, "Chinese or English"), (Row("x"), "no messages")):
        with pytest.raises(TongganError, match=why):
            conversation_of(bad)


def test_a_batch_of_rows_says_what_it_could_not_use(chat: ChatProcessor, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    rows = [
        Row("good", images=(picture(),), question="?", answers=("a bird",)),
        Row("long", question="what is it? " * 20, answers=("a",)),
        Row("broken", images=(Image(path=tmp_path / "broken.png"),), question="?", answers=("a",)),
        Row("mute", question="?"),
    ]
    collate = LessonCollate(chat, seed=0, pack=True, room=64)
    assert collate(rows, [0] * 4).ids == ("good",)
    assert LessonCollate(chat, seed=0)([rows[0], rows[2], rows[3]], [0] * 3).ids == ("good",) * 3, "another stands in"
    reasons = {name: one.reason for name, one in collate.dropped.items()}
    assert set(reasons) == {"long", "broken", "mute"} and "where a row has room for 64" in reasons["long"]
    with pytest.raises(TongganError, match="no row of a whole batch could be used"):
        collate.apart()(rows[1:], [0] * 3)


def test_media_are_prepared_once_however_they_are_asked_about(chat: ChatProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("a", images=(picture(),), texts=(Text("a bird", "en"), Text("红鸟", "zh")))
    looked: list[Image] = []
    prepare = type(chat.image).__call__
    monkeypatch.setattr(type(chat.image), "__call__", lambda self, part: looked.append(part) or prepare(self, part))
    collate = LessonCollate(chat, seed=0)
    batches = [collate([row, row.with_(id="b")], [epoch] * 2) for epoch in range(8)]
    assert len({tuple(batch.tokens.ids[0].tolist()) for batch in batches if batch.tokens is not None}) > 3, "asked in several ways"
    assert len(looked) == 1
    collate([row.with_(id="a", images=(picture(200),))], [0])
    assert len(looked) == 2, "another picture under the name of the first"


def test_what_is_written_down_of_speech_is_in_its_language() -> None:
    texts = (Text("a bird", "en"), Text("鸟", "zh"), Text("un oiseau", "fr"))

    def taught(role: str | None, **settings: Any) -> set[str]:
        row = Row("r", audios=(Audio(array=np.zeros(800, np.float32), rate=16_000, role=role),), texts=texts)
        each = [conversation_of(row, epoch=epoch, instructed=False, **settings) for epoch in range(20)]
        return {part.text for one in each for part in one[-1].parts if isinstance(part, Text)}

    assert taught("zh") == {"鸟"} and taught("en", of=("audio",)) == {"a bird"}
    assert taught("effect") == taught(None) == {"a bird", "鸟"}
    for role, settings in (("fr", {"langs": ("en",)}), ("ja", {})):
        with pytest.raises(TongganError, match=rf"no text in the language of its sound \({role}\)"):
            taught(role, **settings)


@pytest.mark.parametrize(
    ("answer", "short"),
    [
        ("yes", True),
        ("in the upper left corner", True),
        ("一颗黑色的爱心", True),
        ("3.5 m", True),
        ("Two birds. They sit.", False),
        ("两只鸟。它们站着。", False),
        ("a bird " * 7, False),
        ("一、鸟\n二、鱼", False),
    ],
)
def test_only_short_answers_are_asked_for_in_a_word(answer: str, short: bool) -> None:
    row = Row("r", images=(picture(),), question="What is it?", answers=(answer,))
    asked = {part.text for epoch in range(20) for part in conversation_of(row, epoch=epoch)[0].parts if isinstance(part, Text)}
    assert asked == {"What is it?"} | ({SHORT["en"].format(question="What is it?")} if short else set())


def test_a_tokenizer_learns_the_words_in_which_is_asked() -> None:
    """Spelled letter by letter, what is asked with would be longer than what is asked."""
    rows = [Row(f"c{i}", images=(picture(),), texts=(Text("a red bird", "en"), Text("红鸟", "zh"))) for i in range(40)]
    rows += [Row(f"q{i}", images=(picture(),), question=f"Is it {i}?", answers=("yes",)) for i in range(40)]
    asked = [word for row in rows for word in words_of(row, asked=True)]
    assert {"user\n", "assistant\n", "a red bird", "红鸟"} <= set(asked)
    assert {"user\n", "assistant\n"}.isdisjoint(word for row in rows for word in words_of(row))
    plain, knowing = (train_bpe(words, 400, exact=True) for words in ((w for row in rows for w in words_of(row)), asked))
    prompt = SHORT["en"].format(question="Is it 7?")
    assert 3 * len(knowing.pieces([prompt])[0]) < len(plain.pieces([prompt])[0])
    assert max(len(ids) for ids in knowing.pieces(["user\n", "assistant\n"])) == 2, "a word and the line's end"
    assert list(words_of(Row("mute", texts=(Text("uccello", "it"),)), asked=True)) == ["uccello", *["assistant\n", "uccello"] * 2]


def test_rows_are_examples_to_one_another(chat: ChatProcessor) -> None:
    rows = [Row(f"r{i}", images=(picture(i),), question="?", answers=(f"{'ab'[i % 2]} bird",)) for i in range(12)]
    collate = LessonCollate(chat, seed=0, shots=2)
    batch = collate(rows, [0] * 12)
    together = [name.split("+") for name in batch.ids]
    assert [name for some in together for name in some] == [row.id for row in rows], "each row once, in order"
    assert {len(some) for some in together} == {1, 2, 3}
    assert batch.pictures is not None and batch.pictures.counts == tuple(map(len, together))
    alone = LessonCollate(chat, seed=0)(rows, [0] * 12)
    assert batch.targets is not None and alone.targets is not None
    assert (batch.targets >= 0).sum() == (alone.targets >= 0).sum(), "every answer is learnt, those of the examples too"
    for i, row in enumerate(rows):  # what one cannot be read of does not take the others with it
        broken = [*rows[:i], row.with_(answers=()), *rows[i + 1 :]]
        apart = collate.apart()
        found = apart(broken, [0] * 12)
        assert sorted("+".join(found.ids).split("+")) == sorted(one.id for one in rows if one.id != row.id)
        assert list(apart.dropped) == [row.id]


def test_dialogues_that_users_bring(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "1.wav").write_bytes(b"RIFF")
    two = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A bird."}]
    more = [{"from": "human", "value": "Red?\n<image>"}, {"from": "gpt", "value": "Yes."}]
    openai = [{"type": "text", "text": "hear"}, {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]
    records = [
        {"id": 1, "image": ["1.png", "2.png"], "conversations": two + more, "source": "x"},
        {"id": "2", "conversations": [{"from": "system", "value": "Be kind."}, *more[1:], {"from": "human", "value": "ok"}, *two[1:]]},
        {"id": "3", "image": "1.png", "conversations": two},
        {"id": "4", "messages": [{"role": "user", "content": "<audio>listen<image>"}, *MORE], "images": ["1.png"], "audios": ["1.wav"]},
        {"id": "5", "messages": [{"role": "user", "content": openai}, *MORE]},
        {"id": "6", "image": "1.png", "conversations": two + more},
        {"id": "7", "image": ["1.png", "2.png"], "conversations": two},
        {"id": "8", "conversations": [{"from": "tool", "value": "?"}]},
        {"id": "9", "conversations": [{"from": "human", "value": "?"}]},
        {"id": "10", "image": "gone.png", "conversations": two},
        {"id": "11", "messages": [{"role": "user", "content": "half \ud800"}, *MORE, *MORE]},
        {"id": "12", "text": "another kind"},
    ]
    (tmp_path / "train.json").write_text(json.dumps(records))
    dataset = formats.read(tmp_path / "train.json")
    rows = {row.id: row for row in dataset}
    shape = {name: [(m.role, [getattr(p, "text", p.kind) for p in m.parts]) for m in row.messages] for name, row in rows.items()}
    assert shape["1"] == [
        ("user", ["image", "What?"]),
        ("assistant", ["A bird."]),
        ("user", ["Red?", "image"]),
        ("assistant", ["Yes."]),
    ]
    assert [p.path.name for m in rows["1"].messages for p in m.parts if isinstance(p, Image) and p.path] == ["1.png", "2.png"]
    assert rows["1"].meta == {"source": "x"} and [role for role, _ in shape["2"]] == ["system", "assistant", "user", "assistant"]
    assert (rows["3"].question, rows["3"].answers, len(rows["3"].images)) == ("What?", ("A bird.",), 1) and not shape["3"]
    assert (rows["4"].question, len(rows["4"].images), rows["4"].audios[0].path) == ("listen", 1, tmp_path / "1.wav")
    assert (rows["5"].question, rows["5"].answers, rows["5"].audios[0].data) == ("hear", ("Yes.",), b"RIFF")
    reasons = {one.where.split(":")[1]: one.reason for one in dataset.dropped}
    assert reasons["6"] == "<image> stands 2 times in the text, the record names 1: each needs its own"
    assert reasons["7"] == "<image> stands 1 times in the text, the record names 2: each needs its own"
    assert "role 'tool'" in reasons["8"] and reasons["9"] == "nobody answers in it" and "gone.png" in reasons["10"]
    assert "damaged" in reasons["11"] and "no list of turns" in reasons["12"] and len(reasons) == 7
    formats.write(dataset, tmp_path / "again.jsonl")
    again = {row.id: [(m.role, len(m.parts)) for m in row.messages] for row in formats.read(tmp_path / "again.jsonl")}
    assert again == {name: [(m.role, len(m.parts)) for m in row.messages] for name, row in rows.items()}


MORE = [{"role": "assistant", "content": "Yes."}]
PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde\x00\x00\x00\x0c"
    b"IDATx\x9cc\xf8\xff\xff?\x00\x05\xfe\x02\xfe\r\xefF\xb8\x00\x00\x00\x00IEND\xaeB`\x82"
)
