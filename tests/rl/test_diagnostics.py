"""What a diagnosis says of a state, against brute force: full logits, one group at a time, and numbers by hand."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o1jax.config import CountdownConfig, CovConfig, KLConfig, LossConfig, ModelConfig, RLConfig, TrainConfig
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl import diagnostics
from o1jax.rl.diagnostics import examine
from o1jax.rl.draw import stream_key
from o1jax.rl.experience import prompt_batch
from o1jax.rl.flops import examined_passes
from o1jax.rl.generate import generate
from o1jax.rl.learner import (
  Learner,
  compiled_epochs,
  first_state,
  gradients,
  hyperparams,
  rl_learner,
  run_epochs,
)
from o1jax.rl.losses import POLICY_LOSSES, global_norms
from o1jax.rl.sampler import SampleConfig
from o1jax.rl.step import LearnerInputs, make_experience
from o1jax.types import Experience, Reward, Rollout, TokenScores, TrainState, resolve_stats

pytestmark = pytest.mark.full

P, G, LP, R, V = 3, 4, 4, 16, 12
MODEL = ModelConfig(width=16, layers=1, heads=2, kv_heads=2, head_dim=8, mlp=16, vocab=V)
DECODER = Decoder(MODEL)
KEY = stream_key(5, "minibatch", 1)
TEMPERATURE = 0.8
REWARD = np.float32([[1, 0, 0, 1], [0, 0, 1, 0], [1, 1, 0, 1]])
CLIPS = LossConfig("ppo_clip", clip_low=0.02, clip_high=0.03)
look = jax.jit(examine, static_argnames=("learner", "barrier"))


def run_of(**options) -> TrainConfig:
  rl = RLConfig(
    steps=5, prompts=P, samples=G, max_prompt=LP, max_tokens=R, pad_multiple=0, temperature=TEMPERATURE
  )
  run = TrainConfig("test", MODEL, CountdownConfig(), rl=dataclasses.replace(rl, **options))
  run.validate()
  return run


@functools.cache
def policy(seed: int):
  params = nn.meta.unbox(jax.jit(functools.partial(init_params, DECODER))(jax.random.key(seed)))
  return jax.tree.map(lambda a: 2.0 * a, params)


@functools.cache
def rolled():
  """Prompts of 2 to 4 tokens, and completions that stop where they draw one of two tokens."""
  prompts = [[3, 4], [5, 6, 7], [8, 3, 9, 10]]
  batch = prompt_batch(prompts, [1, 2, 3], ["a", "b", "c"], LP)
  strengths = hyperparams(run_of(), rl_learner(run_of()), 1)
  return generate(
    policy(0), batch, stream_key(5, "train", 1), strengths["temperature"], model=DECODER, samples=G, cfg=SampleConfig(R, (1, 2))
  )  # fmt: skip


learner_of = functools.cache(rl_learner)  # a learner made twice would be compiled for twice


def begin(run: TrainConfig) -> tuple[Learner, TrainState]:
  return learner_of(run), first_state(learner_of(run), policy(0))


@functools.cache
def examined(run: TrainConfig) -> dict[str, float]:
  learner, state = begin(run)
  inputs = LearnerInputs(rolled(), Reward(REWARD), None, KEY, hyperparams(run, learner, 1))
  told = look(state, policy(1), inputs, learner=learner)
  return {name: float(value) for name, value in told.items()}


@functools.cache
def experience_of(run: TrainConfig) -> Experience:
  learner, state = begin(run)
  at = hyperparams(run, learner, 1)
  inputs = LearnerInputs(rolled(), Reward(REWARD), None, KEY, at)
  return make_experience(state, inputs, learner=learner)[0]


def log_probs(params) -> np.ndarray:
  """f64[B, L, V] of the token at each column, from a forward pass over whole rows; nothing precedes the first."""
  segment = rolled().valid.astype(jnp.int32)
  position = jnp.maximum(jnp.cumsum(segment, 1) - 1, 0)
  hidden, _ = DECODER.apply({"params": params}, rolled().tokens, segment, position)
  logits = np.asarray(DECODER.apply({"params": params}, hidden, method="head"), np.float64) / TEMPERATURE
  logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return np.concatenate([np.zeros_like(logp[:, :1]), logp[:, :-1]], 1)


@functools.cache
def stepped(run: TrainConfig) -> TrainState:
  """The state after the step that the diagnosis takes and forgets."""
  learner, state = begin(run)
  copy = jax.tree.map(jnp.copy, state)
  at = hyperparams(run, learner, 1)
  return run_epochs(copy, experience_of(run), KEY, at, learner=learner)[0]


def test_exact_kls_by_brute_force() -> None:
  run = run_of()
  told, mask = examined(run), np.asarray(rolled().is_action)
  now, first, after = (log_probs(params) for params in (policy(0), policy(1), stepped(run).params))
  reverse = (np.exp(now) * (now - first)).sum(-1)
  forward = (np.exp(first) * (first - now)).sum(-1)
  moved = (np.exp(now) * (now - after)).sum(-1)
  assert told["kl_reverse"] == pytest.approx(reverse[mask].mean(), rel=1e-4)
  assert told["kl_forward"] == pytest.approx(forward[mask].mean(), rel=1e-4)
  assert told["kl_of_step"] == pytest.approx(
    moved[mask].mean(), rel=2e-2, abs=1e-7
  )  # a difference of like numbers
  whole = np.where(mask, reverse, 0).sum(1).mean()
  assert told["kl_sequence"] == pytest.approx(whole, rel=1e-4)
  assert whole == pytest.approx(told["kl_reverse"] * mask.sum() / len(mask), rel=1e-4)


def test_entropy_by_position() -> None:
  told, mask = examined(run_of()), np.asarray(rolled().is_action)
  logp = log_probs(policy(0))
  entropy = -(np.exp(logp) * logp).sum(-1)
  bins = sorted(name for name in told if name.startswith("entropy_at/"))
  assert bins == [f"entropy_at/{first:03d}" for first in range(0, R, R // 8)]
  for name in bins:
    columns = slice(LP + int(name[-3:]), LP + int(name[-3:]) + R // 8)
    held = mask[:, columns]
    expected = entropy[:, columns][held].mean() if held.any() else np.nan
    assert told[name] == pytest.approx(expected, rel=1e-4, nan_ok=True)


def test_ess_and_clipped_shares_by_hand() -> None:
  # Ratios 1, 2 and 1 on three actions: (1 + 2 + 1)^2 / (3 (1 + 4 + 1)) = 16 / 18. Of the two tokens with A > 0 the one
  # at 2 lies above 1.5; the one with A < 0 lies at 1, above 0.5.
  run = run_of(loss=LossConfig("ppo_clip", clip_low=0.5, clip_high=0.5), epochs=2)
  learner = rl_learner(run)
  action = np.array([[False, True, True, True, False]])
  zero, none = np.zeros((1, 5), np.float32), np.zeros((1, 5), np.int32)
  advantage = np.float32([[0, 1, 1, -1, 0]])
  held = Experience(none, none, none, action, zero, zero, advantage, zero)
  new = np.log(np.float32([[9, 1, 2, 1, 9]]))
  strengths = hyperparams(run, learner, 1)
  told = diagnostics._moved(new, held, strengths, learner)
  assert float(told["ess"]) == pytest.approx(16 / 18)
  assert float(told["clipped/positive"]) == 0.5 and float(told["clipped/negative"]) == 0.0
  low = diagnostics._moved(np.log(np.float32([[9, 1, 1, 0.4, 9]])), held, strengths, learner)
  assert float(low["clipped/positive"]) == 0.0 and float(low["clipped/negative"]) == 1.0
  none = diagnostics._moved(new, held.replace(advantage=-abs(advantage)), strengths, learner)
  assert np.isnan(none["clipped/positive"]) and float(none["clipped/negative"]) == 0.0
  nothing = diagnostics._moved(new, held.replace(is_action=np.zeros_like(action)), strengths, learner)
  assert np.isnan(nothing["ess"]) and np.isnan(nothing["clipped/negative"])


CUTS = {
  "ppo_clip": CLIPS,
  "dual_clip": dataclasses.replace(CLIPS, kind="dual_clip", dual_clip=1.04),
  "cispo": LossConfig("cispo", clip_high=0.03),
  "gspo": LossConfig("gspo", clip_low=3e-4, clip_high=4e-4),
  "rloo": LossConfig("rloo", "seq_mean_token_mean", clip_low=0.02, clip_high=0.03),
}


@pytest.mark.parametrize("kind", CUTS)
def test_what_is_called_clipped_is_what_the_loss_clips(kind) -> None:
  # Tokens moved by +-0.05, so that a completion's mean and sum are nearly those it had.
  run = run_of(loss=CUTS[kind], epochs=2)
  learner, rows, tokens = rl_learner(run), P * G, LP + R
  action = np.broadcast_to(np.arange(tokens) >= LP, (rows, tokens))
  logp = np.where(action, np.log(0.3), 0.0).astype(np.float32)
  moved = logp + np.where(action, 0.05 * (-1.0) ** np.arange(tokens), 0.0).astype(np.float32)
  moved[::4, LP] += 0.4  # but for some completions, which the ratio of all their tokens moves too
  advantage = np.where(action, (-1.0) ** np.arange(rows)[:, None], 0.0).astype(np.float32)
  zero = np.zeros((rows, tokens), np.int32)
  experience = Experience(zero, zero, zero, action, logp, logp, advantage, action.astype(np.float32))
  at = hyperparams(run, learner, 1)
  told = diagnostics._moved(moved, experience, at, learner)
  (term,) = [term for term in learner.terms if term.name == "policy"]
  norms = global_norms(experience, R, 1)
  stats = resolve_stats(term.apply(TokenScores(moved), experience, at, norms)[1])
  both = (float(told["clipped/positive"]) + float(told["clipped/negative"])) / 2  # half of the rows each
  cut = stats["clip_ratio/region_mean"] + stats.get("clip_ratio/dual_mean", 0.0)
  assert both == pytest.approx(cut, abs=1e-6) and 0 < both < 1


def test_dual_clip_counts_its_own_cut() -> None:
  run = run_of(loss=dataclasses.replace(CLIPS, kind="dual_clip", dual_clip=3.0), epochs=2)
  log_ratio, advantage = np.log(np.float32([[4, 2, 1]])), np.float32([[-1, -1, -1]])
  low, high, dual = POLICY_LOSSES["dual_clip"].fn(
    log_ratio, log_ratio, advantage, hyperparams(run, rl_learner(run), 1), run.rl.loss
  )[1]
  assert dual.tolist() == [[True, False, False]] and not low.any() and not high.any()


@pytest.mark.full
def test_the_step_that_is_looked_at_moves_ratios_as_the_real_one() -> None:
  run = run_of(loss=CLIPS, epochs=2)
  told, experience = examined(run), experience_of(run)
  logp = np.take_along_axis(log_probs(stepped(run).params), np.asarray(rolled().tokens)[:, :, None], -1)[
    ..., 0
  ]
  ratio = np.exp(logp - np.asarray(experience.logp_old))
  mask, advantage = np.asarray(experience.is_action), np.asarray(experience.advantage)
  held = ratio[mask]
  assert told["ess"] == pytest.approx(held.sum() ** 2 / (len(held) * (held**2).sum()), rel=1e-4)
  assert told["clipped/positive"] == pytest.approx((ratio > 1.03)[mask & (advantage > 0)].mean(), abs=1e-6)
  assert told["clipped/negative"] == pytest.approx((ratio < 0.98)[mask & (advantage < 0)].mean(), abs=1e-6)
  assert told["clipped/positive"] > 0 and told["clipped/negative"] > 0
  assert "clipped/positive" not in examined(run_of())


def test_gradients_by_term() -> None:
  run = run_of(kl=KLConfig(0.1, "k2", reference="ema", ema=0.5), entropy=0.01)
  told = examined(run)
  names = {"policy", "entropy", "kl"}
  assert {name for name in told if name.startswith("grad_norm/")} == {f"grad_norm/{n}" for n in names}
  cosines = {name: value for name, value in told.items() if name.startswith("grad_cosine/")}
  assert cosines.keys() == {"grad_cosine/entropy", "grad_cosine/kl"}
  assert -1 - 1e-6 <= cosines["grad_cosine/entropy"] <= 1 + 1e-6
  assert told["grad_norm/kl"] == 0 and np.isnan(
    cosines["grad_cosine/kl"]
  )  # the policy is its reference still


def test_a_term_that_doubles_the_policys_has_cosine_one() -> None:
  run = run_of()
  learner, state = begin(run)
  (policy_term,) = [term for term in learner.terms if term.name == "policy"]

  def twice(*given):
    share, stats = policy_term.apply(*given)
    return 2 * share, stats

  doubled = dataclasses.replace(policy_term, name="doubled", apply=twice)
  terms = (policy_term, doubled)
  learner = dataclasses.replace(learner, terms=terms)
  by_term = jax.jit(functools.partial(diagnostics._by_term, learner=learner))
  told, _ = by_term(state, experience_of(run), hyperparams(run, learner, 1))
  assert float(told["grad_cosine/doubled"]) == pytest.approx(1.0, abs=1e-6)
  assert float(told["grad_norm/doubled"]) == pytest.approx(2 * float(told["grad_norm/policy"]), rel=1e-6)


def test_gradient_noise_by_brute_force() -> None:
  """Each group's share of the loss is what the others' advantages at 0 leave of it."""
  run = run_of(entropy=0.01)
  (learner, state), told = begin(run), examined(run)
  update = dataclasses.replace(learner, terms=(learner.terms[0],))
  experience, at = experience_of(run), hyperparams(run, learner, 1)
  norms = global_norms(experience, update.max_tokens)
  of = jax.jit(lambda e: gradients(state.params, None, e, at, norms, learner=update)[1])
  owner = np.arange(P * G)[:, None] // G
  flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)
  alone = lambda p: experience.replace(advantage=jnp.where(owner == p, experience.advantage, 0.0))
  groups = np.stack([P * flat(of(alone(p))) for p in range(P)])
  mean = flat(of(experience))
  np.testing.assert_allclose(groups.mean(0), mean, atol=1e-6 * np.abs(mean).max() * 10)
  trace = groups.var(0, ddof=1).sum() / P
  assert told["grad_noise/trace"] == pytest.approx(trace, rel=1e-4)
  assert told["grad_noise/signal"] == pytest.approx(max((mean**2).sum() - trace, 0.0), rel=1e-4, abs=1e-7)
  assert told["grad_noise/scale"] == pytest.approx(trace / (mean**2).sum(), rel=1e-4)
  assert told["grad_norm/policy"] == pytest.approx(float(optax.tree.norm(of(experience))), rel=1e-5)
  split = examined(
    run_of(entropy=0.01, micro_batches=3)
  )  # micro-batches are of the step, not of the estimate
  for name in ("trace", "signal", "scale"):
    assert split[f"grad_noise/{name}"] == pytest.approx(told[f"grad_noise/{name}"], rel=1e-4, abs=1e-7)


def test_the_trace_is_the_variance_of_the_batchs_gradient() -> None:
  """Over batches of P independent groups the estimates average to the variance of the mean that was seen."""
  rng = np.random.default_rng(0)
  groups = rng.normal(1.0, 2.0, (4000, P, 5))
  means = groups.mean(1)
  estimates = ((groups - means[:, None]) ** 2).sum((1, 2)) / (P * (P - 1))
  assert estimates.mean() == pytest.approx(means.var(0).sum(), rel=0.05)
  assert ((means**2).sum(1) - estimates).mean() == pytest.approx(5.0, rel=0.05)  # |E g|^2 of five ones


def test_one_group_has_no_noise_to_tell() -> None:
  run = run_of(prompts=1)
  learner, state = begin(run)
  one = jax.tree.map(lambda a: a[:G], rolled())
  inputs = LearnerInputs(one, Reward(REWARD[:1]), None, KEY, hyperparams(run, learner, 1))
  told = look(state, policy(1), inputs, learner=learner)
  assert not [name for name in told if name.startswith("grad_noise/")]
  assert examined_passes(learner) + 3 == examined_passes(
    dataclasses.replace(learner, cfg=rl_learner(run_of()).cfg)
  )


@pytest.mark.full
@pytest.mark.parametrize(
  "cov",
  [
    pytest.param(CovConfig("clip_cov", fraction=0.2, low=-9.0, high=9.0), id="clip_cov"),
    pytest.param(CovConfig("kl_cov", fraction=0.2, coef=1.0), id="kl_cov", marks=pytest.mark.slow),
  ],
)
def test_held_back_tokens_are_those_of_the_step(cov) -> None:
  run = run_of(cov=cov, loss=CLIPS, epochs=2)
  told = examined(run)
  left_out = ("entropy_at/", "grad_cosine/entropy")  # of positions that no response reaches, and of no bonus
  reached = {name: value for name, value in told.items() if not name.startswith(left_out)}
  assert np.isfinite(list(reached.values())).all() and told["grad_norm/policy"] > 0


def test_a_diagnosis_leaves_the_state_as_it_is() -> None:
  run = run_of(kl=KLConfig(0.1, "k2", reference="ema", ema=0.5), entropy=0.01)
  learner, state = begin(run)
  before = jax.tree.map(lambda a: np.array(a), state)
  at = hyperparams(run, learner, 1)
  given = (policy(1), LearnerInputs(rolled(), Reward(REWARD), None, KEY, at))
  first, again = (look(state, *given, learner=learner) for _ in range(2))
  assert jax.tree.all(jax.tree.map(np.array_equal, before, state))
  jax.tree.map(np.testing.assert_array_equal, first, again)  # NaN where nothing was measured


@pytest.mark.full
@pytest.mark.parametrize(
  "vocab,mlp,response", [(2048, 256, 8), (64, 64, 96)], ids=["parameters", "activations"]
)
def test_a_diagnosis_peaks_about_where_its_step_does(monkeypatch, vocab, mlp, response) -> None:
  """Bytes alive and bytes worked in, at once, with a KL and an entropy term: at most 1.2 times those of `learn`."""
  model = ModelConfig(width=64, layers=2, heads=2, kv_heads=2, head_dim=16, mlp=mlp, vocab=vocab)
  rl = RLConfig(5, prompts=4, samples=2, max_prompt=8, max_tokens=response, kl=KLConfig(0.1), entropy=0.01)
  run, decoder = TrainConfig("test", model, CountdownConfig(), rl=rl), Decoder(model)
  learner, rows = rl_learner(run), (8, 8 + response)
  before = alive()
  params = jax.jit(lambda key: nn.meta.unbox(init_params(decoder, key)))(KEY)
  state = jax.jit(first_state, static_argnums=0, donate_argnums=1)(learner, params)
  del params
  actions = np.broadcast_to(np.arange(8 + response) >= 8, rows)
  tokens = np.random.default_rng(0).integers(0, vocab, rows).astype(np.int32)
  rollout = Rollout(
    tokens, np.ones(rows, bool), actions, -5.0 * actions.astype(np.float32), np.ones(8, bool), 8
  )
  given = (rollout, Reward(np.float32([[1, 0], [0, 1], [1, 1], [0, 0]])), None)
  at, peaks = hyperparams(run, learner, 1), []

  def watched(program):
    def call(*args, **static):
      if isinstance(jax.tree.leaves(args)[0], jax.core.Tracer):
        return program(*args, **static)
      used = program.lower(*args, **static).compile().memory_analysis()
      made = used.temp_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes
      peaks.append(alive() - before + made)
      return program(*args, **static)

    return call

  for name in ("_scores", "_stepped", "_gradient", "_norm", "_norm_and_product", "_noise"):
    monkeypatch.setattr(diagnostics, name, watched(getattr(diagnostics, name)))
  inputs = LearnerInputs(*given, KEY, at)
  examine(state, state.ref_params, inputs, learner=learner)
  diagnosed = max(peaks)
  assert len(peaks) == 8
  experience = make_experience(state, inputs, learner=learner)[0]
  watched(compiled_epochs(state))(state, experience, KEY, at, learner=learner)
  assert diagnosed <= 1.2 * peaks[-1]


def alive() -> int:
  """Bytes of all arrays that are held."""
  return sum(array.nbytes for array in jax.live_arrays())
