"""The four seams, each with an example that costs one file and touches none of the package."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np
import pytest
from rewarder import REWARDER

from o1jax.config import (
  AdvantageConfig,
  CountdownConfig,
  DiagnosticsConfig,
  EvalConfig,
  ModelConfig,
  RLConfig,
  SftConfig,
  TrainConfig,
)
from o1jax.evaluate.figures import sample_and_grade
from o1jax.parallel.sharding import put_rows
from o1jax.rl.draw import stream_key
from o1jax.rl.experience import pack
from o1jax.rl.learner import hyperparams, rl_learner, run_epochs, sft_learner
from o1jax.rollout import setup
from o1jax.rollout.answer import Budget, best_of, plain
from o1jax.rollout.env import SingleTurn, Turn
from o1jax.rollout.grade import Graded
from o1jax.rollout.record import Progress
from o1jax.train import RLInputs, rl_step
from o1jax.types import resolve_stats
from o1jax.verifiers.base import Problem, Verdict

P, G = 8, 2


def config_of(kind: str = "reinforce++") -> TrainConfig:
  return TrainConfig(
    name="tiny",
    model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=CountdownConfig(count=2, max_number=6, max_value=12, held_out=8, max_tries=2),
    sft=SftConfig(steps=1, rows=8, length=48),
    rl=RLConfig(steps=2, prompts=P, samples=G, max_prompt=5, max_tokens=12, advantage=AdvantageConfig(kind)),
    diagnostics=DiagnosticsConfig(every=0),
    eval=EvalConfig(final_problems=8, samples=2, batch=8, max_tokens=12),
  )


@functools.cache
def runtime_of(kind: str = "reinforce++") -> setup.Runtime:
  return setup.prepare(config_of(kind), jax.devices()[:1])


def one_step(runtime: setup.Runtime, learner) -> dict[str, float]:
  with setup.in_mesh(runtime):
    state = setup.fresh_state(runtime, learner, None)
    return rl_step(runtime, learner, state, 1, Progress(), begun=RLInputs()).metrics


def test_a_rewarder_pays_tokens_where_the_estimator_credits_them() -> None:
  runtime = runtime_of()
  learner = rl_learner(runtime.config)
  plain_reward, early = (
    one_step(runtime, chosen) for chosen in (learner, dataclasses.replace(learner, rewarder=REWARDER))
  )
  assert 0.1 <= early["rewards/early/mean"] <= 0.4 and "rewards/early/mean" not in plain_reward
  assert early["reward"] == plain_reward["reward"]  # the outcome is the verifier's
  assert early["grad_norm"] != plain_reward["grad_norm"]


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_a_reward_of_tokens_is_never_summed_away(kind) -> None:
  runtime = runtime_of(kind)
  learner = dataclasses.replace(rl_learner(runtime.config), rewarder=REWARDER)
  with pytest.raises(ValueError, match=rf"^rl\.advantage\.kind: {kind} credits whole completions .*gae"):
    one_step(runtime, learner)


def test_an_answerer_chooses_the_shortest_of_three() -> None:
  runtime = runtime_of()
  cfg = dataclasses.replace(runtime.config.eval, samples=2)
  problems = runtime.task.held_out[:8]

  def shortest(problems, responses) -> np.ndarray:
    return -responses.lengths

  with setup.in_mesh(runtime):
    params = setup.initial_params(runtime)
    answerer = best_of(plain(runtime, cfg), 3, shortest)
    key = stream_key(0, "eval", 1)
    six, flops_of_six = plain(runtime, cfg)(params, problems, Budget(6, 12), key)
    chosen, flops = answerer(params, problems, Budget(2, 12), key)
    graded = sample_and_grade(runtime, params, problems, cfg, 1, answerer)
  np.testing.assert_array_equal(chosen.lengths, six.lengths.reshape(-1, 3).min(1))
  assert flops.useful == flops_of_six.useful > 0 and flops.extra_samples == 8 * 4
  assert graded.correct.shape == (8, 2) and graded.length.reshape(-1).tolist() == chosen.lengths.tolist()


@dataclasses.dataclass(frozen=True)
class Lenient:
  """An environment that asks the task's question and takes any response that is not empty."""

  task: object

  def start(self, problem: Problem) -> str:
    return SingleTurn(self.task).start(problem)

  def step(self, problems: Sequence[Problem], responses: Sequence[Sequence[str]]) -> list[Turn]:
    return [Turn("", True, Verdict(float(bool(r[-1])), bool(r[-1]), r[-1])) for r in responses]


class Impatient(Lenient):
  """One that asks for another turn."""

  def step(self, problems: Sequence[Problem], responses: Sequence[Sequence[str]]) -> list[Turn]:
    return [Turn("Check your answer.", False, None) for _ in responses]


def test_an_environment_gives_the_verdicts() -> None:
  runtime = dataclasses.replace(runtime_of(), env_of=Lenient)
  assert one_step(runtime, rl_learner(runtime.config))["accuracy"] > 0.9
  with pytest.raises(ValueError, match="asks for another turn"):
    one_step(dataclasses.replace(runtime, env_of=Impatient), rl_learner(runtime.config))


def shortest_of_each(runtime: setup.Runtime, graded: Graded) -> list[tuple[list[int], list[int]]]:
  """A Relabel: the shortest completion of each problem is imitated."""
  encode, eos = runtime.task.tokenizer.encode, runtime.task.stop_tokens[0]
  return [
    (encode(runtime.env.start(problem)), [*encode(texts[int(np.argmin(length))]), eos])
    for problem, texts, length in zip(graded.problems, graded.texts, graded.length)
  ]


def test_relabelled_completions_are_imitated() -> None:
  runtime = runtime_of()
  config, learner = runtime.config, sft_learner(runtime.config, 30)
  with setup.in_mesh(runtime):
    params = setup.initial_params(runtime)
    graded = sample_and_grade(runtime, params, runtime.task.held_out[:8], config.eval, 1)
    experience, packed = pack(shortest_of_each(runtime, graded), config.sft.rows, config.sft.length)
    assert packed == 8
    state, losses = setup.fresh_state(runtime, learner, params), []
    for step in range(1, 31):
      batch, key = put_rows(experience, runtime.mesh), stream_key(0, "sft", step)
      strengths = hyperparams(config, learner, step)
      state, stats = run_epochs(state, batch, key, strengths, learner=learner)
      losses.append(resolve_stats(stats)["nll"])
  assert losses[-1] < losses[0]
