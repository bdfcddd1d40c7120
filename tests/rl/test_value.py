"""The critic: advantages and losses by hand, values at the tokens they precede, and which parameters its loss moves."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o1jax.config import (
  AdvantageConfig,
  CountdownConfig,
  CriticConfig,
  KLConfig,
  LossConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.dist.mesh import make_mesh
from o1jax.dist.sharding import RULES, param_shardings, put_rows
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl.advantage import ADVANTAGES
from o1jax.rl.batch import credit_and_experience, token_logp, token_scores
from o1jax.rl.objective import global_norms, objective
from o1jax.rl.score import Grouped, Packed, score
from o1jax.rl.stages import critic_passes, rl_stage, strengths_at
from o1jax.rl.update import REFERENCES, UpdateConfig, init_state, learn, make_optimizer
from o1jax.rl.value import ADD_CRITIC, policy_params, td_sum, with_returns
from o1jax.types import Credit, Experience, Rollout, TokenScores, merge_stats, resolve_stats

P, G, LP, R = 4, 2, 3, 5
MODEL = ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=16, vocab=16)
KEY = jax.random.key(3)
CLIPPED = LossConfig("ppo_clip", clip_low=0.2, clip_high=0.2)
NAN = float("nan")


def run_of(kind="head", kl=KLConfig(), loss=CLIPPED, **critic) -> TrainConfig:
  """A valid run with a critic."""
  rl = RLConfig(
    steps=2, prompts=P, samples=G, max_prompt=LP, max_tokens=R, epochs=2, loss=loss, kl=kl,
    advantage=AdvantageConfig("gae"), critic=CriticConfig(kind, **critic),
  )  # fmt: skip
  run = TrainConfig("test", MODEL, CountdownConfig(), rl=rl)
  run.validate()
  return run


# Advantages


def credit(value, outcome, token=None, action=None, include=True) -> Credit:
  """One completion a prompt: a column of prompt, then `value`, then two of padding; what is no action is NaN."""
  value = np.float32(value)
  action = np.ones(value.shape, bool) if action is None else np.asarray(action)
  wide = lambda a, fill: np.pad(np.where(action, a, fill), [(0, 0), (1, 2)], constant_values=fill)
  rows = np.float32(outcome)[:, None]
  return Credit(
    rows, action.sum(1, keepdims=True), np.full(rows.shape, include), wide(action, False),
    None if token is None else wide(np.float32(token), NAN), None, wide(value, NAN),
  )  # fmt: skip


# gamma 1/2, lam 1/4. Values 1 4 4, outcome 8: delta = 4/2 - 1, 4/2 - 4, 8 - 4 = 1, -2, 4, summed under powers of 1/8.
BY_HAND = [1 + (-2 + 4 / 8) / 8, -2 + 4 / 8, 4.0]
# A reward of -1 at the second token: its delta is -3.
PAID = [1 + (-3 + 4 / 8) / 8, -3 + 4 / 8, 4.0]


@pytest.mark.parametrize(("token", "expected"), [(None, BY_HAND), ([[0.0, -1.0, 0.0]], PAID)])
def test_generalised_advantages_by_hand(token, expected) -> None:
  got = td_sum(credit([[1.0, 4.0, 4.0]], [8.0], token), 0.5, 0.25)
  np.testing.assert_array_equal(got, [[0.0, *expected, 0.0, 0.0]])
  assert got.dtype == np.float32


def test_a_token_that_is_no_action_takes_no_time() -> None:
  gap = credit([[1.0, NAN, 4.0, NAN, 4.0]], [8.0], action=[[True, False, True, False, True]])
  np.testing.assert_array_equal(
    td_sum(gap, 0.5, 0.25)[0, 1:6], [BY_HAND[0], 0.0, BY_HAND[1], 0.0, BY_HAND[2]]
  )


def test_rows_are_apart_and_an_empty_one_is_silent() -> None:
  action = [[True] * 3, [False] * 3, [True, True, False]]
  many = credit([[1.0, 4.0, 4.0], [NAN] * 3, [4.0, 4.0, NAN]], [8.0, 5.0, 8.0], action=action)
  expected = [BY_HAND, [0.0] * 3, [*BY_HAND[1:], 0.0]]
  np.testing.assert_array_equal(td_sum(many, 0.5, 0.25)[:, 1:4], expected)


def test_undiscounted_it_is_return_less_value() -> None:
  rng = np.random.default_rng(0)
  value, token, outcome = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.normal(size=3)
  returns = outcome[:, None] + np.cumsum(token[:, ::-1], 1)[:, ::-1]
  got = td_sum(credit(value, outcome, token), 1.0, 1.0)
  np.testing.assert_allclose(got[:, 1:5], returns - value, atol=2e-6)


def test_without_lambda_it_is_the_one_step_error() -> None:
  got = td_sum(credit([[1.0, 4.0, 4.0]], [8.0]), 0.5, 0.0)
  np.testing.assert_array_equal(got[0, 1:4], [1.0, -2.0, 4.0])


@pytest.mark.parametrize("whiten", [False, True])
def test_whitening_is_over_included_tokens_and_leaves_returns_alone(whiten) -> None:
  kept = credit([[1.0, 4.0, 4.0], [2.0, 2.0, 2.0]], [8.0, NAN])
  kept = kept.replace(include=np.array([[True], [False]]))
  cfg = run_of(gamma=0.5, lam=0.25, whiten=whiten).rl
  got = np.asarray(jax.jit(ADVANTAGES["gae"], static_argnums=1)(kept, cfg))
  centred = np.array(BY_HAND) - np.mean(BY_HAND)
  expected = centred / np.std(BY_HAND) if whiten else BY_HAND
  np.testing.assert_allclose(got[0, 1:4], expected, rtol=1e-6)
  np.testing.assert_array_equal(got[1], 0.0)
  zero = np.zeros((2, 6), np.float32)
  blank = Experience(zero, zero, zero, kept.is_action, zero, zero, zero, zero)
  told = with_returns(blank, kept, 0.5, 0.25)
  np.testing.assert_array_equal(told.returns[0], [0.0, *(np.array(BY_HAND) + [1, 4, 4]), 0.0, 0.0])
  # What is left out returns its value, and so asks nothing of the critic.
  np.testing.assert_array_equal(told.returns[1], told.value_old[1])


def test_without_values_there_are_no_such_advantages() -> None:
  with pytest.raises(ValueError, match="critic's values"):
    td_sum(credit([[1.0]], [1.0]).replace(value=None), 1.0, 1.0)


# The loss

# Clip 1/2 around 0. Tokens: free; held at 1/2, where the other branch would be less; free, as its error is larger; free.
VALUE, RETURNS = [0.25, 0.75, 0.75, -2.0], [1.0, 1.0, -1.0, -1.0]


def experience(returns, old, weight=1.0, rows=1) -> tuple[Experience, np.ndarray]:
  """(`rows` completions of as many actions as there are numbers, behind a column of prompt, which of them are actions)."""
  shape = (rows, 1 + np.size(returns) // rows + 1)
  action = np.zeros(shape, bool)
  action[:, 1:-1] = True
  put = lambda numbers: np.where(action, np.pad(np.reshape(numbers, (rows, -1)), [(0, 0), (1, 1)]), NAN)
  f32 = lambda numbers: np.float32(put(numbers))
  zero, ones = np.zeros(shape, np.float32), np.ones(shape, np.int32)
  mask = np.where(action, np.float32(weight), 0.0)
  return Experience(
    ones, ones, ones, action, zero, zero, zero, mask, None, f32(returns), f32(np.broadcast_to(old, np.shape(returns)))
  ), action  # fmt: skip


def loss_of(run: TrainConfig, numbers: Experience, value, norms=None, terms=None, **changes):
  """(loss, gradient by TokenScores, statistics) of the run's objective; values off the actions are NaN."""
  stage = rl_stage(run)
  put = lambda a: np.where(numbers.is_action, a, NAN).astype(np.float32)
  whole = np.full(numbers.is_action.shape, NAN)
  whole[numbers.is_action] = np.ravel(value)
  scores = TokenScores(put(-1.0), put(1.0), None, None, np.float32(whole))
  told = dataclasses.replace(
    strengths_at(run, stage, 1), **{name: jnp.float32(number) for name, number in changes.items()}
  )
  norms = global_norms(numbers, R, 1) if norms is None else norms
  of = jax.value_and_grad(objective(stage.update.terms if terms is None else terms), has_aux=True)
  (loss, stats), grads = of(scores, numbers, told, norms)
  return float(loss), grads, stats


def value_alone(run: TrainConfig) -> tuple:
  return tuple(term for term in rl_stage(run).update.terms if term.name == "value")


def test_value_loss_by_hand() -> None:
  run = run_of(coef=0.5, clip=0.5)
  numbers, action = experience(RETURNS, 0.0)
  loss, grads, stats = loss_of(run, numbers, VALUE, terms=value_alone(run))
  errors = [0.75**2, 0.5**2, 1.75**2, 1.0**2]
  assert loss == pytest.approx(0.5 * 0.5 * sum(errors) / 4)
  np.testing.assert_allclose(grads.value[action], 0.5 * np.array([-0.75, 0.0, 1.75, -1.0]) / 4)
  np.testing.assert_array_equal(grads.value[~action], 0.0)
  told = resolve_stats(stats)
  assert told["value/clip_ratio"] == 0.25 and told["value/mean"] == np.mean(VALUE)
  assert told["loss/value"] == pytest.approx(loss)


def test_without_a_clip_it_is_the_squared_error() -> None:
  run = run_of(coef=1.0)
  numbers, action = experience(RETURNS, 0.0, weight=2.0)
  loss, grads, stats = loss_of(run, numbers, VALUE, terms=value_alone(run))
  gap = np.subtract(VALUE, RETURNS)
  assert loss == pytest.approx(2 * 0.5 * np.mean(gap**2))
  np.testing.assert_allclose(grads.value[action], 2 * gap / 4)
  assert "value/clip_ratio" not in stats


@pytest.mark.parametrize("clip", [None, 0.3])
def test_gradient_is_that_of_finite_differences(clip) -> None:
  rng = np.random.default_rng(1)
  value, returns, old = rng.normal(size=(3, 12))
  run = run_of(coef=0.7, clip=clip)
  numbers, action = experience(returns, old)
  _, grads, _ = loss_of(run, numbers, value, terms=value_alone(run))
  reach = np.inf if clip is None else clip

  def formula(v: np.ndarray) -> float:
    near = np.clip(v, old - reach, old + reach)
    return 0.7 * np.mean(0.5 * np.maximum((v - returns) ** 2, (near - returns) ** 2))

  step = 1e-5 * np.eye(12)
  slopes = [(formula(value + d) - formula(value - d)) / 2e-5 for d in step]
  np.testing.assert_allclose(grads.value[action], slopes, rtol=1e-5, atol=1e-8)
  held = np.count_nonzero(np.abs(slopes) < 1e-12)
  assert held == 0 if clip is None else 0 < held < 12


def test_explained_variance_by_hand() -> None:
  # Returns 1 1 -1 -1 have variance 1; the rest that values of half of them leave has 1/4. A constant offset is no rest.
  run = run_of()
  for old, expected in ((0.5 * np.array(RETURNS), 0.75), (np.array(RETURNS) + 3, 1.0), (0.0, 0.0)):
    stats = loss_of(run, experience(RETURNS, old)[0], VALUE)[2]
    assert resolve_stats(stats)["value/explained_variance"] == pytest.approx(expected, abs=1e-6)
  stats = loss_of(run, experience([0.9] * 4, RETURNS)[0], VALUE)[2]
  assert resolve_stats(stats)["value/explained_variance"] == 0.0  # nothing varies, nothing is explained


def test_micro_batches_add_up() -> None:
  rng = np.random.default_rng(2)
  value, returns, old = rng.normal(size=(3, 4, 3))
  run = run_of(clip=0.3)
  numbers, _ = experience(returns, old, rows=4)
  norms = global_norms(numbers, R, 1)
  loss, grads, stats = loss_of(run, numbers, value)
  parts = [
    loss_of(run, jax.tree.map(lambda a, i=i: a[i : i + 1], numbers), value[i], norms=norms) for i in range(4)
  ]
  assert sum(part[0] for part in parts) == pytest.approx(loss, rel=1e-6)
  np.testing.assert_allclose(np.concatenate([part[1].value for part in parts]), grads.value, rtol=1e-6)
  merged = resolve_stats(functools.reduce(merge_stats, (part[2] for part in parts)))
  assert merged == pytest.approx(resolve_stats(stats), rel=1e-5, abs=1e-6)
  whole = 1 - np.var(returns - old) / np.var(returns)
  assert merged["value/explained_variance"] == pytest.approx(whole, rel=1e-5)
  # The mean over micro-batches would be another number.
  each = [resolve_stats(part[2])["value/explained_variance"] for part in parts]
  assert abs(np.mean(each) - whole) > 0.05


def test_at_strength_zero_the_rest_of_the_loss_is_as_without() -> None:
  run = run_of(kl=KLConfig(0.1, "k3"))
  numbers, action = experience(RETURNS, 0.0)
  rng = np.random.default_rng(3)
  draw = lambda: np.where(action, rng.normal(size=action.shape), 0.0).astype(np.float32)
  numbers = numbers.replace(advantage=draw(), logp_old=draw(), logp_ref=draw())
  rest = tuple(term for term in rl_stage(run).update.terms if term.name != "value")
  with jax.disable_jit():
    loss, grads, _ = loss_of(run, numbers, VALUE, value=0.0)
    plain, without, _ = loss_of(run, numbers, VALUE, terms=rest)
  assert loss == plain and np.any(grads.logp)
  np.testing.assert_array_equal(grads.logp, without.logp)
  np.testing.assert_array_equal(grads.value, 0.0)
  _, strong, _ = loss_of(run, numbers, VALUE)
  np.testing.assert_array_equal(strong.logp, without.logp)
  assert np.any(strong.value)


def test_what_the_loss_lacks_is_named() -> None:
  numbers, _ = experience(RETURNS, 0.0)
  for name in ("returns", "value_old"):
    with pytest.raises(ValueError, match="needs TokenScores.value"):
      loss_of(run_of(), numbers.replace(**{name: None}), VALUE)


# Parameters and values


@functools.cache
def parameters(kind: str):
  """The parameters of an RL stage, with a head that is not zero and, in a critic of its own, another decoder."""
  params = nn.meta.unbox(ADD_CRITIC[kind](init_params(Decoder(MODEL), KEY), MODEL))
  critic = dict(params["critic"])
  kernel = jax.random.normal(KEY, (MODEL.width,))
  critic["head"] = {"kernel": kernel, "bias": jnp.float32(0.5)}
  if kind == "own":
    critic["decoder"] = jax.tree.map(lambda p: 1.1 * p, critic["decoder"])
  return {**params, "critic": critic}


def rollout() -> Rollout:
  """4 x 2 completions of 1 to 5 tokens behind prompts of 2 or 3."""
  rng = np.random.default_rng(4)
  column = np.arange(LP + R) - LP
  lengths, prompt = rng.integers(1, R + 1, (P * G, 1)), np.repeat(rng.integers(2, LP + 1, (P, 1)), G, axis=0)
  valid = (column >= -prompt) & (column < lengths)
  tokens = rng.integers(1, MODEL.vocab, valid.shape)
  tokens[:, :LP] = np.repeat(tokens[::G, :LP], G, axis=0)
  action = valid & (column >= 0)
  logp = np.where(action, -2.5, 0.0).astype(np.float32)
  return Rollout(np.where(valid, tokens, 0).astype(np.int32), valid, action, logp, np.ones(P * G, bool))


def given(rolled: Rollout) -> tuple:
  segment = rolled.valid.astype(np.int32)
  return rolled.tokens, segment, np.maximum(np.cumsum(segment, 1) - 1, 0).astype(np.int32)


def scored(params, rolled: Rollout, layout) -> TokenScores:
  return score(
    params, None, *given(rolled), model=Decoder(MODEL), temperature=jnp.float32(1.0), needs=frozenset({"value"}),
    layout=layout, chunk=4096,
  )  # fmt: skip


def test_a_critic_begins_at_zero_beside_an_untouched_policy() -> None:
  boxed = init_params(Decoder(MODEL), KEY)
  policy = nn.meta.unbox(boxed)
  for kind in ("head", "own"):
    params = nn.meta.unbox(ADD_CRITIC[kind](policy, MODEL))
    assert jax.tree.all(jax.tree.map(np.array_equal, policy_params(params), policy))
    np.testing.assert_array_equal(scored(params, rollout(), Packed()).value, 0.0)
    names = nn.get_partition_spec(ADD_CRITIC[kind](boxed, MODEL))["critic"]
    assert names["head"]["kernel"] == jax.sharding.PartitionSpec("embed")
  assert jax.tree.all(jax.tree.map(np.array_equal, params["critic"]["decoder"], policy))
  assert ADD_CRITIC["none"](policy, MODEL) is policy


@pytest.mark.parametrize("kind", ["head", "own"])
@pytest.mark.parametrize("layout", [Packed(), Grouped(LP, G)], ids=["packed", "grouped"])
def test_a_value_is_read_before_its_token(kind, layout) -> None:
  params, rolled = parameters(kind), rollout()
  trunk = params["critic"]["decoder"] if kind == "own" else params
  hidden, _ = Decoder(MODEL).apply({"params": trunk}, *given(rolled))
  head = params["critic"]["head"]
  expected = np.roll(hidden @ head["kernel"] + head["bias"], 1, axis=1)
  got = np.asarray(scored(params, rolled, layout).value)
  np.testing.assert_allclose(got[rolled.is_action], expected[rolled.is_action], rtol=2e-5, atol=2e-5)
  # The last token of a completion changes no value of it: the first one's is that of the prompt.
  last = rolled.is_action.sum(1) + LP - 1
  other = rolled.tokens.copy()
  other[np.arange(P * G), last] = 1 + other[np.arange(P * G), last] % 15
  again = scored(params, dataclasses.replace(rolled, tokens=other), layout)
  np.testing.assert_array_equal(np.asarray(again.value)[rolled.is_action], got[rolled.is_action])


@pytest.mark.parametrize("kind", ["head", "own"])
def test_one_pass_gives_values_and_log_probs(kind) -> None:
  params, rolled = parameters(kind), rollout()
  options = dict(model=Decoder(MODEL), layout=Grouped(LP, G), chunk=4096)
  both = token_scores(params, rolled, jnp.float32(1.0), **options, wanted=frozenset({"logp", "value"}))
  value = token_scores(params, rolled, jnp.float32(1.0), **options, wanted=frozenset({"value"}))
  logp = token_logp(policy_params(params), rolled, jnp.float32(1.0), **options)
  assert value.keys() == {"value"}
  np.testing.assert_allclose(both["value"], value["value"], rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(both["logp"], logp, rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(both["value"][~rolled.is_action], 0.0)


def test_decay_spares_the_bias_of_a_value_head() -> None:
  params = parameters("head")["critic"]
  tx = make_optimizer(OptimConfig(decay=0.1, lr=0.5))
  updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
  np.testing.assert_allclose(updates["head"]["kernel"], -0.05 * params["head"]["kernel"], rtol=1e-6)
  assert updates["head"]["bias"] == 0.0


# The update


def kept(learning_rate, weight_decay) -> optax.GradientTransformation:
  del weight_decay
  keep = optax.GradientTransformation(optax.tree.zeros_like, lambda grads, state, params=None: (grads, grads))
  return optax.chain(keep, optax.sgd(learning_rate))


SGD = optax.inject_hyperparams(kept)(learning_rate=1.0, weight_decay=0.0)
REWARD = np.float32([[1.0, 0.0], [0.5, 0.0], [0.0, 0.0], [1.0, 1.0]])


def batch_of(run: TrainConfig) -> Experience:
  """The experience of `rollout` under the run's critic."""
  rolled, cfg = rollout(), run.rl
  told = token_scores(
    parameters(cfg.critic.kind), rolled, jnp.float32(1.0), model=Decoder(MODEL), layout=Grouped(LP, G), chunk=4096,
    wanted=frozenset({"value"}),
  )  # fmt: skip
  logp, kl = rolled.logp_sampler, jnp.float32(cfg.kl.coef)
  return credit_and_experience(rolled, REWARD, None, logp, logp, kl, told["value"], cfg=cfg)[0]


def step(run: TrainConfig, batch: Experience, tx=SGD, mesh=MeshConfig(1, 1, 1), lr=0.1, **options):
  """(state after a training step, metrics); `options` of UpdateConfig."""
  stage = rl_stage(run)
  devices = make_mesh(mesh, jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor])
  cfg = UpdateConfig(stage.update.terms, stage.update.layout, R, **options)
  strengths = dataclasses.replace(strengths_at(run, stage, 1), lr=jnp.float32(lr), ema=jnp.float32(0.25))
  kind = run.rl.critic.kind
  boxed = jax.eval_shape(lambda: ADD_CRITIC[kind](init_params(Decoder(MODEL), KEY), MODEL))
  params = jax.device_put(
    jax.tree.map(jnp.copy, parameters(kind)), param_shardings(boxed, devices)
  )  # the state is donated
  state = init_state(params, tx, with_reference=run.rl.kl.coef > 0)
  with jax.set_mesh(devices), nn.logical_axis_rules(RULES):
    rows = put_rows(batch, devices)
    state, stats = learn(state, rows, KEY, strengths, model=Decoder(MODEL), tx=tx, cfg=cfg)
  return state, resolve_stats(stats)


@pytest.mark.parametrize("kind", ["head", "own"])
def test_which_parameters_the_value_loss_moves(kind) -> None:
  run = run_of(kind)
  silent = batch_of(run).replace(advantage=np.zeros((P * G, LP + R), np.float32))
  grads = step(run, silent)[0].opt_state.inner_state[0]
  norm = lambda tree: float(optax.tree.norm(tree))
  assert norm(grads["critic"]["head"]) > 1e-3
  if kind == "own":
    assert norm(grads["critic"]["decoder"]) > 1e-3 and norm(policy_params(grads)) == 0.0
  else:
    assert norm(policy_params(grads)) > 1e-3


@pytest.mark.parametrize("kind", ["head", "own"])
@pytest.mark.parametrize(
  "variant", [dict(micro_batches=4), dict(mesh=MeshConfig(2, 2, 2))], ids=["4 micro-batches", "8 devices"]
)
def test_the_step_is_the_same(kind, variant) -> None:
  run = run_of(kind, clip=0.2)
  batch = batch_of(run)
  one, told = step(run, batch)
  other, again = step(run, batch, **variant)
  grads, others = (jax.tree.map(np.asarray, s.opt_state.inner_state[0]) for s in (one, other))
  gap = float(optax.tree.norm(jax.tree.map(np.subtract, grads, others)))
  assert gap <= 1e-6 * float(optax.tree.norm(grads))
  assert told.keys() == again.keys()
  for metric, value in told.items():
    np.testing.assert_allclose(again[metric], value, rtol=2e-5, atol=2e-6, err_msg=metric)


@pytest.mark.parametrize("name", ["frozen", "ema"])
def test_a_reference_knows_no_critic(name) -> None:
  run = run_of("own", kl=KLConfig(0.1, "k3"))
  state, _ = step(run, batch_of(run), reference=REFERENCES[name])
  old = policy_params(parameters("own"))
  assert jax.tree.structure(state.ref_params) == jax.tree.structure(old)
  share = {"frozen": 0.0, "ema": 0.25}[name]
  expected = jax.tree.map(lambda p, r: share * p + (1 - share) * r, policy_params(state.params), old)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.ref_params, expected)


@pytest.mark.parametrize("kind", ["head", "own"])
def test_a_critic_learns_its_returns(kind) -> None:
  run = run_of(kind, coef=1.0)
  batch = batch_of(run)
  metrics = step(run, batch, make_optimizer(OptimConfig()), lr=0.01, epochs=200)[1]
  state, _ = step(run, batch, make_optimizer(OptimConfig()), lr=0.01, epochs=200)
  value = scored(state.params, rollout(), Grouped(LP, G)).value
  gap = lambda v: np.mean(np.square(np.asarray(v - batch.returns))[batch.is_action])
  assert gap(value) < 0.1 * gap(batch.value_old) and np.isfinite(metrics["loss"])


def test_passes_that_a_critic_costs() -> None:
  asked = lambda kind, **loss: critic_passes(run_of(kind, loss=dataclasses.replace(CLIPPED, **loss)).rl)
  assert asked("head") == {"values": 1, "value_updates": 0}
  assert asked("head", logp_old="learner") == {"values": 0, "value_updates": 0}
  assert asked("own", logp_old="learner") == {"values": 1, "value_updates": 2}
