"""Configurations by name: mini ones that train on two cores, and published sizes (CLIP's: Radford et al. 2021, tables 19 and 20)."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from tonggan.models.bert import BertConfig
from tonggan.models.captioner import CaptionerConfig
from tonggan.models.chat import ChatConfig
from tonggan.models.coca import CocaConfig, CocaTextConfig
from tonggan.models.cross import CoAttentionConfig, CrossTextConfig
from tonggan.models.data2vec import Data2VecConfig
from tonggan.models.dual_encoder import DualEncoderConfig
from tonggan.models.encoder_decoder import EncoderDecoderConfig, ReaderConfig, SpeakerConfig
from tonggan.models.flamingo import FlamingoConfig, ResamplerConfig
from tonggan.models.fusion import LateFusionConfig
from tonggan.models.git import GitConfig, GitWordsConfig
from tonggan.models.gpt import DecoderConfig, GPTConfig, StretchConfig
from tonggan.models.projectors import MLPConfig, TilesConfig
from tonggan.models.streams import PatchesConfig, WordsConfig
from tonggan.models.towers import (
    BeitConfig,
    BertTextConfig,
    EfficientNetConfig,
    FramesConfig,
    LogMelConfig,
    RecurrentTextConfig,
    ResNetConfig,
    TransformerTextConfig,
    TubeletConfig,
    ViTConfig,
    WaveformConfig,
)
from tonggan.models.vilt import SingleStreamConfig
from tonggan.models.vlmo import VLMoConfig

PLAIN = (0.5, 0.5, 0.5)
"""Mean and deviation that map pixels to -1..1, for towers that are trained from scratch."""

Preset: TypeAlias = (
    DualEncoderConfig
    | BertConfig
    | VLMoConfig
    | SingleStreamConfig
    | CoAttentionConfig
    | LateFusionConfig
    | Data2VecConfig
    | GPTConfig
    | FlamingoConfig
    | ChatConfig
    | EncoderDecoderConfig
    | CaptionerConfig
    | CocaConfig
    | GitConfig
)


def presets() -> dict[str, Preset]:
    """Every preset by name. The minis read pictures of 64 pixels (data2vec's of 48) and a vocabulary of their own."""
    mini_text = TransformerTextConfig(vocab_size=4096, context=64, width=128, layers=2, heads=2, mlp_width=512)
    mini_vit = ViTConfig(image_size=64, patch_size=8, width=192, layers=3, heads=3, mlp_width=768, mean=PLAIN, std=PLAIN)
    mini_rn = ResNetConfig(image_size=64, layers=(1, 1, 1, 1), base=32, block="basic", stem="small", pooling="mean", mean=PLAIN, std=PLAIN)
    mini_bert = BertTextConfig(vocab_size=4096, context=64, width=128, layers=2, heads=4, mlp_width=512)
    return {
        "mini": DualEncoderConfig(image=mini_vit, text=mini_text, dim=128),
        "mini-rn": DualEncoderConfig(image=mini_rn, text=mini_text, dim=128),
        "mini-effnet": DualEncoderConfig(
            image=EfficientNetConfig(variant="lite0", norm_momentum=0.1, image_size=64, mean=PLAIN, std=PLAIN),
            text=mini_bert,
            dim=128,
        ),
        "mini-recurrent": DualEncoderConfig(image=mini_vit, text=RecurrentTextConfig(vocab_size=4096, width=128), dim=128),
        "mini-bert": BertConfig(text=mini_bert),
        **_relatives_of_clip(mini_vit, mini_text, mini_bert),
        **_reading_both(mini_vit, mini_bert),
        **_hearing_and_watching(mini_vit, mini_text),
        **_filling_in(mini_bert),
        "vit-b-32": _clip(ViTConfig(patch_size=32, activation="quick_gelu"), 512, 512, 8),
        "vit-b-16": _clip(ViTConfig(patch_size=16, activation="quick_gelu"), 512, 512, 8),
        "vit-l-14": _clip(ViTConfig(patch_size=14, width=1024, layers=24, heads=16, mlp_width=4096, activation="quick_gelu"), 768, 768, 12),
        "rn50": _clip_resnet(),
        **_published_alone(),
        **_published_together(),
        **_saying(),
        **_reading_and_saying(),
        **_looking_between_blocks(mini_vit),
        **_chatting(mini_vit),
        **_captioning(mini_vit),
    }


def _text(width: int, heads: int) -> TransformerTextConfig:
    return TransformerTextConfig(width=width, heads=heads, mlp_width=4 * width, activation="quick_gelu")


def _clip(image: ViTConfig, dim: int, text_width: int, text_heads: int) -> DualEncoderConfig:
    return DualEncoderConfig(image=image, text=_text(text_width, text_heads), dim=dim)


def _clip_resnet() -> DualEncoderConfig:
    """CLIP's RN50: its attention pooling projects into the common space by itself."""
    return DualEncoderConfig(image=ResNetConfig(out_width=1024), image_projection="none", text=_text(512, 8), dim=1024)


def _relatives_of_clip(vit: ViTConfig, text: TransformerTextConfig, bert: BertTextConfig) -> dict[str, Preset]:
    """SigLIP (Zhai et al. 2023), ALIGN (Jia et al. 2021) and Chinese-CLIP (Yang et al. 2022): small ones, and base sizes as published."""
    first = bert.model_copy(update={"pooling": "first"})
    base = ViTConfig(activation="gelu_tanh", eps=1e-6, mean=PLAIN, std=PLAIN)
    words = BertTextConfig(width=768, layers=12, heads=12, mlp_width=3072, pooling="first")
    small = EfficientNetConfig(
        variant="b0", factors=(0.5, 0.5), odd=(), head=False, norm_momentum=0.1, image_size=64, mean=PLAIN, std=PLAIN
    )
    return {
        "mini-siglip": _siglip(vit.model_copy(update={"activation": "gelu_tanh"}), text.model_copy(update={"activation": "gelu_tanh"})),
        "mini-align": _align(small, first, 160, math.log(1 / 0.07)),
        "mini-chinese-clip": DualEncoderConfig(image=vit, text=first, dim=128),
        "siglip-b-16": _siglip(
            base,
            TransformerTextConfig(vocab_size=32000, context=64, width=768, heads=12, mlp_width=3072, activation="gelu_tanh", eps=1e-6),
        ),
        "align-base": _align(EfficientNetConfig(variant="b7", odd=(), head=False, image_size=289, mean=PLAIN, std=PLAIN), words, 640, 0.0),
        "chinese-clip-vit-b-16": DualEncoderConfig(
            image=ViTConfig(activation="quick_gelu"), text=words.model_copy(update={"vocab_size": 21128}), dim=512
        ),
    }


def _siglip(image: ViTConfig, text: TransformerTextConfig) -> DualEncoderConfig:
    """SigLIP's changes to two towers of CLIP's kind, and the scale and bias that its paper starts with."""
    return DualEncoderConfig(
        image=image.model_copy(update={"pre_norm": False, "patch_bias": True, "pooling": "attention"}),
        text=text.model_copy(update={"causal": False, "pooling": "last"}),
        dim=image.width,
        image_projection="none",
        text_projection="affine",
        scale_init=math.log(10),
        max_scale=1000.0,
        bias_init=-10.0,
    )


def _align(image: EfficientNetConfig, text: BertTextConfig, dim: int, scale_init: float) -> DualEncoderConfig:
    """ALIGN: texts are brought into the space that pictures have by themselves, and a temperature is learnt."""
    return DualEncoderConfig(
        image=image, text=text, dim=dim, image_projection="none", text_projection="affine", scale_init=scale_init, max_scale=1000.0,
        temperature=True,
    )  # fmt: skip


def _reading_both(vit: ViTConfig, bert: BertTextConfig) -> dict[str, Preset]:
    """Systems in which a picture meets its text before the end: small ones, and the published sizes of VLMo (Bao et al. 2022, section 4.1,
    base-plus from the authors' code) and ViLT (Kim et al. 2021)."""
    pictures = PatchesConfig(image_size=64, patch_size=8, mean=PLAIN, std=PLAIN)
    words = WordsConfig(vocab_size=4096, context=64)
    crossed = CrossTextConfig(vocab_size=4096, context=64, width=128, layers=3, heads=4, mlp_width=512, cross_from=1)
    plain = vit.model_copy(update={"width": 128, "heads": 4, "mlp_width": 512, "pre_norm": False, "patch_bias": True})
    return {
        "mini-vlmo": VLMoConfig(image=pictures, text=words, width=128, layers=3, heads=4, mlp_width=512, fused_layers=1, dim=128),
        "mini-vilt": SingleStreamConfig(image=pictures, text=words, width=128, layers=3, heads=4, mlp_width=512),
        "mini-albef": CoAttentionConfig(image=plain, text=crossed, dim=128, words=True),
        "mini-blip": CoAttentionConfig(
            image=plain, text=crossed.model_copy(update={"cross_from": 0}), dim=128, scale_init=2.6592, scale_learned=False
        ),
        "mini-late": LateFusionConfig(image=plain, text=bert, width=128),
        "vlmo-base": VLMoConfig(),
        "vlmo-base-plus": VLMoConfig(width=544, layers=24, heads=16, mlp_width=2176, fused_layers=3, dim=544),
        "vlmo-large": VLMoConfig(width=1024, layers=24, heads=16, mlp_width=4096, fused_layers=3, dim=1024),
        "vilt-b-32": SingleStreamConfig(),
    }


def _hearing_and_watching(vit: ViTConfig, text: TransformerTextConfig) -> dict[str, Preset]:
    """Sounds of up to ten seconds, and clips of eight frames."""
    ears = LogMelConfig(context=500, width=128, layers=3, heads=4, mlp_width=512)
    eyes = TubeletConfig(
        image_size=64, patch_size=16, frames=8, width=128, layers=3, heads=4, mlp_width=512, mean=PLAIN, std=PLAIN, post_norm=True
    )
    by_frames = FramesConfig(image=vit.model_copy(update={"patch_size": 16}), frames=8, pooling="transformer", layers=1, heads=3)
    return {
        "mini-audio-text": DualEncoderConfig(audio=ears, text=text, dim=128),
        "mini-speech-picture": DualEncoderConfig(audio=ears, image=vit, dim=128),
        "mini-video-text": DualEncoderConfig(video=eyes, text=text, dim=128),
        "mini-frames-text": DualEncoderConfig(video=by_frames, text=text, dim=128),
    }


def _filling_in(bert: BertTextConfig) -> dict[str, Preset]:
    """data2vec's students. The waveform's strides are those of the published model: a frame is 20 ms. Patches know their places, and
    branches have no factors: distances alone, and factors of 0.1, are learnt over more updates than small models get."""
    patches = BeitConfig(
        image_size=48,
        patch_size=8,
        width=96,
        layers=4,
        heads=3,
        mlp_width=384,
        absolute=True,
        relative="shared",
        layer_scale=None,
        mask_token=True,
        mean=PLAIN,
        std=PLAIN,
    )
    channels = (32, 32, 32, 64, 64, 64, 64)
    frames = WaveformConfig(channels=channels, width=128, layers=3, heads=4, mlp_width=512, position_layers=3, mask_token=True)
    return {
        "mini-data2vec-image": Data2VecConfig(image=patches),
        "mini-data2vec-audio": Data2VecConfig(audio=frames),
        "mini-data2vec-text": Data2VecConfig(text=bert),
    }


def _published_alone() -> dict[str, Preset]:
    """Encoders of one kind of input, in the base size that was published: BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019), data2vec
    (Baevski et al. 2022), the encoder of Whisper (Radford et al. 2023, table 1), VideoMAE (Tong et al. 2022)."""
    bert = BertTextConfig(width=768, layers=12, heads=12, mlp_width=3072)
    roberta = bert.model_copy(update={"vocab_size": 50265, "type_vocab": 1, "position_offset": 2, "padding_id": 1, "eps": 1e-5})
    patches = BeitConfig(relative="shared", mask_token=True, mean=PLAIN, std=PLAIN)
    ears = LogMelConfig(width=512, layers=6, heads=8, mlp_width=2048, padding="seen")
    return {
        "bert-base": BertConfig(text=bert),
        "roberta-base": BertConfig(text=roberta, published_as="roberta"),
        "data2vec-image-base": Data2VecConfig(image=patches),
        "data2vec-audio-base": Data2VecConfig(audio=WaveformConfig(mask_token=True)),
        "data2vec-text-base": Data2VecConfig(text=roberta),
        "whisper-base": DualEncoderConfig(audio=ears, dim=512, audio_projection="none"),
        "videomae-base": DualEncoderConfig(video=TubeletConfig(), dim=768, video_projection="none"),
    }


def _published_together() -> dict[str, Preset]:
    """ALBEF as it was pre-trained (Li et al. 2021, section 3.1 and 4), and BLIP's base model for retrieval (Li et al. 2022)."""
    vit = ViTConfig(image_size=256, pre_norm=False, patch_bias=True, eps=1e-6)
    every = CrossTextConfig(vocab_size=30524, cross_from=0)
    return {
        "albef-base": CoAttentionConfig(image=vit, text=CrossTextConfig(type_vocab=2), words=True),
        "blip-retrieval-base": CoAttentionConfig(
            image=vit.model_copy(update={"image_size": 384, "eps": 1e-5}), text=every, scale_init=2.6592, scale_learned=False
        ),
    }


def _saying() -> dict[str, Preset]:
    """Language models: two small ones, and the smallest published sizes of GPT-2 (Radford et al. 2019), Llama 3.2 (Grattafiori et al.
    2024), Qwen2.5 (Yang et al. 2024) and Qwen3 (Yang et al. 2025)."""
    mini = DecoderConfig(vocab_size=4096, context=512, width=128, layers=4, heads=4, kv_heads=2, mlp_width=352)
    gpt2: dict[str, Any] = {"style": "gpt2", "activation": "gelu_tanh", "eps": 1e-5}
    qwen: dict[str, Any] = {"vocab_size": 151936, "context": 32768, "rotary_base": 1e6}
    return {
        "mini-gpt2": GPTConfig(text=DecoderConfig(**gpt2, vocab_size=4096, context=256, width=128, layers=4, heads=4, mlp_width=512)),
        "mini-llama": GPTConfig(text=mini),
        "gpt2": GPTConfig(
            text=DecoderConfig(**gpt2, vocab_size=50257, context=1024, width=768, layers=12, heads=12, mlp_width=3072), ends=(50256,)
        ),
        "llama-3.2-1b": GPTConfig(
            text=DecoderConfig(
                vocab_size=128256,
                context=131072,
                width=2048,
                layers=16,
                heads=32,
                kv_heads=8,
                mlp_width=8192,
                eps=1e-5,
                rotary_base=5e5,
                rotary_stretch=StretchConfig(factor=32, original=8192),
            ),
            ends=(128001,),
        ),
        "qwen2.5-0.5b": GPTConfig(
            text=DecoderConfig(**qwen, width=896, layers=24, heads=14, kv_heads=2, mlp_width=4864, qkv_bias=True), ends=(151643,)
        ),
        "qwen3-0.6b": GPTConfig(
            text=DecoderConfig(
                **(qwen | {"context": 40960}),
                width=1024,
                layers=28,
                heads=16,
                kv_heads=8,
                head_width=128,
                mlp_width=3072,
                qk_norm=True,
            ),
            ends=(151645, 151643),
        ),
    }


def _looking_between_blocks(vit: ViTConfig) -> dict[str, Preset]:
    """Flamingo (Alayrac et al. 2022): a small one whose placeholder is a word behind those of its language model, and the published
    size of Idefics (Laurençon et al. 2023, over ViT-H/14 and Llama 7B)."""
    words = DecoderConfig(vocab_size=4096, context=256, width=128, layers=4, heads=4, kv_heads=2, mlp_width=352)
    huge = ViTConfig(patch_size=14, width=1280, layers=32, heads=16, mlp_width=5120)
    llama = DecoderConfig(width=4096, layers=32, heads=32, mlp_width=11008, tied=False)
    return {
        "mini-flamingo": FlamingoConfig(
            image=vit,
            resampler=ResamplerConfig(queries=16, layers=2, heads=4, head_width=32),
            text=words,
            image_token=4096,
            added_words=1,
            every=2,
        ),
        "idefics-9b": FlamingoConfig(
            image=huge, resampler=ResamplerConfig(qk_norm=True), text=llama, image_token=32001, added_words=2, qk_norm=True
        ),
    }


def _chatting(vit: ViTConfig) -> dict[str, Preset]:
    """Towers under a decoder: two small ones whose placeholders are words behind those of the decoder, and the published sizes of
    LLaVA-1.5 (Liu et al. 2024, over CLIP's ViT-L/14 and Llama 7B) and the smallest LLaVA-OneVision's parts (Li et al. 2024)."""
    words = DecoderConfig(vocab_size=4096, context=512, width=128, layers=4, heads=4, kv_heads=2, mlp_width=352)
    sixteen = MLPConfig(norm=True, stack=4)
    ears = LogMelConfig(bins=64, context=400, width=128, layers=2, heads=4, mlp_width=512)
    large = ViTConfig(image_size=336, patch_size=14, width=1024, layers=24, heads=16, mlp_width=4096, activation="quick_gelu")
    so400m = ViTConfig(
        image_size=384,
        patch_size=14,
        width=1152,
        layers=26,
        heads=16,
        mlp_width=4304,
        activation="gelu_tanh",
        eps=1e-6,
        pre_norm=False,
        patch_bias=True,
        pooling="mean",
        mean=PLAIN,
        std=PLAIN,
    )
    qwen = DecoderConfig(
        vocab_size=152000, context=32768, width=896, layers=24, heads=14, kv_heads=2, mlp_width=4864, rotary_base=1e6, qkv_bias=True
    )
    llama = DecoderConfig(vocab_size=32064, context=4096, width=4096, layers=32, heads=32, mlp_width=11008, eps=1e-5, tied=False)
    return {
        "mini-chat": ChatConfig(image=vit, image_projector=sixteen, image_token=4096, text=words),
        "mini-chat-audio": ChatConfig(
            image=vit,
            image_projector=sixteen,
            image_token=4096,
            audio=ears,
            audio_projector=MLPConfig(stack=8),
            audio_token=4097,
            text=words,
        ),
        "llava-1.5-7b": ChatConfig(image=large, image_layers=(-2,), image_token=32000, text=llama, ends=(2,)),
        "llava-onevision-0.5b": ChatConfig(
            image=so400m,
            image_token=151646,
            video_token=151647,
            tiles=TilesConfig(grids=tuple((rows, columns) for rows in range(1, 7) for columns in range(1, 7))),
            text=qwen,
            ends=(151645,),
        ),
    }


def _reading_and_saying() -> dict[str, Preset]:
    """Encoder-decoders: three small ones, and the smallest published sizes of T5 (Raffel et al. 2020), its version 1.1, BART (Lewis et
    al. 2020) and Whisper (Radford et al. 2023)."""
    words = SpeakerConfig(vocab_size=4096, context=128, width=128, layers=3, heads=4, mlp_width=512)
    reader = ReaderConfig(context=128, layers=3, heads=4, mlp_width=512)
    ears = LogMelConfig(context=500, width=128, layers=3, heads=4, mlp_width=512)
    gated = SpeakerConfig(layers=8, heads=6, head_width=64, mlp_width=1024, activation="gelu_tanh", gated=True)
    plain = {"activation": "gelu", "eps": 1e-5}
    bart, whisper = plain | {"style": "bart"}, plain | {"style": "whisper"}
    large = {"vocab_size": 50265, "context": 1024, "width": 768, "layers": 6, "heads": 12, "mlp_width": 3072, "padding_id": 1}
    tiny = {"vocab_size": 51865, "context": 448, "width": 384, "layers": 4, "heads": 6, "mlp_width": 1536, "padding_id": 50257}
    return {
        "mini-t5": EncoderDecoderConfig(source=reader, text=words, scaled_output=True),
        "mini-bart": EncoderDecoderConfig(source=reader, text=words.model_copy(update=bart), start=(1,), ends=(2,)),
        "mini-whisper": EncoderDecoderConfig(source=ears, text=words.model_copy(update=whisper), start=(1,), ends=(2,)),
        "t5-small": EncoderDecoderConfig(scaled_output=True),
        "t5-1.1-small": EncoderDecoderConfig(source=ReaderConfig(layers=8, heads=6, mlp_width=1024), text=gated, tied=False),
        "bart-base": EncoderDecoderConfig(
            source=ReaderConfig(context=1024, heads=12, mlp_width=3072),
            text=words.model_copy(update=bart | large),
            word_bias=True,
            start=(2,),
            ends=(2,),
            last=2,
        ),
        "whisper-tiny": EncoderDecoderConfig(
            source=LogMelConfig(padding="seen"), text=words.model_copy(update=whisper | tiny), start=(50258,), ends=(50257,)
        ),
    }


def _captioning(vit: ViTConfig) -> dict[str, Preset]:
    """What says what a picture shows: small ones, and the base sizes of BLIP (Li et al. 2022) and GIT (Wang et al. 2022), and both that
    open_clip published of CoCa (Yu et al. 2022). The small ones start from a tokenizer's first special words, as the other minis do."""
    plain = vit.model_copy(update={"width": 128, "heads": 4, "mlp_width": 512, "pre_norm": False, "patch_bias": True})
    words = CrossTextConfig(vocab_size=4096, context=64, width=128, layers=3, heads=4, mlp_width=512, cross_from=0)
    stream = GitWordsConfig(vocab_size=4096, context=64, width=128, layers=3, heads=4, mlp_width=512)
    both = CocaTextConfig(vocab_size=4096, context=64, width=128, layers=2, heads=4, mlp_width=512)
    large = ViTConfig(patch_size=14, width=1024, layers=24, heads=16, mlp_width=4096)
    return {
        "mini-blip-caption": CaptionerConfig(image=plain, text=words, start=(1,), ends=(2,)),
        "mini-blip-vqa": CaptionerConfig(image=plain, text=words, question=True, start=(1,), ends=(2,)),
        "mini-git": GitConfig(image=vit, text=stream, start=(1,), ends=(2,)),
        "mini-coca": CocaConfig(
            image=vit,
            queries=17,
            pooler_heads=4,
            text=both,
            decoder_layers=2,
            decoder_heads=4,
            decoder_mlp_width=512,
            start=(1,),
            ends=(2,),
        ),
        "blip-caption-base": CaptionerConfig(),
        "blip-vqa-base": CaptionerConfig(question=True),
        "git-base": GitConfig(),
        "coca-vit-b-32": CocaConfig(),
        "coca-vit-l-14": CocaConfig(
            image=large, text=CocaTextConfig(width=768, heads=12, mlp_width=3072), decoder_heads=12, decoder_mlp_width=3072
        ),
    }
