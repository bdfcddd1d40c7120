"""The sampler against the learner's forward pass, and what its noise may depend on."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import ModelConfig
from o1jax.model.transformer import Decoder, init_params
from o1jax.rl.draw import greedy, stream_key
from o1jax.rl.generate import generate
from o1jax.rl.sampler import KEY_BLOCK, UNFORCED, SampleConfig, buffer_sizes
from o1jax.rl.scoring import Grouped, Packed, score
from o1jax.types import PromptBatch, Rollout

P, G, LP, R, STOP = 3, 4, 5, 120, 2
NONE: frozenset[str] = frozenset({"entropy"})


def tiny(**options) -> tuple[Decoder, dict]:
  base = dict(width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=64, vocab=30)
  model = Decoder(ModelConfig(**{**base, **options}))
  return model, nn.meta.unbox(jax.jit(functools.partial(init_params, model))(jax.random.key(0)))


def prompts(pad: int = 0) -> PromptBatch:
  rng = np.random.default_rng(0)
  tokens = np.pad(rng.integers(4, 30, (P, LP)), [(0, 0), (pad, 0)])
  mask = np.pad(np.ones((P, LP), bool), [(0, 0), (pad, 0)])
  mask[0, : pad + 2] = False
  return PromptBatch(jnp.asarray(tokens), jnp.asarray(mask), jnp.arange(7, 7 + P, dtype=jnp.uint32))


def draw(
  model, params, batch, *, samples=G, forced=None, token_map=None, temperature=1.0, **options
) -> Rollout:
  cfg = SampleConfig(**{"max_tokens": R, "stop_tokens": (STOP,), **options})
  return generate(
    params, batch, stream_key(0, "train", 1), jnp.float32(temperature),
    model=model, samples=samples, cfg=cfg, forced=forced, token_map=token_map,
  )  # fmt: skip


def rescore(model, params, rollout: Rollout, layout, temperature: float = 1.0, chunk: int = 4096):
  segment = rollout.valid.astype(jnp.int32)
  position = jnp.maximum(jnp.cumsum(segment, axis=1) - 1, 0)
  compiled = jax.jit(score, static_argnames=("model", "needs", "layout", "chunk"))
  scores = compiled(
    params, None, rollout.tokens, segment, position, model=model, temperature=jnp.float32(temperature),
    needs=NONE, layout=layout, chunk=chunk,
  )  # fmt: skip
  return jnp.where(rollout.is_action, scores.logp, 0.0)


@pytest.mark.parametrize("options", [{}, {"scan_layers": True, "window": (0, 6), "qk_norm": "full"}])
@pytest.mark.parametrize("layout", [Packed(), Grouped(LP, G)])
def test_sampler_and_learner_agree(options, layout) -> None:
  model, params = tiny(**options)
  rollout = draw(model, params, prompts(), temperature=0.7)
  for chunk in (4096, 37):
    logp = rescore(model, params, rollout, layout, temperature=0.7, chunk=chunk)
    np.testing.assert_allclose(logp, rollout.logp_sampler, atol=1e-4, rtol=0)
  assert rollout.valid[:, LP + KEY_BLOCK :].any()  # so that keys lay in one block, and then in several


def test_sampler_and_learner_agree_in_bfloat16() -> None:
  model, params = tiny(dtype="bfloat16")
  rollout = draw(model, params, prompts())
  logp = rescore(model, params, rollout, Grouped(LP, G))
  np.testing.assert_allclose(logp, rollout.logp_sampler, atol=5e-2, rtol=0)
  assert (logp != 0).sum() > 50 and model.cfg.dtype == "bfloat16"


def test_the_sampler_widens_no_bfloat16_table() -> None:
  model, params = tiny(dtype="bfloat16")
  cfg = SampleConfig(max_tokens=R, stop_tokens=(STOP,))
  given = (params, prompts(), stream_key(0, "train", 1), jnp.float32(1.0))
  text = generate.lower(*given, model=model, samples=G, cfg=cfg).as_text()
  assert "(tensor<30x32xf32>) -> tensor<30x32xbf16>" in text
  assert "(tensor<30x32xbf16>) -> tensor<30x32xf32>" not in text


def test_padding_and_batch_change_no_token() -> None:
  model, params = tiny()
  base = draw(model, params, prompts())
  padded = draw(model, params, prompts(pad=3))
  np.testing.assert_array_equal(base.tokens[:, LP:], padded.tokens[:, LP + 3 :])
  alone = draw(model, params, jax.tree.map(lambda a: a[1:2], prompts()))
  np.testing.assert_array_equal(base.tokens[G : 2 * G, LP:], alone.tokens[:, LP:])


def test_samples_of_a_problem_differ_and_a_repeat_gets_fresh_noise() -> None:
  model, params = tiny()
  twice = jax.tree.map(lambda a: jnp.repeat(a[1:2], 2, axis=0), prompts())
  rows = {tuple(row) for row in np.asarray(draw(model, params, twice).tokens)}
  assert len(rows) == 2 * G


def test_the_stop_token_is_an_action_and_ends_the_row() -> None:
  model, params = tiny()
  rollout = jax.tree.map(np.asarray, draw(model, params, prompts()))
  assert rollout.finished.any()
  for tokens, action, done in zip(rollout.tokens[:, LP:], rollout.is_action[:, LP:], rollout.finished):
    length = action.sum()
    assert action[:length].all() and (tokens[length:] == 0).all()
    assert (tokens[length - 1] == STOP) == done
    assert STOP not in tokens[: length - 1]


def test_forced_and_replaced_tokens_stand_and_are_no_actions() -> None:
  model, params = tiny()
  forced = jnp.full((P * G, R), UNFORCED).at[:, 3].set(9)
  token_map = jnp.arange(model.cfg.vocab).at[STOP].set(5)
  rollout = draw(model, params, prompts(), forced=forced, token_map=token_map)
  assert not (rollout.tokens[:, LP:] == STOP).any()
  assert (rollout.tokens[:, LP + 3] == 9).all() and not rollout.is_action[:, LP + 3].any()
  assert rollout.valid[:, LP:].all() and (rollout.logp_sampler[~rollout.is_action] == 0).all()


def test_top_k_of_one_is_greedy() -> None:
  model, params = tiny()
  best = draw(model, params, prompts(), draw=greedy)
  narrow = draw(model, params, prompts(), top_k=1)
  np.testing.assert_array_equal(best.tokens, narrow.tokens)


def test_buffer_sizes_grow_in_whole_blocks_up_to_the_budget() -> None:
  assert buffer_sizes(20) == [20]
  assert buffer_sizes(KEY_BLOCK + 1) == [KEY_BLOCK, 2 * KEY_BLOCK]
  assert buffer_sizes(8 * KEY_BLOCK) == [n * KEY_BLOCK for n in (1, 2, 3, 4, 6, 8)]
  sizes = buffer_sizes(100_000)
  assert len(sizes) == 6 and sizes == sorted(sizes) and 0 <= sizes[-1] - 100_000 < KEY_BLOCK
