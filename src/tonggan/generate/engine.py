"""From prompts to answers: what was read is read once, every word costs one word, rows that have ended leave the batch.

Shape letters: R rows of the batch, N answers on their way, L tokens, D width, V words of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tonggan.generate.beam import BeamSearch
from tonggan.generate.groups import alike
from tonggan.generate.prefixes import Kept, Prefixes, Shared
from tonggan.generate.said import Decode, Said, Saying
from tonggan.generate.sampling import Sampling, penalised, pick
from tonggan.nn.cache import KVCache
from tonggan.nn.talking import Seen, Talker
from tonggan.tensors import Batch, Tokens, pad
from tonggan.types import TongganError, UsageError


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
    shared: Shared | None = None,
    prefixes: Prefixes | None = None,
) -> Generator[str, None, Said]:
    """The answer to a batch of one row, in pieces of whole characters; the generator returns the whole. Closing it stops the work.

    What is `shared` with answers before and after is computed once where it is kept in `prefixes`.
    """
    if len(batch) != 1 or sampling.samples > 1 or sampling.beams > 1:
        raise UsageError("one answer to one prompt can be given in pieces: neither several rows or samples, nor beams")
    plan, shown = _Plan(talker, batch, [sampling], frozenset(ends), decode, tuple(suppressed), tuple(suppressed_first)), 0
    with torch.inference_mode():
        steps = plan.steps(plan.begin(None if shared is None else [shared], prefixes), shown=True)
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
        at = {row: place for place, row in enumerate(begun.rows)}
        places = [at[row] for row, _ in flat]
        cache, seen = begun.cache.select(places), begun.seen and begun.seen.select(places)
        firsts = torch.tensor([[one[0]] for _, one in flat], device=plan.device)
        found = begun.logits[places].log_softmax(dim=-1).gather(1, firsts)[:, 0]
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
    """Prompts that are read, those of like length side by side."""

    rows: list[int]
    """Which of the batch stands at each place here."""
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
        self.prompts: list[list[int]] = [ids[:length] for ids, length in zip(batch.tokens.ids.tolist(), self.lengths, strict=True)]
        self.limits = [self._limit(row) for row in range(len(batch))]
        self._output = talker.output  # once: it may be put together
        self.device = self._output[0].device

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
        """Scores of the words, as the model has them."""
        weight, bias = self._output
        return F.linear(states, weight, bias).float() if states.dtype != torch.float64 else F.linear(states, weight, bias)

    def _allowed(self, scores: Float[Tensor, "N V"], *, first: bool) -> Float[Tensor, "N V"]:
        """Scores without those of words that are suppressed."""
        barred = [*self.suppressed, *(self.suppressed_first if first else ())]
        return scores.index_fill(1, torch.tensor(barred, device=scores.device), float("-inf")) if barred else scores

    def begin(self, shared: Sequence[Shared] | None = None, prefixes: Prefixes | None = None) -> _Begun:
        """Read the prompts."""
        had = [0] * len(self.batch) if shared is None else self._had(shared)
        rest = [ids[begun:] for ids, begun in zip(self.prompts, had, strict=True)]
        # A chunk is padded to its longest, behind the row that is furthest.
        room = max(had) + max(map(len, rest)) + max(self.limits)
        groups = alike([len(ids) for ids in rest])
        rows = [row for group in groups for row in group]
        if shared is None:
            seen, cache = self.talker.read(self.batch), self.talker.cache(room)
            seen = seen and seen.select(rows) if rows != list(range(len(rows))) else seen
        else:
            # As much as the talker takes for so many words: some keep a picture in front of them.
            known = self._beginnings(shared, prefixes)
            seen, cache = Kept.of_rows([*known.values()], [[*known].index(shared[row].key) for row in rows], self.talker.cache(room).room)
        states = self._read([rest[row] for row in rows], [len(group) for group in groups], seen, cache)
        return _Begun(rows, seen, cache, self.words(states))

    def _read(self, texts: Sequence[list[int]], counts: Sequence[int], seen: Seen | None, cache: KVCache) -> Float[Tensor, "R D"]:
        """Put texts into the cache, so many at a time; gives each one's last state."""
        states, first = [], 0
        for size, part in zip(counts, cache.parts(counts), strict=True):
            own = texts[first : first + size]
            tokens = pad(own).to(self.device)
            some = seen if seen is None or size == len(texts) else seen.select(range(first, first + size))
            said = self.talker.say(tokens, some, cache=part)
            part.advance([len(text) for text in own])
            states.append(said[torch.arange(size, device=said.device), tokens.lengths - 1])
            first += size
        return torch.cat(states)

    def _had(self, shared: Sequence[Shared]) -> list[int]:
        """How many tokens of each row are shared."""
        if self.talker.reads_prompt:
            raise UsageError("an encoder-decoder reads its prompt as a whole; it has no beginning to share")
        if (wrong := next((row for row, one in enumerate(shared) if not 0 < one.length < self.lengths[row]), None)) is not None:
            name, begun, whole = self.batch.ids[wrong], shared[wrong].length, self.lengths[wrong]
            raise UsageError(f"{name}: {begun} shared tokens of {whole}; at least one is shared, and at least one is not")
        if len({(one.key, one.length) for one in shared}) > len({one.key for one in shared}):
            raise UsageError("rows with the same key share as many tokens as each other; one key was given with two lengths")
        return [one.length for one in shared]

    def _beginnings(self, shared: Sequence[Shared], prefixes: Prefixes | None) -> dict[str, Kept]:
        """What rows have in common, by its key: as it is kept, or computed once."""
        first: dict[str, int] = {}
        for row, one in enumerate(shared):
            first.setdefault(one.key, row)
        known = {key: kept for key in first if prefixes is not None and (kept := prefixes.get(key)) is not None}
        made = self._computed({key: row for key, row in first.items() if key not in known}, shared)
        if len({kept.seen is None for kept in [*known.values(), *made.values()]}) > 1:
            made = self._computed(first, shared)  # a row without media has nothing to be joined to others' unless it is read beside them
        for key, kept in made.items():
            if prefixes is not None:
                prefixes.put(key, kept)
        return known | made

    def _computed(self, rows: dict[str, int], shared: Sequence[Shared]) -> dict[str, Kept]:
        if not rows:
            return {}
        texts = [self.prompts[row][: shared[row].length] for row in rows.values()]
        some = replace(self.batch.select([*rows.values()]), tokens=pad(texts).to(self.device))
        seen, longest = self.talker.read(some), max(map(len, texts))
        groups = alike([len(text) for text in texts])
        places = [place for group in groups for place in group]
        cache, seen = self.talker.cache(longest), seen and seen.select(places)
        self._read([texts[place] for place in places], [len(group) for group in groups], seen, cache)
        keys = [*rows]
        return {keys[place]: Kept(cache.select([at]), seen and seen.select([at])) for at, place in enumerate(places)}

    # ------------------------------------------------------------------------------------------ word by word

    def run(self, begun: _Begun) -> Iterator[Saying]:
        """All answers of requests without beams, each once it has ended; those of one request in their order."""
        ended: dict[int, list[Saying]] = {}
        for saying in self.steps(begun):
            if saying.reason is not None:
                ended.setdefault(saying.row, []).append(saying)
        for row in sorted(ended):
            yield from sorted(ended[row], key=lambda one: one.number)

    def steps(self, begun: _Begun, *, shown: bool = False) -> Iterator[Saying]:
        """After every word each answer that got one, with its text where that is `shown`."""
        begins = [(place, number) for place, row in enumerate(begun.rows) for number in self._numbers(row)]
        if not begins:
            return
        alive = [self._saying(begun.rows[place], number, shown) for place, number in begins]
        seen, cache, logits = begun.seen, begun.cache, begun.logits
        if (places := [place for place, _ in begins]) != list(range(len(begun.rows))):
            seen, cache, logits = seen and seen.select(places), cache.select(places), logits[places]
        first = True
        while True:
            tokens = self._chosen(alive, self._allowed(logits, first=first))
            found = logits.log_softmax(dim=-1).gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
            self._check(found, [saying.row for saying in alive])
            for saying, token, chance in zip(alive, tokens, found, strict=True):
                saying.take(token, chance, self.ends, self.decode)
                yield saying
            if all(saying.reason is not None for saying in alive):
                return
            if len(staying := _closed([saying.reason is None for saying in alive])) < len(alive):
                cache.keep(staying)
                seen, alive = seen and seen.select(staying), [alive[place] for place in staying]
            logits, first = self._next([saying.ids[-1] for saying in alive], seen, cache), False

    def _check(self, logprobs: Sequence[float], rows: Sequence[int]) -> None:
        """Numbers that are none say nothing of words, and the likeliest of them is the first of the vocabulary."""
        if (wrong := next((place for place, one in enumerate(logprobs) if math.isnan(one)), None)) is not None:
            raise TongganError(
                f"{self.batch.ids[rows[wrong]]}: the model's scores are no numbers (NaN): its weights are damaged, or its precision too low"
            )

    def _numbers(self, row: int) -> range:
        """Of a row's answers that are said word by word."""
        return range(self.samplings[row].samples if self.samplings[row].beams == 1 else 0)

    def _chosen(self, alive: Sequence[Saying], logits: Float[Tensor, "N V"]) -> list[int]:
        """The next word of each answer."""
        tokens: list[int] = logits.argmax(dim=1).tolist()  # at once: a device is waited for once
        for place, saying in enumerate(alive):
            if saying.generator is not None or saying.sampling.repetition_penalty != 1:
                tokens[place] = pick(penalised(logits[place], saying.used, saying.sampling), saying.sampling, saying.generator)
        return tokens

    def _next(self, ids: Sequence[int], seen: Seen | None, cache: KVCache) -> Float[Tensor, "N V"]:
        said = Tokens(torch.tensor(ids, device=self.device)[:, None], torch.ones(len(ids), dtype=torch.long, device=self.device))
        states = self.talker.say(said, seen, cache=cache)
        cache.advance([1] * len(ids))
        return self.words(states[:, -1])

    def _saying(self, row: int, number: int, shown: bool) -> Saying:
        sampling, generator = self.samplings[row], None
        if sampling.temperature:
            generator = torch.Generator()
            # Each sample its own: one more changes nothing of the others. A generator takes 64 bits, a seed may be any number.
            generator.seed() if sampling.seed is None else generator.manual_seed((sampling.seed * 1_000_003 + number) % 2**63)
        return Saying(row, number, sampling, self.limits[row], generator, self._used(row), shown)

    def _used(self, row: int) -> set[int]:
        return set(self.prompts[row]) if self.samplings[row].repetition_penalty != 1 else set()

    # ------------------------------------------------------------------------------------------------- beams

    def beams(self, begun: _Begun) -> list[BeamSearch]:
        """The finished searches of requests with beams."""
        places = [place for place, row in enumerate(begun.rows) if self.samplings[row].beams > 1]
        if not places:
            return []
        rows = [begun.rows[place] for place in places]
        searches = alive = [BeamSearch(row, self.samplings[row], self.limits[row], self._used(row)) for row in rows]
        seen, cache, logits = begun.seen and begun.seen.select(places), begun.cache.select(places), begun.logits[places]
        first = True
        while True:
            logprobs, parents, at = logits.log_softmax(dim=-1), [], 0
            owners = [search.row for search in alive for _ in search.running]
            self._check(logprobs[:, 0].tolist(), owners)
            allowed = self._allowed(logprobs, first=first)
            for search in alive:
                own, scores = (some[at : at + len(search.running)] for some in (logprobs, allowed))
                if search.sampling.repetition_penalty != 1:
                    used = [search.used | set(beam.ids) for beam in search.running]
                    scores = torch.stack([penalised(one, words, search.sampling) for one, words in zip(scores, used, strict=True)])
                came = search.step(scores, own, self.ends)
                parents += [] if search.over else [at + parent for parent in came]
                at += len(own)
            alive = [search for search in alive if not search.over]
            if not alive:
                return searches
            if parents != list(range(at)):
                cache = cache.select(parents)
                if [owners[parent] for parent in parents] != owners:  # what all beams of a request have seen is the same
                    seen = seen and seen.select(parents)
            ids = [beam.ids[-1] for search in alive for beam in search.running]
            logits, first = self._next(ids, seen, cache), False

    def found(self, search: BeamSearch) -> list[Said]:
        """A search's best answers."""
        answers = []
        for _, beam, ended in search.kept[: search.sampling.samples]:
            ids = beam.ids[:-1] if ended else beam.ids
            answers.append(Said(ids, self.decode(ids) if self.decode else "", beam.logprobs, "stop" if ended else "length"))
        return answers


def _closed(staying: Sequence[bool]) -> list[int]:
    """Places of those that stay, without holes: the last ones fill them, so that as few as can be are moved."""
    most = sum(staying)
    late = (place for place in range(most, len(staying)) if staying[place])
    return [place if staying[place] else next(late) for place in range(most)]
