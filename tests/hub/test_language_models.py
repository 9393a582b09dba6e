"""Llama, Qwen2, Qwen3 and GPT-2: outputs, gradients and answers of the reference, directories in and out."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from hub.references import close
from hub.references_sound_sight import shaken
from tonggan import hub
from tonggan.data.plain import writer_of
from tonggan.generate import Sampling, generate
from tonggan.hub.convert.table import TRANSPOSED, KeyTable, Stacked
from tonggan.models import GPT, GPTConfig, build
from tonggan.models.gpt import DecoderConfig, StretchConfig
from tonggan.tensors import Batch, pad
from tonggan.types import Message, Text, TongganError, UsageError

WORDS = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
SIZES: dict[str, Any] = {
    "vocab_size": 37, "hidden_size": 18, "intermediate_size": 31, "num_hidden_layers": 2, "num_attention_heads": 3,
    "num_key_value_heads": 1, "max_position_embeddings": 60, "eos_token_id": 2,
}  # fmt: skip
SMALL: dict[str, Any] = {"vocab_size": 37, "n_embd": 21, "n_layer": 2, "n_head": 3, "n_positions": 40, "eos_token_id": 2, "bos_token_id": 1}
SLOWER = {"rope_type": "llama3", "rope_theta": 50.0, "factor": 5.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SETTINGS: dict[str, tuple[type, dict[str, Any]]] = {
    "Llama": (LlamaForCausalLM, {}),
    "Llama with all biases, as many keys as queries, tied": (
        LlamaForCausalLM,
        {"num_key_value_heads": 3, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    ),
    "Llama whose heads are wider than its width, and slowed": (
        LlamaForCausalLM,
        {"head_dim": 14, "hidden_act": "gelu", "rope_parameters": SLOWER | {"original_max_position_embeddings": 16}},
    ),
    "Llama, all slowed alike": (LlamaForCausalLM, {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 90.0}}),
    "Qwen2": (Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "Qwen2 of nine heads, of which each three share a key": (Qwen2ForCausalLM, {"num_attention_heads": 9, "num_key_value_heads": 3}),
    "Qwen3": (Qwen3ForCausalLM, {"head_dim": 10, "hidden_size": 19}),
    "Qwen3 with biases": (Qwen3ForCausalLM, {"head_dim": 4, "attention_bias": True, "num_key_value_heads": 3}),
    "GPT-2": (GPT2LMHeadModel, {}),
    "GPT-2 untied, of another width within": (
        GPT2LMHeadModel,
        {"n_inner": 23, "activation_function": "gelu", "tie_word_embeddings": False, "layer_norm_epsilon": 1e-3},
    ),
}
CONFIGS = {LlamaForCausalLM: LlamaConfig, Qwen2ForCausalLM: Qwen2Config, Qwen3ForCausalLM: Qwen3Config, GPT2LMHeadModel: GPT2Config}
GPT2S = [name for name in SETTINGS if name.startswith("GPT-2")]


def language_model(
    directory: Path, name: str = "Llama", *, ends: Any = None, template: str | None = None, starts: bool = False, **more: Any
) -> Any:
    """Three heads, of keys and values one or three; one more word than the tokenizer has, and some."""
    torch.manual_seed(0)
    cls, settings = SETTINGS[name]
    model = shaken(cls(CONFIGS[cls](**{**(SMALL if cls is GPT2LMHeadModel else SIZES), **settings, **more})))
    if ends is not None:
        model.generation_config.update(eos_token_id=ends)
    model.save_pretrained(directory)
    tokenizer(template, starts).save_pretrained(directory)
    return model


def tokenizer(template: str | None = None, starts: bool = False) -> Any:
    """One letter a word; no token for padding."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if starts:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    made.chat_template = template
    return made


def qwen2(directory: Path) -> Any:
    """With a tokenizer of bytes: of another kind the library's class, which is built anew of vocabulary and merges, makes no sense."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {word: i for i, word in enumerate([*letters, "th", "the", "Ġthe", "<|endoftext|>"])}
    model = language_model(directory, "Qwen2", vocab_size=len(vocab) + 3)
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    transformers.Qwen2Tokenizer(vocab=vocab, merges=merges, model_max_length=50).save_pretrained(directory)
    return model


def rows(*, left: bool = False, count: int = 4) -> dict[str, Tensor]:
    """Texts of 9, 4, 1 and 6 words."""
    texts = [[1, 5, 9, 33, 7, 7, 12, 36, 4], [8, 3, 30, 11], [14], [1, 20, 21, 5, 5, 6]][:count]
    ids, mask = torch.full((count, 9), 2), torch.zeros(count, 9, dtype=torch.long)
    for row, text in enumerate(texts):
        at = slice(9 - len(text), 9) if left else slice(0, len(text))
        ids[row, at], mask[row, at] = torch.tensor(text), 1
    return {"input_ids": ids, "attention_mask": mask}


def counted(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """With positions as `generate` counts them."""
    return given | {"position_ids": (given["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)}


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("name", SETTINGS)
def test_outputs_and_gradients_of_language_models_are_those_of_transformers(tmp_path: Path, name: str, left: bool) -> None:
    theirs, module = language_model(tmp_path, name), hub.read(tmp_path).module
    given = counted(rows(left=left)) if left and name in GPT2S else rows(left=left)
    there = given["attention_mask"].bool()
    ours, expected = hub.outputs(module, given), theirs(**given)
    close(ours["logits"][there], expected.logits[there])
    close(ours["last_hidden_state"][there], theirs.base_model(**given).last_hidden_state[there])
    one = {key: tensor[1:2] for key, tensor in given.items()}
    close(hub.outputs(module, one)["logits"][there[1:2]], expected.logits[1:2][there[1:2]])

    goal = torch.randn_like(expected.logits) * there[:, :, None]
    (expected.logits * goal).sum().backward()
    gradients = {key: p.grad for key, p in theirs.named_parameters()}
    found = hub.gradients(module, given, lambda out: (out["logits"] * goal).sum())
    assert set(found) - {"lm_head.weight"} == set(gradients) - {"lm_head.weight"}
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for key, gradient in gradients.items():
        # Softmax ignores a shift of all keys: the gradient of their bias is zero but for rounding, in both.
        scale = 0.1 * largest if key.endswith("k_proj.bias") else float(gradient.abs().max())
        assert float((found[key] - gradient).abs().max()) <= 1e-4 * scale, key


@pytest.mark.parametrize("name", SETTINGS)
def test_answers_of_language_models_are_the_librarys(tmp_path: Path, name: str) -> None:
    """Greedy, all prompts in one ragged batch here, one at a time there; no two words so close that rounding could choose."""
    theirs, module = language_model(tmp_path, name, ends=[35, 7]).double(), hub.read(tmp_path).module.double()
    given = rows()
    prompts = [ids[: int(mask.sum())].tolist() for ids, mask in zip(*given.values(), strict=True)]
    ends = module.config.ends
    assert isinstance(module, GPT) and ends == (35, 7)
    batch = Batch(("a", "b", "c", "d"), tokens=pad(prompts))
    found = generate(module, batch, [Sampling(max_tokens=10)] * 4, ends=ends)
    for prompt, answers in zip(prompts, found, strict=True):
        asked = {"input_ids": torch.tensor([prompt]), "attention_mask": torch.ones(1, len(prompt), dtype=torch.long)}
        made = theirs.generate(
            **asked, max_new_tokens=10, do_sample=False, pad_token_id=0, output_logits=True, return_dict_in_generate=True
        )
        for step in made.logits:
            top = step.topk(2).values[0]
            assert float(top[0] - top[1]) > 1e-8, "a tie would tell nothing"
        said = made.sequences[0, len(prompt) :].tolist()
        assert list(answers[0].ids) == (said[:-1] if said[-1] in ends else said)


def test_what_a_directory_asks_of_answers_and_does_not_get_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    language_model(tmp_path, next(iter(SETTINGS)), ends=[2])
    file = tmp_path / "generation_config.json"
    said = json.loads(file.read_text())
    for given, told in (
        ({"repetition_penalty": 1.0, "do_sample": True, "min_length": 0}, ""),
        (
            {"repetition_penalty": 1.1, "no_repeat_ngram_size": 3},
            "not taken, .*: repetition_penalty=1.1, no_repeat_ngram_size=3",
        ),
    ):
        file.write_text(json.dumps(said | given))
        caplog.clear()
        with caplog.at_level(logging.WARNING, "tonggan"):
            hub.read(tmp_path)
        assert re.search(told, caplog.text) if told else not caplog.text


@pytest.mark.parametrize("name", SETTINGS)
def test_language_models_saved_back_the_library_loads_the_same_weights(tmp_path: Path, name: str) -> None:
    theirs = language_model(tmp_path / "theirs", name, ends=[2, 5])
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    again = type(theirs).from_pretrained(tmp_path / "ours").eval()
    state = again.state_dict()
    assert sorted(state) == sorted(theirs.state_dict())
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(state[key], tensor), key
    given = rows()
    with torch.no_grad():
        assert torch.equal(again(**given).logits, theirs(**given).logits)
    assert again.generation_config.eos_token_id == [2, 5]
    back = hub.read(tmp_path / "ours")
    assert back.identity.verified and back.config == checkpoint.config
    assert AutoTokenizer.from_pretrained(tmp_path / "ours")("a c b").input_ids == [3, 5, 4]


@pytest.mark.parametrize(
    ("said", "raw", "ends"), [([2, 5], 9, (2, 5)), (5, 9, (5,)), (None, 9, (9,)), (None, [9, 4], (9, 4)), ("no file", None, ())]
)
def test_what_ends_an_answer_of_a_language_model(tmp_path: Path, said: Any, raw: Any, ends: tuple[int, ...]) -> None:
    language_model(tmp_path)
    change(tmp_path, {"eos_token_id": raw})
    file = tmp_path / "generation_config.json"
    if said == "no file":
        file.unlink()
    else:
        file.write_text(json.dumps({"eos_token_id": said}))
    config = hub.read(tmp_path).config
    assert isinstance(config, GPTConfig) and config.ends == ends


TEMPLATE = (
    "{% for message in messages %}{{ message['role'][0] + ' ' + message['content'] + ' </s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'a ' }}{% endif %}"
)


@pytest.mark.parametrize("name", ["Llama", "GPT-2"])
@pytest.mark.parametrize("starts", ["", "by the tokenizer", "by the template"])
def test_conversations_of_language_models_are_written_out_as_the_library_does(tmp_path: Path, name: str, starts: str) -> None:
    """From the published directory and from the one that was saved back; without a template there are none. A start token stands before
    them where the template writes it, whatever the tokenizer puts before other texts."""
    template = ("{{ bos_token + ' ' }}" if starts == "by the template" else "") + TEMPLATE
    language_model(tmp_path / "theirs", name, template=template, starts=bool(starts))
    turns = [("user", "b c d"), ("assistant", "e"), ("user", "f g")]
    said = [Message(role, (Text(text),)) for role, text in turns]  # type: ignore[arg-type]
    plain = [{"role": role, "content": text} for role, text in turns]
    theirs = AutoTokenizer.from_pretrained(tmp_path / "theirs")
    assert (theirs("b").input_ids[0] == 1) == bool(starts)
    expected = theirs.apply_chat_template(plain, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    for found in (checkpoint, hub.read(tmp_path / "ours")):
        chat = found.processor.chat
        assert chat is not None and chat.ends == (2,)
        batch = chat.collate([chat.prompt(said)])
        assert batch.tokens is not None and batch.tokens.ids.tolist() == [expected]
    again = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert again.apply_chat_template(plain, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"] == expected
    language_model(tmp_path / "plain", name)
    assert hub.read(tmp_path / "plain").processor.chat is None


@pytest.mark.parametrize("name", ["Llama", "GPT-2"])
@pytest.mark.parametrize("starts", [False, True])
def test_texts_of_language_models_begin_as_the_librarys_do(tmp_path: Path, name: str, starts: bool) -> None:
    """Without a template: what the tokenizer puts before every text is read first, and nothing behind it; saved back too."""
    language_model(tmp_path / "theirs", name, starts=starts)
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    expected = AutoTokenizer.from_pretrained(tmp_path / "theirs")("b c").input_ids
    assert (expected[0] == 1) == starts
    for place in ("theirs", "ours"):
        found = hub.read(tmp_path / place)
        assert isinstance(found.config, GPTConfig) and found.config == checkpoint.config
        writer = writer_of("it", found.config, found.processor, context=40, reads=False)
        assert list(writer.prompt([Message("user", (Text("b c"),))]).ids) == expected
    other = found.config.model_copy(update={"start": (2,)})
    with pytest.raises(TongganError, match=r"its texts begin with \(2,\), those of its tokenizer with"):
        hub.save(tmp_path / "other", found.module, other, found.processor, format="transformers")


def change(directory: Path, settings: dict[str, Any]) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "positions of another kind": (
        "Llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "positions of type 'yarn'; supported are 'default', 'linear'"
    ),
    "the same in older files": ("Qwen2", {"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "type 'dynamic'"),
    "part of a head turned": ("Llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
    "the same beside them": ("Llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    "positions by kinds of layers": (
        "Qwen3", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, r"by kinds of layers \(full_attention\)"
    ),
    "two kinds of positions": (
        "Qwen3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, r"differ in rope_type \('linear' and 'default'\): leave one out"
    ),
    "a window": ("Qwen3", {"use_sliding_window": True}, "use_sliding_window=True"),
    "a window in some layers": ("Qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types 'sliding_attention'"),
    "another activation": ("Llama", {"hidden_act": "mish"}, "hidden_act 'mish' is not supported"),
    "a classifier": ("Llama", {"architectures": ["LlamaForSequenceClassification"]}, "of llama only LlamaForCausalLM"),
    "unscaled attention": ("GPT-2", {"scale_attn_weights": False}, "scale_attn_weights=False"),
    "attention scaled by layer": ("GPT-2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    "cross-attention": ("GPT-2", {"add_cross_attention": True}, "add_cross_attention=True"),
    "two heads": ("GPT-2", {"architectures": ["GPT2DoubleHeadsModel"]}, "of gpt2 only GPT2LMHeadModel is supported"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_language_models_have_that_is_not_supported_is_refused_by_name(tmp_path: Path, what: str) -> None:
    name, settings, message = REFUSED[what]
    language_model(tmp_path, name)
    change(tmp_path, settings)
    with pytest.raises(TongganError, match=message):
        hub.read(tmp_path)


FILES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "the original length apart": (
        "Llama whose heads are wider than its width, and slowed", {}, {"original_max_position_embeddings": 30}
    ),
    "a base apart": ("Llama", {}, {"rope_parameters": {"rope_type": "default"}, "rope_theta": 77.0}),
    "a base apart that does not count": ("Qwen3", {}, {"rope_theta": 77.0}),
    "both names alike": ("Llama, all slowed alike", {}, {"rope_scaling": {"type": "linear", "factor": 3.0, "rope_theta": 90.0}}),
    "as many keys as heads, by a null": ("Qwen2", {"num_key_value_heads": 3}, {"num_key_value_heads": None}),
    "trained in slices": ("Llama", {}, {"pretraining_tp": 2}),
}  # fmt: skip


@pytest.mark.parametrize("what", FILES)
def test_settings_that_files_spell_otherwise_are_followed_as_the_library_does(tmp_path: Path, what: str) -> None:
    name, settings, said = FILES[what]
    language_model(tmp_path, name, **settings)
    change(tmp_path, said)
    given, theirs = rows(count=1), SETTINGS[name][0].from_pretrained(tmp_path)
    with torch.no_grad():
        close(hub.outputs(tmp_path, given)["logits"], theirs(**given).logits)


def test_positions_of_llama_in_older_files(tmp_path: Path) -> None:
    """The base stood apart, the type was called so; without an original length it is the model's own."""
    language_model(tmp_path)
    slower = {name: value for name, value in SLOWER.items() if name not in ("rope_type", "rope_theta")}
    change(tmp_path, {"rope_parameters": None, "rope_theta": 50.0, "rope_scaling": {"type": "llama3", **slower}})
    config, theirs = hub.read(tmp_path).config, LlamaForCausalLM.from_pretrained(tmp_path)
    assert isinstance(config, GPTConfig) and config.text.rotary_base == 50
    assert config.text.rotary_stretch == StretchConfig(factor=5.0, original=60)
    given = rows(count=1)
    with torch.no_grad():
        close(hub.outputs(tmp_path, given)["logits"], theirs(**given).logits)


def test_slower_positions_are_slower_in_part(tmp_path: Path) -> None:
    """Of the seven rates of that model some stay, some are slowed and some lie between: the parity above has met all three."""
    language_model(tmp_path, "Llama whose heads are wider than its width, and slowed")
    slowed = build(hub.read(tmp_path).config).text.transformer.blocks[0].attention.rotary.rates  # type: ignore[union-attr, index]
    plain = 50.0 ** -(torch.arange(7) / 7)
    ratio = plain / slowed  # type: ignore[operator]
    assert torch.isclose(ratio[-1], torch.tensor(5.0)) and ((ratio > 1.01) & (ratio < 4.99)).any() and ratio[0] < 4.99
    with pytest.raises(ValueError, match="low 4 must be below high 4"):
        StretchConfig(factor=2, original=16, low=4)


def test_tensors_of_gpt2_as_first_published(tmp_path: Path) -> None:
    """Without a prefix or a second copy of the words, and with the masks: the same module, and the masks are told to be dropped."""
    language_model(tmp_path, "GPT-2")
    file, expected = tmp_path / "model.safetensors", hub.read(tmp_path).module.state_dict()
    first = {name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items() if name != "lm_head.weight"}
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 40, 40).tril() for i in range(2)}
    masks |= {f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}
    save_file(first | masks, file)
    found = hub.read(tmp_path)
    assert set(found.dropped) == set(masks)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.module.state_dict().items())


def test_padding_of_gpt2_that_counts_is_refused(tmp_path: Path) -> None:
    language_model(tmp_path, "GPT-2")
    for given in (rows(left=True), counted(rows()) | {"position_ids": torch.arange(9)[None] + 1}):
        with pytest.raises(UsageError, match="position_ids must count each row from 0 at its first token"):
            hub.outputs(tmp_path, given)


def test_a_stack_that_is_turned_as_a_whole() -> None:
    table = KeyTable("test", {"both.{i}": Stacked(("a.{i}", "b.{i}"), TRANSPOSED)})
    ours = {"a.1": torch.randn(2, 5), "b.1": torch.randn(2, 5)}
    theirs = table.export(ours)
    assert torch.equal(theirs["both.1"], torch.cat([ours["a.1"].T, ours["b.1"].T], dim=1)) and theirs["both.1"].is_contiguous()
    back = table.import_(theirs, ours)
    assert all(torch.equal(back[name], tensor) and back[name].is_contiguous() for name, tensor in ours.items())


NEITHER: dict[str, tuple[dict[str, Any], str]] = {
    "biases behind attention alone": ({"out_bias": True}, "llama: its decoder has biases behind its attention alone"),
    "Qwen2 with biases within": ({"qkv_bias": True, "mlp_bias": True}, "llama: its decoder has biases in its feed-forward"),
    "heads that do not divide": ({"width": 19, "head_width": 6}, "llama: its decoder's width 19 is not a multiple of its 3 heads"),
}


@pytest.mark.parametrize("what", NEITHER)
def test_a_language_model_that_is_none_of_these_is_saved_as_ours(tmp_path: Path, what: str) -> None:
    language_model(tmp_path / "theirs")
    settings, message = NEITHER[what]
    text = {"vocab_size": 37, "width": 18, "layers": 1, "heads": 3, "mlp_width": 20, "context": 60, **settings}
    config, processor = GPTConfig(text=DecoderConfig(**text), ends=(2, 4)), hub.read(tmp_path / "theirs").processor
    with pytest.raises(TongganError, match=message):
        hub.save(tmp_path / "ours", GPT(config), config, processor, format="transformers")
    hub.save(tmp_path / "ours", GPT(config), config, processor)
    assert hub.read(tmp_path / "ours").config == config
