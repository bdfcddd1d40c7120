"""Every option of the learner changes the gradient it claims to change: one table row an option, and none left out.

`gradient` goes the way of a training step on fixed numbers: reference -> lengths, KL in the reward -> advantage -> weights
-> tokens held back -> objective, with the coefficients of one step of the stage, moved once by their controllers.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import (
  AdvantageConfig,
  CountdownConfig,
  CovConfig,
  CriticConfig,
  ImportanceConfig,
  KLConfig,
  LossConfig,
  ModelConfig,
  OptimConfig,
  OverlongConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.rl.experience import credit_and_experience
from o1jax.rl.learner import (
  apply_controllers,
  first_state,
  hyperparams,
  masked_experience,
  rl_learner,
  run_epochs,
)
from o1jax.rl.losses import global_norms, objective
from o1jax.rl.regularisers import is_reset
from o1jax.rl.regularisers import moved as moved_coefficients
from o1jax.rl.scoring import Packed
from o1jax.types import Experience, Rollout, TokenScores

MODEL = ModelConfig(width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8, vocab=8)
CENTRED = AdvantageConfig("dr_grpo")  # of two samples, grpo tells the signs alone
REWARD = np.float32([[1.0, 0.25], [0.0, 0.75]])
STEP = 6  # the training step after which the reference may have moved
EARLY = 4  # the one whose coefficients are in force: linear and cosine schedules meet halfway


def numbers() -> tuple[Rollout, TokenScores, np.ndarray, np.ndarray]:
  """A rollout of 2 x 2 completions of 1 to 4 tokens, the learner's scores, the reference's log-probs, the old values."""
  rng = np.random.default_rng(2)
  column = np.arange(8) - 2
  valid = column < np.array([[4], [1], [3], [2]])
  action = valid & (column >= 0)
  draw = lambda scale: np.where(action, rng.normal(0, scale, action.shape), 0.0).astype(np.float32)
  sampler = -np.abs(draw(1.0))
  scores = TokenScores(sampler + draw(0.5), *(np.abs(draw(1.0)) for _ in range(3)))
  finished = np.array([False, True, True, True])
  rollout = Rollout(np.zeros(action.shape, np.int32), valid, action, sampler, finished, 2)
  logp_ref, value = sampler + draw(0.5), draw(0.5)
  return rollout, scores.replace(value=value + draw(0.5)), logp_ref, value


def config(loss=LossConfig(), advantage=CENTRED, **changes) -> RLConfig:
  epochs = 1 if loss.kind == "reinforce" else 2  # without a ratio there is one step a rollout
  fields = dict(steps=10, prompts=2, samples=2, max_tokens=4, epochs=epochs, loss=loss, advantage=advantage)
  return RLConfig(**{**fields, **changes})


def run_of(cfg: RLConfig) -> TrainConfig:
  run = TrainConfig("test", MODEL, CountdownConfig(), rl=cfg)
  run.validate()
  return run


@functools.cache
def gradient(cfg: RLConfig) -> np.ndarray:
  """d loss / d(log-probs, entropies, exact KLs), flat."""
  learner = rl_learner(run_of(cfg))
  strengths = hyperparams(run_of(cfg), learner, EARLY)
  rollout, scores, logp_ref, value = numbers()
  value = None if cfg.critic.kind == "none" else value
  if learner.reference is not None:
    logp_ref = learner.reference(scores.logp, logp_ref, jnp.int32(STEP), strengths)
  logp_old = {"sampler": rollout.logp_sampler, "learner": scores.logp}[cfg.loss.logp_old]
  greedy, loss_of = np.float32([0.5, 0.25]), objective(learner.terms)

  def evaluated(strengths):
    with jax.disable_jit():
      given = (rollout, REWARD, greedy, logp_old, logp_ref, strengths["kl.coef"], value)
      experience, _ = credit_and_experience(*given, cfg=cfg)
    experience = masked_experience(experience, jax.random.key(0), learner)
    norms = global_norms(experience, learner.max_tokens)
    return jax.grad(loss_of, has_aux=True)(scores, experience, strengths, norms)

  grads, stats = evaluated(strengths)
  if learner.controllers:
    start = {c.name: jnp.float32(c.start) for c in learner.controllers}
    grads, _ = evaluated(
      apply_controllers(strengths, moved_coefficients(learner.controllers, start, stats, 4))
    )
  flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])
  assert np.isfinite(flat).all()
  return flat


def differ(left: np.ndarray, right: np.ndarray) -> bool:
  return bool(np.linalg.norm(left - right) > 1e-3 * np.linalg.norm(left))


# Options with many values: every value against every other

CLIP = {"clip_low": 0.2, "clip_high": 0.3}
WIDE = {"clip_low": 0.999, "clip_high": 99.0}  # bounds that no ratio meets
FREE = LossConfig("ppo_clip", **WIDE)
SEQ = "seq_mean_token_mean"
KINDS = [LossConfig("reinforce", SEQ), LossConfig("sapo", SEQ), LossConfig("cispo", SEQ, clip_high=0.3)]
KINDS += [LossConfig("dual_clip", SEQ, dual_clip=1.4, **CLIP)]
KINDS += [LossConfig(kind, SEQ, **CLIP) for kind in ("ppo_clip", "gspo", "rloo")]
ESTIMATORS = ("grpo", "dr_grpo", "rloo", "reinforce", "reinforce++", "remax", "opo", "maxrl", "pass@k")


def critic(**options) -> RLConfig:
  return config(FREE, AdvantageConfig("gae"), critic=CriticConfig("head", **options))


SAMPLED = KLConfig(0.25, "k3")
MOVING = [SAMPLED, KLConfig(0.25, "k3", reference="ema", ema=0.5)]
MOVING += [KLConfig(0.25, "k3", reference="reset", reset_every=3)]
CLIP_COV = CovConfig("clip_cov", fraction=0.2, low=-9.0, high=9.0)
WINDOW = CovConfig("clip_cov", fraction=1.0, low=-0.05, high=0.05)
KL_COV = CovConfig("kl_cov", fraction=0.2, coef=0.5)
VALUES = {
  "loss.kind": [config(kind) for kind in KINDS],
  "loss.aggregation": [config(LossConfig("reinforce", a)) for a in ("token_mean", SEQ, "dr_grpo")],
  "advantage.kind": [config(advantage=AdvantageConfig(kind)) for kind in ESTIMATORS] + [critic()],
  "kl.estimator": [
    config(kl=KLConfig(0.25, e, times_ratio=e == "k1")) for e in ("k1", "k2", "k3", "reverse", "forward")
  ],
  "kl.reference": [config(kl=kl) for kl in MOVING],
  "kl.schedule": [
    config(kl=dataclasses.replace(SAMPLED, schedule=s)) for s in ("constant", "linear", "cosine")
  ],
  "cov.kind": [config(FREE, cov=cov) for cov in (CovConfig(), CLIP_COV, KL_COV)],
}


@pytest.mark.parametrize("option", VALUES)
def test_every_value_has_its_own_gradient(option) -> None:
  gradients = [gradient(cfg) for cfg in VALUES[option]]
  for left, right in itertools.combinations(gradients, 2):
    assert differ(left, right)


# Options with a strength or a switch: one value against another

ON = AdvantageConfig("reinforce++", group_baseline=True)
PAID = KLConfig(0.25, "k3", placement="reward")
TIMES = KLConfig(0.25, "k3", times_ratio=True)
LINEAR = dataclasses.replace(SAMPLED, schedule="linear")
ADAPTIVE = dataclasses.replace(SAMPLED, target=0.15, horizon=8)
BONUS = dict(entropy=0.1, entropy_target=9.0, entropy_rate=0.1)
BUFFER = OverlongConfig(buffer=2)
LEARNER = LossConfig("ppo_clip", logp_old="learner", **CLIP)
CAPPED = ImportanceConfig(1.1)
PAIRS = {
  f"loss.{name} of {kind}": (
    config(LossConfig(kind, SEQ, **WIDE, **more)),
    config(LossConfig(kind, SEQ, **{**WIDE, name: 0.05}, **more)),
  )
  for kind, more in {"ppo_clip": {}, "dual_clip": {"dual_clip": 3.0}, "gspo": {}, "rloo": {}}.items()
  for name in CLIP
}
PAIRS |= {
  "loss.clip_high of cispo": tuple(config(LossConfig("cispo", clip_high=high)) for high in (0.1, 0.3)),
  "loss.dual_clip": tuple(config(LossConfig("dual_clip", dual_clip=dual, **CLIP)) for dual in (1.4, 8.0)),
  "loss.logp_old": tuple(
    config(LossConfig("ppo_clip", logp_old=old, **CLIP)) for old in ("sampler", "learner")
  ),
  "advantage.ddof": tuple(config(advantage=AdvantageConfig(ddof=ddof)) for ddof in (0, 1)),
  "advantage.eps": tuple(config(advantage=AdvantageConfig(eps=eps)) for eps in (1e-4, 0.1)),
  "advantage.min_std": tuple(config(advantage=AdvantageConfig(min_std=floor)) for floor in (0.0, 0.9)),
  "advantage.group_baseline": (config(advantage=AdvantageConfig("reinforce++")), config(advantage=ON)),
  "kl.coef": (config(kl=SAMPLED), config(kl=KLConfig(0.5, "k3"))),
  "kl.coef in the reward": (config(kl=PAID), config(kl=dataclasses.replace(PAID, coef=0.5))),
  "kl.estimator in the reward": (config(kl=PAID), config(kl=dataclasses.replace(PAID, estimator="k1"))),
  "kl.placement": (config(kl=SAMPLED), config(kl=PAID)),
  "kl.times_ratio": (config(kl=SAMPLED), config(kl=TIMES)),
  "kl.ema": (config(kl=MOVING[1]), config(kl=dataclasses.replace(MOVING[1], ema=0.1))),
  "kl.reset_every": (config(kl=MOVING[2]), config(kl=dataclasses.replace(MOVING[2], reset_every=4))),
  "kl.final_fraction": (config(kl=LINEAR), config(kl=dataclasses.replace(LINEAR, final_fraction=0.5))),
  "kl.target": (config(kl=ADAPTIVE), config(kl=dataclasses.replace(ADAPTIVE, target=5.0))),
  "kl.target at all": (config(kl=ADAPTIVE), config(kl=SAMPLED)),
  "kl.horizon": (config(kl=ADAPTIVE), config(kl=dataclasses.replace(ADAPTIVE, horizon=80))),
  "kl.target in the reward": tuple(
    config(kl=dataclasses.replace(ADAPTIVE, placement="reward", target=target)) for target in (0.15, 5.0)
  ),
  "entropy": (config(), config(entropy=0.1)),
  "entropy_target": (config(**BONUS), config(**{**BONUS, "entropy_target": 0.1})),
  "entropy_rate": (config(**BONUS), config(**{**BONUS, "entropy_rate": 0.2})),
  "cov.fraction of clip_cov": (config(cov=CLIP_COV), config(cov=dataclasses.replace(CLIP_COV, fraction=0.5))),
  "cov.fraction": (config(FREE, cov=KL_COV), config(FREE, cov=dataclasses.replace(KL_COV, fraction=0.5))),
  "cov.low": (config(cov=WINDOW), config(cov=dataclasses.replace(WINDOW, low=-9.0))),
  "cov.high": (config(cov=WINDOW), config(cov=dataclasses.replace(WINDOW, high=9.0))),
  "cov.coef": (config(FREE, cov=KL_COV), config(FREE, cov=dataclasses.replace(KL_COV, coef=1.0))),
  "overlong.buffer": (config(), config(overlong=BUFFER)),
  "overlong.penalty": (config(overlong=BUFFER), config(overlong=dataclasses.replace(BUFFER, penalty=0.5))),
  "overlong.truncation_penalty": (config(), config(overlong=OverlongConfig(truncation_penalty=-1.0))),
  "overlong.mask": (config(), config(overlong=OverlongConfig(mask=True))),
  "importance.cap": (config(LEARNER), config(LEARNER, importance=CAPPED)),
  "importance.level": tuple(
    config(LEARNER, importance=ImportanceConfig(1.1, s)) for s in ("token", "sequence")
  ),
  "importance.mode": tuple(
    config(LEARNER, importance=dataclasses.replace(CAPPED, mode=mode)) for mode in ("clamp", "mask")
  ),
  "critic.coef": (critic(), critic(coef=0.4)),
  "critic.clip": (critic(), critic(clip=0.2)),
  "critic.gamma": (critic(), critic(gamma=0.9)),
  "critic.lam": (critic(), critic(lam=0.9)),
  "critic.whiten": (critic(), critic(whiten=False)),
}


@pytest.mark.parametrize("option", PAIRS)
def test_option_changes_the_gradient(option) -> None:
  left, right = PAIRS[option]
  assert differ(gradient(left), gradient(right))


def test_without_a_clip_the_clipped_losses_are_one() -> None:
  left, right = LossConfig("ppo_clip", **WIDE), LossConfig("dual_clip", dual_clip=99.0, **WIDE)
  np.testing.assert_array_equal(gradient(config(left)), gradient(config(right)))


# The optimiser's moments, which no single gradient shows

LR = 0.3


class Bigram:
  """A language model whose logits are a row of a table, behind the interface that `score` asks of a Decoder."""

  cfg = MODEL

  def apply(self, variables, states, segment=None, position=None, method=None):
    if method == "head":
      return states
    return variables["params"]["table"][states], None


def moved(steps: int, **changes) -> list[np.ndarray]:
  """The parameters' change in each of `steps` training steps on one batch; Adam with a large learning rate."""
  run = run_of(config(epochs=1, optim=OptimConfig(lr=LR, clip_norm=0.0), **changes))
  learner = rl_learner(run)
  learner = dataclasses.replace(learner, model=Bigram(), layout=Packed(), max_tokens=3)
  table = jnp.asarray(np.random.default_rng(0).normal(0, 1, (4, 4)), jnp.float32)
  tokens, whole = np.int32([[0, 1, 2, 3]]), np.ones((1, 4), np.int32)
  action = np.array([[False, True, True, True]])
  weight, advantage = np.float32(action), np.float32([[0.0, 1.0, -2.0, 0.5]])
  experience = Experience(
    tokens, whole, np.arange(4)[None], action, -weight, -weight, advantage, weight, -weight
  )
  state, changes = first_state(learner, {"table": table}), []
  for step in range(1, steps + 1):
    before = np.asarray(state.params["table"])
    told = hyperparams(run, learner, step)
    state, _ = run_epochs(state, experience, jax.random.key(0), told, learner=learner)
    changes.append(np.asarray(state.params["table"]) - before)
  return changes


def test_reset_optimizer_forgets_the_moments() -> None:
  kl = KLConfig(0.25, "k3", reference="reset", reset_every=2)
  kept, cleared = (moved(3, kl=dataclasses.replace(kl, reset_optimizer=clear)) for clear in (False, True))
  # The third step follows a reset. Adam's first step from empty moments is lr * sign(gradient), whatever its size.
  for step in (0, 1):
    np.testing.assert_array_equal(kept[step], cleared[step])
  size = np.abs(cleared[2][:3])
  np.testing.assert_allclose(size, LR, rtol=1e-3)
  assert differ(kept[2], cleared[2])


def test_l2_init_changes_the_second_step() -> None:
  free, held = (moved(2, l2_init=coef) for coef in (0.0, 0.5))
  np.testing.assert_allclose(held[0], free[0], atol=1e-6)  # the first one begins where the pull is to
  assert differ(free[1], held[1])


def test_resets_fall_on_multiples() -> None:
  run = run_of(config(kl=MOVING[2]))
  strengths = hyperparams(run, rl_learner(run), 1)
  assert [step for step in range(1, 10) if is_reset(jnp.int32(step), strengths)] == [3, 6, 9]


def test_no_option_is_left_out() -> None:
  # test_critic shows critic.kind: which parameters the value loss moves. test_dynamic_sampling shows of which groups.
  sections = {"loss": LossConfig, "advantage": AdvantageConfig, "kl": KLConfig}
  sections |= {
    "cov": CovConfig,
    "overlong": OverlongConfig,
    "importance": ImportanceConfig,
    "critic": CriticConfig,
  }
  options = {f"{name}.{field.name}" for name, cls in sections.items() for field in dataclasses.fields(cls)}
  options |= {"entropy", "entropy_target", "entropy_rate", "l2_init", "dynamic_sampling"}
  elsewhere = ("kl.reset_optimizer", "l2_init", "critic.kind", "dynamic_sampling")
  shown = {option.split(" ")[0] for option in (*VALUES, *PAIRS, *elsewhere)}
  assert options <= shown
