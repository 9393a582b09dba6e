"""GIT: outputs, gradients and words of the reference, for pictures and clips, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GitForCausalLM

from hub.references import close
from hub.references_fusion import git
from tonggan import hub
from tonggan.models import Git, GitConfig
from tonggan.nn.talking import Talker, words
from tonggan.tensors import Batch, Tokens
from tonggan.types import TongganError, UsageError

SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {},
    "one table of words": {"tie_word_embeddings": True},
    "clips": {"num_image_with_embedding": 3},
    "other activations, one head, one layer": {
        "hidden_act": "relu",
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "vision": {"hidden_act": "gelu_pytorch_tanh", "num_attention_heads": 7},
    },
}


def inputs(settings: dict[str, Any], rows: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.tensor([7, 4, 2])[:rows]
    # Fewer frames than there are embeddings for.
    frames = (2,) if "num_image_with_embedding" in settings else ()
    return {
        "input_ids": torch.randint(6, 150, (rows, 7), generator=generator),
        "attention_mask": (torch.arange(7) < lengths[:, None]).long(),
        "pixel_values": torch.randn(rows, *frames, 3, 20, 20, generator=generator),
    }


def shown(pixels: Tensor) -> Batch:
    ids = ("",) * len(pixels)
    return Batch(ids, clips=pixels) if pixels.dim() == 5 else Batch(ids, pixels=pixels)


def own(given: dict[str, Tensor], logits: Tensor) -> Tensor:
    """All places of the picture, and the words that are no padding."""
    mask = given["attention_mask"].bool()
    return torch.cat([torch.ones(len(mask), logits.shape[1] - mask.shape[1], dtype=torch.bool), mask], dim=1)


@pytest.mark.parametrize("rows", [3, 1])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_outputs_and_gradients_are_those_of_the_reference(tmp_path: Path, settings: dict[str, Any], rows: int) -> None:
    theirs, given = git(tmp_path, **settings), inputs(settings, rows)
    module = hub.read(tmp_path).module
    expected = theirs(**given, use_cache=False).logits
    places = own(given, expected)
    close(hub.outputs(module, given)["logits"][places], expected[places])
    goal = torch.randn_like(expected[places])
    (expected[places] * goal).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    found = hub.gradients(module, given, lambda out: (out["logits"][places] * goal).sum())
    assert sorted(found) == sorted(gradients)
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        # Softmax ignores a shift of all keys: the gradient of their bias is zero but for rounding, in both.
        scale = 0.1 * largest if name.endswith(("key.bias", "k_proj.bias")) else float(gradient.abs().max())
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * scale, name


@pytest.mark.parametrize("settings", [SETTINGS["as published"], SETTINGS["clips"]], ids=["pictures", "clips"])
def test_word_by_word_is_what_the_reference_generates(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Generated without the library's cache (see below)."""
    theirs, given = git(tmp_path, **settings).double(), inputs(settings)
    module = hub.read(tmp_path).module.double()
    assert isinstance(module, Git) and isinstance(module, Talker) and not module.reads_prompt
    prompt, pixels = given["input_ids"][:, :2], given["pixel_values"].double()
    said = theirs.generate(
        prompt, pixel_values=pixels, attention_mask=torch.ones_like(prompt), use_cache=False, max_new_tokens=9, do_sample=False
    )
    seen, cache = module.read(shown(pixels)), module.cache(11)
    next_, mine, logits = prompt, prompt, []
    for _ in range(9):
        states = module.say(Tokens(next_, torch.full((3,), next_.shape[1])), seen, cache=cache)
        cache.advance([next_.shape[1]] * 3)
        logits.append(words(module, states[:, -1:]))
        next_ = logits[-1].argmax(dim=-1)
        mine = torch.cat([mine, next_], dim=1)
    end = module.config.ends[0]
    for ours, reference in zip(mine.tolist(), said.tolist(), strict=True):  # the reference fills rows that have ended
        until = reference.index(end) if end in reference else len(reference)
        assert ours[:until] == reference[:until] and until > 2
    whole = words(module, module.say(Tokens(mine[:, :-1], torch.full((3,), 10)), seen))
    close(torch.cat(logits, dim=1), whole[:, 1:], 1e-10)
    picked = words(module, module.say(Tokens(mine[[2, 0], :-1], torch.full((2,), 10)), seen.select([2, 0])))
    close(picked, whole[[2, 0]], 1e-10)


@torch.no_grad()
def test_behind_its_cache_the_library_says_the_same_once_it_is_told_where_words_stand(tmp_path: Path) -> None:
    """By itself it counts the picture's places too, which it does not without a cache, so what it says from the second word on differs."""
    theirs, given = git(tmp_path).double(), inputs({})
    ids, pixels = given["input_ids"], given["pixel_values"].double()
    module = hub.read(tmp_path).module.double()
    assert isinstance(module, Git)
    ours = words(module, module.say(Tokens(ids, torch.full((3,), 7)), module.read(shown(pixels))))[:, -1]

    def behind(**places: Tensor) -> Tensor:
        cache = theirs(input_ids=ids[:, :6], pixel_values=pixels, use_cache=True).cache
        return theirs(input_ids=ids[:, 6:], cache=cache, **places).logits[:, -1]

    # Its picture tower takes the softmax in single precision, whatever the weights are.
    close(ours, behind(position_ids=torch.full((3, 1), 6)))
    assert not torch.allclose(ours, behind(), rtol=1e-2)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_what_is_saved_back_the_library_loads_as_it_was(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = git(tmp_path / "theirs", **settings)
    checkpoint = hub.read(tmp_path / "theirs")
    hub.save(tmp_path / "ours", checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    again = GitForCausalLM.from_pretrained(tmp_path / "ours").eval()
    state = again.state_dict()
    assert sorted(state) == sorted(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(state[name], tensor), name
    given = inputs(settings)
    with torch.no_grad():
        assert torch.equal(again(**given).logits, theirs(**given).logits)
    again_ours = hub.read(tmp_path / "ours")
    assert again_ours.identity.verified and again_ours.config == checkpoint.config
    assert (again_ours.processor.video is None) == ("num_image_with_embedding" not in settings)


def test_what_ends_what_git_says(tmp_path: Path) -> None:
    """generation_config.json goes before config.json, which the library's answers do not look into."""
    git(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 4]}))
    config = hub.read(tmp_path).config
    assert isinstance(config, GitConfig) and config.ends == (7, 4)
    (tmp_path / "generation_config.json").unlink()
    file = tmp_path / "config.json"
    for said, ends in ((None, ()), ([9, 4], (9, 4))):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": said}))
        config = hub.read(tmp_path).config
        assert isinstance(config, GitConfig) and config.ends == ends


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    git(tmp_path, **SETTINGS["clips"])
    checkpoint = hub.read(tmp_path)
    module = checkpoint.module
    assert isinstance(module, Git)
    with pytest.raises(UsageError, match="give one with every row"):
        module.read(Batch(("a",)))
    with pytest.raises(UsageError, match="clips of 4 frames; this model has places for 3"):
        module.read(Batch(("a",), clips=torch.zeros(1, 4, 3, 20, 20)))
    seen, ids = module.read(Batch(("a",), pixels=torch.zeros(1, 3, 20, 20))), torch.ones(1, 3, dtype=torch.long)
    with pytest.raises(UsageError, match="pad on the right"):
        module.say(Tokens(ids, torch.tensor([3]), torch.tensor([1])), seen)
    with pytest.raises(UsageError, match="several texts are packed"):
        module.say(Tokens(ids, torch.tensor([3]), segments=torch.tensor([[0, 0, 1]])), seen)
    two = checkpoint.config.model_copy(update={"start": (5, 6)})
    with pytest.raises(TongganError, match="one token to begin with"):
        hub.save(tmp_path / "ours", module, two, checkpoint.processor, format="transformers")
