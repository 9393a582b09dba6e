"""Our module and our processor against the published ones: from the same tensors, from files and strings, and backwards."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from tonggan.backends import LocalModel
from tonggan.hub.answers import offers
from tonggan.hub.families import family_of_module
from tonggan.hub.gradients import gradients
from tonggan.hub.outputs import outputs
from tonggan.hub.read import Checkpoint
from tonggan.tensors import Modality
from tonggan.types import TongganError
from tonggan.verify.conversations import NO_TEMPLATE, with_template
from tonggan.verify.inputs import Items, named, random_like, read_items, write_items
from tonggan.verify.layers import first_divergence, pairs, traced
from tonggan.verify.measure import EXACT, Difference, compare, repeated
from tonggan.verify.precision import doubled, in_double, widened
from tonggan.verify.reference import Reference, Refused
from tonggan.verify.report import Report, Section

Pairs: TypeAlias = dict[str, tuple[Tensor, Tensor]]
"""What two sides give, by name: ours, the reference's."""

OUTPUTS, GRADIENTS = 1e-5, 1e-4
"""Of the largest value, in single precision. What is beyond is computed again in double precision, where rounding is next to nothing: what
agrees there, by `EXACT`, was right."""
VERB = 1e-6
"""Of the largest value, for verbs with a module in double precision: what they give has single precision all the same."""
UNREACHED = 1e-5
"""Of the largest gradient: what is smaller is zero but for rounding (softmax ignores a shift of all keys, so their bias has none)."""
LAST_DIGITS = 4 * torch.finfo(torch.float32).eps
"""Subtracting a mean and dividing by a deviation rounds twice on either side."""
MADE = {
    **dict.fromkeys(("input_ids", "attention_mask", "image_attention_mask", "pixel_mask", "image_sizes", "batch_num_images"), 0.0),
    **dict.fromkeys(("pixel_values", "pixel_values_videos"), 1e-5),
    "input_values": 1e-5,
    "input_features": 1e-4,
}
"""What processors make: ids are equal or wrong; a spectrogram's last digits are the machine's."""
PRODUCTS, CLASSES = "embed(image) · embed(text)", "features(image, logits)"
SCORES = frozenset({"logits", "logits_per_image", "logits_per_text", "itm_score", "itc_score", PRODUCTS, CLASSES})
"""Of which users look at the largest: whether it is the same one is told too."""
EMBEDS: dict[Modality, tuple[str, ...]] = {"text": ("text_embeds", "sentence_embedding"), "image": ("image_embeds",)}
"""Outputs that are what `embed` gives, but for their length."""
PARTS: dict[Modality, tuple[str, ...]] = {"text": ("text_", ""), "image": ("vision_", ""), "audio": ("",), "video": ("",)}
"""What the names of outputs of each kind begin with; of models that read one kind, with nothing."""


PICTURES = ("tower_output", "pooler_output")
POOLINGS: dict[Modality, dict[str | None, tuple[str, ...]]] = {
    "text": {
        None: ("first state",),
        "end": ("tower_output",),
        "last": ("last state",),
        "first": ("first state",),
        "mean": ("mean of the states",),
    },
    "image": {
        None: PICTURES,
        "class": (*PICTURES, "first state"),
        "attention": PICTURES,
        "mean": ("mean of the states but the first",),
    },
    "audio": {None: ("mean of the states",)},
    "video": {"first": ("first state",), "mean": ("mean of the states",)},
}
"""By the pooling that a tower's configuration declares, what the one vector of an input is in the reference; of several the first that it
has. SigLIP's and BERT's text towers pool once more, by a layer that with us is a head, or none."""
UNPOOLED = {"blip": "first state"}
"""Families whose vectors come from a state itself, though a tower would give something pooled too (BLIP's norms it a second time)."""


def against_transformers(checkpoint: Checkpoint, directory: Path, *, count: int, seed: int, backward: bool) -> Report:
    """Compare a checkpoint with what `transformers` makes of the directory that it was read from."""
    family = family_of_module(checkpoint.module)
    if family.table is None:
        raise TongganError(f"{directory}: its format is ours alone; transformers has nothing to compare it with")
    table = family.table(checkpoint.config)
    theirs, module = Reference(directory, table), checkpoint.module
    report = Report(checkpoint.name, "transformers", theirs.versions)
    with tempfile.TemporaryDirectory() as place:
        items = write_items(Path(place), checkpoint.processor, count=count, seed=seed)
        placeholders: Mapping[int, str] = getattr(checkpoint.config, "placeholders", {})
        if placeholders:
            if checkpoint.processor.chat is None:
                checkpoint = replace(checkpoint, processor=with_template(checkpoint, directory))
                report.notes.append(NO_TEMPLATE)
            items = items.conversing()
        given = theirs.accepted(named(checkpoint.processor, items))
        with torch.no_grad():
            names = pairs(module, table, theirs.module, theirs.names)
            with traced(module, names) as mine, traced(theirs.module, list(names.values())) as reference:
                same = _outputs(checkpoint, theirs, given, given, report)
            if any(one.problem for one in same):
                report.sections += [
                    Section("from the same tensors", same),
                    Section("from files and strings", _whole_way(checkpoint, theirs, items, report)),
                ]
                return report
            seen = given.get("attention_mask")
            tolerance = OUTPUTS
            if any(one.double is not None for one in same):  # the layers too, or the first that rounds would take the blame
                tolerance = EXACT
                with (
                    in_double(module, *theirs.modules),
                    traced(module, names) as mine,
                    traced(theirs.module, [*names.values()]) as reference,
                ):
                    outputs(module, doubled(given))
                    theirs.forward(doubled(given))
            report.layers, found = first_divergence(mine, reference, names, tolerance, seen)
            if found is not None and all(one.passed for one in same):
                # At padding, for one; or what the next norm takes away.
                report.notes.append(f"{found.theirs} differs by {found.relative:.1e} where no output depends on it; not looked further")
            else:
                report.diverged = found
            if not report.layers:
                report.notes.append("no layer could be paired with one of the reference's by its weights; outputs only were compared")
            report.sections.append(Section("from the same tensors", same))
            compared = {one.name for one in same}
            vocabulary = checkpoint.processor.text.vocab_size if checkpoint.processor.text else 0
            pad = checkpoint.processor.text.pad_id if checkpoint.processor.text else 0
            drawn = random_like(given, vocabulary=vocabulary, pad=pad, seed=seed, kept=placeholders)
            report.sections.append(Section("from random tensors", _outputs(checkpoint, theirs, drawn, drawn, report)))
            report.sections.append(Section("from files and strings", _whole_way(checkpoint, theirs, items, report)))
            verbs, pooled = _verbs(checkpoint, theirs, items)
            if verbs:
                report.sections.append(Section("verbs, against each item alone", verbs))
            there = theirs.forward(given)
            if alone := sorted(name for name in there if name not in compared | pooled and there[name].is_floating_point()):
                report.notes.append(f"not compared, only the reference gives it: {', '.join(alone)}")
        if backward:
            report.sections.append(Section("gradients", _gradients(checkpoint, theirs, given, seed)))
    return report


def _outputs(
    checkpoint: Checkpoint, theirs: Reference, mine: Mapping[str, Tensor], reference: Mapping[str, Tensor], report: Report
) -> list[Difference]:
    """All outputs of one name; those that only one side has are noted once."""
    ours = outputs(checkpoint.module, mine)
    try:
        expected = theirs.forward(reference)
    except Refused as error:
        return [Difference("outputs", problem=str(error))]
    shared = [name for name in ours if name in expected]
    note = f"not compared, the reference has no such output: {', '.join(name for name in ours if name not in expected)}"
    if len(shared) < len(ours) and note not in report.notes:
        report.notes.append(note)
    found = [compare(name, ours[name], expected[name], OUTPUTS, seen=_seen(name, mine), scores=name in SCORES) for name in shared]
    if all(one.passed or one.problem for one in found):
        return found
    # Two processors may round a pixel differently; a deep network makes more of that than of its own rounding, and it is no fault of it.
    same = all(name in mine and _alike(name, mine[name], given) for name, given in reference.items())
    with in_double(checkpoint.module, *theirs.modules):
        again, right = outputs(checkpoint.module, doubled(mine)), theirs.forward(doubled(mine if same else reference))
    return [
        one
        if one.passed or one.problem
        else repeated(one, (ours[one.name], expected[one.name]), (again[one.name], right[one.name]), seen=_seen(one.name, mine))
        for one in found
    ]


def _alike(name: str, a: Tensor, b: Tensor) -> bool:
    """Whether two inputs differ by single roundings of their last digits at most, spectrograms by what they may; ids and masks not at
    all."""
    if not a.is_floating_point() or a.shape != b.shape:
        return torch.equal(a, b)
    most = MADE[name] if name == "input_features" else LAST_DIGITS
    return float((a - b).abs().max()) <= most * float(b.abs().max())


def _seen(name: str, inputs: Mapping[str, Tensor]) -> Tensor | None:
    """Which tokens of a text or frames of a sound are real; pictures have no such thing."""
    return None if name.startswith(("vision_", "image_")) else inputs.get("attention_mask")


def _whole_way(checkpoint: Checkpoint, theirs: Reference, items: Items, report: Report) -> list[Difference]:
    """What the processors make, what each model makes of its own processor's, and the verb that users call."""
    prepared = theirs.prepare(items, checkpoint.processor)
    if "input_values" in prepared and "attention_mask" not in prepared:
        # The library's user gets no mask, so in a batch each sound is heard, and normalised, with the padding behind it.
        report.notes.append("its processor makes no attention mask of sounds: one sound alone was compared, and features of each alone")
        items = items[:1]
        prepared = theirs.prepare(items, checkpoint.processor)
    mine = {name: tensor for name, tensor in named(checkpoint.processor, items).items() if name in prepared}
    mask = prepared.get("pixel_mask")
    prepared, mine = theirs.accepted({name: prepared[name] for name in mine}), theirs.accepted(mine)
    found = [compare(name, mine[name], prepared[name], MADE[name]) for name in mine if name in MADE]  # not what we make up to be said
    if mask is not None:  # the pictures have one shape, so all of each is seen: ours makes no mask, and the reference needs none
        found.append(compare("pixel_mask", torch.ones_like(mask), mask, MADE["pixel_mask"]))
    if any(one.problem for one in found):
        return found
    found += _outputs(checkpoint, theirs, mine, prepared, report)
    if "vectors" in offers(checkpoint.module):
        found += _held(checkpoint, theirs, [(items, prepared)], partial(_embeddings, items))
    return found


def _held(
    checkpoint: Checkpoint,
    theirs: Reference,
    read: Sequence[tuple[Items, Mapping[str, Tensor]]],
    ask: Callable[[LocalModel, Sequence[Mapping[str, Tensor]]], Pairs],
) -> list[Difference]:
    """What verbs give, against what the reference makes of items, some at a time, each with what its processor made of them. `ask` puts
    the two side by side; it is asked again in double precision where one is beyond its tolerance."""
    single = ask(LocalModel(checkpoint, "cpu"), [theirs.forward(prepared) for _, prepared in read])
    found = [compare(name, *pair, OUTPUTS, scores=name in SCORES) for name, pair in single.items()]
    if all(one.passed or one.problem for one in found):
        return found
    model = LocalModel(replace(checkpoint, processor=widened(checkpoint.processor)), "cpu")
    given = [_precise(checkpoint, theirs, items, prepared) for items, prepared in read]
    with in_double(checkpoint.module, *theirs.modules):
        double = ask(model, [theirs.forward(one) for one in given])
    return [one if one.passed or one.problem else repeated(one, single[one.name], double[one.name], exact=VERB) for one in found]


def _precise(checkpoint: Checkpoint, theirs: Reference, items: Items, prepared: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the reference reads in double precision beside our verbs: what ours read, unless its processor made something else of it."""
    mine = named(checkpoint.processor, items)
    if not all(_alike(name, mine[name], given) for name, given in prepared.items() if name in mine):
        return doubled(prepared)
    wide = named(checkpoint.processor, items, torch.float64)
    return {name: wide.get(name, given) for name, given in prepared.items()}


def _embeddings(items: Items, model: LocalModel, expected: Sequence[Mapping[str, Tensor]]) -> Pairs:
    """The verb `embed` beside the reference's vectors, of unit length; where it gives their products alone (BLIP), beside these."""
    (there,) = expected
    vectors = {kind: torch.from_numpy(model.embed(items.of(kind)).vectors) for kind in EMBEDS if kind in model.modalities}
    found: Pairs = {}
    for kind, mine in vectors.items():
        name = next((name for name in EMBEDS[kind] if name in there), None)
        if name is not None:
            found[f"embed({kind})"] = (mine, torch.nn.functional.normalize(there[name], dim=-1))
    if "itc_score" in there:
        found[PRODUCTS] = (vectors["image"] @ vectors["text"].T, there["itc_score"])
    return found


def _verbs(checkpoint: Checkpoint, theirs: Reference, items: Items) -> tuple[list[Difference], set[str]]:
    """The verbs that users call, in batches, against the reference's reading of each item alone: no padding, no neighbours.

    With the names of the reference's pooled outputs that were among it.
    """
    whole = LocalModel(checkpoint, "cpu")
    if not {"features", "match"} & whole.can and "classes" not in offers(checkpoint.module):
        return [], set()
    count = max(map(len, (items.texts, items.images, items.sounds, items.clips)))
    some = [items[i : i + 1] for i in range(count)]
    read = [(one, theirs.accepted(theirs.prepare(one, checkpoint.processor))) for one in some]
    first, frames = theirs.forward(read[0][1]), _lengths(checkpoint, items, count)
    pooling: dict[Modality, str | None] = {}
    for kind in sorted(whole.modalities) if "features" in whole.can else []:
        there = _pooled(kind, theirs, first, frames[0])
        pooling[kind] = next((name for name in _pooling(checkpoint, kind) if name in there), None)
    known = {kind: name for kind, name in pooling.items() if name is not None}
    nothing = "the reference gives nothing that is pooled like this"
    found = [Difference(f"features({kind})", problem=nothing) for kind in pooling if kind not in known]

    def ask(model: LocalModel, alone: Sequence[Mapping[str, Tensor]]) -> Pairs:
        sides: Pairs = {}
        for kind, name in known.items():
            rows = [_pooled(kind, theirs, one, sound)[name] for one, sound in zip(alone, frames, strict=True)]
            sides[f"features({kind}): {name}"] = (torch.from_numpy(model.features(items.of(kind))), torch.cat(rows))
        if "match" in model.can:
            scores = model.match(list(zip(items.of("image"), items.of("text"), strict=True)))
            sides["match"] = (torch.from_numpy(scores), torch.cat([_sure(one) for one in alone]))
        if "classes" in offers(model.module):
            mine = torch.from_numpy(model.features(items.of("image"), "logits"))
            sides[CLASSES] = (mine, torch.cat([one["logits"] for one in alone]))
        return sides

    return found + _held(checkpoint, theirs, read, ask), {_part(kind, first) + name for kind, name in known.items()}


def _pooling(checkpoint: Checkpoint, kind: Modality) -> tuple[str, ...]:
    """What our vector of a kind is in the reference, by what the model's own configuration says."""
    if (family := family_of_module(checkpoint.module).name) in UNPOOLED:
        return (UNPOOLED[family],)
    return POOLINGS[kind].get(getattr(getattr(checkpoint.config, kind), "pooling", None), ())


def _part(kind: Modality, expected: Mapping[str, Tensor]) -> str:
    """What the names of outputs of a kind begin with."""
    return next((part for part in PARTS[kind] if f"{part}last_hidden_state" in expected), PARTS[kind][0])


def _pooled(kind: Modality, theirs: Reference, expected: Mapping[str, Tensor], frames: int | None) -> dict[str, Tensor]:
    """What one vector [1, D] of a kind may be in the reference: a pooled output or, where it has none or leaves the pooling to who
    calls, one of its states or a mean of them."""
    part = _part(kind, expected)
    found = {name: expected[part + name] for name in ("tower_output", "pooler_output") if part + name in expected}
    states = expected.get(f"{part}last_hidden_state")
    if states is not None and states.dim() == 3:
        states = states if frames is None else states[:, : theirs.positions(frames)]
        found |= {"first state": states[:, 0], "last state": states[:, -1], "mean of the states": states.mean(dim=1)}
        found["mean of the states but the first"] = states[:, 1:].mean(dim=1)
    return found


def _lengths(checkpoint: Checkpoint, items: Items, count: int) -> list[int | None]:
    """Samples or frames of each sound; without sounds None each."""
    sounds = read_items(checkpoint.processor, Items((), (), items.sounds, ())).get("audio")
    return [None] * count if sounds is None else sounds.lengths.tolist()


def _sure(expected: Mapping[str, Tensor]) -> Tensor:
    """Probability [1] that picture and text belong together: of BLIP's two logits, of ViLT's one."""
    both = expected.get("itm_score")
    return expected["logits"][:, 0].sigmoid() if both is None else both.softmax(dim=1)[:, 1]


def _gradients(checkpoint: Checkpoint, theirs: Reference, inputs: Mapping[str, Tensor], seed: int) -> list[Difference]:
    """Of one random linear loss on all outputs: the parameter whose gradient is furthest from the reference's, and each one whose
    gradient only one side has."""
    both, alone = _gradient_pairs(checkpoint, theirs, inputs, seed)
    if not both:
        raise TongganError(f"{checkpoint.name}: no gradient of ours has a counterpart in the reference")
    floor = _floor(both)
    found = {name: compare(f"of {name}", *pair, GRADIENTS, floor=floor(pair[1])) for name, pair in both.items()}
    if not all(one.passed for one in found.values()):
        with in_double(checkpoint.module, *theirs.modules):
            again, _ = _gradient_pairs(checkpoint, theirs, doubled(inputs), seed)
        floor = _floor(again)
        for name, one in found.items():
            if not one.passed:
                found[name] = repeated(one, both[name], again[name], floor=floor(again[name][1]))
    worst = max(found.values(), key=lambda one: (not one.passed, float("inf") if one.relative != one.relative else one.relative))
    return [worst, *(Difference(f"of {name}", problem=problem) for name, problem in alone.items())]


def _floor(both: Mapping[str, tuple[Tensor, Tensor]]) -> Callable[[Tensor], float]:
    """The least size that differences of a gradient are related to: where one is zero but for rounding, only the size of others counts."""
    largest = max(float(there.abs().max()) for _, there in both.values())
    return lambda there: 0.1 * largest if float(there.abs().max()) < UNREACHED * largest else 0.0


def _gradient_pairs(
    checkpoint: Checkpoint, theirs: Reference, inputs: Mapping[str, Tensor], seed: int
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, str]]:
    """Gradients that both have, by the published name: ours, theirs; and what is wrong with each that only one of them has."""
    mask, seen = inputs.get("attention_mask"), theirs.bare(inputs)
    generator = torch.Generator().manual_seed(seed)
    ours = outputs(checkpoint.module, inputs)
    goals = {name: torch.randn(ours[name].shape, generator=generator) for name in ours if name in seen and seen[name].requires_grad}

    def loss(found: Mapping[str, Tensor]) -> Tensor:
        total = torch.zeros(())
        for name, goal in goals.items():
            padded = _seen(name, inputs) is not None and mask is not None and goal.dim() > 2 and goal.shape[:2] == mask.shape
            weight = goal * mask.view(*mask.shape, *[1] * (goal.dim() - 2)) if padded and mask is not None else goal
            total = total + (found[name] * weight).sum()
        return total

    mine = gradients(checkpoint.module, inputs, loss)
    parameters = dict(theirs.module.named_parameters())
    reached = torch.autograd.grad(loss(seen), list(parameters.values()), allow_unused=True)
    expected = {name: g for name, g in zip(parameters, reached, strict=True) if g is not None}
    there = {name: theirs.names.get(name, "") for name in mine}
    both = {name: (mine[name], expected[own]) for name, own in there.items() if own in expected and expected[own].shape == mine[name].shape}
    # What is fixed with us is a buffer, and has no gradient on purpose (Whisper's positions, which its library leaves free to learn).
    fixed = _fixed(checkpoint, theirs)
    return both, _partnerless(mine, {own: g for own, g in expected.items() if own not in fixed}, there, both.keys())


def _fixed(checkpoint: Checkpoint, theirs: Reference) -> set[str]:
    """Parameters of the reference that are buffers of ours."""
    family = family_of_module(checkpoint.module)
    assert family.table is not None, "was asked at the beginning"
    table = family.table(checkpoint.config)
    return {theirs.names.get(table.theirs(name) or "", "") for name, _ in checkpoint.module.named_buffers()}


def _partnerless(mine: Mapping[str, Tensor], expected: Mapping[str, Tensor], there: Mapping[str, str], both: Set[str]) -> dict[str, str]:
    """Gradients that one side lacks, unless they are zero but for rounding; `there` has the name in the module for each published one."""
    least = UNREACHED * max((float(g.abs().max()) for g in expected.values()), default=0.0)
    paired = {there[name] for name in both}
    lost = {own: "the reference has a gradient, ours has none" for own, g in expected.items() if own not in paired}
    extra = {name: "ours has a gradient, the reference has none of this name and shape" for name in mine if name not in both}
    return {name: problem for name, problem in (lost | extra).items() if float({**expected, **mine}[name].abs().max()) > least}
