"""Tiny encoder-decoders of `transformers` with odd sizes, and what every family of them is held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from hub.references import close
from hub.references_sound_sight import shaken
from tonggan import hub
from tonggan.models import EncoderDecoder
from tonggan.nn.talking import Talker, words
from tonggan.tensors import Batch, Sounds, Tokens

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def t5(directory: Path, *, apart: bool = False, **settings: Any) -> Any:
    """Three heads of five over a width of 14; buckets end at distance 11. `apart`: words are told by a table of their own."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 37, "d_model": 14, "d_kv": 5, "d_ff": 23, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 3,
        "relative_attention_num_buckets": 10, "relative_attention_max_distance": 11, "decoder_start_token_id": 0,
    }  # fmt: skip
    model = T5ForConditionalGeneration(T5Config(**{**sizes, **settings}))
    if apart:
        model.lm_head.weight = nn.Parameter(torch.empty(37, 14))
    shaken(model).save_pretrained(directory)
    ends = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces = [*ends, *((letter, -3.0) for letter in LETTERS), ("▁ab", -2.5), ("<extra_id_1>", 0.0), ("<extra_id_0>", 0.0)]
    T5Tokenizer(vocab=pieces, extra_ids=2, model_max_length=40).save_pretrained(directory)
    return model


def bart(directory: Path, **settings: Any) -> Any:
    """Encoder and decoder of other depths, heads and feed-forwards; a constant for each word."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 41, "max_position_embeddings": 24, "d_model": 15, "encoder_layers": 2, "encoder_attention_heads": 5,
        "encoder_ffn_dim": 21, "decoder_layers": 3, "decoder_attention_heads": 3, "decoder_ffn_dim": 17,
    }  # fmt: skip
    model = shaken(BartForConditionalGeneration(BartConfig(**{**sizes, **settings})))
    model.final_logits_bias.normal_(generator=torch.Generator().manual_seed(5))
    model.save_pretrained(directory)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    kept = [letter for letter in letters if letter in LETTERS or letter == "Ġ"]
    vocab = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *kept, "ab", "Ġa", "<mask>"])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("a", "b"), ("Ġ", "a")], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    backend.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    _wrapped(backend, directory, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=24)
    return model


def whisper_whole(directory: Path, *, heads: int = 3, **settings: Any) -> Any:
    """A second of sound; English, Chinese, two tasks. Tokens stand behind letters in Whisper's order."""
    torch.manual_seed(0)
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|translate|>", "<|transcribe|>", "<|notimestamps|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*letters, "ab", *special])}
    end = vocab["<|endoftext|>"]
    sizes = {
        "vocab_size": len(vocab) + 2, "d_model": 18, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": heads,
        "decoder_attention_heads": 3, "encoder_ffn_dim": 25, "decoder_ffn_dim": 13, "num_mel_bins": 7, "max_source_positions": 50,
        "max_target_positions": 19, "pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": end + 1,
        "suppress_tokens": [3, 4], "begin_suppress_tokens": [5, end],
    }  # fmt: skip
    model = shaken(WhisperForConditionalGeneration(WhisperConfig(**{**sizes, **settings})))
    said = {
        "decoder_start_token_id": end + 1, "eos_token_id": end, "pad_token_id": end, "suppress_tokens": [3, 4],
        "begin_suppress_tokens": [5, end], "lang_to_id": {"<|en|>": end + 2, "<|zh|>": end + 3}, "no_timestamps_token_id": end + 6,
        "task_to_id": {"translate": end + 4, "transcribe": end + 5}, "is_multilingual": True, "max_length": 19,
    }  # fmt: skip
    for name, value in said.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(directory)
    WhisperFeatureExtractor(feature_size=7, chunk_length=1).save_pretrained(directory)
    backend = Tokenizer(models.BPE(vocab={token: i for token, i in vocab.items() if i < end}, merges=[("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    start = [("<|startoftranscript|>", end + 1), ("<|notimestamps|>", end + 6), ("<|endoftext|>", end)]
    backend.post_processor = processors.TemplateProcessing(
        single=["<|startoftranscript|>", "<|notimestamps|>", "$A", "<|endoftext|>"], special_tokens=start
    )
    names = dict.fromkeys(("pad_token", "bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    _wrapped(backend, directory, **names, model_max_length=19)
    return model


def _wrapped(backend: Tokenizer, directory: Path, **names: Any) -> None:
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(directory)


def texts(vocab: int, rows: int = 3) -> dict[str, Tensor]:
    """Sources of 9, 14 and 4 tokens padded on the right, answers of 6; no id is a special one."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.tensor([9, 14, 4][:rows])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    ids = torch.randint(4, vocab - 1, mask.shape, generator=generator)
    said = torch.randint(4, vocab - 1, (rows, 6), generator=generator)
    return {"input_ids": torch.where(mask.bool(), ids, 1), "attention_mask": mask, "decoder_input_ids": said}


def same_outputs_and_gradients(theirs: Any, module: nn.Module, given: dict[str, Tensor], *, tied: tuple[str, ...] = ()) -> None:
    """Logits, states and the gradient of every tensor, of all rows and of one alone."""
    seen = given.get("attention_mask")
    own = torch.ones(1, dtype=torch.bool) if seen is None else seen.bool()
    for batch in (given, {name: tensor[:1] for name, tensor in given.items()}):
        ours, expected = hub.outputs(module, batch), theirs(**batch)
        states, theirs_states = ours["encoder_last_hidden_state"], expected.encoder_last_hidden_state
        close(ours["logits"], expected.logits)
        close(*((states, theirs_states) if seen is None else (states[own[: len(states)]], theirs_states[own[: len(states)]])))

    expected = theirs(**given).logits
    goal = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3))
    theirs.zero_grad()
    (expected * goal).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    found = hub.gradients(module, given, lambda out: (out["logits"] * goal).sum())
    assert set(gradients) <= set(found) and not set(found) - set(gradients) - set(tied)
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        # Softmax ignores a shift of all keys: the gradient of their bias is zero but for rounding, in both.
        scale = 0.1 * largest if name.endswith("k_proj.bias") else float(gradient.abs().max())
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * scale, name


def same_when_saved_back(theirs: Any, directory: Path, again: Path, given: dict[str, Tensor]) -> None:
    """Weights bit for bit, logits too; the configuration that is read again; ids of the library's tokenizer."""
    checkpoint = hub.read(directory)
    hub.save(again, checkpoint.module, checkpoint.config, checkpoint.processor, format="transformers")
    loaded = type(theirs).from_pretrained(again).eval()
    state = loaded.state_dict()
    assert sorted(state) == sorted(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(state[name], tensor), name
    with torch.no_grad():
        close(loaded(**given).logits, theirs(**given).logits)  # the library has two ways of computing the GELU by tanh
    back = hub.read(again)
    assert back.identity.verified and back.config == checkpoint.config
    tokenizers = [transformers.AutoTokenizer.from_pretrained(place) for place in (directory, again)]
    ours = checkpoint.processor.text
    assert ours is not None
    for text in ("ab c", "zab  a"):
        expected = tokenizers[0](text).input_ids
        assert tokenizers[1](text).input_ids == expected == ours.encode([text])[0][0]


def greedy(module: EncoderDecoder, batch: Batch, new: int, start: tuple[int, ...] | None = None) -> list[list[int]]:
    """Ids behind `start` up to the first end, one word at a time; what is never said is left out. No near ties."""
    config = module.config
    begun = start or config.start
    rows, cache, seen = len(batch.ids), module.cache(len(begun) + new), module.read(batch)
    assert isinstance(module, Talker)
    said, answers, done = torch.tensor([begun] * rows), [[] for _ in range(rows)], [False] * rows
    for step in range(new):
        with torch.no_grad():
            states = module.say(Tokens(said, torch.full((rows,), said.shape[1])), seen, cache=cache)
        cache.advance([said.shape[1]] * rows)
        logits = words(module, states[:, -1]).detach()
        never = torch.tensor(config.suppressed + (config.suppressed_first if not step else ()), dtype=torch.long)
        logits[:, never] = float("-inf")
        top = logits.topk(2).values
        said = logits.argmax(dim=-1, keepdim=True)
        for row in range(rows):
            if not done[row]:
                assert float(top[row, 0] - top[row, 1]) > 1e-8, "a tie would tell nothing"
                answers[row].append(int(said[row]))
                done[row] = answers[row][-1] in config.ends
    return answers


def same_in_chunks_and_alone(module: EncoderDecoder, batch: Batch, ids: Tensor) -> None:
    """Cached as not cached, whatever the chunks; rows chosen of what was read as those rows alone."""
    module = module.double()
    with torch.no_grad():
        seen = module.read(batch)
        whole = module.say(Tokens(ids, torch.full((len(ids),), ids.shape[1])), seen)
        for borders in ([1], [2, 3], list(range(1, ids.shape[1]))):
            cache, made = module.cache(ids.shape[1]), []
            for start, stop in zip([0, *borders], [*borders, ids.shape[1]], strict=True):
                made.append(module.say(Tokens(ids[:, start:stop], torch.full((len(ids),), stop - start)), seen, cache=cache))
                cache.advance([stop - start] * len(ids))
            assert torch.allclose(torch.cat(made, dim=1), whole, atol=1e-12)
        rows = [len(ids) - 1, 0, 0]
        chosen = module.say(Tokens(ids[rows], torch.full((3,), ids.shape[1])), seen.select(rows))
        assert torch.allclose(chosen, whole[rows], atol=1e-12)


def sounds_of(mels: Tensor) -> Batch:
    """Full spectrograms as a batch."""
    return Batch(("",) * len(mels), sounds=Sounds(mels, torch.full((len(mels),), mels.shape[2])))


def source_of(given: dict[str, Tensor]) -> Batch:
    """Texts to be read as a batch."""
    return Batch(("",) * len(given["input_ids"]), source=Tokens(given["input_ids"], given["attention_mask"].sum(dim=1)))
