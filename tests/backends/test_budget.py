"""What may be spent, what things cost, and what would be sent: never beyond a limit, and nothing is sent that cannot be counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from standin import Running
from tonggan.backends.api import Budget, BudgetReached, Endpoint, Price, named, parse_price
from tonggan.backends.api.budget import Bound
from tonggan.types import Answer, ChatOptions, Image, Message, Text, Usage, UsageError

pytest.importorskip("openai", reason="the extra 'api' is not installed")
PRICE = Price(input=1e6, output=1e6, currency="USD")
"""One a token."""


@pytest.fixture
def provider() -> Iterator[Running]:
    with Running() as one:
        yield one


def endpoint(provider: Running, **settings: Any) -> Endpoint:
    found = named(f"openai+{provider.url}#tiny")
    assert found is not None
    return Endpoint("stand-in", *found, **settings)


def asking(*questions: str) -> list[list[Message]]:
    return [[Message("user", (Text(question),))] for question in questions]


# --------------------------------------------------------------------------------------------- budgets


def test_a_budget_reserves_the_most_before_it_sends(provider: Running) -> None:
    budget = Budget(requests=5)
    with pytest.raises(BudgetReached, match="5 requests is used up"):
        endpoint(provider, budget=budget).chat(asking(*"abcdefgh"))
    assert sum(provider.counts()["seen"].values()) == 5
    price = Price(input=1000.0, output=1_000_000.0, currency="CNY")
    money = Budget(money=25.0, currency="CNY")
    with pytest.raises(BudgetReached, match=r"could cost .* CNY"):
        endpoint(provider, budget=money, price=price, concurrency=4).chat(asking(*"ijklmnopqrstuvwxyz"), ChatOptions(max_tokens=10))
    assert 0 < money.spent <= 25.0
    with pytest.raises(UsageError, match="needs its currency"):
        Budget(money=1.0)
    with pytest.raises(UsageError, match="from 0 on"):
        Budget(money=float("nan"), currency="CNY")


def test_a_budget_never_goes_beyond_its_limit_however_it_is_used() -> None:
    budget = Budget(money=10.0, currency="USD")
    held = [budget.reserve(Bound(2, 1), PRICE) for _ in range(3)]
    with pytest.raises(BudgetReached, match="9 reserved"):
        budget.reserve(Bound(2, 1), PRICE)
    budget.settle(held[0], 1.0)
    budget.settle(held[1], 0.0)
    budget.settle(held[2], None)
    assert budget.spent == pytest.approx(1 + 0 + 3)
    assert budget.reserve(Bound(5, 1), PRICE) == pytest.approx(6)
    with pytest.raises(UsageError, match=r"3,9,CNY,1280"):
        budget.reserve(Bound(None, 1), PRICE)


def test_one_budget_counts_models_of_different_prices() -> None:
    budget = Budget(money=10.0, currency="USD", requests=3)
    cheap = Price(input=0.0, output=1e6, currency="USD")
    budget.settle(budget.reserve(Bound(4, 4), PRICE), None)
    assert budget.reserve(Bound(4, 1), cheap) == pytest.approx(1.0)
    with pytest.raises(BudgetReached, match="could cost 2"):
        budget.reserve(Bound(1, 1), PRICE)
    assert budget.sent == 2, "what is refused does not count as a request"


@settings(max_examples=25, deadline=None)
@given(
    money=st.floats(0, 50),
    jobs=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1), st.booleans()), max_size=40),
    prices=st.lists(st.floats(0, 2), min_size=1, max_size=3),
)
def test_many_threads_never_go_beyond_it(money: float, jobs: list[tuple[int, int, float, bool]], prices: list[float]) -> None:
    """Whatever is reserved, used and given back at the same time, what is billed in the end fits into the budget."""
    budget = Budget(money=money, currency="CNY")
    billed: list[float] = []

    def work(mine: list[tuple[int, int, float, bool]], price: Price) -> None:
        for inputs, outputs, part, known in mine:
            try:
                held = budget.reserve(Bound(inputs, outputs), price)
            except BudgetReached:
                continue
            cost = held * part  # a provider bills at most the bound
            billed.append(cost)
            budget.settle(held, cost if known else None)

    threads = [
        threading.Thread(target=work, args=(jobs[i::4], Price(input=p * 1e6, output=p * 1e6, currency="CNY")))
        for i, p in enumerate((prices * 4)[:4])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(billed) <= budget.spent + 1e-9 and budget.spent <= money + 1e-9
    assert budget._held == pytest.approx(0.0, abs=1e-9)


def test_what_is_under_way_is_waited_for(provider: Running) -> None:
    """Four at a time could cost twice the budget, but none costs its maximum: all are asked."""
    price = Price(input=0.0, output=1_000_000.0, currency="CNY")
    budget = Budget(money=50.0, currency="CNY")
    answers = endpoint(provider, budget=budget, price=price, concurrency=4).chat(asking(*"abcdefghijkl"), ChatOptions(max_tokens=30))
    assert [answer.outcome for answer in answers] == ["answered"] * 12
    assert budget.spent == 12 and budget._held == 0
    with pytest.raises(BudgetReached, match="12 is spent"):
        endpoint(provider, budget=budget, price=price, concurrency=4).chat(asking(*"mnop"), ChatOptions(max_tokens=39))


def test_models_that_a_budget_cannot_count_are_refused_before_anything_is_sent(provider: Running, tmp_path: Path) -> None:
    budget = Budget(money=10.0, currency="CNY")
    with pytest.raises(UsageError, match=r"stand-in: no price is known.*MODEL=INPUT,OUTPUT,CURRENCY"):
        endpoint(provider, budget=budget)
    with pytest.raises(UsageError, match="its price is in USD, the budget in CNY"):
        endpoint(provider, budget=budget, price=PRICE)
    price = Price(input=3.0, output=9.0, currency="CNY")
    PIL.Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    picture = [Message("user", (Text("what?"), Image.open(tmp_path / "a.png")))]
    with pytest.raises(UsageError, match="the most tokens that a picture can be billed as"):
        endpoint(provider, budget=budget, price=price).chat([*asking("a"), picture])
    assert not provider.counts()["seen"]
    priced = endpoint(provider, budget=budget, price=price.model_copy(update={"picture_tokens": 1000}))
    assert [a.outcome for a in priced.chat([*asking("a"), picture])] == ["answered"] * 2


@pytest.mark.parametrize(
    ("question", "billed"),
    [
        ("say yes", "known"),
        ("[no usage] yes", "all"),
        ("[slow] yes", "all"),
        ("[half] yes", "all"),
        ("[html] yes", "all"),
        ("[504] yes", "six times"),
        ("[bad request] yes", "nothing"),
        ("[429] yes", "known"),
    ],
)
def test_what_may_have_been_billed_counts_at_its_maximum(provider: Running, question: str, billed: str) -> None:
    budget = Budget(money=1000.0, currency="USD")
    model = endpoint(provider, budget=budget, price=PRICE, timeout=1.0)
    options = ChatOptions(max_tokens=7)
    cost = model.preview(asking(question), options).cost
    (answer,) = model.chat(asking(question), options)
    assert budget.spent == pytest.approx({"known": model.cost(answer), "all": cost, "six times": 6 * (cost or 0), "nothing": 0.0}[billed])
    assert budget._held == 0.0


def test_where_nothing_answers_nothing_is_billed() -> None:
    found = named("openai+http://127.0.0.1:9/v1#tiny")
    assert found is not None
    budget = Budget(money=1000.0, currency="USD")
    (answer,) = Endpoint("nobody", *found, budget=budget, price=PRICE).chat(asking("a"))
    assert "the connection failed" in str(answer.error)
    assert (budget.sent, budget.spent) == (1, 0.0)


def test_thinking_that_max_tokens_does_not_limit_is_counted_and_told(provider: Running, caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget(money=200_000.0, currency="USD")
    endpoint(provider, budget=budget, price=PRICE).chat(asking("[long thought] yes"))
    assert budget.spent == 100_002 and "more output tokens than max_tokens" in caplog.text


# ---------------------------------------------------------------------------------------------- prices


@pytest.mark.parametrize(
    ("text", "name", "price"),
    [
        ("dashscope:qwen-vl-max=3,9,CNY", "dashscope:qwen-vl-max", Price(input=3, output=9, currency="CNY")),
        (
            " zhipu:glm-4.5v = 2, 6 ,cny, 1280",
            "zhipu:glm-4.5v",
            Price(input=2, output=6, currency="CNY", picture_tokens=1280),
        ),
        ("openai+http://h:8000/v1#m=3,9,CNY", "openai+http://h:8000/v1#m", Price(input=3, output=9, currency="CNY")),
        ("openai+https://h/v1?a=b#m=x=0,.5,USD", "openai+https://h/v1?a=b#m=x", Price(input=0, output=0.5, currency="USD")),
    ],
)
def test_prices_on_the_command_line(text: str, name: str, price: Price) -> None:
    assert parse_price(text) == (name, price)


@pytest.mark.parametrize(
    "text",
    [
        "", "3,9,CNY", "dashscope:qwen-vl-max", "dashscope:qwen-vl-max=", "dashscope:qwen-vl-max=3,9", "dashscope:qwen-vl-max=3,9,¥",
        "dashscope:qwen-vl-max=-3,9,CNY", "dashscope:qwen-vl-max=nan,9,CNY", "dashscope:qwen-vl-max=3,inf,CNY",
        "dashscope:qwen-vl-max=3,9,CNY,0", "dashscope:qwen-vl-max=3,9,CNY,1.5", "dashscope:qwen-vl-max=3,9,CNY,1,1", "=3,9,CNY",
        "dashscop:qwen-vl-max=3,9,CNY", "runs/demo=3,9,CNY",
    ],
)  # fmt: skip
def test_a_wrong_price_shows_the_right_form(text: str) -> None:
    with pytest.raises(UsageError, match=r"dashscope:qwen-vl-max=3,9,CNY,1280") as caught:
        parse_price(text)
    assert ("did you mean 'dashscope'" in str(caught.value)) == text.startswith("dashscop:")


def test_what_an_answer_cost() -> None:
    found = named("openai+http://127.0.0.1:9/v1#tiny")
    assert found is not None
    model = Endpoint("m", *found, price=Price(input=3, output=9, currency="CNY"))
    assert model.cost(Answer(usage=Usage(1_000_000, 2_000_000))) == pytest.approx(21)
    assert model.cost(Answer(usage=Usage(5, None))) is None and model.cost(Answer()) is None
    assert Endpoint("m", *found).cost(Answer(usage=Usage(1, 1))) is None


# --------------------------------------------------------------------------------------------- preview


def test_a_preview_says_what_is_sent_and_sends_nothing(provider: Running, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    picture, broken = ([Message("user", (Text("what?"), Image.open(tmp_path / name)))] for name in ("a.png", "broken.png"))
    price = Price(input=3, output=9, currency="CNY", picture_tokens=1000)
    model = endpoint(provider, price=price, answers=tmp_path / "answers.db")
    model.chat(asking("kept"))
    before = provider.counts()
    told = model.preview([*asking("kept", "new"), picture, broken], ChatOptions(max_tokens=512))
    assert provider.counts() == before
    assert (told.requests, told.kept, told.unsent, told.pictures, told.pixels, told.sounds) == (2, 1, 1, 1, 300 * 200, 0)
    assert told.output_tokens == 1024 and told.input_tokens is not None and told.input_tokens > 1000
    assert told.cost == pytest.approx((3 * told.input_tokens + 9 * 1024) / 1e6) and told.currency == "CNY"
    answers = model.chat([*asking("new"), picture], ChatOptions(max_tokens=512))
    assert provider.counts()["bytes"] - before["bytes"] == told.bytes, "to the byte"
    assert sum(model.cost(answer) or 0 for answer in answers) <= told.cost


def test_a_preview_without_prices_or_counts_says_so(provider: Running, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    picture = [Message("user", (Image.open(tmp_path / "a.png"),))]
    plain = endpoint(provider).preview([*asking("a"), picture])
    assert (plain.input_tokens, plain.cost, plain.currency, plain.output_tokens) == (None, None, None, 1024)
    words = endpoint(provider, price=PRICE).preview(asking("a"))
    assert words.input_tokens is not None and words.cost == words.input_tokens + 512
    assert endpoint(provider, price=PRICE).preview([picture]).cost is None
    nothing = endpoint(provider, price=PRICE).preview([])
    assert (nothing.requests, nothing.input_tokens, nothing.cost) == (0, 0, 0)
