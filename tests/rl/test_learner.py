"""One update: the same on 1 and 8 devices, in 1 and 4 micro-batches, under any padding; and what surrounds it.

"The same", from one state: gradients within 1e-6 of their global norm, parameters within 1e-5 under SGD(1.0) with
clip 1. A transformation that keeps the gradients it sees tells them.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o1jax.config import (
  CovConfig,
  CriticConfig,
  KLConfig,
  LossConfig,
  MeshConfig,
  ModelConfig,
  OptimConfig,
  RLConfig,
  active_terms,
)
from o1jax.model.transformer import Decoder, init_params
from o1jax.parallel.mesh import make_mesh
from o1jax.parallel.sharding import RULES, param_shardings, put_rows
from o1jax.rl.critic import add_critic
from o1jax.rl.experience import make_packing, packed
from o1jax.rl.learner import Learner, first_state, gradients, run_epochs
from o1jax.rl.losses import global_norms, rl_terms, sft_terms
from o1jax.rl.optim import learning_rate, make_optimizer
from o1jax.rl.regularisers import REFERENCES, rl_penalties, token_mask
from o1jax.rl.scoring import Grouped, Packed
from o1jax.types import Experience, Hyperparams, TrainState, resolve_stats

P, G, LP, R = 8, 4, 5, 12
MODEL = Decoder(ModelConfig(width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=64, vocab=32))
RL = RLConfig(
  steps=1, prompts=P, samples=G, max_prompt=LP, max_tokens=R, epochs=2, entropy=0.01,
  loss=LossConfig("ppo_clip", "seq_mean_token_mean", clip_low=0.2, clip_high=0.3), kl=KLConfig(0.1, "reverse"),
  l2_init=0.03, cov=CovConfig("kl_cov", fraction=0.1, coef=0.1),
)  # fmt: skip
# Over keys, rounding alone leaves 0.5e-6 to 1.2e-6 of the norm on 8 devices, more where completions cancel.
KEY = jax.random.key(6)
INIT = jax.jit(functools.partial(init_params, MODEL))
ALONE = MeshConfig(1, 1, 1)


def numbers(**changes) -> Hyperparams:
  """Hyperparameters of a step; lr is that of the optimiser, reset_every that of the reference."""
  changes = {{"lr": "optim.lr", "reset_every": "kl.reset_every"}.get(k, k): v for k, v in changes.items()}
  number = {
    "optim.lr": 1.0, "optim.weight_decay": 0.0, "temperature": 0.8, "kl.coef": 0.1, "entropy": 0.01, "loss.clip_low": 0.2,
    "loss.clip_high": 0.3, "kl.ema": 0.25, "l2_init": 0.03, "critic.coef": 0.5, "cov.coef": 0.1, "kl.reset_every": 2.0,
  }  # fmt: skip
  return {k: jnp.float32(v) for k, v in {**number, **changes}.items()}


def kept(learning_rate, weight_decay) -> optax.GradientTransformation:
  del weight_decay
  keep = optax.GradientTransformation(optax.tree.zeros_like, lambda grads, state, params=None: (grads, grads))
  return optax.chain(keep, optax.clip_by_global_norm(1.0), optax.sgd(learning_rate))


SGD = optax.inject_hyperparams(kept)(learning_rate=1.0, weight_decay=0.0)


def experience(pad: int = 0) -> Experience:
  """8 x 4 completions of 1 to 12 tokens behind prompts of 2 to 5; `pad` more columns before and behind."""
  rng = np.random.default_rng(0)
  lengths = rng.integers(1, R + 1, (P * G, 1))
  prompt = np.repeat(rng.integers(2, LP + 1, (P, 1)), G, axis=0)
  column = np.arange(LP + R) - LP
  valid = (column >= -prompt) & (column < lengths)
  tokens = rng.integers(1, 32, (P * G, LP + R))
  tokens[:, :LP] = np.repeat(tokens[::G, :LP], G, axis=0)
  action = valid & (column >= 0)
  draw = lambda shift: np.where(action, rng.normal(shift, 0.3, valid.shape), 0).astype(np.float32)
  advantage = np.where(action, rng.normal(0, 1, (P * G, 1)), 0).astype(np.float32)
  position = np.maximum(np.cumsum(valid, 1) - 1, 0).astype(np.int32)
  arrays = (
    np.where(valid, tokens, 0).astype(np.int32), valid.astype(np.int32), position, action,
    draw(-3.4), draw(-3.4), advantage, action.astype(np.float32), draw(-3.4),
  )  # fmt: skip
  return Experience(*(np.pad(a, [(0, 0), (pad, pad)]) for a in arrays))


def config(tx=SGD, pad: int = 0, rl: RLConfig = RL, **options) -> Learner:
  also = dict(token_mask=token_mask(rl.cov), penalties=rl_penalties(active_terms([rl])))
  return Learner("rl", MODEL, tx, rl_terms(rl), Grouped(LP + pad, G), R, **also, **options)


def state_on(mesh: jax.sharding.Mesh, tx) -> TrainState:
  """A state whose reference and first parameters differ from its parameters."""
  boxed = jax.eval_shape(INIT, KEY)
  params = jax.device_put(nn.meta.unbox(INIT(KEY)), param_shardings(boxed, mesh))
  state = first_state(config(tx), params)
  scaled = lambda factor: jax.tree.map(lambda p: factor * p, params)
  return dataclasses.replace(state, ref_params=scaled(0.9), init_params=scaled(0.8))


@functools.cache
def step(cfg: MeshConfig = ALONE, pad: int = 0, micro_batches: int = 1) -> tuple:
  """(gradients, parameters, metrics) of one SGD step."""
  devices = jax.devices()[: cfg.data * cfg.fsdp * cfg.tensor]
  mesh = make_mesh(cfg, devices)
  start = state_on(mesh, SGD)
  with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
    update = config(pad=pad, micro_batches=micro_batches)
    batch = put_rows(experience(pad), mesh)
    state, stats = run_epochs(start, batch, KEY, numbers(), learner=update)
  gradients = state.opt_state.inner_state[0]
  return (*jax.tree.map(np.asarray, (gradients, state.params)), resolve_stats(stats))


VARIANTS = {
  "8 devices": dict(cfg=MeshConfig(2, 2, 2)),
  "4 micro-batches": dict(micro_batches=4),
  "padding": dict(pad=4),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_step_is_the_same(name) -> None:
  grads, params, metrics = step()
  other_grads, other_params, other_metrics = step(**VARIANTS[name])
  norm = float(optax.tree.norm(grads))
  assert norm > 0.1
  gap = float(optax.tree.norm(jax.tree.map(np.subtract, grads, other_grads)))
  assert gap <= 1e-6 * norm
  for left, right in zip(jax.tree.leaves(params), jax.tree.leaves(other_params)):
    np.testing.assert_allclose(left, right, atol=1e-5, rtol=0)
  assert metrics.keys() == other_metrics.keys()
  for metric, value in metrics.items():
    np.testing.assert_allclose(other_metrics[metric], value, rtol=2e-5, atol=1e-6, err_msg=metric)


COMMON = 3  # fills 30% of the tokens below


@functools.cache
def imitation(
  dtype: str, micro_batches: int = 1, chunk: int = 8192, stored: str = "float32"
) -> dict[str, np.ndarray]:
  """Gradients of the cold start's loss on 256 rows of 128 tokens, by the parameter's path."""
  shape = dict(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=16, vocab=32)
  model = Decoder(ModelConfig(**shape, qkv_bias=True, tied_head=False, dtype=dtype, param_dtype=stored))
  params = nn.meta.unbox(jax.jit(functools.partial(init_params, model))(KEY))
  rng, size = np.random.default_rng(0), (256, 128)
  tokens = np.where(rng.random(size) < 0.3, COMMON, rng.integers(4, 32, size)).astype(np.int32)
  action = np.broadcast_to(np.arange(128) > 0, size)
  position, zero = np.broadcast_to(np.arange(128, dtype=np.int32), size), np.zeros(size, np.float32)
  batch = Experience(
    tokens, np.ones(size, np.int32), position, action, zero, zero, zero, action.astype(np.float32)
  )
  cfg = Learner("sft", model, SGD, sft_terms(), Packed(), 128, micro_batches=micro_batches, head_chunk=chunk)
  told, norms = numbers(temperature=1.0), global_norms(batch, 128, 1)
  compiled = jax.jit(lambda p: gradients(p, None, batch, told, norms, learner=cfg)[1])
  leaves = jax.tree_util.tree_leaves_with_path(compiled(params))
  return {jax.tree_util.keystr(path): np.asarray(leaf, np.float32) for path, leaf in leaves}


@pytest.mark.full
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize(("micro_batches", "chunk"), [(1, 8192), (8, 8192), (1, 32)])
def test_bfloat16_sums_gradients_over_many_tokens_in_float32(micro_batches, chunk, stored) -> None:
  exact, got = imitation("float32"), imitation("bfloat16", micro_batches, chunk, stored)
  gap = lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b)
  assert gap(got["['embedding']"][COMMON], exact["['embedding']"][COMMON]) < 0.02
  for name, slope in exact.items():
    assert gap(got[name], slope) < 0.01, name
    assert gap(got[name], imitation("bfloat16")[name]) < 0.01, name


def run(tx, batch: Experience, told: Hyperparams | None = None, rl: RLConfig = RL, **options):
  """(state before, state after, metrics) of a training step on one device."""
  mesh = make_mesh(ALONE, jax.devices()[:1])
  before, start = state_on(mesh, tx), state_on(mesh, tx)
  update = config(tx, rl=rl, **options)
  state, stats = run_epochs(start, batch, KEY, told or numbers(), learner=update)
  return before, state, resolve_stats(stats)


def same(left, right) -> bool:
  return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


@pytest.mark.full
def test_a_state_of_stored_bfloat16_keeps_its_dtypes() -> None:
  model = Decoder(dataclasses.replace(MODEL.cfg, dtype="bfloat16", param_dtype="bfloat16"))
  params = nn.meta.unbox(jax.jit(functools.partial(init_params, model))(KEY))
  update = dataclasses.replace(config(make_optimizer(OptimConfig()), micro_batches=2), model=model)
  state = first_state(update, params)
  dtypes = jax.tree.map(lambda a: a.dtype, state)
  after, _ = run_epochs(jax.tree.map(jnp.copy, state), experience(), KEY, numbers(lr=0.1), learner=update)
  assert jax.tree.map(lambda a: a.dtype, after) == dtypes
  assert not same(after.params, state.params)
  moments = jax.tree.leaves(after.opt_state.inner_state)
  assert sum(a.nbytes for a in moments) < 1.1 * 2 * sum(2 * a.size for a in jax.tree.leaves(params))


def test_a_loss_that_is_not_finite_changes_nothing_and_shows() -> None:
  bad = experience()
  bad.advantage[3, LP] = np.nan
  assert bad.is_action[3, LP]
  before, after, metrics = run(make_optimizer(OptimConfig()), bad, numbers(lr=0.1))
  assert np.isnan(metrics["loss"])
  assert same(before.params, after.params)
  assert same(before.opt_state.inner_state, after.opt_state.inner_state)
  assert after.step == 1


@pytest.mark.full
def test_epochs_and_minibatches_are_optimiser_steps_on_every_group_once_an_epoch() -> None:
  seen = optax.GradientTransformation(
    lambda params: jnp.zeros((), jnp.int32),
    lambda grads, count, params=None: (jax.tree.map(jnp.zeros_like, grads), count + 1),
  )
  tx = optax.inject_hyperparams(lambda learning_rate, weight_decay: seen)(learning_rate=1.0, weight_decay=0.0)
  _, after, whole = run(tx, experience())
  assert after.opt_state.inner_state == 1 and after.step == 1
  _, after, split = run(tx, experience(), epochs=2, minibatches=4)
  assert after.opt_state.inner_state == 8 and after.step == 1
  # No parameter moves, so means over tokens are those of the whole batch only if each group came equally often.
  for metric in ("entropy", "kl/k3", "clip_ratio/region_mean"):
    np.testing.assert_allclose(split[metric], whole[metric], rtol=1e-5)


@pytest.mark.full
def test_the_reference_moves_as_configured() -> None:
  tx = make_optimizer(OptimConfig())
  move = lambda name: run(tx, experience(), numbers(lr=0.01), reference=REFERENCES[name])[:2]
  before, after = move("frozen")
  assert same(after.ref_params, before.ref_params) and not same(after.params, before.params)
  before, after = move("ema")
  for p, old, new in zip(*map(jax.tree.leaves, (after.params, before.ref_params, after.ref_params))):
    np.testing.assert_allclose(new, 0.25 * p + 0.75 * old, atol=1e-6)


@pytest.mark.parametrize("every,resets", [(1.0, True), (2.0, False)])
def test_a_reset_copies_the_policy_and_clears_the_moments(every, resets) -> None:
  tx = make_optimizer(OptimConfig())
  told = numbers(lr=0.01, reset_every=every)
  before, after, _ = run(tx, experience(), told, reference=REFERENCES["reset"], reset_optimizer=True)
  assert same(after.ref_params, after.params if resets else before.ref_params)
  moments = [np.abs(leaf).max() for leaf in jax.tree.leaves(after.opt_state.inner_state) if np.ndim(leaf)]
  assert (max(moments) == 0) == resets


@pytest.mark.full
@pytest.mark.parametrize("options", [{}, {"scan_layers": True}])
@pytest.mark.parametrize("qk_norm", ["head", "full"])
def test_decay_spares_norms_and_biases(options, qk_norm) -> None:
  shape = dict(width=8, layers=2, heads=2, kv_heads=1, head_dim=4, mlp=8, vocab=8)
  model = Decoder(ModelConfig(**shape, qk_norm=qk_norm, qkv_bias=True, tied_head=False, **options))
  shapes = jax.eval_shape(lambda k: nn.meta.unbox(init_params(model, k)), jax.random.key(0))
  params = jax.tree.map(lambda a: np.ones(a.shape, np.float32), shapes)
  tx = make_optimizer(OptimConfig(weight_decay=0.1, lr=0.5))
  updates, _ = tx.update(jax.tree.map(np.zeros_like, params), tx.init(params), params)
  for path, change in jax.tree_util.tree_leaves_with_path(updates):
    spared = "norm" in jax.tree_util.keystr(path) or "bias" in jax.tree_util.keystr(path)
    np.testing.assert_allclose(change, 0.0 if spared else -0.05, rtol=1e-6)


def test_learning_rate_by_hand() -> None:
  constant = learning_rate(OptimConfig(lr=1.0, warmup_steps=4), 10)
  np.testing.assert_allclose([constant(s) for s in (0, 1, 4, 9)], [0, 0.25, 1, 1])
  linear = learning_rate(OptimConfig(lr=1.0, warmup_steps=2, schedule="linear", final_fraction=0.5), 10)
  np.testing.assert_allclose([linear(s) for s in (1, 2, 6, 10)], [0.5, 1, 0.75, 0.5])
  cosine = learning_rate(OptimConfig(lr=2.0, schedule="cosine"), 8)
  np.testing.assert_allclose([cosine(s) for s in (0, 4, 8)], [2, 1, 0], atol=1e-6)


# Packing


LENGTH, PARTS = 51, 4
CLIPPED = dict(clip_low=0.2, clip_high=0.3)
KINDS = {
  "ppo, exact KL, kl_cov": RL,
  "token mean, k3": dataclasses.replace(RL, loss=LossConfig("cispo", clip_high=0.3), kl=KLConfig(0.1, "k3")),
  "dr_grpo": dataclasses.replace(RL, loss=LossConfig("ppo_clip", "dr_grpo", **CLIPPED), kl=KLConfig()),
  "gspo": dataclasses.replace(RL, loss=LossConfig("gspo", "seq_mean_token_mean", **CLIPPED)),
  "rloo": dataclasses.replace(RL, loss=LossConfig("rloo", "seq_mean_token_mean", **CLIPPED)),
  "critic": dataclasses.replace(RL, critic=CriticConfig("own")),
}


def test_every_token_stands_once_and_full_micro_batches_come_first() -> None:
  batch = experience(pad=2)
  valid = batch.segment > 0
  packing = make_packing(jnp.asarray(valid), LENGTH, PARTS)
  source = np.asarray(packing.source)
  np.testing.assert_array_equal(np.sort(source[source >= 0]), np.flatnonzero(valid))
  rows = jax.tree.map(np.asarray, packed(jax.tree.map(jnp.asarray, batch), packing))
  assert (rows.segment[source < 0] == 0).all() and (rows.weight[source < 0] == 0).all()
  for row, segments in zip(rows.position, rows.segment):  # each completion in one piece, in its order
    for index in range(1, segments.max() + 1):
      np.testing.assert_array_equal(row[segments == index], np.arange((segments == index).sum()))
  tokens = (source >= 0).reshape(-1, PARTS, LENGTH).sum((0, 2))  # of each micro-batch
  assert (np.diff(tokens) <= 0).all() and tokens[-1] == 0


@functools.cache
def parameters(kind: str):
  make = lambda: add_critic(init_params(MODEL, jax.random.key(6)), KINDS[kind].critic.kind)
  return jax.jit(make)()


def minibatch(kind: str, pack_length: int, mesh=None):
  """(gradients, statistics) of one minibatch."""
  rl, boxed = KINDS[kind], parameters(kind)
  learner = Learner(
    "rl", MODEL, SGD, rl_terms(rl, active_terms([rl]), segments=pack_length or 1), Grouped(LP, G), R,
    micro_batches=PARTS if pack_length else 1, pack_length=pack_length,
  )  # fmt: skip
  batch = jax.tree.map(jnp.asarray, experience())
  batch = dataclasses.replace(batch, advantage=jnp.abs(batch.advantage))  # completions that do not cancel
  if rl.critic.kind != "none":
    batch = dataclasses.replace(batch, returns=batch.advantage + 0.3, value_old=0.5 * batch.advantage)
  mask = token_mask(rl.cov)
  assert mask is not None
  batch = dataclasses.replace(batch, cov_mask=mask(batch, jax.random.key(1)))
  params = nn.meta.unbox(boxed)
  reference = jax.tree.map(lambda p: 0.9 * p, {k: v for k, v in params.items() if k != "critic"})
  if mesh is not None:
    params, batch = jax.device_put(params, param_shardings(boxed, mesh)), put_rows(batch, mesh)
  run = lambda params, reference, batch: gradients(
    params, reference, batch, numbers(), global_norms(batch, R), learner=learner
  )
  if mesh is None:
    _, grads, stats = jax.jit(run)(params, reference, batch)
  else:
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
      _, grads, stats = jax.jit(run)(params, reference, batch)
  return jax.device_get(grads), {name: stat.value() for name, stat in stats.items()}


def assert_same_gradients(left, right, bound: float = 1e-6) -> None:
  gap = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), left, right)
  assert float(optax.tree.norm(gap)) <= bound * float(optax.tree.norm(right))


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_have_the_gradients_of_one_completion_a_row(kind) -> None:
  (grads, stats), (expected, expected_stats) = minibatch(kind, LENGTH), minibatch(kind, 0)
  # rloo's ratio is exp of a sum over the completion: 12 chunks of the head in the place of one, without any
  # packing, are 0.5e-6 apart, the two layouts 1.3e-6. There the bound is that of the parameters under SGD(1.0).
  assert_same_gradients(grads, expected, 1e-5 if kind == "rloo" else 1e-6)
  assert stats.keys() == expected_stats.keys()
  for name, value in expected_stats.items():
    np.testing.assert_allclose(stats[name], value, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.full
def test_eight_devices_pack_as_one() -> None:
  mesh, kind = make_mesh(MeshConfig(4, 2, 1)), "gspo"
  assert_same_gradients(minibatch(kind, LENGTH, mesh)[0], minibatch(kind, 0)[0])
