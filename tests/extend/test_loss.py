"""A loss term with a coefficient costs two source files: a field of its config class, and an entry of `TERMS`.

The field's declaration is all that hyperparameters, static configuration and active terms of a population know of it.
A policy loss costs one: an entry of `POLICY_LOSSES` (and its word among the kinds that the command line offers).
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from o1jax.config import (
  CountdownConfig,
  DiagnosticsConfig,
  EvalConfig,
  LossConfig,
  ModelConfig,
  RLConfig,
  TrainConfig,
  active_terms,
  host,
  static_config,
  traced,
)
from o1jax.rl.learner import hyperparams, rl_learner
from o1jax.rl.losses import AGGREGATIONS, POLICY_LOSSES, TERMS, PolicyLoss, Term
from o1jax.rollout import setup
from o1jax.rollout.record import Progress
from o1jax.train import RLInputs, rl_step

# The first file: a coefficient, declared once; and an option that the host alone reads.


@dataclasses.dataclass(frozen=True)
class ConfidentRL(RLConfig):
  confidence: float = traced(0.0, term="confidence")  # coefficient of the squared log-probs
  note: str = host("")


# The second file: the term.


def confidence_term(cfg: RLConfig, segments: int, dtype: str) -> Term:
  """coefficient * lp^2, aggregated as the policy loss."""
  aggregate = AGGREGATIONS[cfg.loss.aggregation]

  def apply(scores, experience, hyperparams, norms):
    share = aggregate(scores.logp**2 * experience.weight, experience, norms, segments)
    return hyperparams["confidence"] * share, {}

  return Term("confidence", frozenset(), apply)


def positive_only(log_ratio, logp, advantage, hyperparams, cfg):
  """-max(A, 0) lp: what went worse than the baseline is not pushed away."""
  return -jnp.maximum(advantage, 0.0) * logp, None


def config_of(rl: type[RLConfig] = RLConfig, **options) -> TrainConfig:
  return TrainConfig(
    name="tiny",
    model=ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32),
    task=CountdownConfig(count=2, max_number=6, max_value=12, held_out=8, max_tries=2),
    rl=rl(steps=2, prompts=8, samples=4, max_prompt=5, max_tokens=12, **options),
    diagnostics=DiagnosticsConfig(every=0),
    eval=EvalConfig(final_problems=8, samples=2, batch=8, max_tokens=12),
  )


def one_step(config: TrainConfig) -> dict[str, float]:
  """The metrics of the first RL step; rewards are those of a policy that is random still, made to differ."""
  runtime = setup.prepare(config, jax.devices()[:1])

  def reward(params, batch, *, model):
    first = batch.rollout.tokens[:, config.rl.max_prompt] % 3
    return dataclasses.replace(
      plain.rewarder.reward(params, batch, model=model), outcome=first.reshape(8, 4) * 1.0
    )

  plain = rl_learner(runtime.config)
  learner = dataclasses.replace(plain, rewarder=dataclasses.replace(plain.rewarder, reward=reward))
  with setup.in_mesh(runtime):
    state = setup.fresh_state(runtime, learner, None)
    return rl_step(runtime, learner, state, 1, Progress(), begun=RLInputs()).metrics


def test_a_declared_coefficient_is_known_everywhere(monkeypatch) -> None:
  monkeypatch.setitem(TERMS, "confidence", confidence_term)
  weak, strong = (config_of(ConfidentRL, confidence=number, note="x") for number in (0.0, 0.5))
  numbers = hyperparams(strong, rl_learner(strong), 1)
  assert numbers["confidence"] == 0.5 and "note" not in numbers
  assert static_config(strong.rl) == static_config(weak.rl) == static_config(config_of(ConfidentRL).rl)
  assert active_terms([weak.rl]) == frozenset() and active_terms([weak.rl, strong.rl]) == {"confidence"}
  assert "confidence" not in {term.name for term in rl_learner(weak).terms}
  # In a population the term stays though this member's coefficient is 0.
  kept = rl_learner(weak, active_terms([weak.rl, strong.rl]))
  assert "confidence" in {term.name for term in kept.terms}
  assert hyperparams(weak, kept, 1)["confidence"] == 0.0


def test_a_loss_term_trains(monkeypatch) -> None:
  monkeypatch.setitem(TERMS, "confidence", confidence_term)
  without, with_term = one_step(config_of(ConfidentRL)), one_step(config_of(ConfidentRL, confidence=0.5))
  assert with_term["loss/confidence"] > 0 and "loss/confidence" not in without
  assert with_term["reward"] == without["reward"]
  assert with_term["grad_norm"] != pytest.approx(without["grad_norm"], rel=1e-3)


def test_a_policy_loss_trains(monkeypatch) -> None:
  monkeypatch.setitem(POLICY_LOSSES, "positive_only", PolicyLoss(positive_only))
  usual, own = one_step(config_of()), one_step(config_of(loss=LossConfig("positive_only")))  # type: ignore[arg-type]
  assert own["loss/policy"] > 0
  assert own["grad_norm"] != pytest.approx(usual["grad_norm"], rel=1e-3)
