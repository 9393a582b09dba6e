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
