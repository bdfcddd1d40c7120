"""Rows that a judge behind an endpoint grades, as a task."""

import dataclasses
import json
import pathlib
import signal

import pytest
from judge_server import completion, config, refuse, reply, say, serving

from o1jax import train as train_module
from o1jax.config import (
  ConfigError,
  DiagnosticsConfig,
  EvalConfig,
  JudgedConfig,
  LogConfig,
  ModelConfig,
  RLConfig,
  TrainConfig,
)  # fmt: skip
from o1jax.io.log import read_metrics
from o1jax.parallel.hosts import EXIT_PREEMPTED
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
  made = judged.build(options(tmp_path, server))
  assert (len(made.train), len(made.held_out), len(server.seen)) == (2, 1, 1)  # one request: does it answer?
  problems = {problem.id: problem for problem in (*made.train, *made.held_out)}
  assert [problems[key].prompt for key in "123"] == [row["prompt"] for row in ROWS]
  assert {problem.id for problem in made.sft_problems} == {p.id for p in made.train} - {"2"}
  assert made.demonstrate(problems["3"], None) == ROWS[2]["response"]
  server.answer = lambda handler, request: reply(
    handler, completion("", tops={"Yes": 0.9 if "\nBlue\n" in request["messages"][0]["content"] else 0.2})
  )
  verdicts = made.verify([problems["1"], problems["1"], problems["2"]], ["Blue", "Red", " "])
  assert [verdict.correct for verdict in verdicts] == [True, False, False]
  assert [verdict.reward for verdict in verdicts] == pytest.approx([0.9, 0.2, 0.0])
  assert verdicts[2].error == "unparsable" and len(server.seen) == 3  # nothing said, nothing asked


@pytest.mark.full
def test_what_the_judge_costs_counts_over_resumes_and_by_task(tmp_path, server, monkeypatch) -> None:
  """The server counts what it is asked; the last evaluation's share is in the summary alone."""
  rows, prices = (
    [{"prompt": f"Name number {n}."} for n in range(24)],
    {"prompt_price": 2e6, "completion_price": 1e6},
  )
  task = options(tmp_path, server, rows=rows, held_out=8, judge=prices)
  config = TrainConfig(
    name="run", out=str(tmp_path), task=task,
    model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    rl=RLConfig(steps=4, prompts=8, samples=2, max_prompt=64, max_tokens=4),
    eval=EvalConfig(problems=8, final_problems=8, samples=1, batch=8, max_tokens=4, bootstrap=50),
    diagnostics=DiagnosticsConfig(every=0), log=LogConfig(progress=False),
  )  # fmt: skip
  asked: list[int] = []

  def stopping(*args, rl_step=train_module.rl_step, **given):
    if args[3] == 2:
      signal.raise_signal(signal.SIGTERM)
    out = rl_step(*args, **given)
    asked.append(len(server.seen))
    return out

  monkeypatch.setattr(train_module, "rl_step", stopping)
  assert train_module.train(config, resume=False) == EXIT_PREEMPTED
  judged._connected.cache_clear()  # as in a process of its own, which asks once whether the judge answers
  assert train_module.train(config, resume=True) == 0
  rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
  assert [row["judge/requests"] for row in rows] == asked and asked[0] > 1
  assert [row["judge/dollars"] for row in rows] == [21 * count for count in asked]
  summary = json.loads((tmp_path / "run" / "summary.json").read_text())
  assert summary["costs"]["judge/requests"] == len(server.seen)
  again = judged.build(task)  # the same judge, asked by another task of this process
  again.verify(again.train[:1], ["a"])
  assert again.spent()["judge/requests"] == 1


def test_what_the_judge_costs_is_told(tmp_path, server) -> None:
  made = judged.build(options(tmp_path, server, judge={"prompt_price": 2e6, "completion_price": 1e6}))
  assert made.spent()["judge/requests"] == 1
  made.verify(made.train, ["a", "b"])
  assert made.spent() == {
    "judge/requests": 3, "judge/retries": 0, "judge/timeouts": 0, "judge/crashes": 0, "judge/unmetered": 0,
    "judge/prompt_tokens": 30, "judge/completion_tokens": 3, "judge/dollars": 63,
  }  # fmt: skip
  two = [made, dataclasses.replace(made, name="other")]
  assert mixture.total_spent(two)["judge/dollars"] == 126


def test_one_endpoint_serves_all_that_ask_alike(tmp_path, server) -> None:
  cfg = options(tmp_path, server)
  one, two = judged.build(cfg), judged.build(cfg)
  assert len(server.seen) == 1 and one.verify is two.verify


def test_an_endpoint_that_cannot_judge_is_told_before_anything_is_trained(tmp_path, server) -> None:
  server.script.append(refuse(401))
  with pytest.raises(ConfigError, match="^judge: http://127.0.0.1.*AuthenticationError"):
    judged.build(options(tmp_path, server))
  server.script.append(say(completion("Yes")))
  with pytest.raises(ConfigError, match="judge.votes: .* gives no log-probs"):
    judged.build(options(tmp_path, server))
  assert len(judged.build(options(tmp_path, server)).train) == 2  # what failed is asked again


def test_a_wrong_row_is_named(tmp_path, server) -> None:
  for row, told in (
    ({"prompt": " "}, "row 4: field 'prompt' is empty"),
    ({"prompt": "a", "response": ""}, "row 4: field 'response' is empty"),
    ({"prompt": 7}, "row 4: field 'prompt'"),
  ):
    with pytest.raises(ConfigError, match=told):
      judged.build(options(tmp_path, server, [*ROWS, row]))
  with pytest.raises(
    ConfigError, match="row 2: has no field 'answer', which task.judge.sees=reference shows"
  ):
    judged.build(options(tmp_path, server, judge={"sees": "reference"}))
  assert server.seen == []
