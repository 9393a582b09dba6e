"""LLaVA: outputs and gradients of the reference, directories in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from hub.references import close, picture
from hub.references_sound_sight import shaken
from tonggan import hub
from tonggan.hub.convert import llava as convert
from tonggan.models import Chat, ChatConfig, presets
from tonggan.models.projectors import QueriesConfig
from tonggan.models.towers.image import CLIP_MEAN, CLIP_STD
from tonggan.nn.talking import words
from tonggan.tensors import Batch, Pieces, Tokens
from tonggan.types import Image, Message, Text, TongganError, UsageError

WORDS = ["<unk>", "<s>", "</s>", "<pad>", *"abcdefghijklmnopqrstuvwxyz", "<image>"]
IMAGE = len(WORDS) - 1
VISION = {"hidden_size": 27, "intermediate_size": 34, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 12, "patch_size": 4}
TEXT = {
    "vocab_size": 37, "hidden_size": 18, "intermediate_size": 31, "num_hidden_layers": 2, "num_attention_heads": 3,
    "num_key_value_heads": 1, "max_position_embeddings": 60, "eos_token_id": 2,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "CLIP under Llama": {},
    "class token, all from the first block on, no biases": {
        "vision_feature_select_strategy": "full", "vision_feature_layer": [-1, 0, 1], "multimodal_projector_bias": False,
        "projector_hidden_act": "relu", "text": {"attention_bias": True, "rms_norm_eps": 1e-5},
    },
    "SigLIP under Qwen2": {
        "siglip": True, "vision_feature_select_strategy": "full", "decoder": Qwen2Config, "text": {"tie_word_embeddings": True},
    },
    "SigLIP without a head under Qwen3": {
        "siglip": True, "vision_feature_select_strategy": "full", "vision_feature_layer": -1, "vision": {"vision_use_head": False},
        "decoder": Qwen3Config,
        "text": {"head_dim": 10, "attention_bias": True, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    },
}  # fmt: skip


def llava(directory: Path, **settings: Any) -> Any:
    """A tower of three heads of nine and nine patches; a decoder of three heads of six that share one of keys and values."""
    torch.manual_seed(0)
    siglip, decoder = settings.pop("siglip", False), settings.pop("decoder", LlamaConfig)
    text = {**TEXT, **settings.pop("text", {})}
    vision = {**VISION, **settings.pop("vision", {})}
    config = LlavaConfig(
        vision_config=(SiglipVisionConfig if siglip else CLIPVisionConfig)(**vision),
        text_config=decoder(**text),
        **{"image_token_index": IMAGE, "pad_token_id": 3, **settings},
    )
    model = shaken(LlavaForConditionalGeneration(config))
    model.generation_config.update(eos_token_id=[2, 5], pad_token_id=3)
    model.save_pretrained(directory)
    clip = CLIPImageProcessorPil(size={"shortest_edge": 12}, crop_size=12)
    (SiglipImageProcessorPil(size={"height": 12, "width": 12}) if siglip else clip).save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    return model


TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""As llava-hf/llava-1.5-7b-hf has it, but for the words that it leaves out."""


def conversing(directory: Path, template: str = TEMPLATE, *, starts: bool = False, older: bool = False) -> Any:
    """The library's processor, saved beside the model as it is today, or as it was at first."""
    made = LlavaProcessor(
        CLIPImageProcessorPil.from_pretrained(directory), tokenizer(starts), patch_size=4, vision_feature_select_strategy="default",
        chat_template=template, num_additional_image_tokens=1,
    )  # fmt: skip
    made.save_pretrained(directory)
    if older:
        (directory / "chat_template.jinja").unlink()
        (directory / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    return made


def tokenizer(starts: bool = False) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if starts:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>", padding_side="left"
    )
    made.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return made


def inputs(each: int = 9, *, left: bool = False) -> dict[str, Tensor]:
    """Rows of 3, 1, 0 and 2 pictures of so many features; the rest is padding."""
    picture_ = [IMAGE] * each
    texts = [[1, *picture_, 5, 6, *picture_, *picture_, 7, 8], [4, 7, *picture_, 8, 9], [9, 8, 7], [*picture_, *picture_, 5]]
    length = max(map(len, texts))
    ids, mask = torch.full((4, length), 3), torch.zeros(4, length, dtype=torch.long)
    for row, text in enumerate(texts):
        at = slice(length - len(text), length) if left else slice(0, len(text))
        ids[row, at], mask[row, at] = torch.tensor(text), 1
    pixels = torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}


def each_of(settings: dict[str, Any]) -> int:
    return 10 if "class token" in next(name for name, known in SETTINGS.items() if known is settings) else 9


def in_memory(name: str) -> str:
    """The name that a tensor has in the library's module, of the name that it has in a file."""
    name = name.replace("vision_tower.vision_model.", "vision_tower.").replace("language_model.lm_head", "lm_head")
    name = name.replace("language_model.model.", "language_model.")
    return name if name.startswith("lm_head") else f"model.{name}"


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_outputs_and_gradients_of_llava_are_those_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs, given = llava(tmp_path, **settings), inputs(each_of(settings))
    module = hub.read(tmp_path).module
    ours, expected, there = hub.outputs(module, given), theirs(**given), given["attention_mask"].bool()
    close(ours["logits"][there], expected.logits[there])
    close(ours["last_hidden_state"][there], theirs.model(**given).last_hidden_state[there])
    close(ours["image_hidden_states"], torch.stack(list(expected.image_hidden_states)))

    goal = torch.randn_like(expected.logits) * there[:, :, None]
    (expected.logits * goal).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    found = {in_memory(name): g for name, g in hub.gradients(module, given, lambda out: (out["logits"] * goal).sum()).items()}
    assert set(found) - {"lm_head.weight"} == set(gradients) - {"lm_head.weight"}
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        # Softmax ignores a shift of all keys: the gradient of their bias is zero but for rounding, in both.
        scale = 0.1 * largest if name.endswith("k_proj.bias") else float(gradient.abs().max())
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * scale, name


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_any_row_of_llava_and_padding_on_either_side(tmp_path: Path, left: bool) -> None:
    """Each row by itself too: three pictures, one, none (with no pixels at all)."""
    theirs, module = llava(tmp_path), hub.read(tmp_path).module
    given, first = inputs(left=left), 0
    batches = [given]
    for row, count in enumerate((3, 1, 0, 2)):
        one = {name: tensor[row : row + 1] for name, tensor in given.items() if name != "pixel_values"}
        batches.append(one | ({"pixel_values": given["pixel_values"][first : first + count]} if count else {}))
        first += count
    for batch in batches:
        there = batch["attention_mask"].bool()
        with torch.no_grad():
            close(hub.outputs(module, batch)["logits"][there], theirs(**batch).logits[there])


def test_cached_steps_of_llava_are_the_librarys_generation(tmp_path: Path) -> None:
    """Greedy, with three pictures and with none: token for token."""
    theirs, module = llava(tmp_path).double(), hub.read(tmp_path).module.double()
    assert isinstance(module, Chat)
    theirs.generation_config.update(eos_token_id=None, pad_token_id=3)
    for row, pictures in ((0, 3), (2, 0)):
        given = inputs()
        ids = given["input_ids"][row : row + 1, : int(given["attention_mask"][row].sum())]
        pixels = given["pixel_values"][:pictures].double()
        mask = torch.ones_like(ids)
        seen_by_them = {"pixel_values": pixels} if pictures else {}
        expected = theirs.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False, **seen_by_them)
        cache = module.cache(ids.shape[1] + 8)
        with torch.no_grad():
            seen, said = module.read(Batch(("a",), pictures=Pieces(pixels, (pictures,)))), ids
            for _ in range(8):
                states = module.say(Tokens(said, torch.tensor([said.shape[1]])), seen, cache=cache)
                cache.advance([said.shape[1]])
                logits = words(module, states[:, -1])
                top = logits.topk(2).values[0]
                assert float(top[0] - top[1]) > 1e-8, "a tie would tell nothing"
                said = logits.argmax(dim=-1, keepdim=True)
                ids = torch.cat([ids, said], dim=1)
        assert ids.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["CLIP under Llama", "SigLIP under Qwen2"])
def test_pictures_for_llava_are_prepared_as_the_library_does(tmp_path: Path, name: str) -> None:
    llava(tmp_path, **SETTINGS[name])
    shown = [picture(*size, seed=i) for i, size in enumerate([(61, 47), (30, 80), (12, 12)])]
    theirs = (SiglipImageProcessorPil if "SigLIP" in name else CLIPImageProcessorPil).from_pretrained(tmp_path)
    expected = theirs(shown, return_tensors="pt")
    checkpoint = hub.read(tmp_path)
    pixels = checkpoint.processor.pixels([Image(array=np.asarray(p)) for p in shown])
    assert isinstance(checkpoint.module, Chat) and checkpoint.module.image is not None
    close(checkpoint.module.image.normalize(pixels), expected["pixel_values"])


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_llava_saved_back_the_library_loads_the_same_weights(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = llava(tmp_path / "theirs", **settings)
    checkpoint = hub.read(tmp_path / "theirs")
    assert isinstance(checkpoint.config, ChatConfig) and checkpoint.config.ends == (2, 5)
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    again = LlavaForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    state = again.state_dict()
    assert sorted(state) == sorted(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(state[name], tensor), name
    given = inputs(each_of(settings))
    with torch.no_grad():
        assert torch.equal(again(**given).logits, theirs(**given).logits)
    assert again.generation_config.eos_token_id == [2, 5]
    back = hub.read(tmp_path / "ours")
    assert back.identity.verified and back.config == checkpoint.config
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")("a <image> b").input_ids == [4, IMAGE, 5]


def test_tensors_of_llava_under_every_releases_names(tmp_path: Path) -> None:
    """As the library has them in memory, as it writes them, and as they were published: the same module."""
    llava(tmp_path)
    file = tmp_path / "model.safetensors"
    written = load_file(file)
    expected = hub.read(tmp_path).module.state_dict()
    published = {name.replace("vision_tower.", "vision_tower.vision_model."): tensor for name, tensor in written.items()}
    assert {name for name in published if name.startswith("language_model.model.")}, "the library writes the names of its first release"
    for names in ({in_memory(name): tensor for name, tensor in written.items()}, published):
        save_file(names, file)
        found = hub.read(tmp_path).module.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_config_of_llava_that_says_little_is_the_published_model(tmp_path: Path) -> None:
    """Settings that files leave out are the library's, as in those of llava-hf/llava-1.5-7b-hf."""
    text = {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "vocab_size": 32064}
    raw = {"model_type": "llava", "text_config": text}
    assert convert.config_in(raw, tmp_path, CLIP_MEAN, CLIP_STD, convert.DEFAULTS) == presets()["llava-1.5-7b"]


@pytest.mark.parametrize("unsaid", [{"model_type"}, {"model_type", "hidden_act", "rms_norm_eps", "layer_norm_eps", "head_dim"}])
def test_parts_of_llava_that_do_not_say_what_they_are(tmp_path: Path, unsaid: set[str]) -> None:
    """CLIP's and Llama's, with the library's settings of these; what is null is as if it were not there."""
    llava(tmp_path)
    file = tmp_path / "config.json"
    said = json.loads(file.read_text())
    for part in ("vision_config", "text_config"):
        said[part] = {name: value for name, value in said[part].items() if name not in unsaid}
    file.write_text(json.dumps(said))
    theirs, given = LlavaForConditionalGeneration.from_pretrained(tmp_path).eval(), inputs()
    there = given["attention_mask"].bool()
    with torch.no_grad():
        expected = theirs(**given).logits[there]
        close(hub.outputs(tmp_path, given)["logits"][there], expected)
        file.write_text(json.dumps(said | {"projector_hidden_act": None, "eos_token_id": None, "vision_feature_select_strategy": None}))
        (tmp_path / "generation_config.json").unlink()
        close(hub.outputs(tmp_path, given)["logits"][there], expected)
    config = hub.read(tmp_path).config
    assert isinstance(config, ChatConfig) and config.ends == (2,)


@pytest.mark.parametrize("older", [False, True], ids=["today's files", "older files"])
@pytest.mark.parametrize("starts", ["", "by the tokenizer", "by the template"])
def test_conversations_of_llava_are_written_out_as_the_library_does(tmp_path: Path, starts: str, older: bool) -> None:
    """Ids and pixels of a dialogue with two pictures; the same from a directory that was saved back."""
    llava(tmp_path / "theirs")
    template = ("{{ bos_token }}" if starts == "by the template" else "") + TEMPLATE
    theirs = conversing(tmp_path / "theirs", template, starts=bool(starts), older=older)
    shown = [picture(seed=1), picture(30, 80, seed=2)]
    turns: list[tuple[str, list[Any]]] = [("user", [shown[0], "a b c"]), ("assistant", ["d"]), ("user", ["e f", shown[1]])]
    plain = [
        {"role": role, "content": [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]}
        for role, parts in turns
    ]
    said = [Message(role, tuple(Text(p) if isinstance(p, str) else Image(array=np.asarray(p)) for p in parts)) for role, parts in turns]  # type: ignore[arg-type]
    expected = theirs.apply_chat_template(plain, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    for found in (checkpoint, hub.read(tmp_path / "ours")):
        chat, module = found.processor.chat, found.module
        assert chat is not None and isinstance(module, Chat) and module.image is not None
        batch = chat.collate([chat.prompt(said)])
        assert batch.tokens is not None and batch.pictures is not None
        assert batch.tokens.ids.tolist() == expected["input_ids"].tolist() and (batch.tokens.ids == IMAGE).sum() == 18
        close(module.image.normalize(batch.pictures.values), expected["pixel_values"])
        assert module.read(batch) is not None and chat.ends == (2, 5)
    again = AutoProcessor.from_pretrained(tmp_path / "ours")
    back = again.apply_chat_template(plain, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
    assert back["input_ids"].tolist() == expected["input_ids"].tolist()
    close(back["pixel_values"], expected["pixel_values"])


def test_a_processor_that_counts_other_features_than_the_model_is_refused(tmp_path: Path) -> None:
    llava(tmp_path)
    conversing(tmp_path)
    file = tmp_path / "processor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"patch_size": 6}))
    with pytest.raises(TongganError, match=r"4 placeholders for a picture .* but the model of config.json has 9 features of one"):
        hub.read(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"patch_size": 4, "image_token": "a"}))
    with pytest.raises(TongganError, match=r"image_token 'a' is 4 by the tokenizer, 30 by the model's config.json"):
        hub.read(tmp_path)


def test_conversations_with_another_placeholder_than_the_models_are_not_saved(tmp_path: Path) -> None:
    llava(tmp_path / "theirs")
    conversing(tmp_path / "theirs")
    found = hub.read(tmp_path / "theirs")
    assert found.processor.chat is not None and found.processor.chat.config.image is not None
    settings = found.processor.chat.config
    other = settings.model_copy(update={"image": settings.image.model_copy(update={"id": 5})})  # type: ignore[union-attr]
    with pytest.raises(TongganError, match="chat image: 5 by the processor, 30 by the model"):
        hub.save(tmp_path / "ours", found.module, found.config, found.processor.with_chat(other))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another tower": ({"vision_config": {"model_type": "pixtral"}}, "model_type 'pixtral' is not supported; supported are: clip_vision"),
    "another decoder": ({"text_config": {"model_type": "mpt"}}, "'mpt'"),
    "stretched positions": (
        {"text_config": TEXT | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}},
        "rotary positions of type 'dynamic'",
    ),
    "a window": ({"text_config": TEXT | {"model_type": "qwen2", "use_sliding_window": True}}, "use_sliding_window=True"),
    "another way to select": ({"vision_feature_select_strategy": "half"}, "not supported: vision_feature_select_strategy='half'"),
    "a first patch left out": (
        {"vision_config": {**VISION, "model_type": "siglip_vision_model"}},
        "leaves out the first state, which in a SigLIP tower is no class token but a patch",
    ),
    "other activation": ({"projector_hidden_act": "mish"}, "hidden_act 'mish' is not supported"),
    "a layer that there is not": ({"vision_feature_layer": -5}, "image_layers -5: the tower has 3 blocks"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_llava_has_that_is_not_supported_is_refused_by_name(tmp_path: Path, what: str) -> None:
    llava(tmp_path)
    changes, message = REFUSED[what]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(TongganError, match=message):
        hub.read(tmp_path)


def test_a_chat_whose_projector_reads_by_queries_is_saved_as_ours(tmp_path: Path) -> None:
    llava(tmp_path / "theirs")
    checkpoint = hub.read(tmp_path / "theirs")
    plain = checkpoint.config.model_dump() | {"image_projector": QueriesConfig(queries=3, heads=3)}
    config = ChatConfig.model_validate(plain)
    with pytest.raises(TongganError, match="llava: its projector is not two linear maps of each state"):
        hub.save(tmp_path / "ours", Chat(config), config, checkpoint.processor, format="transformers")
    hub.save(tmp_path / "ours", Chat(config), config, checkpoint.processor)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "tonggan-chat"
    assert hub.read(tmp_path / "ours").config == config


@pytest.mark.parametrize(("row", "column"), [(1, 2), (2, 1)])
def test_placeholders_for_part_of_a_picture_are_refused(tmp_path: Path, row: int, column: int) -> None:
    llava(tmp_path)
    given = inputs()
    given["input_ids"][row, column] = IMAGE if row == 2 else 4
    with pytest.raises(UsageError, match="placeholders for 6 pictures of 9 features each; give one placeholder for each feature"):
        hub.outputs(tmp_path, given)
