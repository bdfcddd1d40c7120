"""Scores of tokens over a large vocabulary, from the logits of a chunk of tokens and a block of it at a time.

  forward: sums of exp(logit) and of what entropy and exact KLs need, block after block (an online softmax)
  backward: the logits are made again, and their slopes follow from the saved scores in closed form

With z = logits / temperature, p = softmax(z), q the reference's, lse = log sum exp(z), t the token:
  logp = z_t - lse                      d logp / dz = 1_t - p
  entropy H = lse - sum p z             dH / dz = -p (z - lse + H)
  KL(p || q) = sum p (log p - log q)    dKL / dz = p (log p - log q - KL)
  KL(q || p) = sum q (log q - log p)    dKL / dz = p - q
No f32[N, V] exists, and the kernel's gradient is added up in float32.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from o1jax.model.attention import MASKED
from o1jax.model.transformer import Decoder
from o1jax.types import TokenScores

LOGITS = 2**25  # logits that exist at once, at most, before the vocabulary is cut into blocks


@dataclasses.dataclass(frozen=True)
class Blocks:
  """How tokens and vocabulary are cut; hashable."""

  model: Decoder  # whose head is read, with a vocabulary of one block
  needs: frozenset[str]
  chunk: int  # tokens
  block: int  # of the vocabulary
  kernel: str  # name of the head's parameter


class Head(NamedTuple):
  """A head's kernel f32[V, D] and hidden states f[n, D]."""

  kernel: jax.Array
  hidden: jax.Array


class _Totals(NamedTuple):
  """Sums over the vocabulary so far, f32[n] of each token; of the reference None without one."""

  top: jax.Array  # largest z
  total: jax.Array  # sum exp(z - top)
  logit: jax.Array  # sum exp(z - top) z
  target: jax.Array  # z of the token
  ref_top: Any
  ref_total: Any
  reverse: Any  # sum exp(z - top) (z - z_ref)
  forward: Any  # sum exp(z_ref - ref_top) (z_ref - z)


class _Saved(NamedTuple):
  """What the backward pass reads of the forward one, f32[N]."""

  lse: jax.Array
  ref_lse: jax.Array | None
  entropy: jax.Array
  reverse: jax.Array | None


def make_blocks(model: Decoder, params: Any, needs: frozenset[str], chunk: int) -> Blocks | None:
  """The blocks of a head whose logits of a chunk would be too large; None: they are not.

  None too where the vocabulary is split over devices, which cuts it already.
  """
  vocab, split = model.cfg.vocab, jax.sharding.get_abstract_mesh().shape.get("tensor", 1)
  if chunk * vocab <= LOGITS or split > 1:
    return None
  kernel = "head" if "head" in params else "embedding"
  block = min(vocab, max(128, LOGITS // chunk // 128 * 128))
  return Blocks(Decoder(dataclasses.replace(model.cfg, vocab=block)), needs, chunk, block, kernel)


def _logits(kernel: jax.Array, hidden: jax.Array, temperature: jax.Array, blocks: Blocks) -> jax.Array:
  variables: Any = {"params": {"embedding": kernel, blocks.kernel: kernel}}  # the decoder has both
  logits: Any = blocks.model.apply(variables, hidden, method="head")
  return logits / temperature


def _start(block: jax.Array, vocab: int, blocks: Blocks) -> jax.Array:
  """The block's first token; the last one overlaps the one before where they do not divide."""
  return jnp.minimum(block * blocks.block, vocab - blocks.block)


def _fresh(block: jax.Array, vocab: int, blocks: Blocks) -> jax.Array:
  """bool[b]: tokens of the block that stand in none before it."""
  return _start(block, vocab, blocks) + jnp.arange(blocks.block) >= block * blocks.block


def _add_block(
  block: jax.Array,
  sums: _Totals,
  *,
  heads: list[Head],
  target: jax.Array,
  temperature: jax.Array,
  blocks: Blocks,
) -> _Totals:
  """The sums with one block of the vocabulary more."""
  vocab = heads[0].kernel.shape[0]
  first, fresh = _start(block, vocab, blocks), _fresh(block, vocab, blocks)

  def logits_of(head: Head) -> jax.Array:
    kernel = jax.lax.dynamic_slice_in_dim(head.kernel, first, blocks.block)
    return jnp.where(fresh, _logits(kernel, head.hidden, temperature, blocks), MASKED)

  z = logits_of(heads[0])
  top = jnp.maximum(sums.top, z.max(-1))
  weight, kept = jnp.exp(z - top[:, None]), jnp.exp(sums.top - top)
  here = jnp.clip(target - first, 0, blocks.block - 1)
  inside = (target >= first) & (target < first + blocks.block) & fresh[here]
  picked = jnp.where(inside, jnp.take_along_axis(z, here[:, None], axis=1)[:, 0], 0.0)
  sums = sums._replace(
    top=top, total=sums.total * kept + weight.sum(-1), logit=sums.logit * kept + (weight * z).sum(-1),
    target=sums.target + picked,
  )  # fmt: skip
  if sums.ref_top is None:
    return sums
  z_ref = logits_of(heads[1])
  ref_top = jnp.maximum(sums.ref_top, z_ref.max(-1))
  ref_weight, ref_kept = jnp.exp(z_ref - ref_top[:, None]), jnp.exp(sums.ref_top - ref_top)
  return sums._replace(
    ref_top=ref_top, ref_total=sums.ref_total * ref_kept + ref_weight.sum(-1),
    reverse=sums.reverse * kept + (weight * (z - z_ref)).sum(-1),
    forward=sums.forward * ref_kept + (ref_weight * (z_ref - z)).sum(-1),
  )  # fmt: skip


def _score_chunk(
  heads: list[Head], target: jax.Array, temperature: jax.Array, blocks: Blocks
) -> tuple[TokenScores, _Saved]:
  """Scores of one chunk of tokens, and what is saved of it."""
  zeros = jnp.zeros(target.shape, jnp.float32)
  none = zeros if len(heads) > 1 else None
  low = zeros + MASKED
  sums = _Totals(low, zeros, zeros, zeros, None if none is None else low, none, none, none)
  step = functools.partial(_add_block, heads=heads, target=target, temperature=temperature, blocks=blocks)
  sums = jax.lax.fori_loop(0, -(-heads[0].kernel.shape[0] // blocks.block), step, sums)
  lse = sums.top + jnp.log(sums.total)
  entropy = lse - sums.logit / sums.total
  needed = lambda name, value: value if name in blocks.needs else None
  scores = TokenScores(sums.target - lse, needed("entropy", entropy))
  if sums.ref_top is None:
    return scores, _Saved(lse, None, entropy, None)
  ref_lse = sums.ref_top + jnp.log(sums.ref_total)
  reverse = sums.reverse / sums.total - lse + ref_lse
  forward = sums.forward / sums.ref_total - ref_lse + lse
  scores = dataclasses.replace(
    scores, kl_reverse=needed("kl_reverse", reverse), kl_forward=needed("kl_forward", forward)
  )
  return scores, _Saved(lse, ref_lse, entropy, reverse)


def _fold(tree: Any, chunk: int) -> Any:
  """[pieces, chunk, ...] of arrays [N, ...], filled up with zeros."""

  def fold(a: jax.Array) -> jax.Array:
    a = jnp.pad(a, [(0, -a.shape[0] % chunk)] + [(0, 0)] * (a.ndim - 1))
    return a.reshape(-1, chunk, *a.shape[1:])

  return jax.tree.map(fold, tree)


def _unfold(tree: Any, count: int) -> Any:
  return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:count], tree)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def score_by_blocks(
  heads: list[Head], target: jax.Array, temperature: jax.Array, blocks: Blocks
) -> TokenScores:
  """TokenScores f32[N] of the policy's head and, where exact KLs are needed, the reference's; target i32[N].

  The gradient is that of the policy's kernel and hidden states; the reference and the temperature have none.
  """
  return _forward(heads, target, temperature, blocks)[0]


def _forward(
  heads: list[Head], target: jax.Array, temperature: jax.Array, blocks: Blocks
) -> tuple[TokenScores, tuple]:
  def one(piece: tuple[list[jax.Array], jax.Array]) -> tuple[TokenScores, _Saved]:
    hidden, target = piece
    now = [head._replace(hidden=states) for head, states in zip(heads, hidden)]
    return _score_chunk(now, target, temperature, blocks)

  pieces = _fold(([head.hidden for head in heads], target), blocks.chunk)
  scores, saved = _unfold(jax.lax.map(one, pieces), target.shape[0])
  return scores, (heads, target, temperature, saved)


def _slope(
  z: jax.Array, z_ref: jax.Array | None, hit: jax.Array, saved: _Saved, slopes: TokenScores
) -> jax.Array:
  """f32[n, b], of one block's logits; hit bool[n, b] at the tokens' own; slopes f32[n], of the scores."""
  column = lambda a: a[:, None]
  logp = z - column(saved.lse)
  p = jnp.exp(logp)
  total = column(slopes.logp) * (hit - p)
  if slopes.entropy is not None:
    total -= column(slopes.entropy) * p * (logp + column(saved.entropy))
  if z_ref is None or saved.ref_lse is None or saved.reverse is None:
    return total
  ref_logp = z_ref - column(saved.ref_lse)
  if slopes.kl_reverse is not None:
    total += column(slopes.kl_reverse) * p * (logp - ref_logp - column(saved.reverse))
  if slopes.kl_forward is not None:
    total += column(slopes.kl_forward) * (p - jnp.exp(ref_logp))
  return total


def _backward(blocks: Blocks, residual: tuple, slopes: TokenScores) -> tuple:
  heads, target, temperature, saved = residual
  policy, vocab = heads[0], heads[0].kernel.shape[0]
  count = -(-vocab // blocks.block)

  def one(of_kernel: jax.Array, piece: tuple) -> tuple[jax.Array, jax.Array]:
    """(the kernel's slope with one chunk of tokens more, the chunk's own)."""
    hidden, target, saved, slopes = piece

    def add(block: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
      """Both slopes with one block of the vocabulary more."""
      of_kernel, of_hidden = carry
      first, fresh = _start(block, vocab, blocks), _fresh(block, vocab, blocks)
      cut = lambda kernel: jax.lax.dynamic_slice_in_dim(kernel, first, blocks.block)
      logits = functools.partial(_logits, temperature=temperature, blocks=blocks)
      z, pull = jax.vjp(logits, cut(policy.kernel), hidden[0])
      z_ref = logits(cut(heads[1].kernel), hidden[1]) if len(heads) > 1 else None
      hit = (target - first)[:, None] == jnp.arange(blocks.block)
      slope = jnp.where(fresh, _slope(z, z_ref, hit, saved, slopes), 0.0)
      kernel_part, hidden_part = pull(slope)
      kernel_part = kernel_part.astype(jnp.float32) + cut(of_kernel)
      of_kernel = jax.lax.dynamic_update_slice_in_dim(of_kernel, kernel_part, first, 0)
      return of_kernel, of_hidden + hidden_part.astype(jnp.float32)

    start = (of_kernel, jnp.zeros(hidden[0].shape, jnp.float32))
    return jax.lax.fori_loop(0, count, add, start)

  pieces = _fold(([head.hidden for head in heads], target, saved, slopes), blocks.chunk)
  of_kernel, of_hidden = jax.lax.scan(one, jnp.zeros(policy.kernel.shape, jnp.float32), pieces)
  of_hidden = _unfold(of_hidden, target.shape[0]).astype(policy.hidden.dtype)
  nothing = [jax.tree.map(jnp.zeros_like, head) for head in heads[1:]]
  return [Head(of_kernel.astype(policy.kernel.dtype), of_hidden), *nothing], None, None


score_by_blocks.defvjp(_forward, _backward)
