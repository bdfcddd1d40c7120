"""Refilling: which group goes where, when rounds stop, and that members, gradients and ledgers are those of the groups kept."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import (
  AdvantageConfig,
  CountdownConfig,
  KLConfig,
  ModelConfig,
  RLConfig,
  TrainConfig,
)
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl.draw import stream_key
from o1jax.rl.dynamic_sampling import dynamic_sampling_stats, fill, sample_rounds, slot_choice, zero_std
from o1jax.rl.experience import prompt_batch
from o1jax.rl.flops import StepSizes, step_flops
from o1jax.rl.generate import generate
from o1jax.rl.learner import first_state, gradients, hyperparams, rl_learner
from o1jax.rl.losses import global_norms
from o1jax.rl.sampler import SampleConfig
from o1jax.rl.step import LearnerInputs, make_experience
from o1jax.scaling.flops import Sizes, learning_flops, sampling_flops
from o1jax.types import PromptBatch, Reward, Rollout, RolloutBatch, resolve_stats

P, G, LP, R, STOP = 4, 2, 3, 6, 2
MODEL = ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32, vocab=16)
ONES, ZEROS, MIXED, TWISTED = [1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0]


def f32(*rows: list[float]) -> jax.Array:
  return jnp.asarray(rows, jnp.float32)


# Which slot takes which group

KEPT = f32(ONES, MIXED, ZEROS, ONES)
CASES = {
  "the k-th bad slot takes the k-th good group": (KEPT, f32(ZEROS, TWISTED, ONES, MIXED), [5, 1, 7, 3]),
  "of too many good groups the first ones serve": (KEPT, f32(MIXED, MIXED, TWISTED, MIXED), [4, 1, 5, 6]),
  "none is good": (KEPT, f32(ZEROS, ONES, ONES, ZEROS), [0, 1, 2, 3]),
  "nothing is bad": (f32(MIXED, MIXED, TWISTED, MIXED), f32(MIXED, MIXED, MIXED, MIXED), [0, 1, 2, 3]),
  "everything is bad": (f32(ONES, ONES, ONES, ZEROS), f32(MIXED, MIXED, TWISTED, MIXED), [4, 5, 6, 7]),
}


@pytest.mark.parametrize("case", CASES)
def test_places_by_hand(case) -> None:
  kept, fresh, expected = CASES[case]
  assert slot_choice(kept, fresh).tolist() == expected


def test_equal_rewards_are_compared_and_never_subtracted() -> None:
  for size in (3, 7, 10, 64):
    reward = np.full((2, size), 0.9, np.float32)
    reward[1, -1] = np.nextafter(np.float32(0.9), np.float32(1))
    assert zero_std(jnp.asarray(reward)).tolist() == [True, False]


def test_rewards_that_are_never_equal_are_compared_with_the_floor() -> None:
  sure = 0.995 + 0.002 * np.float32([[-1, -0.5, 0.5, 1]])  # deviation 0.0018
  torn = np.float32([[0.1, 0.9, 0.2, 0.8]])
  both = jnp.asarray(np.concatenate([sure, torn]))
  assert zero_std(both).tolist() == zero_std(both, 0.001).tolist() == [False, False]
  assert zero_std(both, 0.01).tolist() == [True, False]
  assert slot_choice(both, both[::-1], 0.01).tolist() == [2, 1]
  assert resolve_stats(dynamic_sampling_stats(both, jnp.int32(1), 0.01))["dynamic_sampling/unfilled"] == 1


def groups_of(reward: jax.Array, start: int) -> RolloutBatch:
  """RolloutBatch whose every number tells which problem of the stream they belong to, the first one `start`."""
  place = start + jnp.arange(P)
  row = jnp.repeat(place, G) * 10 + jnp.tile(jnp.arange(G), P)
  wide = lambda dtype: jnp.broadcast_to(row[:, None], (P * G, LP + R)).astype(dtype)
  column = jnp.arange(LP + R)
  action = (column >= LP) & (column < LP + 1 + row[:, None] % R)
  rollout = Rollout(wide(jnp.int32), wide(bool), action, wide(jnp.float32), row % 3 == 0, LP)
  batch = PromptBatch(place[:, None] * jnp.ones((1, LP), jnp.int32), jnp.ones((P, LP), bool), place.astype(jnp.uint32),
                      {"target": place * 7})  # fmt: skip
  return RolloutBatch(batch, rollout, reward, reward.reshape(-1) > 0, place)


def picked(groups: list[RolloutBatch], where: list[int]) -> RolloutBatch:
  """Group `where[p]` of all of `groups` in slot p, put together row by row."""
  whole = jax.tree.map(lambda *a: np.concatenate(a), *groups)
  rows = [p * G + g for p in where for g in range(G)]
  count = P * len(groups)
  return jax.tree.map(lambda a: a[where] if a.shape[0] == count else a[rows], whole)


def assert_same(left, right) -> None:
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", CASES)
def test_whole_groups_move(case) -> None:
  kept, fresh, expected = CASES[case]
  both = [groups_of(kept, 0), groups_of(fresh, P)]
  filled = fill(*both, slot_choice(kept, fresh))
  assert_same(filled, picked(both, expected))
  assert filled.place.tolist() == expected


# When rounds stop

ROUNDS = {  # rewards of the first rollout and of rounds 1, 2, 3; rounds made, places, groups still level
  "no round where all differ": ([(MIXED,) * 4, (TWISTED,) * 4], 0, [0, 1, 2, 3], 0),
  "until nothing is bad": ([(ONES, MIXED, ZEROS, MIXED), (ONES, MIXED, ONES, ONES), (ZEROS, TWISTED, MIXED, ONES),
                            (MIXED,) * 4], 2, [5, 1, 9, 3], 0),
  "until the rounds are used up": ([(ONES,) * 4, (MIXED, ZEROS, ZEROS, ZEROS), (ZEROS,) * 4,
                                    (ONES, ONES, ONES, MIXED)], 3, [4, 15, 2, 3], 2),
  "nothing good comes": ([(ONES, ZEROS, ONES, MIXED), *[(ONES,) * 4] * 3], 3, [0, 1, 2, 3], 3),
}  # fmt: skip


def course(case: str) -> jax.Array:
  """f32[4, P, G] rewards of the rollouts; rounds behind the last are not to be looked at."""
  rows = ROUNDS[case][0]
  return jnp.stack([f32(*row) for row in [*rows, *[(MIXED,) * 4] * (4 - len(rows))]])


def run_rounds(rewards: jax.Array, axis: str | None = None):
  draw = lambda made: groups_of(rewards[made + 1], (made + 1) * P)
  return sample_rounds(groups_of(rewards[0], 0), draw, 3, axis=axis)


@pytest.mark.parametrize("case", ROUNDS)
def test_rounds_by_hand(case) -> None:
  _, made, where, unfilled = ROUNDS[case]
  groups, drawn = jax.jit(run_rounds)(course(case))
  every = [groups_of(reward, i * P) for i, reward in enumerate(course(case))]
  assert_same(groups, picked(every, where))
  assert drawn.rounds == made and drawn.place.tolist() == where
  lengths = np.stack([one.rollout.is_action.sum(1) for one in every])
  np.testing.assert_array_equal(drawn.lengths, np.where(np.arange(4)[:, None] <= made, lengths, 0))
  told = resolve_stats(dynamic_sampling_stats(groups.verified, drawn.rounds))
  assert told == {
    "dynamic_sampling/rounds": made,
    "dynamic_sampling/samples": made * P * G,
    "dynamic_sampling/unfilled": unfilled,
  }


def test_a_member_keeps_its_own_course_whatever_the_rounds_of_others() -> None:
  all_rewards = jnp.stack([course(case) for case in ROUNDS])
  together = jax.jit(jax.vmap(functools.partial(run_rounds, axis="member"), axis_name="member"))(all_rewards)
  for j, case in enumerate(ROUNDS):
    assert_same(jax.tree.map(lambda a, j=j: a[j], together), jax.jit(run_rounds)(course(case)))


def test_members_share_one_predicate() -> None:
  mapped = jax.vmap(functools.partial(run_rounds, axis="member"), axis_name="member")
  jaxpr = jax.make_jaxpr(mapped)(jnp.stack([course(case) for case in ROUNDS])).jaxpr
  (loop,) = [e for e in jaxpr.eqns if e.primitive.name == "while"]
  assert loop.params["cond_jaxpr"].out_avals[0].shape == ()


# What is learned from


def run_of(**changes) -> TrainConfig:
  fields = dict(
    steps=3, prompts=P, samples=G, max_prompt=LP, max_tokens=R, pad_multiple=0, kl=KLConfig(0.1), entropy=0.01
  )
  run = TrainConfig("test", MODEL, CountdownConfig(), rl=RLConfig(**{**fields, **changes}))
  run.validate()
  return run


@functools.partial(jax.jit, static_argnames="learner")
def compiled_gradients(*args, learner):
  return gradients(*args, learner=learner)


def gradient(run: TrainConfig, state, groups: RolloutBatch):
  learner, strengths = rl_learner(run), hyperparams(run, rl_learner(run), 1)
  inputs = LearnerInputs(groups.rollout, Reward(groups.verified), None, None, strengths)
  experience, _ = make_experience(state, inputs, learner=learner)
  norms = global_norms(experience, R, 1)
  return compiled_gradients(state.params, state.ref_params, experience, strengths, norms, learner=learner)[:2]


def drawn_groups(params, batch: PromptBatch, reward) -> RolloutBatch:
  """A rollout of `batch`; reward: problem -> its group's."""
  rollout = generate(
    params,
    batch,
    stream_key(0, "train", 1),
    jnp.float32(1.0),
    model=Decoder(MODEL),
    samples=G,
    cfg=SampleConfig(R, (STOP,)),
  )
  rewards = f32(*(reward[int(p)] for p in batch.problem_id))
  return RolloutBatch(batch, rollout, rewards, rewards.reshape(-1) > 0, batch.problem_id.astype(jnp.int32))


@pytest.mark.parametrize("kind", ["grpo", "opo", "reinforce++"])
def test_a_refilled_batch_has_the_gradient_of_the_batch_of_those_groups(kind) -> None:
  run = run_of(dynamic_sampling=1, advantage=AdvantageConfig(kind))
  learner = rl_learner(run)
  params = nn.meta.unbox(jax.jit(functools.partial(init_params, Decoder(MODEL)))(jax.random.key(0)))
  state = first_state(learner, params)
  rng = np.random.default_rng(0)
  pool = prompt_batch(
    rng.integers(4, 16, (2 * P, LP)).tolist(), range(2 * P), list(map(str, range(2 * P))), LP
  )
  reward = [ONES, MIXED, ZEROS, ONES, ZEROS, TWISTED, ONES, MIXED]
  problems = lambda rows: jax.tree.map(lambda a: jnp.asarray(a)[np.asarray(rows)], pool)
  draw = functools.partial(drawn_groups, params, reward=reward)
  first, fresh = draw(problems(range(P))), draw(problems(range(P, 2 * P)))
  filled = fill(first, fresh, slot_choice(first.verified, fresh.verified))
  assert filled.place.tolist() == [5, 1, 7, 3]

  loss, grads = gradient(run, state, filled)
  assert_same((loss, grads), gradient(run, state, picked([first, fresh], [5, 1, 7, 3])))
  # Under one key the sampler draws the same for these problems had they been the batch from the start.
  direct = draw(problems([5, 1, 7, 3]))
  assert_same((direct.rollout.tokens, direct.verified), (filled.rollout.tokens, filled.verified))
  for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(gradient(run, state, direct)[1]), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
  before = gradient(run, state, first)[1]
  assert max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (grads, before)))) > 1e-4


# What it costs


def test_discarded_completions_are_paid_for_in_sampling_alone() -> None:
  run, sizes = run_of(dynamic_sampling=2), Sizes
  first = sizes([2, 3, 3, 1], np.array([[1, 6], [2, 2], [5, 4], [3, 3]]))
  second = sizes([3, 3, 2, 2], np.array([[6, 6], [4, 1], [1, 1], [2, 5]]))
  kept = sizes([2, 3, 3, 2], np.array([[1, 6], [4, 1], [5, 4], [2, 5]]))
  greedy = sizes(kept.prompts, np.array([[2], [3], [4], [1]]))
  told = step_flops(run, rl_learner(run), StepSizes(kept, [first, second], greedy))
  sampled = [sampling_flops(MODEL, s, LP, R) for s in (first, second, greedy)]
  assert told.prefill.useful == sum(one.prefill.useful for one in sampled)
  assert told.decode.useful == sum(one.decode.useful for one in sampled)
  assert told.decode.executed == sum(one.decode.executed for one in sampled)
  learned = learning_flops(MODEL, kept, LP, R, updates=1, references=1)
  assert (told.reference, told.update) == (learned.reference, learned.update)
  assert told.extra_samples == P * G
  assert step_flops(run, rl_learner(run), StepSizes(first, [first], None)).extra_samples == 0
