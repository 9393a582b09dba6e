"""Whatever comes back is an answer or an error that says what came: never an exception of another kind, never half an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tonggan.backends.api.replies import assembled, read, whole, without_thinking

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "message",
                    "content",
                    "refusal",
                    "finish_reason",
                    "usage",
                    "prompt_tokens",
                    "error",
                    "id",
                    "type",
                    "text",
                    "delta",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(JSON | st.builds(lambda message, rest: {"choices": [{"message": message}], **rest}, JSON, st.dictionaries(st.just("usage"), JSON)))
def test_any_json_is_an_answer_or_a_named_error(plain: Any) -> None:
    try:
        answer = read(whole([json.dumps(plain).encode()]))
    except ValueError:
        return
    assert isinstance(answer.text, str)
    json.dumps([answer.text, answer.raw], ensure_ascii=False).encode()  # can be kept
    assert all(count is None or count >= 0 for count in (answer.usage.input_tokens, answer.usage.output_tokens))


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=4), st.booleans(), st.integers(1, 9))
def test_any_stream_is_an_answer_or_a_named_error(chunks: list[Any], done: bool, size: int) -> None:
    data = b"".join(b"data: %s\r\n\r\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n" * done
    try:
        read(assembled(data[i : i + size] for i in range(0, len(data), size)))
    except ValueError:
        return


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(1, 7), st.integers(1, 50))
def test_a_stream_adds_up_to_the_text_however_it_is_cut(text: str, letters: int, size: int) -> None:
    """Line separators of Unicode in the text, and characters that a piece cuts in two, change nothing."""
    deltas = [{"content": text[i : i + letters]} for i in range(0, len(text), letters)]
    events: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in deltas]
    events += [
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
    ]
    data = b"".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode() for event in events) + b"data: [DONE]\n\n"
    plain = assembled(data[i : i + size] for i in range(0, len(data), size))
    assert plain["choices"][0]["message"]["content"] == text
    answer = read(plain)
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.finish_reason) == (3, 4, "stop")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"<html>502</html>", "no JSON: '<html>502</html>'"),
        (b'data: {"choices": [{"delta": {"content": "yes"}}]}\n\n', "ended before it said why"),
        (b"", "ended before it said why"),
        (b"data: <html>\n\n", "no JSON in the stream"),
        (b"data: [1]\n\n", "no object in the stream"),
    ],
)
def test_half_a_stream_is_no_answer(data: bytes, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        assembled([data])


def test_deeply_nested_nonsense_is_named() -> None:
    with pytest.raises(ValueError, match="no JSON"):
        whole([b"[" * 200_000])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("B", "B"),
        ("<think>A?\n</think>\n\nB", "B"),
        ("A?\n</think>\n\nB", "B"),
        ("<think>1</think>B <think>2</think>C", "B C"),
        ("I think B", "I think B"),
        ("<think>never ends", "<think>never ends"),
    ],
)
def test_thinking_aloud_is_no_part_of_the_answer(text: str, answer: str) -> None:
    assert without_thinking(text) == answer


def test_several_answers_with_their_log_probabilities_whole_and_in_pieces() -> None:
    said = ["一 a", "b"]
    odds = [[{"token": letter, "logprob": -index - 0.5, "bytes": None} for letter in text] for index, text in enumerate(said)]
    rest: dict[str, Any] = {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    plain = rest | {
        "choices": [
            {"index": i, "message": {"content": text}, "finish_reason": "stop", "logprobs": {"content": odds[i]}}
            for i, text in enumerate(said)
        ]
    }
    # Letter by letter, the answers in turn.
    events = [
        {"choices": [{"index": i, "delta": {"content": said[i][k]}, "logprobs": {"content": odds[i][k : k + 1]}}]}
        for k in range(3)
        for i in (1, 0)
        if k < len(said[i])
    ]
    events += [{"choices": [{"index": i, "delta": {}, "finish_reason": reason}]} for i, reason in ((0, "stop"), (1, "length"))] + [rest]
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    for answer, ends in ((read(plain), "stop"), (read(assembled([stream.encode()])), "length")):
        assert (answer.text, answer.tokens, answer.logprobs, answer.usage.output_tokens) == ("一 a", ("一", " ", "a"), (-0.5,) * 3, 4)
        (other,) = answer.others
        assert (other.text, other.tokens, other.logprobs, other.finish_reason) == ("b", ("b",), (-1.5,), ends)
    half = "".join(f"data: {json.dumps(event)}\n\n" for event in [*events[:4], events[4]])
    with pytest.raises(ValueError, match="ended before it said why"):
        assembled([half.encode()])


@pytest.mark.parametrize(
    "odd", [{"content": [{"token": "a"}]}, {"content": [{"token": 1, "logprob": 0.0}]}, {"content": "a"}, [], "a", None]
)
def test_log_probabilities_of_another_form_are_none(odd: Any) -> None:
    answer = read({"choices": [{"message": {"content": "a"}, "finish_reason": "stop", "logprobs": odd}]})
    assert answer.text == "a" and answer.tokens is None and answer.logprobs is None
