"""From prompts to answers: what was read is read once, every word costs one word, rows that have ended leave the batch.

Shape letters: R rows of the batch, N answers on their way, L tokens, D width, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tonggan.generate.beam import BeamSearch
from tonggan.generate.prefixes import Kept, Prefixes
from tonggan.generate.said import Decode, Said, Saying
from tonggan.generate.sampling import Sampling, penalised, pick
from tonggan.nn.cache import KVCache
from tonggan.nn.talking import Seen, Talker
from tonggan.tensors import Batch, Tokens, pad
from tonggan.types import UsageError


@dataclass(frozen=True, slots=True)
class Shared:
    """Says that a row begins as others do: `length` tokens, and all its media among them, are those of every row with this `key`."""

    key: str
    length: int


def generate(
    talker: Talker,
    batch: Batch,
    samplings: Sequence[Sampling],
    *,
    ends: Iterable[int],
    decode: Decode | None = None,
    suppressed: Iterable[int] = (),
    suppressed_first: Iterable[int] = (),
    shared: Sequence[Shared] | None = None,
    prefixes: Prefixes | None = None,
) -> list[list[Said]]:
    """Answers to each row of a batch, whose `tokens` are what is said first, right-padded: as many as its sampling asks for.

    `ends` are the tokens that end an answer, `suppressed` those that never come, `suppressed_first` those that don't come first. `decode`
    is needed for texts and stop strings. Rows with the same `shared` key have their beginning computed once; with `prefixes` it is kept
    for later calls. Raises `UsageError` where a prompt and its answer have no room in the model, naming both numbers.
    """
    plan = _Plan(talker, batch, samplings, frozenset(ends), decode, tuple(suppressed), tuple(suppressed_first))
    with torch.inference_mode():
        begun = plan.begin(shared, prefixes)
        answers: list[list[Said]] = [[] for _ in samplings]
        for search in plan.beams(begun):
            answers[search.row] = plan.found(search)
        for saying in plan.run(begun):
            answers[saying.row].append(saying.done())
    return answers


def stream(
    talker: Talker,
    batch: Batch,
    sampling: Sampling,
    *,
    ends: Iterable[int],
    decode: Decode,
    suppressed: Iterable[int] = (),
    suppressed_first: Iterable[int] = (),
) -> Generator[str, None, Said]:
    """The answer to a batch of one row, in pieces of whole characters; the generator returns the whole. Closing it stops the work."""
    if len(batch) != 1 or sampling.samples > 1 or sampling.beams > 1:
        raise UsageError("one answer to one prompt can be given in pieces: neither several rows or samples, nor beams")
    plan, shown = _Plan(talker, batch, [sampling], frozenset(ends), decode, tuple(suppressed), tuple(suppressed_first)), 0
    with torch.inference_mode():
        steps = plan.steps(plan.begin())
        # Not one block around the yields: between them the caller's own tensors are none of ours.
    while True:
        with torch.inference_mode():
            saying = next(steps, None)
        assert saying is not None
        if len(saying.text) > shown:
            yield saying.text[shown:]
            shown = len(saying.text)
        if saying.reason is not None:
            return saying.done()


def logprob(talker: Talker, batch: Batch, continuations: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
    """For each row of a batch the log-probability (natural, summed over tokens) of each of its continuations. The prompt is computed once.

    Raises `UsageError` for a continuation without tokens, and where one has no room behind its prompt.
    """
    flat = [(row, list(one)) for row, some in enumerate(continuations) for one in some]
    if (empty := next((row for row, one in flat if not one), None)) is not None:
        raise UsageError(f"row {empty}: a continuation has no tokens, so it has no probability")
    plan = _Plan(talker, batch, [Sampling(max_tokens=max((len(one) for one in some), default=1)) for some in continuations])
    if not flat:
        return [[] for _ in continuations]
    with torch.inference_mode():
        begun = plan.begin()
        rows = [row for row, _ in flat]
        cache, seen = begun.cache.select(rows), begun.seen and begun.seen.select(rows)
        found = begun.logits[rows].log_softmax(dim=-1).gather(1, torch.tensor([[one[0]] for _, one in flat]).to(begun.logits.device))[:, 0]
        if (said := pad([one[:-1] for _, one in flat]).to(found.device)).ids.shape[1]:
            states = talker.say(said, seen, cache=cache)
            wanted = pad([one[1:] for _, one in flat]).to(found.device)
            own = torch.arange(wanted.ids.shape[1], device=found.device) < wanted.lengths[:, None]
            # Only where a word is asked for: a vocabulary is wide, and continuations are of many lengths.
            each = torch.zeros(own.shape, dtype=found.dtype, device=found.device)
            each[own] = plan.words(states[own]).log_softmax(dim=-1).gather(1, wanted.ids[own][:, None])[:, 0]
            found = found + each.sum(dim=1)
    values = iter(found.tolist())
    return [[next(values) for _ in some] for some in continuations]


@dataclass(frozen=True, slots=True)
class _Begun:
    """Prompts that are read."""

    seen: Seen | None
    cache: KVCache
    logits: Float[Tensor, "R V"]
    """Of the word after each prompt."""


class _Plan:
    """One call's prompts and settings."""

    def __init__(
        self,
        talker: Talker,
        batch: Batch,
        samplings: Sequence[Sampling],
        ends: frozenset[int] = frozenset(),
        decode: Decode | None = None,
        suppressed: tuple[int, ...] = (),
        suppressed_first: tuple[int, ...] = (),
    ) -> None:
        if batch.tokens is None or len(batch) != len(samplings):
            raise UsageError(f"a batch of {len(batch)} prompts and settings for {len(samplings)}; each prompt needs its own")
        if batch.tokens.starts is not None:
            raise UsageError("prompts are padded on the right: a row's words stand at their places in the cache")
        if decode is None and any(sampling.stop for sampling in samplings):
            raise UsageError("stop strings are found in the text: give decode")
        self.talker, self.batch, self.samplings = talker, batch, samplings
        self.ends, self.decode, self.suppressed, self.suppressed_first = ends, decode, list(suppressed), list(suppressed_first)
        self.lengths: list[int] = batch.tokens.lengths.tolist()
        self.limits = [self._limit(row) for row in range(len(batch))]
        self._output = talker.output  # once: it may be put together

    def _limit(self, row: int) -> int:
        """Most tokens of an answer: what was asked for must have room; what was left open takes what there is."""
        length, context, asked = self.lengths[row], self.talker.context, self.samplings[row].max_tokens
        if length < 1:
            raise UsageError(f"{self.batch.ids[row]}: the prompt is empty; there must be a token to begin with")
        if length >= context or (asked is not None and length + asked > context):
            answer = "an answer" if asked is None else f"an answer of up to {asked}"
            raise UsageError(
                f"{self.batch.ids[row]}: a prompt of {length} tokens and {answer} do not fit into the model's {context} positions; "
                f"shorten the prompt{'' if asked is None or length >= context else f', or ask for at most {context - length}'}"
            )
        return asked or context - length

    def words(self, states: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Scores of the words; those that are suppressed have none."""
        weight, bias = self._output
        logits = F.linear(states, weight, bias).float() if states.dtype != torch.float64 else F.linear(states, weight, bias)
        if self.suppressed:
            logits[:, self.suppressed] = float("-inf")
        return logits

    def begin(self, shared: Sequence[Shared] | None = None, prefixes: Prefixes | None = None) -> _Begun:
        """Read the prompts."""
        # Every row has room for the longest prompt with the longest answer: chunks are padded to the longest of a batch.
        room = max(self.lengths) + max(self.limits)
        tokens = self.batch.tokens
        assert tokens is not None
        if shared is None:
            seen, cache = self.talker.read(self.batch), self.talker.cache(room)
        else:
            seen, cache = self._prefixed(shared, prefixes, room)
            tokens = pad([ids[one.length : n] for ids, one, n in zip(tokens.ids.tolist(), shared, self.lengths, strict=True)]).to(
                tokens.device
            )
        states = self.talker.say(tokens, seen, cache=cache)
        counts: list[int] = tokens.lengths.tolist()
        cache.advance(counts)
        last = states[torch.arange(len(counts), device=states.device), tokens.lengths - 1]
        logits = self.words(last)
        logits[:, self.suppressed_first] = float("-inf")
        return _Begun(seen, cache, logits)

    def _prefixed(self, shared: Sequence[Shared], prefixes: Prefixes | None, room: int) -> tuple[Seen | None, KVCache]:
        """What rows have in common, computed once per key, for each row."""
        if self.talker.reads_prompt:
            raise UsageError("an encoder-decoder reads its prompt as a whole; it has no beginning to share")
        tokens = self.batch.tokens
        assert tokens is not None
        if (wrong := next((row for row, one in enumerate(shared) if not 0 < one.length < self.lengths[row]), None)) is not None:
            name, count, whole = self.batch.ids[wrong], shared[wrong].length, self.lengths[wrong]
            raise UsageError(f"{name}: {count} shared tokens of {whole}; at least one is shared, and at least one is not")
        keys = list(dict.fromkeys(one.key for one in shared))
        if len({(one.key, one.length) for one in shared}) > len(keys):
            raise UsageError("rows with the same key share as many tokens as each other; one key was given with two lengths")
        known = prefixes.get(keys[0]) if prefixes is not None and len(keys) == 1 else None
        if known is None:
            firsts = [next(row for row, one in enumerate(shared) if one.key == key) for key in keys]
            some = self.batch.select(firsts)
            some = replace(some, tokens=pad([tokens.ids[row, : shared[row].length].tolist() for row in firsts]).to(tokens.device))
            seen, cache = self.talker.read(some), self.talker.cache(max(shared[row].length for row in firsts))
            assert some.tokens is not None
            self.talker.say(some.tokens, seen, cache=cache)
            cache.advance([shared[row].length for row in firsts])
            known = Kept(cache, seen)
            if prefixes is not None and len(keys) == 1:
                prefixes.put(keys[0], known)
        rows = [keys.index(one.key) for one in shared]
        # As much as the talker takes for so many words: some keep a picture in front of them.
        return known.seen and known.seen.select(rows), known.cache.select(rows, room=self.talker.cache(room).room)

    # ------------------------------------------------------------------------------------------ word by word

    def run(self, begun: _Begun) -> Iterator[Saying]:
        """All answers of requests without beams, each once it has ended; those of one request in their order."""
        ended: dict[int, list[Saying]] = {}
        for saying in self.steps(begun):
            if saying.reason is not None:
                ended.setdefault(saying.row, []).append(saying)
        for row in sorted(ended):
            yield from sorted(ended[row], key=lambda one: one.number)

    def steps(self, begun: _Begun) -> Iterator[Saying]:
        """After every word each answer that got one."""
        alive = [self._saying(row, number) for row, one in enumerate(self.samplings) if one.beams == 1 for number in range(one.samples)]
        if not alive:
            return
        seen, cache, logits = begun.seen, begun.cache, begun.logits
        rows = [saying.row for saying in alive]
        if rows != list(range(len(self.lengths))):
            seen, cache, logits = seen and seen.select(rows), cache.select(rows), logits[rows]
        while True:
            logprobs = logits.log_softmax(dim=-1)
            for saying, scores, chances in zip(alive, logits, logprobs, strict=True):
                token = pick(penalised(scores, saying.used, saying.sampling), saying.sampling, saying.generator)
                saying.take(token, float(chances[token]), self.ends, self.decode)
                yield saying
            staying = [place for place, saying in enumerate(alive) if saying.reason is None]
            if not staying:
                return
            if len(staying) < len(alive):
                seen, cache = seen and seen.select(staying), cache.select(staying)
                alive = [alive[place] for place in staying]
            logits = self._next([saying.ids[-1] for saying in alive], seen, cache)

    def _next(self, ids: Sequence[int], seen: Seen | None, cache: KVCache) -> Float[Tensor, "N V"]:
        device = self._output[0].device
        said = Tokens(torch.tensor(ids, device=device)[:, None], torch.ones(len(ids), dtype=torch.long, device=device))
        states = self.talker.say(said, seen, cache=cache)
        cache.advance([1] * len(ids))
        return self.words(states[:, -1])

    def _saying(self, row: int, number: int) -> Saying:
        sampling, generator = self.samplings[row], None
        if sampling.temperature:
            generator = torch.Generator()
            # Each sample its own: one more changes nothing of the others. A generator takes 64 bits, a seed may be any number.
            generator.seed() if sampling.seed is None else generator.manual_seed((sampling.seed * 1_000_003 + number) % 2**63)
        return Saying(row, number, sampling, self.limits[row], generator, self._used(row))

    def _used(self, row: int) -> set[int]:
        assert self.batch.tokens is not None
        return set(self.batch.tokens.ids[row, : self.lengths[row]].tolist()) if self.samplings[row].repetition_penalty != 1 else set()

    # ------------------------------------------------------------------------------------------------- beams

    def beams(self, begun: _Begun) -> list[BeamSearch]:
        """The finished searches of requests with beams."""
        searches = [BeamSearch(row, one, self.limits[row], self._used(row)) for row, one in enumerate(self.samplings) if one.beams > 1]
        alive, rows = searches, [search.row for search in searches]
        if not alive:
            return []
        seen, cache, logits = begun.seen and begun.seen.select(rows), begun.cache.select(rows), begun.logits[rows]
        while True:
            logprobs, parents, at = logits.log_softmax(dim=-1), [], 0
            for search in alive:
                own = logprobs[at : at + len(search.running)]
                scores = own
                if search.sampling.repetition_penalty != 1:
                    used = [search.used | set(beam.ids) for beam in search.running]
                    scores = torch.stack([penalised(one, words, search.sampling) for one, words in zip(own, used, strict=True)])
                came = search.step(scores, own, self.ends)
                parents += [] if search.over else [at + parent for parent in came]
                at += len(own)
            alive = [search for search in alive if not search.over]
            if not alive:
                return searches
            if parents != list(range(at)):
                seen, cache = seen and seen.select(parents), cache.select(parents)
            logits = self._next([beam.ids[-1] for search in alive for beam in search.running], seen, cache)

    def found(self, search: BeamSearch) -> list[Said]:
        """A search's best answers."""
        answers = []
        for _, beam, ended in search.kept[: search.sampling.samples]:
            ids = beam.ids[:-1] if ended else beam.ids
            answers.append(Said(ids, self.decode(ids) if self.decode else "", beam.logprobs, "stop" if ended else "length"))
        return answers
