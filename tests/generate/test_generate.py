"""Answers word by word: those of transformers, the same in every batch, in pieces, from a shared beginning; and what has no room."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tonggan.generate import Prefixes, Said, Sampling, Shared, generate, logprob, stream
from tonggan.generate.sampling import penalised, pick
from tonggan.hub.convert.decoder import DECODER, decoder_in
from tonggan.hub.convert.table import KeyTable, prefixed
from tonggan.models.gpt import GPT, GPTConfig
from tonggan.tensors import Batch, Tokens, pad
from tonggan.types import TongganError, UsageError

VOCAB, ENDS = 61, (38, 22)
PROMPTS = [[5, 9, 33, 4, 18], [8, 8], [40, 2, 51, 6, 6, 6, 30, 12, 50], [17, 44, 23]]


@pytest.fixture(scope="module")
def pair() -> tuple[GPT, LlamaForCausalLM]:
    """The same weights on both sides, in double precision: no two words are likely enough to be mistaken for each other."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 30, "num_attention_heads": 5, "num_key_value_heads": 1, "intermediate_size": 37}
    config = LlamaConfig(vocab_size=VOCAB, num_hidden_layers=2, max_position_embeddings=64, tie_word_embeddings=False, **shape)
    theirs = LlamaForCausalLM(config).double().eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours = GPT(GPTConfig(text=decoder_in(config.to_dict(), "config.json"))).double().eval()
    table = KeyTable("Llama", {**prefixed("model.", "text.", DECODER), "lm_head.weight": "text.head.weight"})
    ours.load_state_dict(table.import_(theirs.state_dict(), ours.state_dict()))
    return ours, theirs


def asked(prompts: list[list[int]]) -> Batch:
    return Batch(tuple(f"p{number}" for number in range(len(prompts))), tokens=pad(prompts))


def said(ids: list[int] | tuple[int, ...]) -> str:
    """One letter per token, so that texts can be compared; a token of 60 is half a character."""
    return "".join("\N{REPLACEMENT CHARACTER}" if one == 60 else chr(0x4E00 + one) for one in ids)


def theirs_said(model: LlamaForCausalLM, prompt: list[int], **settings: Any) -> list[list[int]]:
    settings = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": list(ENDS), "pad_token_id": 0, **settings}
    made = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), **settings)
    found = []
    for row in made[:, len(prompt) :].tolist():
        end = next((place for place, one in enumerate(row) if one in ENDS), len(row))
        found.append(row[:end])
    return found


def same(found: list[list[Said]], expected: list[list[Said]]) -> None:
    """Equal but for the last digits, which other sums of the same numbers have otherwise."""
    for mine, others in zip(found, expected, strict=True):
        assert [(one.ids, one.text, one.reason) for one in mine] == [(one.ids, one.text, one.reason) for one in others]
        for one, other in zip(mine, others, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-9)


SILENT = [37, 5, 9, 52, 13, 6]
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "greedy": ({}, {}),
    "repetition penalty": ({"repetition_penalty": 1.7}, {"repetition_penalty": 1.7}),
    "a draw of one": ({"temperature": 0.7, "top_k": 1}, {"do_sample": True, "temperature": 0.7, "top_k": 1}),
    "beams": ({"beams": 4}, {"num_beams": 4}),
    "long beams": ({"beams": 4, "length_penalty": 2.0}, {"num_beams": 4, "length_penalty": 2.0}),
    "short beams": (
        {"beams": 3, "length_penalty": -1.0, "samples": 3},
        {"num_beams": 3, "length_penalty": -1.0, "num_return_sequences": 3},
    ),
    "beams without some words": (
        {"beams": 4, "samples": 4, "length_penalty": 0.0},
        {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.0, "suppress_tokens": SILENT},
    ),
    "beams that do not repeat": ({"beams": 4, "repetition_penalty": 1.3}, {"num_beams": 4, "repetition_penalty": 1.3}),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_the_words_are_those_of_transformers(pair: tuple[GPT, LlamaForCausalLM], what: str) -> None:
    """All prompts in one ragged batch here, one at a time there."""
    ours, theirs = pair
    mine, reference = SETTINGS[what]
    silent = reference.get("suppress_tokens", ())
    found = generate(ours, asked(PROMPTS), [Sampling(max_tokens=12, **mine)] * len(PROMPTS), ends=ENDS, decode=said, suppressed=silent)
    for prompt, answers in zip(PROMPTS, found, strict=True):
        assert [list(one.ids) for one in answers] == theirs_said(theirs, prompt, **reference), prompt
    if what == "greedy":
        assert {answers[0].reason for answers in found} == {"stop", "length"}, "some end early, and leave the batch"
    assert all(one.text == said(one.ids) for answers in found for one in answers)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.3, "seed": 5, "samples": 3, "top_p": 0.9}, {"beams": 3, "samples": 2}])
def test_alone_it_says_what_it_says_in_a_batch(pair: tuple[GPT, LlamaForCausalLM], settings: dict[str, Any]) -> None:
    ours, _ = pair
    sampling = Sampling(max_tokens=9, **settings)
    others = [Sampling(max_tokens=20), Sampling(max_tokens=4, temperature=2.0), sampling, Sampling(max_tokens=3, beams=2)]
    together = generate(ours, asked(PROMPTS), others, ends=ENDS, decode=said)[2]
    (alone,) = generate(ours, asked(PROMPTS[2:3]), [sampling], ends=ENDS, decode=said)
    assert [one.ids for one in together] == [one.ids for one in alone] and len(together) == sampling.samples
    for a, b in zip(together, alone, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-9) and a.reason == b.reason


def test_draws_are_the_models_chances(pair: tuple[GPT, LlamaForCausalLM]) -> None:
    """The share of each first word among a thousand draws lies where it should by more than chance."""
    ours, theirs = pair
    found = generate(ours, asked(PROMPTS[:1]), [Sampling(max_tokens=1, temperature=1.5, samples=1000, seed=1)], ends=())[0]
    shares = torch.bincount(torch.tensor([one.ids[0] for one in found]), minlength=VOCAB) / 1000
    chances = (theirs(torch.tensor(PROMPTS[:1])).logits[0, -1].detach() / 1.5).softmax(dim=0)
    assert float((shares - chances).abs().sum()) < 0.3
    again = generate(ours, asked(PROMPTS[:1]), [Sampling(max_tokens=1, temperature=1.5, samples=7, seed=1)], ends=())[0]
    assert [one.ids for one in again] == [one.ids for one in found[:7]], "the same seed, the same draws, however many"


@pytest.mark.parametrize("seed", [-1, 2**45 + 3, 2**63])
def test_any_number_is_a_seed(pair: tuple[GPT, LlamaForCausalLM], seed: int) -> None:
    sampling = Sampling(max_tokens=8, temperature=3.0, seed=seed)
    first, again = (generate(pair[0], asked(PROMPTS[:1]), [sampling], ends=())[0] for _ in range(2))
    assert first == again
    assert first != generate(pair[0], asked(PROMPTS[:1]), [Sampling(max_tokens=8, temperature=3.0, seed=seed + 1)], ends=())[0]


def test_a_temperature_near_0_says_the_likeliest(pair: tuple[GPT, LlamaForCausalLM]) -> None:
    plain, cold = (generate(pair[0], asked(PROMPTS), [Sampling(max_tokens=8, temperature=one)] * 4, ends=ENDS) for one in (0.0, 1e-320))
    assert [one.ids for (one,) in cold] == [one.ids for (one,) in plain]


def test_log_probabilities_are_the_models_own(pair: tuple[GPT, LlamaForCausalLM]) -> None:
    ours, theirs = pair
    (answer,) = generate(ours, asked(PROMPTS[:1]), [Sampling(max_tokens=6, repetition_penalty=1.9)], ends=())[0]
    whole = torch.tensor([[*PROMPTS[0], *answer.ids]])
    expected = theirs(whole).logits.log_softmax(dim=-1)[0, len(PROMPTS[0]) - 1 : -1].gather(1, torch.tensor(answer.ids)[:, None])[:, 0]
    assert answer.logprobs == pytest.approx(expected.tolist(), abs=1e-5) and answer.reason == "length"


def test_how_likely_a_given_answer_is(pair: tuple[GPT, LlamaForCausalLM]) -> None:
    ours, theirs = pair
    given = [[[9], [1, 2, 3]], [], [[4, 4]], [[50, 1, 1, 1, 1]]]
    found = logprob(ours, asked(PROMPTS), given)
    assert list(map(len, found)) == list(map(len, given))
    for prompt, some, values in zip(PROMPTS, given, found, strict=True):
        for ids, value in zip(some, values, strict=True):
            chances = theirs(torch.tensor([[*prompt, *ids]])).logits.log_softmax(dim=-1)[0, len(prompt) - 1 : -1]
            assert value == pytest.approx(float(chances.gather(1, torch.tensor(ids)[:, None]).sum()), abs=1e-5)
    with pytest.raises(UsageError, match="row 1: a continuation has no tokens"):
        logprob(ours, asked(PROMPTS[:2]), [[[1]], [[]]])


def test_in_pieces_it_is_the_same(pair: tuple[GPT, LlamaForCausalLM]) -> None:
    ours, _ = pair
    for number, prompt in enumerate(PROMPTS):
        sampling = Sampling(max_tokens=15, temperature=3.0, seed=number)
        ((whole,),) = generate(ours, asked([prompt]), [sampling], ends=ENDS, decode=said)
        pieces, answer = [], None
        speaking = stream(ours, asked([prompt]), sampling, ends=ENDS, decode=said)
        while answer is None:
            try:
                pieces.append(next(speaking))
            except StopIteration as end:
                answer = end.value
        assert answer == whole and "".join(pieces) == whole.text
        assert not any(piece.endswith("\N{REPLACEMENT CHARACTER}") for piece in pieces[:-1]), "no half characters"


def test_a_stream_that_is_closed_computes_no_more(pair: tuple[GPT, LlamaForCausalLM], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = pair
    calls: list[int] = []
    say = GPT.say
    monkeypatch.setattr(GPT, "say", lambda self, *given, **more: calls.append(1) or say(self, *given, **more))
    speaking = stream(ours, asked(PROMPTS[:1]), Sampling(max_tokens=30), ends=(), decode=said)
    next(speaking)
    speaking.close()
    assert 1 <= len(calls) <= 2


def test_a_stop_text_ends_an_answer_also_across_tokens(pair: tuple[GPT, LlamaForCausalLM]) -> None:
    ours, _ = pair
    ((whole,),) = generate(ours, asked(PROMPTS[:1]), [Sampling(max_tokens=12)], ends=(), decode=said)
    stop = whole.text[4:6]
    assert whole.text.index(stop) == 4
    ((cut,),) = generate(ours, asked(PROMPTS[:1]), [Sampling(max_tokens=12, stop=("never", stop))], ends=(), decode=said)
    assert cut.text == whole.text[:4] and cut.reason == "stop" and len(cut.ids) == 6
    pieces = list(stream(ours, asked(PROMPTS[:1]), Sampling(max_tokens=12, stop=(stop,)), ends=(), decode=said))
    assert "".join(pieces) == whole.text[:4], "what may become a stop is not shown"


def test_a_shared_beginning_is_computed_once(pair: tuple[GPT, LlamaForCausalLM], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = pair
    system, other = [11, 12, 13, 14, 15, 16], [21, 22]
    prompts = [[*system, 5], [*other, 9, 9, 9], [*system, 8, 40, 2], [*system, 33]]
    plain = generate(ours, asked(prompts), [Sampling(max_tokens=8)] * 4, ends=ENDS)
    shared = [Shared("s", 6), Shared("o", 2), Shared("s", 6), Shared("s", 6)]
    same(generate(ours, asked(prompts), [Sampling(max_tokens=8)] * 4, ends=ENDS, shared=shared), plain)
    lengths: list[int] = []
    say = GPT.say

    def noted(self: GPT, tokens: Tokens, *given: Any, **more: Any) -> torch.Tensor:
        lengths.append(tokens.ids.numel())
        return say(self, tokens, *given, **more)

    monkeypatch.setattr(GPT, "say", noted)
    kept = Prefixes(most=1)
    for number in (0, 2, 3):
        lengths.clear()
        one = generate(ours, asked(prompts[number : number + 1]), [Sampling(max_tokens=8)], ends=ENDS, shared=[shared[0]], prefixes=kept)
        same(one, plain[number : number + 1])
        assert (6 in lengths) == (number == 0), "later questions do not read the beginning again"
    generate(ours, asked(prompts[1:2]), [Sampling(max_tokens=2)], ends=ENDS, shared=[shared[1]], prefixes=kept)
    assert kept.get("s") is None and kept.get("o") is not None


def test_one_key_has_one_length(pair: tuple[GPT, LlamaForCausalLM]) -> None:
    with pytest.raises(UsageError, match="one key was given with two lengths"):
        generate(pair[0], asked([[1, 2, 3], [1, 2, 3]]), [Sampling(max_tokens=1)] * 2, ends=(), shared=[Shared("a", 1), Shared("a", 2)])


def test_words_that_are_suppressed_never_come(pair: tuple[GPT, LlamaForCausalLM]) -> None:
    ours, _ = pair
    (plain,) = generate(ours, asked(PROMPTS[:1]), [Sampling(max_tokens=5)], ends=())[0]
    first = generate(
        ours, asked(PROMPTS[:1]), [Sampling(max_tokens=5, temperature=2.0, samples=40, seed=1)], ends=(), suppressed_first=range(30)
    )[0]
    assert min(one.ids[0] for one in first) >= 30 and min(min(one.ids) for one in first) < 30, "later they may come"
    for settings in ({}, {"beams": 3}, {"temperature": 2.0, "seed": 1, "samples": 20}):
        found = generate(ours, asked(PROMPTS[:1]), [Sampling(max_tokens=5, **settings)], ends=(), suppressed=plain.ids)[0]
        assert not any(set(one.ids) & set(plain.ids) for one in found)


def test_fewer_words_than_beams(pair: tuple[GPT, LlamaForCausalLM]) -> None:
    """What is suppressed does not come even where nothing else is left, and its log-probability is not lost by being suppressed."""
    answers = generate(pair[0], asked(PROMPTS[:1]), [Sampling(max_tokens=1, beams=4, samples=4)], ends=(), suppressed=range(2, VOCAB))[0]
    assert sorted(one.ids for one in answers) == [(0,), (1,)]
    chances = logprob(pair[0], asked(PROMPTS[:1]), [[answers[0].ids, answers[1].ids]])[0]
    assert [one.logprobs[0] for one in answers] == pytest.approx(chances, abs=1e-9)


WRONG: dict[str, tuple[list[list[int]], Sampling, str]] = {
    "a long prompt": ([[1] * 64], Sampling(), "p0: a prompt of 64 tokens and an answer do not fit into the model's 64 positions"),
    "a long answer": ([[1] * 60], Sampling(max_tokens=5), "60 tokens and an answer of up to 5 do not fit .* ask for at most 4"),
    "nothing": ([[]], Sampling(), "p0: the prompt is empty"),
    "no text": ([[1]], Sampling(stop=("a",)), "stop strings are found in the text: give decode"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_answered_is_said(pair: tuple[GPT, LlamaForCausalLM], what: str) -> None:
    prompts, sampling, told = WRONG[what]
    with pytest.raises(UsageError, match=told):
        generate(pair[0], asked(prompts), [sampling], ends=ENDS)
    left = Batch(("a",), tokens=Tokens(torch.tensor([[0, 1]]), torch.tensor([2]), torch.tensor([1])))
    with pytest.raises(UsageError, match="padded on the right"):
        generate(pair[0], left, [Sampling()], ends=ENDS)


def test_an_answer_takes_the_room_there_is(pair: tuple[GPT, LlamaForCausalLM]) -> None:
    (answer,) = generate(pair[0], asked([[1] * 60]), [Sampling()], ends=())[0]
    assert len(answer.ids) == 4 and answer.reason == "length"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"beams": 2, "temperature": 1.0}, "leave one of them out"),
        ({"beams": 2, "samples": 3, "temperature": 0.0}, "3 answers of 2 beams"),
        ({"samples": 2}, "all the same"),
        ({"stop": ("",)}, "an empty stop"),
        ({"beams": 2, "stop": ("a",)}, "leave one of them out"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Sampling(**settings)


def test_what_is_left_to_draw_from() -> None:
    scores = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05]).log()

    def drawn(**settings: Any) -> set[int]:
        generator = torch.Generator().manual_seed(0)
        return {pick(scores, Sampling(temperature=1.0, **settings), generator) for _ in range(300)}

    assert drawn() == {0, 1, 2, 3, 4}
    assert drawn(top_k=2) == {0, 1} and drawn(top_p=0.5) == {0} and drawn(top_p=0.51) == {0, 1}
    assert drawn(min_p=0.3) == {0, 1, 2} and drawn(top_k=4, top_p=0.8) == {0, 1, 2}
    changed = penalised(torch.tensor([1.0, -1.0, 2.0]), {0, 1}, Sampling(repetition_penalty=2.0))
    assert changed.tolist() == [0.5, -2.0, 2.0]


@pytest.mark.parametrize("beams", [1, 3])
def test_numbers_that_are_none_are_no_answer(pair: tuple[GPT, Any], beams: int) -> None:
    """The likeliest word of NaN would be the first of the vocabulary."""
    broken = copy.deepcopy(pair[0])
    with torch.no_grad():
        broken.text.norm.weight[0] = float("nan")
    with pytest.raises(TongganError, match="NaN"):
        generate(broken, asked(PROMPTS), [Sampling(max_tokens=4, beams=beams)] * len(PROMPTS), ends=ENDS)
