"""The HTTP judge against a server on this machine that answers, refuses, hangs, lies and hangs up.

Nothing here measures time: the server counts, and where it hangs, the client's limit decides.
"""

import logging
import math
import threading

import pytest
from judge_server import (
  KEY,
  break_off,
  completion,
  config,
  hang,
  hang_up,
  refuse,
  reply,
  say,
  serving,
  trickle,
)

from o1jax.config import ConfigError
from o1jax.verifiers.base import Problem
from o1jax.verifiers.judge import http as judge_http
from o1jax.verifiers.judge.http import Costs, Endpoint, http_judge

V = "Verification: Is the answer correct (Yes/No)?"
SUM = Problem("1", "What is 2 + 2?", "4", "test")


@pytest.fixture
def server(monkeypatch):
  with serving(monkeypatch) as made:
    yield made


def p_yes_of(server, prompts, **options):
  with Endpoint(config(server, **options)) as endpoint:
    return endpoint.score(prompts), endpoint.costs


# What is sent and how it is read


def test_one_token_is_asked_for_with_its_log_probs(server) -> None:
  with http_judge(config(server)) as (verify, endpoint):
    (verdict,) = verify([SUM], ["It is 4."])
  assert verdict.reward == pytest.approx(0.75) and verdict.correct and verdict.error is None
  assert verdict.parsed == "P(Yes) 0.7500"
  (sent,) = server.seen
  (message,) = sent.pop("messages")
  assert sent == {"model": "m", "max_tokens": 1, "temperature": 1.0, "logprobs": True, "top_logprobs": 20}
  assert message["role"] == "user" and "\nIt is 4.\n" in message["content"]
  assert message["content"].endswith("Reply with one word, Yes or No. Is the answer correct (Yes/No)?")
  assert {k.lower(): v for k, v in server.headers[0].items()}["authorization"] == f"Bearer {KEY}"


def test_the_reference_is_shown_where_it_is_asked_for(server) -> None:
  for sees, shown in (("problem", False), ("reference", True)):
    with http_judge(config(server, sees=sees)) as (verify, _):
      verify([Problem("1", "Sum?", "forty-two", "test")], ["It is 4."])
    assert ("forty-two" in server.seen[-1]["messages"][0]["content"]) is shown


@pytest.mark.parametrize(
  ("tops", "reward"),
  [
    ({"Yes": 0.5, " yes": 0.2, "YES": 0.1, "No": 0.15}, 0.8),
    ({"Maybe": 0.9, "Yes": 0.05}, 0.05),  # p(Yes) itself, not its share of Yes and No
    ({"No": 0.99}, 0.0),
    ({"Yes": 1.0, "yes": 1e-4}, 1.0),  # rounding does not go beyond 1
    ({"The": 0.9, "I": 0.1}, None),
  ],
)
def test_yes_is_summed_over_its_spellings(server, tops, reward) -> None:
  server.answer = say(completion("x", tops=tops))
  (opinion,), costs = p_yes_of(server, ["p"])
  assert opinion.reward == (None if reward is None else pytest.approx(reward))
  assert opinion.error == ("unparsable" if reward is None else None)
  assert costs == Costs(
    requests=1, prompt_tokens=10, completion_tokens=1
  )  # the endpoint did what it was asked


def test_votes_are_requests_of_their_own_with_seeds_of_their_own(server) -> None:
  yes = {7: True, 8: False, 9: True, 10: True}
  server.answer = lambda handler, request: reply(
    handler, completion(f"Let me see.\n{V} {'Yes' if yes[request['seed']] else 'No'}", usage=(100, 20))
  )
  options = {
    "votes": 4,
    "seed": 7,
    "temperature": 0.7,
    "max_tokens": 64,
    "prompt_price": 2.0,
    "completion_price": 10.0,
  }
  with http_judge(config(server, **options)) as (verify, endpoint):
    (verdict,) = verify([SUM], ["It is 4."])
  assert verdict.reward == 0.75 and verdict.correct and verdict.parsed == "3 of 4 Yes"
  assert sorted(request["seed"] for request in server.seen) == [7, 8, 9, 10]
  assert {request["temperature"] for request in server.seen} == {0.7}
  assert {request["max_tokens"] for request in server.seen} == {64}
  assert not any("logprobs" in request for request in server.seen)
  costs = endpoint.costs
  assert (costs.prompt_tokens, costs.completion_tokens) == (400, 80)
  assert costs.dollars == pytest.approx((400 * 2.0 + 80 * 10.0) / 1e6)


def test_a_rationale_that_was_cut_off_is_no_vote_and_no_seed_is_sent_unasked(server) -> None:
  server.script.extend([say(completion(f"{V} Yes", finish="length")), say(completion(f"{V} No"))])
  with http_judge(config(server, votes=2, concurrency=1)) as (verify, _):
    (verdict,) = verify([SUM], ["It is 4."])
  assert verdict.reward == 0.0 and verdict.parsed == "0 of 1 Yes" and verdict.error == "wrong"
  assert not any("seed" in request for request in server.seen)


# What goes wrong


def test_a_busy_server_is_asked_again(server) -> None:
  unmetered = say(completion("Yes", tops={"Yes": 0.75}, usage=None))
  server.script.extend([refuse(429, retry_after="0.01"), refuse(500), refuse(503), unmetered])
  (opinions, costs) = p_yes_of(server, ["p"], max_retries=3)
  assert opinions[0].reward == pytest.approx(0.75)
  assert costs == Costs(requests=4, retries=3, unmetered=1)


@pytest.mark.parametrize(
  ("act", "requests", "error"),
  [
    (refuse(500), 3, "crashed"),
    (refuse(429, retry_after="0.01"), 3, "crashed"),
    (refuse(401), 1, "crashed"),
    (refuse(404), 1, "crashed"),
    (hang_up, 3, "crashed"),
    (break_off, 3, "crashed"),
    (say(b"<html>busy</html>", kind="text/html"), 1, "crashed"),
    (say(b'{"choices": ['), 1, "crashed"),
    (say(b"[" * 100_000), 1, "crashed"),
    (say(b"null"), 1, "crashed"),
    (say({"choices": []}), 1, "crashed"),
    (say({"choices": [{"message": {"content": 7}}]}), 1, "crashed"),
    (say({"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [{"top_logprobs": [7]}]}}]}), 1,
      "crashed"),
    (say(completion("x", tops={"Yes": 3.0})), 1, "crashed"),  # no probability
  ],
)  # fmt: skip
def test_what_fails_for_good_costs_its_own_verdict_alone(server, act, requests, error) -> None:
  bad = lambda request: "It is 5." in request["messages"][0]["content"]
  good = server.answer
  server.answer = lambda handler, request: (act if bad(request) else good)(handler, request)
  with http_judge(config(server)) as (verify, endpoint):
    verdicts = verify([SUM] * 3, ["It is 4.", "It is 5.", "It is 3."])
  assert [v.error for v in verdicts] == [None, error, None]
  assert [v.reward for v in verdicts] == [pytest.approx(r, nan_ok=True) for r in (0.75, math.nan, 0.75)]
  assert endpoint.costs.requests == 2 + requests and endpoint.costs.retries == requests - 1
  assert (endpoint.costs.crashes, endpoint.costs.timeouts) == (1, 0)
  assert endpoint.costs.prompt_tokens >= 20  # the others were metered


@pytest.mark.parametrize(
  ("act", "options", "requests"),
  [
    (hang, {"timeout": 0.1, "max_retries": 1}, 2),
    (hang, {"deadline": 0.5}, 1),
    (trickle, {"deadline": 0.5}, 1),  # each wait is short, all of them are not
  ],
)
def test_who_does_not_answer_in_time(server, act, options, requests) -> None:
  bad = lambda request: request["messages"][0]["content"] == "bad"
  good = server.answer
  server.answer = lambda handler, request: (act if bad(request) else good)(handler, request)
  opinions, costs = p_yes_of(server, ["a", "b", "c"])
  assert [opinion.error for opinion in opinions] == [None] * 3
  (opinion,), costs = p_yes_of(server, ["bad"], **options)
  assert (opinion.reward, opinion.error) == (None, "timeout")
  assert (costs.requests, costs.timeouts, costs.crashes) == (requests, 1, 0)


def test_failed_votes_are_no_votes(server) -> None:
  server.script.extend([refuse(400), say(completion(f"{V} Yes")), refuse(400)])
  with http_judge(config(server, votes=3, concurrency=1)) as (verify, endpoint):
    first, second = verify([SUM] * 2, ["It is 4.", "It is four."])
  assert (first.reward, first.parsed) == (1.0, "1 of 1 Yes")
  assert endpoint.costs.crashes == 2 and second.error == "unparsable"  # "Yes" alone is no verdict's line


def test_a_failure_is_told_once_a_kind_without_the_key(server, caplog) -> None:
  server.script.extend([refuse(400), refuse(400), refuse(404)])
  with caplog.at_level(logging.WARNING):
    p_yes_of(server, ["a", "b", "c", "d"], concurrency=1)
  told = [record.getMessage() for record in caplog.records if record.name == judge_http.__name__]
  assert len(told) == 2 and "BadRequestError" in told[0] and "NotFoundError" in told[1]
  assert KEY not in caplog.text and "no: ***" in told[0]


def test_a_first_look_tells_what_is_wrong(server) -> None:
  with Endpoint(config(server)) as endpoint:
    assert endpoint.check() is None
    server.script.append(refuse(401))
    with pytest.raises(ConfigError, match=r"judge: http://127.*401.*no: \*\*\*"):
      endpoint.check()
    server.script.append(say(completion("Yes")))
    with pytest.raises(ConfigError, match=r"judge.votes: .* gives no log-probs: ask for votes"):
      endpoint.check()


# Limits


def test_no_more_requests_are_under_way_than_allowed_and_as_many_as_that(server) -> None:
  """The server answers four at a time: fewer would wait for ever, more would be seen."""
  full, good = threading.Barrier(4), server.answer
  server.answer = lambda handler, request: (full.wait(30), good(handler, request))
  opinions, costs = p_yes_of(server, [f"{i}" for i in range(12)], concurrency=4, timeout=60.0)
  assert [opinion.error for opinion in opinions] == [None] * 12
  assert (server.now, server.most, costs.requests) == (0, 4, 12)


def test_concurrency_holds_over_calls_from_several_threads(server) -> None:
  good = server.answer
  server.answer = lambda handler, request: (server.over.wait(0.01), good(handler, request))
  results: dict[int, list] = {}
  with Endpoint(config(server, concurrency=2)) as endpoint:
    work = lambda i: results.update({i: endpoint.score([f"{i} {j}" for j in range(5)])})
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert 1 <= server.most <= 2 and len(server.seen) == 20
  assert all(len(opinions) == 5 for opinions in results.values()) and len(results) == 4


def test_every_attempt_takes_its_turn_retries_included(server, monkeypatch) -> None:
  import aiolimiter

  taken: list[tuple[float, float]] = []

  class Counting(aiolimiter.AsyncLimiter):
    async def acquire(self, amount=1):
      await super().acquire(amount)
      taken.append((self.max_rate, self.time_period))

  monkeypatch.setattr(aiolimiter, "AsyncLimiter", Counting)
  server.script.extend([refuse(500), refuse(429, retry_after="0.01")])
  _, costs = p_yes_of(server, ["a", "b", "c"], requests_per_minute=6000.0)
  assert costs.requests == len(server.seen) == 5 and costs.retries == 2
  assert taken == [(1, 0.01)] * 5  # one request in each hundredth of a second, none of them ahead of time


def test_opinions_keep_the_order_of_their_prompts_whatever_comes_first(server) -> None:
  """The first prompt is answered last."""
  others = threading.Semaphore(0)
  good = lambda p: completion("Yes", tops={"Yes": p, "No": 1 - p})

  def answer(handler, request):
    number = int(request["messages"][0]["content"])
    if number == 1:
      for _ in range(5):
        others.acquire(timeout=30)
    reply(handler, good(number / 10))
    if number > 1:
      others.release()

  server.answer = answer
  opinions, _ = p_yes_of(server, ["1", "2", "3", "4", "5", "6"])
  assert [opinion.reward for opinion in opinions] == [pytest.approx(n / 10) for n in range(1, 7)]


def test_an_endpoint_closes_with_requests_under_way_and_may_be_closed_twice(server) -> None:
  server.answer = hang
  endpoint = Endpoint(config(server))
  failed: list[BaseException] = []

  def ask():
    try:
      endpoint.score(["p"])
    except BaseException as error:
      failed.append(error)

  thread = threading.Thread(target=ask)
  thread.start()
  while not server.seen:
    thread.join(0.01)
  endpoint.close()
  thread.join(30)
  assert not thread.is_alive() and len(failed) == 1 and "Cancelled" in type(failed[0]).__name__
  endpoint.close()
  assert endpoint.costs.requests == 1 and not endpoint._thread.is_alive()


def test_no_key_is_sent_where_none_is_named(server, monkeypatch) -> None:
  monkeypatch.setenv("OPENAI_API_KEY", KEY)
  p_yes_of(server, ["p"], api_key_env=None)
  assert not any(KEY in value for value in server.headers[0].values())
