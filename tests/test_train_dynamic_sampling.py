"""Runs that refill: the cursor and the ledger follow what was drawn, and a resumed run goes on bitwise."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from o1jax.config import (
  AdvantageConfig,
  CheckpointConfig,
  ConfigError,
  CountdownConfig,
  CurriculumConfig,
  DiagnosticsConfig,
  EvalConfig,
  LogConfig,
  ModelConfig,
  OptimConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.io.checkpoint import Checkpoints, latest_step
from o1jax.io.log import CLOCK_METRICS, read_metrics
from o1jax.rl.learner import rl_learner
from o1jax.rollout import collect as collect_module
from o1jax.rollout import setup as preparation
from o1jax.rollout.grade import response_tokens
from o1jax.rollout.record import Progress
from o1jax.tasks.stream import draw
from o1jax.train import train

P, G, STEPS, REFILL = 8, 2, 4, 2
graded_by_the_task = collect_module.grade


def config(out: str, **changes) -> TrainConfig:
  rl = dict(
    steps=STEPS,
    prompts=P,
    samples=G,
    max_prompt=5,
    max_tokens=16,
    dynamic_sampling=REFILL,
    optim=OptimConfig(lr=1e-4),
  )
  return TrainConfig(
    name="tiny", out=out,
    model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=CountdownConfig(count=2, max_number=6, max_value=12, held_out=8, max_tries=2),
    rl=RLConfig(**{**rl, **changes}), diagnostics=DiagnosticsConfig(every=2, problems=8),
    eval=EvalConfig(final_problems=8, samples=2, batch=8, max_tokens=16, bootstrap=10),
    checkpoint=CheckpointConfig(every=2), log=LogConfig(progress=False),
  )  # fmt: skip


def grade(runtime, problems, tokens, lengths):
  """Right where a response has an even number of tokens, so that groups differ in what an untrained policy writes."""
  graded = graded_by_the_task(runtime, problems, tokens, lengths)
  even = graded.length % 2 == 0
  return dataclasses.replace(graded, reward=even.astype(float), correct=even)


@pytest.fixture(scope="module", autouse=True)
def seen():
  """(ids of the problems, share that is correct) of each rollout, as they come."""
  told: list[tuple[list[str], float]] = []

  def watched(runtime, problems, tokens, lengths):
    graded = grade(runtime, problems, tokens, lengths)
    told.append(([problem.id for problem in problems], float(graded.correct.mean())))
    return graded

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(collect_module, "grade", watched)
    yield told


@pytest.fixture(scope="module")
def whole(tmp_path_factory, seen):
  """(folder of a run, the problems it came to in their order, the share that was correct of each rollout)."""
  out = tmp_path_factory.mktemp("whole")
  seen.clear()
  assert train(config(str(out)), resume=False) == 0
  return out / "tiny", [name for rollout, _ in seen for name in rollout], [share for _, share in seen]


def written(folder: pathlib.Path) -> list[dict]:
  """The metrics of a run without what the clock made."""
  rows = read_metrics(folder / "metrics.jsonl")
  return [{k: v for k, v in row.items() if k not in CLOCK_METRICS} for row in rows]


def progress(folder: pathlib.Path, setup: preparation.Runtime) -> Progress:
  with preparation.in_mesh(setup), Checkpoints(folder / "checkpoints", keep=2) as saved:
    return Progress.from_json(
      saved.restore(saved.latest(), preparation.fresh_state(setup, rl_learner(setup.config), None))[1]
    )


def test_cursor_and_ledger_follow_the_rounds(whole) -> None:
  folder, problems, shares = whole
  rows = written(folder)
  rounds = np.array([row["dynamic_sampling/rounds"] for row in rows])
  assert len(set(rounds)) > 1 and rounds.max() <= REFILL
  np.testing.assert_array_equal([row["dynamic_sampling/samples"] for row in rows], rounds * P * G)
  extra = np.cumsum(rounds) * P * G
  np.testing.assert_array_equal([row.get("samples/extra", 0) for row in rows], extra)
  for row in rows:
    assert row["dynamic_sampling/unfilled"] == P * row["frac_reward_zero_std"]
    assert row["dynamic_sampling/rounds"] == REFILL or row["dynamic_sampling/unfilled"] == 0
    assert row["reward"] == row["learned/accuracy"] and row["rewards/countdown/mean"] == row["accuracy"]
  first_draws = np.cumsum([0, *(1 + rounds[:-1]).astype(int)])
  assert [row["accuracy"] for row in rows] == [shares[place] for place in first_draws]
  assert any(row["accuracy"] != row["learned/accuracy"] for row in rows)
  setup = preparation.prepare(config("runs"))
  where, came = progress(folder, setup), int(P * (1 + rounds).sum())
  assert where.cursor == came and where.flops.extra_samples == extra[-1]
  drawn, behind = draw(setup.task.stream(0, None), 0, came, CurriculumConfig(), {})
  assert problems == [p.id for p in drawn] and behind == came


@pytest.mark.full
def test_a_resumed_run_goes_on_bitwise(whole, tmp_path) -> None:
  shutil.copytree(whole[0], tmp_path / "tiny")
  last = latest_step(tmp_path / "tiny" / "checkpoints")
  assert last == STEPS
  shutil.rmtree(tmp_path / "tiny" / "checkpoints" / str(last))
  summary = json.loads((tmp_path / "tiny" / "summary.json").read_text())
  (tmp_path / "tiny" / "summary.json").unlink()
  assert train(config(str(tmp_path)), resume=True) == 0
  assert written(tmp_path / "tiny") == written(whole[0])
  again = json.loads((tmp_path / "tiny" / "summary.json").read_text())
  assert again["final"]["curves"] == summary["final"]["curves"]
  assert again["train_flops"] == summary["train_flops"]


def test_remax_decodes_the_problems_that_are_kept(seen) -> None:
  run = config("runs", advantage=AdvantageConfig("remax"))
  setup = preparation.prepare(run)
  learner = rl_learner(setup.config)
  with preparation.in_mesh(setup):
    state = preparation.fresh_state(setup, learner, None)
    seen.clear()
    drawn = collect_module.collect(
      setup, state.params, 7, Progress(), lambda rollout: pytest.fail("too early")
    )
    greedy_reward = collect_module.learner_inputs(setup, learner, 7, drawn, None).greedy_reward
  *rollouts, best = [names for names, _ in seen]
  kept = [problem.id for problem in drawn.graded.problems]
  assert best == kept and len(rollouts) == len(drawn.draws) > 1
  assert kept != rollouts[0] and set(kept) <= {name for rollout in rollouts for name in rollout}
  assert greedy_reward.shape == (P,) and drawn.sizes.greedy.lengths.shape == (P, 1)
  np.testing.assert_array_equal(greedy_reward, drawn.sizes.greedy.lengths[:, 0] % 2 == 0)
  # What each kept group says is of one and the same problem: its prompt, its tokens, its verdicts.
  rollout, graded = jax.device_get(drawn.batch.rollout), drawn.graded
  np.testing.assert_array_equal(rollout.policy_step, 6)  # training steps that its policy has behind it
  prompts = preparation.batch_of(setup, drawn.graded.problems)
  np.testing.assert_array_equal(rollout.tokens[:, :5], np.repeat(prompts.tokens, G, axis=0))
  np.testing.assert_array_equal(rollout.is_action.sum(1).reshape(P, G), graded.length)
  np.testing.assert_array_equal(graded.reward, graded.length % 2 == 0)
  texts = [setup.task.tokenizer.decode(row) for row in response_tokens(setup, rollout)]
  assert [text for row in graded.texts for text in row] == texts


def test_a_pool_without_fresh_problems_is_refused(tmp_path) -> None:
  with pytest.raises(
    ConfigError, match="rl.dynamic_sampling: a step may come to 8008 problems, there are only"
  ):
    train(config(str(tmp_path), dynamic_sampling=1000), resume=False)
