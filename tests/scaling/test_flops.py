"""FLOP counts: by hand, token by token, and against what XLA counts in the compiled decoder."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o1jax.config import ModelConfig
from o1jax.model.transformer import Decoder, init_params
from o1jax.scaling.flops import (
  Flops,
  Ledger,
  Sizes,
  forward_flops,
  learning_flops,
  product_params,
  sampling_flops,
  sft_flops,
)

TINY = ModelConfig(width=4, layers=1, heads=2, kv_heads=1, head_dim=2, mlp=8, vocab=10)
DEEP = ModelConfig(width=12, layers=3, heads=6, kv_heads=2, head_dim=4, mlp=20, vocab=50)
LOCAL = dataclasses.replace(DEEP, window=(3, 0, 5))
MODELS = [TINY, DEEP, dataclasses.replace(DEEP, window=(2,)), LOCAL]


def token_flops(cfg: ModelConfig, position: int, head: bool) -> int:
  """One token's forward pass, product by product, two FLOPs a multiply-add."""
  total = 0
  for layer in range(cfg.layers):
    window = cfg.window[layer % len(cfg.window)]
    keys = min(position + 1, window) if window else position + 1
    query = cfg.heads * cfg.head_dim
    total += 2 * cfg.width * (query + 2 * cfg.kv_heads * cfg.head_dim)  # query, key, value
    total += 2 * query * keys  # scores
    total += 2 * query * keys  # weighted values
    total += 2 * query * cfg.width  # out
    total += 2 * cfg.width * 2 * cfg.mlp + 2 * cfg.mlp * cfg.width  # gate and up, down
  return total + head * 2 * cfg.width * cfg.vocab


def span_flops(cfg: ModelConfig, first: int, last: int, head: bool) -> int:
  return sum(token_flops(cfg, position, head) for position in range(first, last))


def rectangle_flops(cfg: ModelConfig, rows: int, queries: int, keys: int, heads: int) -> int:
  """What runs on a machine: every query against every key, whatever the mask."""
  all_seeing = dataclasses.replace(cfg, window=(0,))
  a_row = queries * token_flops(all_seeing, keys - 1, False)
  return rows * a_row + heads * 2 * cfg.width * cfg.vocab


def test_three_tokens_cost_what_a_hand_counts() -> None:
  # A token: 2*4*(4+4) qkv, 2*4*4 out, 2*4*16 gate and up, 2*8*4 down; 1+2+3 keys of 4*4; a head of 2*4*10.
  assert product_params(TINY) == 144
  assert forward_flops(TINY, np.array([0]), np.array([3]), 3) == 3 * 288 + 6 * 16 + 3 * 80


@pytest.mark.parametrize("cfg", MODELS)
def test_a_forward_pass_costs_the_sum_of_its_tokens(cfg) -> None:
  first, last = np.array([0, 2, 5, 3]), np.array([7, 9, 6, 3])
  expected = sum(span_flops(cfg, a, b, False) for a, b in zip(first, last))
  heads = 5
  got = forward_flops(cfg, first, last, heads)
  assert got == expected + heads * 2 * cfg.width * cfg.vocab


@functools.lru_cache
def xla(remat: str) -> tuple[float, float, Ledger]:
  """XLA's FLOPs of a compiled forward pass and of the lowered gradient, and the ledger's for the same
  rows."""
  rows, length = 2, 64
  cfg = ModelConfig(width=256, layers=2, heads=4, kv_heads=2, head_dim=64, mlp=512, vocab=512, remat=remat)
  model = Decoder(cfg)
  params = jax.eval_shape(lambda key: nn.meta.unbox(init_params(model, key)), jax.random.key(0))
  ids = jax.ShapeDtypeStruct((rows, length), jnp.int32)

  def logits(params, *batch):
    hidden, _ = model.apply({"params": params}, *batch)
    return model.apply({"params": params}, hidden[:, :-1], method=Decoder.head)

  loss = lambda *args: jax.nn.logsumexp(logits(*args), axis=-1).sum()
  forward = jax.jit(logits).lower(params, ids, ids, ids).compile().cost_analysis()["flops"]
  gradient = jax.jit(jax.grad(loss)).lower(params, ids, ids, ids).cost_analysis()["flops"]
  flops = sft_flops(cfg, rows, length, [length] * rows, rows * (length - 1))
  return forward, gradient, Ledger(update=flops)


def test_executed_flops_are_those_that_xla_counts() -> None:
  forward, gradient, flops = xla("none")
  # The ledger counts matrix products; XLA adds norms, rotations and softmax: a percent or two of a decoder
  # this wide.
  assert flops.executed / 3 <= forward <= 1.02 * flops.executed / 3
  assert gradient == pytest.approx(flops.executed, rel=0.02)


def test_recomputation_is_an_upper_bound_of_what_xla_runs_again() -> None:
  _, gradient, flops = xla("full")
  # The layers alone run again, and of each all but its last product; the ledger counts a whole forward pass.
  assert 0.9 * flops.executed <= gradient <= flops.executed
  assert flops.executed == pytest.approx(xla("none")[2].executed * 4 / 3)


def test_useful_flops_leave_out_padding_and_the_future() -> None:
  lengths = [5, 3, 8]
  flops = sft_flops(LOCAL, 2, 9, lengths, 11)
  forward = sum(span_flops(LOCAL, 0, n, False) for n in lengths) + 11 * 2 * LOCAL.width * LOCAL.vocab
  assert flops.useful == 3 * forward
  assert flops.executed == 3 * rectangle_flops(LOCAL, 2, 9, 9, 2 * 8)


@pytest.mark.parametrize("cfg", [DEEP, LOCAL])
def test_a_whole_rl_step_is_the_sum_of_its_tokens(cfg) -> None:
  prompts, room, width = [3, 5], 6, 8
  lengths = np.array([[1, 4], [7, 2]])
  sampling = sampling_flops(cfg, Sizes(prompts, lengths), room, width)
  ledger = sampling + learning_flops(cfg, Sizes(prompts, lengths), room, width, updates=2, references=1)
  rows = [(p, n) for p, group in zip(prompts, lengths.tolist()) for n in group]
  encoded = sum(span_flops(cfg, 0, p, False) for p in prompts)
  head = 2 * cfg.width * cfg.vocab
  assert ledger.prefill.useful == encoded + len(prompts) * head
  # The first token of a response is drawn from the prefill, and its last one is never fed back.
  assert ledger.decode.useful == sum(span_flops(cfg, p, p + n - 1, True) for p, n in rows)
  forward = encoded + sum(span_flops(cfg, p, p + n, True) for p, n in rows)
  assert ledger.reference.useful == forward and ledger.update.useful == 2 * 3 * forward

  assert ledger.prefill.executed == rectangle_flops(cfg, 2, room, room, 2)
  assert ledger.decode.executed == rectangle_flops(cfg, 4, 6, room + width, 4 * 6)
  dense = rectangle_flops(cfg, 2, room, room, 0) + rectangle_flops(cfg, 4, width, room + width, 4 * width)
  assert ledger.reference.executed == dense and ledger.update.executed == 2 * 3 * dense
  for phase in ("prefill", "decode", "reference", "update"):
    assert vars(ledger)[phase].useful < vars(ledger)[phase].executed
  for phase in ("diagnostics", "judge"):
    assert vars(ledger)[phase] == Flops()
  assert sampling == Ledger(prefill=ledger.prefill, decode=ledger.decode)


def test_a_critic_of_its_own_costs_a_decoder_without_its_head() -> None:
  args = (Sizes([3, 5], np.array([[1, 4], [7, 2]])), 6, 8)
  plain = learning_flops(LOCAL, *args, updates=2, references=1)
  both = learning_flops(LOCAL, *args, updates=2, references=1, values=1, value_updates=2)
  rows = [(3, 1), (3, 4), (5, 7), (5, 2)]
  forward = sum(span_flops(LOCAL, 0, p, False) for p in (3, 5)) + sum(
    span_flops(LOCAL, p, p + n, False) for p, n in rows
  )
  assert both.reference.useful - plain.reference.useful == forward
  assert both.update.useful - plain.update.useful == 2 * 3 * forward
  dense = rectangle_flops(LOCAL, 2, 6, 6, 0) + rectangle_flops(LOCAL, 4, 8, 14, 0)
  assert both.reference.executed - plain.reference.executed == dense
  assert both.update.executed - plain.update.executed == 2 * 3 * dense
  assert (both.prefill, both.decode) == (Flops(), Flops())


def test_recomputing_layers_is_executed_and_not_useful() -> None:
  args = (Sizes([4], np.array([[3, 3]])), 4, 4)
  plain = learning_flops(DEEP, *args, updates=1, references=0)
  again = learning_flops(dataclasses.replace(DEEP, remat="full"), *args, updates=1, references=0)
  assert again.useful == plain.useful and plain.reference == Flops()
  assert again.update.executed * 3 == plain.update.executed * 4


def test_a_window_wider_than_the_sequence_changes_nothing() -> None:
  first, last = np.array([0, 3]), np.array([9, 4])
  wide = dataclasses.replace(DEEP, window=(9,))
  assert forward_flops(wide, first, last, 1) == forward_flops(DEEP, first, last, 1)


def test_products_hold_every_matrix_of_the_decoder_but_its_embedding() -> None:
  cfg = dataclasses.replace(DEEP, qk_norm="head", norm_placement="sandwich")
  params = jax.eval_shape(lambda key: nn.meta.unbox(init_params(Decoder(cfg), key)), jax.random.key(0))
  matrices = [
    leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1 and leaf.shape != (cfg.vocab, cfg.width)
  ]
  assert product_params(cfg) == sum(leaf.size for leaf in matrices)


def test_ledgers_add_phase_by_phase_and_survive_json() -> None:
  a = Ledger(prefill=Flops(1.0, 2.0), update=Flops(3.5, 4.0))
  b = Ledger(update=Flops(0.5, 1.0), judge=Flops(1e18 + 1, 2e18), extra_samples=8)
  both = a + b + Ledger(extra_samples=2)
  judged = {"judge": Flops(1e18 + 1, 2e18), "extra_samples": 10}
  assert both == Ledger(prefill=Flops(1.0, 2.0), update=Flops(4.0, 5.0), **judged)
  assert a + Ledger() == a
  assert Ledger.from_json(json.loads(json.dumps(both.to_json()))) == both
  assert (a.useful, a.executed) == (4.5, 6.0)
  assert a.metrics() == {
    "flops/prefill": 1.0, "flops/update": 3.5, "flops/useful": 4.5, "flops/executed": 6.0,
  }  # fmt: skip
  assert Flops(2.0, 3.0).times(4) == Flops(8.0, 12.0) and Flops(2.0, 3.0).times(4, 5) == Flops(8.0, 15.0)
  assert both.metrics()["samples/extra"] == 10.0
