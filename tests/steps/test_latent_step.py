"""data2vec's step: what is hidden is hidden, the teacher is the student's running average, and nothing else learns from it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tonggan.models import Data2Vec, Data2VecConfig, DualEncoder, presets
from tonggan.models.towers import BeitConfig, BertTextConfig, WaveformConfig
from tonggan.nn.masking import hide_words
from tonggan.nn.transformer import Trace
from tonggan.steps import build
from tonggan.steps.latent import LatentConfig, LatentStep
from tonggan.tensors import Batch, Sounds, Tokens, Vocabulary, pad
from tonggan.types import UsageError

VOCABULARY = Vocabulary(size=60, mask=3, special=frozenset({0, 1, 2, 3}))
SETTINGS: dict[str, dict[str, Any]] = {
    "image": {"share": 0.6, "smallest_block": 2, "top_layers": 2},
    "audio": {"share": 0.5, "span": 3, "top_layers": 2, "of": "feed_forward", "norm": "instance", "norm_mean": "none", "beta": 0.0,
              "share_stem": True, "decay": 0.9, "decay_end": 0.99, "ramp": 4},
    "text": {"share": 0.4, "top_layers": 2, "of": "feed_forward", "norm": "instance", "beta": 4.0, "head_layers": 2, "share_stem": True},
}  # fmt: skip


def student(kind: str) -> Data2Vec:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"width": 12, "layers": 3, "heads": 3, "mlp_width": 20}
    waveform = {"channels": (5, 6), "kernels": (5, 3), "strides": (3, 2), "position_kernel": 4, "position_groups": 3, "position_layers": 2}
    configs = {
        "image": Data2VecConfig(image=BeitConfig(image_size=32, patch_size=8, mask_token=True, layer_scale=None, **sizes)),
        "audio": Data2VecConfig(audio=WaveformConfig(mask_token=True, **waveform, **sizes)),
        "text": Data2VecConfig(text=BertTextConfig(vocab_size=60, context=20, **sizes)),
    }
    model = Data2Vec(configs[kind])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def batch() -> Batch:
    generator = torch.Generator().manual_seed(5)
    lengths = torch.tensor([120, 80, 120, 97])
    # A tone per row and a little noise: what is hidden follows from what is heard.
    tones = torch.sin(torch.arange(120) * torch.tensor([0.3, 0.7, 1.1, 2.0])[:, None]) + 0.1 * torch.randn(4, 120, generator=generator)
    values = tones * (torch.arange(120) < lengths[:, None])
    tokens = pad([[1, *torch.randint(4, 60, (n,), generator=generator).tolist(), 2] for n in (9, 5, 12, 7)])
    pixels = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Batch(("a", "b", "c", "d"), pixels=pixels, tokens=tokens, sounds=Sounds(values, lengths))


def step_of(kind: str, **changes: Any) -> LatentStep:
    model = student(kind)
    torch.manual_seed(1)
    made = build(model, LatentConfig(modality=kind, **{**SETTINGS[kind], **changes}), vocabulary=VOCABULARY)  # type: ignore[arg-type]
    assert isinstance(made, LatentStep)
    return made


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_loss_is_the_papers(kind: str) -> None:
    """Everything again from the parts: hide, run the student, run the teacher, normalise, average, compare."""
    step, given = step_of(kind), batch()
    config, inputs = step.config, given.input(kind)  # type: ignore[arg-type]
    torch.manual_seed(7)
    found = step(given)
    torch.manual_seed(7)
    seen, hidden, told = step._hide(inputs)
    states = step.model.fill(kind, seen, hidden if told else None).states  # type: ignore[arg-type]
    trace = Trace()
    own = step.teacher.fill(kind, inputs, trace=trace).lengths  # type: ignore[arg-type]
    total = torch.zeros_like(states)
    for layer in (trace.blocks if config.of == "block" else trace.feed_forwards)[-config.top_layers :]:
        if config.norm == "layer":
            total += F.layer_norm(layer, (12,))
        else:
            for row, values in enumerate(layer):
                length = layer.shape[1] if own is None else int(own[row])
                total[row, :length] += F.instance_norm(values[:length].T[None])[0].T
    aim = total / config.top_layers
    if config.norm_mean == "layer":
        aim = F.layer_norm(aim, (12,))
    guess = step.head(states)
    losses = [
        ((guess[at] - aim[at]) ** 2).sum() if config.beta == 0 else F.smooth_l1_loss(guess[at], aim[at], beta=config.beta, reduction="sum")
        for at in map(tuple, hidden.nonzero().tolist())
    ]
    expected = torch.stack(losses).mean() * 12**-0.5
    assert float(found.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert found.report["loss"] == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_what_is_hidden_cannot_be_seen_by_the_student_and_is_by_the_teacher(kind: str) -> None:
    step, given = step_of(kind).eval(), batch()
    inputs = given.input(kind)  # type: ignore[arg-type]
    _, hidden, _ = step._hide(inputs)
    if kind == "image":
        inside = hidden.view(4, 1, 4, 4).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        changed: Any = torch.where(inside, 255 - inputs, inputs)
    else:
        # Only samples that no visible frame takes in: a frame is eleven samples, one every six.
        frames, touched = torch.arange(hidden.shape[1]), torch.zeros(4, 120, dtype=torch.bool)
        for row, frame in (~hidden).nonzero().tolist():
            touched[row, frame * 6 : frame * 6 + 11] = True
        assert len(frames) and bool((~touched).any())
        changed = Sounds(torch.where(touched, inputs.values, -2 * inputs.values - 1), inputs.lengths)
    with torch.no_grad():
        before, after = (step.model.fill(kind, x, hidden).states for x in (inputs, changed))  # type: ignore[arg-type]
        assert torch.allclose(before, after, atol=1e-5)
        assert not torch.allclose(step.targets(inputs), step.targets(changed), atol=1e-2)


def test_words_are_hidden_in_the_ids() -> None:
    step, given = step_of("text"), batch()
    assert given.tokens is not None
    torch.manual_seed(3)
    seen, hidden, told = step._hide(given.tokens)
    assert not told and bool(hidden.any()) and bool((seen.ids == VOCABULARY.mask).any())
    assert torch.equal(seen.ids[~hidden], given.tokens.ids[~hidden])
    assert not bool(hidden[given.tokens.ids < 4].any()), "special tokens are never hidden"
    torch.manual_seed(3)
    again = hide_words(given.tokens, VOCABULARY, 0.4, torch.Generator().manual_seed(int(torch.randint(2**62, ()))))
    assert torch.equal(again.tokens.ids, seen.ids)


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_teacher_is_the_running_average_and_nothing_trains_it(kind: str) -> None:
    step = step_of(kind)
    before = {name: p.clone() for name, p in step.teacher.named_parameters()}
    adam = torch.optim.AdamW([p for p in step.parameters() if p.requires_grad], lr=1e-2)
    step(batch()).loss.backward()
    assert all(p.grad is None for p in step.teacher.parameters())
    for name, parameter in step.head.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name
    adam.step()
    stay = step.decay()
    step.after_update()
    now = dict(step.model.named_parameters())
    for name, mine in step.teacher.named_parameters():
        averaged = "transformer" in name or not step.config.share_stem
        expected = stay * before[name] + (1 - stay) * now[name] if averaged else now[name]
        assert torch.allclose(mine, expected, atol=1e-6), name


def test_the_decay_rises_in_equal_steps_and_stays() -> None:
    step = step_of("audio")
    seen = []
    for _ in range(6):
        seen.append(step.decay())
        step.after_update()
    assert seen == pytest.approx([0.9, 0.9225, 0.945, 0.9675, 0.99, 0.99])
    assert int(step.updates) == 6


def test_a_teacher_drops_nothing_out() -> None:
    step = LatentStep(student("text"), LatentConfig(modality="text", top_layers=1), VOCABULARY).train()
    assert step.model.training and not any(part.training for part in step.teacher.modules())


def test_a_run_that_is_resumed_goes_on_as_it_would_have() -> None:
    """The step's own state (teacher, head, count), the model's, the optimiser's and torch's generator are all there is."""

    def train(step: LatentStep, adam: torch.optim.Optimizer, updates: int) -> list[float]:
        losses = []
        for _ in range(updates):
            out = step(batch())
            adam.zero_grad()
            out.loss.backward()
            adam.step()
            step.after_update()
            losses.append(out.report["loss"])
        return losses

    def fresh() -> tuple[LatentStep, torch.optim.Optimizer]:
        step = step_of("image", decay=0.5, decay_end=0.9, ramp=5)
        return step, torch.optim.AdamW([p for p in step.parameters() if p.requires_grad], lr=1e-3)

    step, adam = fresh()
    torch.manual_seed(11)
    whole = train(step, adam, 6)
    step, adam = fresh()
    torch.manual_seed(11)
    train(step, adam, 3)
    kept = copy.deepcopy((step.state_dict(), adam.state_dict(), torch.get_rng_state()))
    own = {name.split(".")[0] for name in kept[0] if not name.startswith("model.")}
    assert own == {"teacher", "head", "updates"}
    step, adam = fresh()
    step.load_state_dict(kept[0])
    adam.load_state_dict(kept[1])
    torch.set_rng_state(kept[2])
    assert train(step, adam, 3) == whole[3:]


def rolled(inputs: Any) -> Any:
    """Each row's input under the next row's number, in its own length."""
    if isinstance(inputs, Tokens):
        return Tokens(inputs.ids.roll(1, 0), inputs.lengths)
    return Sounds(inputs.values.roll(1, 0), inputs.lengths) if isinstance(inputs, Sounds) else inputs.roll(1, 0)


@pytest.mark.parametrize("kind", SETTINGS)
def test_it_learns_to_fill_in_from_what_is_seen(kind: str) -> None:
    """One batch, a teacher held still: better than any constant, and worse when what is seen is another row's."""
    step, given = step_of(kind, decay=1.0, decay_end=1.0, share=0.3), batch()
    inputs = given.input(kind)  # type: ignore[arg-type]
    adam = torch.optim.AdamW([p for p in step.parameters() if p.requires_grad], lr=5e-3)
    torch.manual_seed(0)
    for _ in range(60):
        out = step(given)
        adam.zero_grad()
        out.loss.backward()
        adam.step()
    last = [step(given).report for _ in range(10)]
    loss, chance = (sum(report[name] for report in last) / 10 for name in ("loss", "chance"))
    assert loss < chance
    costs = []
    with torch.no_grad():
        aim = step.targets(inputs)
        for _ in range(10):
            seen, hidden, told = step._hide(inputs)
            own, others = (step.model.fill(kind, x, hidden if told else None).states for x in (seen, rolled(seen)))  # type: ignore[arg-type]
            costs.append([float(F.mse_loss(step.head(states[hidden]), aim[hidden])) for states in (own, others)])
    assert sum(own for own, _ in costs) < sum(others for _, others in costs)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="reads image, not audio"):
        build(student("image"), LatentConfig(modality="audio"))
    with pytest.raises(UsageError, match="6 of 3 blocks; set it to 3 at most"):
        build(student("image"), LatentConfig())
    with pytest.raises(UsageError, match="a tokenizer with a mask token"):
        build(student("text"), LatentConfig(modality="text", top_layers=1))
    config = presets()["mini"]
    with pytest.raises(UsageError, match="DualEncoder cannot fill in its own states"):
        build(DualEncoder(config), LatentConfig())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the batch has no audio"):
        LatentStep(student("audio"), LatentConfig(modality="audio", top_layers=1))(Batch(("a",)))
    with pytest.raises(ValueError, match=r"decay_end 0\.5 is below decay"):
        LatentConfig(decay_end=0.5)
