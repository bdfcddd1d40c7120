"""Rows that a judge behind an endpoint grades, as a task."""

import dataclasses
import json
import pathlib

import pytest
from judge_server import completion, config, refuse, reply, say, serving

from o1jax.config import ConfigError, JudgedConfig
from o1jax.tasks import judged, mixture

ROWS = [
  {"prompt": "Name a colour of the sea.", "answer": "blue", "response": "Blue."},
  {"prompt": "Say something kind to a friend."},
  {"prompt": "Why is the sky blue?", "answer": "scattering", "response": "Air scatters blue light the most."},
]


@pytest.fixture
def server(monkeypatch):
  with serving(monkeypatch) as made:
    yield made


def written(tmp_path: pathlib.Path, rows: list[dict]) -> str:
  path = tmp_path / "rows.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def options(tmp_path, server, rows=ROWS, held_out=1, judge=(), **fields) -> JudgedConfig:
  folder = str(tmp_path / "d")
  return JudgedConfig(written(tmp_path, rows), config(server, **dict(judge)), data_dir=folder, held_out=held_out, **fields)  # fmt: skip


def test_rows_are_problems_and_the_endpoint_their_verifier(tmp_path, server) -> None:
  made = judged.source(options(tmp_path, server))
  assert (len(made.train), len(made.held_out), len(server.seen)) == (2, 1, 1)  # one request: does it answer?
  problems = {problem.id: problem for problem in (*made.train, *made.held_out)}
  assert [problems[key].prompt for key in "123"] == [row["prompt"] for row in ROWS]
  assert {problem.id for problem in made.demonstrated} == {p.id for p in made.train} - {"2"}
  assert judged.demonstrate(problems["3"], None) == ROWS[2]["response"]
  server.answer = lambda handler, request: reply(
    handler, completion("", tops={"Yes": 0.9 if "\nBlue\n" in request["messages"][0]["content"] else 0.2})
  )
  verdicts = made.verify([problems["1"], problems["1"], problems["2"]], ["Blue", "Red", " "])
  assert [verdict.correct for verdict in verdicts] == [True, False, False]
  assert [verdict.reward for verdict in verdicts] == pytest.approx([0.9, 0.2, 0.0])
  assert verdicts[2].error == "unparsable" and len(server.seen) == 3  # nothing said, nothing asked


def test_what_the_judge_costs_is_told(tmp_path, server) -> None:
  made = judged.source(options(tmp_path, server, judge={"prompt_price": 2e6, "completion_price": 1e6}))
  assert made.spent()["judge/requests"] == 1
  made.verify(made.train, ["a", "b"])
  assert made.spent() == {
    "judge/requests": 3, "judge/retries": 0, "judge/timeouts": 0, "judge/crashes": 0, "judge/unmetered": 0,
    "judge/prompt_tokens": 30, "judge/completion_tokens": 3, "judge/dollars": 63,
  }  # fmt: skip
  two = [made, dataclasses.replace(made, name="other")]
  assert mixture._spent(two)["judge/dollars"] == 126


def test_one_endpoint_serves_all_that_ask_alike(tmp_path, server) -> None:
  cfg = options(tmp_path, server)
  one, two = judged.source(cfg), judged.source(cfg)
  assert len(server.seen) == 1 and one.verify is two.verify


def test_an_endpoint_that_cannot_judge_is_told_before_anything_is_trained(tmp_path, server) -> None:
  server.script.append(refuse(401))
  with pytest.raises(ConfigError, match="^judge: http://127.0.0.1.*AuthenticationError"):
    judged.source(options(tmp_path, server))
  server.script.append(say(completion("Yes")))
  with pytest.raises(ConfigError, match="judge.votes: .* gives no log-probs"):
    judged.source(options(tmp_path, server))
  assert len(judged.source(options(tmp_path, server)).train) == 2  # what failed is asked again


def test_a_wrong_row_is_named(tmp_path, server) -> None:
  for row, told in (
    ({"prompt": " "}, "row 4: field 'prompt' is empty"),
    ({"prompt": "a", "response": ""}, "row 4: field 'response' is empty"),
    ({"prompt": 7}, "row 4: field 'prompt'"),
  ):
    with pytest.raises(ConfigError, match=told):
      judged.source(options(tmp_path, server, [*ROWS, row]))
  with pytest.raises(
    ConfigError, match="row 2: has no field 'answer', which task.judge.sees=reference shows"
  ):
    judged.source(options(tmp_path, server, judge={"sees": "reference"}))
  assert server.seen == []
