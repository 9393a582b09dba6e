"""T5 (Raffel et al. 2020), T5 1.1, FLAN-T5 and mT5 directories (`T5ForConditionalGeneration`, `MT5ForConditionalGeneration`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tonggan.data.processor import Processor
from tonggan.hub.convert.fields import activation_in, activation_out
from tonggan.hub.convert.saying import Saying, ends_out, said_and_source, scores
from tonggan.hub.convert.table import KeyTable, Rules, prefixed
from tonggan.hub.convert.tensors_in import only
from tonggan.hub.convert.tokenizer import read_tokenizer, write_tokenizer
from tonggan.hub.weights import tensor_names, write_json
from tonggan.models import EncoderDecoder, EncoderDecoderConfig, ModelConfig
from tonggan.models.encoder_decoder import ReaderConfig, SpeakerConfig
from tonggan.tensors import Batch

MODEL_TYPES = ("t5", "mt5")
HEADS = ("T5ForConditionalGeneration", "MT5ForConditionalGeneration", "T5WithLMHeadModel")
"""The last is the first's name in files of 2019 and 2020."""
INPUTS = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask")
SPECIAL = {"eos_token": "</s>", "unk_token": "<unk>"}
GATED = "gated-"


def _layers(cross: bool) -> Rules:
    """Attention, where there is one cross-attention, and feed-forward, each under its norm."""

    def attention(of: str, ours: str) -> dict[str, str]:
        return {f"{of}.{theirs}.weight": f"{ours}.{name}.weight" for theirs, name in {"q": "q", "k": "k", "v": "v", "o": "out"}.items()}

    last = "layer.2" if cross else "layer.1"
    crossed = attention("layer.1.EncDecAttention", "cross") | {"layer.1.layer_norm.weight": "cross_norm.weight"}
    return {
        **attention("layer.0.SelfAttention", "attention"),
        "layer.0.layer_norm.weight": "norm1.weight",
        **(crossed if cross else {}),
        f"{last}.DenseReluDense.wi.weight": "feed_forward.up.weight",
        f"{last}.DenseReluDense.wi_1.weight": "feed_forward.up.weight",
        f"{last}.DenseReluDense.wi_0.weight": "feed_forward.gate.weight",
        f"{last}.DenseReluDense.wo.weight": "feed_forward.down.weight",
        f"{last}.layer_norm.weight": "norm2.weight",
    }


def _stack(theirs: str, ours: str, *, cross: bool, gated: bool) -> Rules:
    other = "DenseReluDense.wi.weight" if gated else "DenseReluDense.wi_1.weight"
    layers = {key: target for key, target in _layers(cross).items() if not key.endswith(other)}
    return {
        f"{theirs}block.0.layer.0.SelfAttention.relative_attention_bias.weight": f"{ours}distances.table",
        **prefixed(f"{theirs}block.{{i}}.", f"{ours}transformer.blocks.{{i}}.", layers),
        f"{theirs}final_layer_norm.weight": f"{ours}norm.weight",
    }


def table(config: ModelConfig) -> KeyTable:
    """Their names to ours."""
    assert isinstance(config, EncoderDecoderConfig)
    gated = config.text.gated
    return KeyTable(
        "T5",
        {
            "shared.weight": "embedding.weight",
            "encoder.embed_tokens.weight": "embedding.weight",  # the same once more, in older files
            "decoder.embed_tokens.weight": "embedding.weight",
            **_stack("encoder.", "reader.", cross=False, gated=gated),
            **_stack("decoder.", "speaker.", cross=True, gated=gated),
            # Stored by mistake in the first files; it was never used.
            "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": None,
            "lm_head.weight": "embedding.weight" if config.tied else "head.weight",
        },
    )


def read(raw: Mapping[str, Any], directory: Path) -> tuple[ModelConfig, Processor]:
    """Configuration and processor of a directory."""
    given, where = {**DEFAULTS, **(MT5 if raw.get("model_type") == "mt5" else {}), **raw}, str(directory / "config.json")
    projection = str(given["feed_forward_proj"])
    gated, name = projection.startswith(GATED), projection.removeprefix(GATED)
    context = int(given["n_positions"])
    # In gated models gelu is the one by tanh, whatever the name says.
    activation = "gelu_tanh" if projection == "gated-gelu" else activation_in(name, where)
    scaled = raw.get("model_type") != "mt5" and bool(given.get("scale_decoder_outputs", given["tie_word_embeddings"]))
    layers = given["num_layers"]
    saying = Saying.read(raw, directory, start=0, end=1)
    config = EncoderDecoderConfig(
        source=ReaderConfig(context=context, layers=layers, heads=given["num_heads"], mlp_width=given["d_ff"]),
        text=SpeakerConfig(
            vocab_size=given["vocab_size"],
            context=context,
            width=given["d_model"],
            layers=layers if given["num_decoder_layers"] is None else given["num_decoder_layers"],
            heads=given["num_heads"],
            head_width=given["d_kv"],
            mlp_width=given["d_ff"],
            activation=activation,
            gated=gated,
            buckets=given["relative_attention_num_buckets"],
            farthest=given["relative_attention_max_distance"],
            eps=given["layer_norm_epsilon"],
        ),
        # Newer files call them tied though they are stored apart.
        tied=scaled or "lm_head.weight" not in tensor_names(directory),
        scaled_output=scaled,
        **saying.fields,
    )
    text = read_tokenizer(directory, max_length=None, context=context, pad="<pad>")
    return config, Processor(text=text)


def write(directory: Path, config: ModelConfig, processor: Processor) -> None:
    """config.json, generation_config.json and the tokenizer's files."""
    assert isinstance(config, EncoderDecoderConfig) and isinstance(config.source, ReaderConfig) and processor.text is not None
    source, text, pad = config.source, config.text, processor.text.pad_id
    name = "gelu" if text.gated and text.activation == "gelu_tanh" else activation_out(text.activation)
    saying = Saying.of(config).written()
    raw = {
        "architectures": [HEADS[0]],
        "model_type": MODEL_TYPES[0],
        "dtype": "float32",
        "is_encoder_decoder": True,
        "vocab_size": text.vocab_size,
        "n_positions": text.context,
        "d_model": text.width,
        "d_kv": text.head_width or text.width // text.heads,
        "d_ff": text.mlp_width,
        "num_layers": source.layers,
        "num_decoder_layers": text.layers,
        "num_heads": text.heads,
        "relative_attention_num_buckets": text.buckets,
        "relative_attention_max_distance": text.farthest,
        "feed_forward_proj": f"{GATED if text.gated else ''}{name}",
        "layer_norm_epsilon": text.eps,
        "tie_word_embeddings": config.scaled_output,
        "pad_token_id": pad,
        "decoder_start_token_id": config.start[0],
        "eos_token_id": ends_out(config.ends),
    }
    write_json(directory / "config.json", raw)
    write_json(directory / "generation_config.json", saying | {"pad_token_id": pad})
    special = {name: token for name, token in SPECIAL.items() if processor.text.id_of(token) is not None}
    sentinels = [token for i in range(text.vocab_size) if processor.text.id_of(token := f"<extra_id_{i}>") is not None]
    if _splits_as_t5(processor.text.spec):
        write_tokenizer(directory, processor.text, "T5Tokenizer", special, extra_ids=len(sentinels), additional_special_tokens=sentinels)
    else:
        write_tokenizer(directory, processor.text, "PreTrainedTokenizerFast", special)


def _splits_as_t5(spec: Mapping[str, Any]) -> bool:
    """Whether the library's class, which goes by the vocabulary alone, would split as this tokenizer does: at blanks, then by pieces."""
    steps = [step["type"] for step in (spec["pre_tokenizer"] or {}).get("pretokenizers", [])]
    return spec["model"]["type"] == "Unigram" and steps == ["WhitespaceSplit", "Metaspace"]


def misfit(config: ModelConfig, processor: Processor | None) -> str | None:
    """Why the format has no place for a model; None when it has."""
    if not isinstance(config, EncoderDecoderConfig) or not isinstance(config.source, ReaderConfig) or config.text.style != "t5":
        return "it is not a T5"
    source, text = config.source, config.text
    if (source.heads, source.mlp_width, source.context) != (text.heads, text.mlp_width, text.context):
        return "its encoder's heads, feed-forwards or context are not its decoder's"
    if config.scaled_output and not config.tied:
        return "its states are made smaller though its words are not tied"
    if config.word_bias or text.scaled_words or text.padding_id is not None:
        return "its words are scaled, have a constant each or one that is not learnt"
    if text.gated and text.activation == "gelu":
        return "its gated feed-forwards have the exact GELU, for which the format has no name"
    return Saying.of(config).misfit() or (None if processor is None or processor.text is not None else "it has no tokenizer")


def outputs(module: EncoderDecoder, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`encoder_last_hidden_state` [B, S, D] of `input_ids` and `attention_mask`; with `decoder_input_ids` the `logits` [B, L, V]."""
    only(inputs, INPUTS)
    source, said = said_and_source(inputs)
    hidden = module.encode(Batch(("",) * len(source.ids), source=source))
    if said is None:
        return {"encoder_last_hidden_state": hidden.states}
    return {"encoder_last_hidden_state": hidden.states, "logits": scores(module, said, hidden)}


DEFAULTS: dict[str, Any] = {
    "vocab_size": 32128, "n_positions": 512, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": None,
    "num_heads": 8, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "feed_forward_proj": "relu",
    "layer_norm_epsilon": 1e-6, "tie_word_embeddings": True,
}  # fmt: skip
MT5: dict[str, Any] = {"vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu"}
