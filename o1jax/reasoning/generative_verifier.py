"""A judge of our own on the device: P("Yes") of many prompts in one forward pass, and sampled rationales.

    the judge's prompts -> tokens, sorted by width, in chunks of fixed shapes -> one compiled call a chunk ->
      opinions, in order

Zhang et al. 2024, "Generative Verifiers", sections 3.1 and 3.3; what is asked and how votes are counted is
verifiers/judge/judge.py's. A prompt's shape depends on its own length alone and its noise on its own text,
so that what a judge says of it does not depend on what else is asked: up to rounding, and bit for bit where
XLA computes each row alone. Left out: training the judge (it is SFT on `question -> Yes`), its FLOPs in the
ledger, prefilling what prompts share.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o1jax.config import require
from o1jax.io.tokenizer import Tokenizer
from o1jax.model.transformer import Decoder, cast_params
from o1jax.parallel.sharding import batch_rows, put_rows
from o1jax.rl.critic import policy_params
from o1jax.rl.draw import greedy, inverse_cdf
from o1jax.rl.experience import prompt_batch
from o1jax.rl.generate import generate
from o1jax.rl.sampler import SampleConfig
from o1jax.types import PromptBatch, Rollout
from o1jax.verifiers.judge.judge import Opinion, Rationale, Sample, Score, spells

NARROWEST = 64  # tokens of the narrowest chunk of prompts; the next ones are twice as wide each


@dataclasses.dataclass(frozen=True)
class OnDevice:
  """What is static about a judge on the device."""

  model: Decoder
  tokenizer: Tokenizer
  max_prompt: int  # tokens; a longer prompt is not judged: its opinion is "unparsable"
  rows: int  # prompts a compiled call
  mesh: jax.sharding.Mesh | None = (
    None  # rows are spread over its data and fsdp axes; None: as the parameters lie
  )

  def validate(self) -> None:
    """Raises ConfigError where the sizes do not fit each other, or the tokenizer has no token that reads
    Yes.
    """
    require(self.max_prompt > 0 and self.rows > 0, "judge.rows", "rows and max_prompt must be positive")
    shards = 1 if self.mesh is None else batch_rows(self.mesh)
    require(
      self.rows % shards == 0, "judge.rows", f"{self.rows} does not divide over {shards} shards of the batch"
    )
    vocab, needed = self.model.cfg.vocab, self.tokenizer.vocab_size
    require(vocab >= needed, "judge.model", f"has {vocab} tokens, its tokenizer {needed}")
    require(bool(yes_tokens(self).any()), "judge.tokenizer", 'has no token that reads "Yes"')


def yes_tokens(judge: OnDevice) -> np.ndarray:
  """bool[V]: the tokens that read Yes, whatever their case and the space before them."""
  known = range(judge.tokenizer.vocab_size)
  yes = [spells(judge.tokenizer.decode([token])) == "yes" for token in known]
  return np.asarray([*yes, *[False] * (judge.model.cfg.vocab - len(yes))])


@functools.partial(jax.jit, static_argnames=("model",))
def p_yes(params: Any, batch: PromptBatch, yes: jax.Array, *, model: Decoder) -> jax.Array:
  """f32[P]: the probability, at temperature 1, that the token behind each prompt is one of `yes` bool[V]
  (eq. 4).
  """
  params = {"params": cast_params(params, model.cfg)}
  segment = batch.mask.astype(jnp.int32)
  position = jnp.maximum(jnp.cumsum(segment, axis=1) - 1, 0)
  hidden, _ = model.apply(params, batch.tokens, segment, position)
  logits: jax.Array = model.apply(params, hidden[:, -1], method="head")  # type: ignore[assignment]
  chance = jnp.sum(jnp.where(yes, jax.nn.softmax(logits, axis=-1), 0.0), axis=-1)
  return jnp.minimum(chance, 1.0)  # a sum of shares may round to more; a NaN stays one


def widths(max_prompt: int) -> list[int]:
  """Ascending widths of chunks, up to `max_prompt`: each one a program to compile, and at most half of it
  padding.
  """
  sizes = [NARROWEST]
  while sizes[-1] < max_prompt:
    sizes.append(2 * sizes[-1])
  return [*sizes[:-1], max_prompt]


def prompt_key(prompt: str) -> int:
  """u32 of a prompt's text, in the place of a problem's in its noise.

  Among n prompts of a call about n ** 2 / 2 ** 33 pairs share one; the later then has the noise of a second
  asking.
  """
  return int.from_bytes(hashlib.blake2b(prompt.encode(), digest_size=4).digest(), "little")


def chunks(judge: OnDevice, prompts: Sequence[str]) -> Iterator[tuple[list[int], PromptBatch]]:
  """(places of the prompts in a chunk, the chunk): `rows` prompts of one width, filled up with its first one.

  Prompts without a token, or with more than `max_prompt`, are in none.
  """
  encoded = [judge.tokenizer.encode(prompt) for prompt in prompts]
  narrower = 0
  for width in widths(judge.max_prompt):
    fitting = [place for place, tokens in enumerate(encoded) if narrower < len(tokens) <= width]
    narrower = width
    for start in range(0, len(fitting), judge.rows):
      places = fitting[start : start + judge.rows]
      filled = [*places, *[places[0]] * (judge.rows - len(places))]
      tokens, keys = [encoded[p] for p in filled], [prompt_key(prompts[p]) for p in filled]
      batch = prompt_batch(tokens, keys, ["judge"] * len(filled), width)
      yield places, batch if judge.mesh is None else put_rows(batch, judge.mesh)


def each_once(answer: Callable[[Sequence[str]], list[Any]]) -> Callable[[Sequence[str]], list[Any]]:
  """The same answers, each distinct prompt being asked once: a second asking would have noise of its own."""

  def answer_all(prompts: Sequence[str]) -> list[Any]:
    """Prompts -> what is answered to each, in their order."""
    distinct = list(dict.fromkeys(prompts))
    known = dict(zip(distinct, answer(distinct), strict=True))
    return [known[prompt] for prompt in prompts]

  return answer_all


def make_score(params: Any, judge: OnDevice) -> Score:
  """P("Yes") by the model. Raises ConfigError as `OnDevice.validate` does. `params` are read at each call,
  never changed.
  """
  judge.validate()
  policy, yes = policy_params(params), jnp.asarray(yes_tokens(judge))

  def score(prompts: Sequence[str]) -> list[Opinion]:
    """The judge's prompts -> an opinion each."""
    opinions = [Opinion(None, "unparsable")] * len(prompts)
    batches = [
      (places, p_yes(policy, batch, yes, model=judge.model)) for places, batch in chunks(judge, prompts)
    ]
    for places, chances in batches:  # the device has all of its work before the host waits for any
      for place, chance in zip(places, np.asarray(chances)):
        opinions[place] = Opinion(float(chance), None, f"P(Yes) {chance:.4f}")
    return opinions

  return each_once(score)


def make_sample(
  params: Any,
  judge: OnDevice,
  key: jax.Array,
  *,
  votes: int,
  max_tokens: int,
  stop_tokens: tuple[int, ...],
  temperature: float,
) -> Sample:
  """`votes` rationales a prompt at `temperature`; 0 is greedy, and good for one.

  `key` is `stream_key(seed, "judge", step)`; it is folded by prompt, sample and position, and may serve many
  calls: one prompt has one set of rationales. A prompt that is in no chunk has none. Raises ConfigError as
  `OnDevice.validate` does.
  """
  judge.validate()
  require(votes > 0, "judge.votes", "must be positive")
  require(
    temperature > 0 or votes == 1, "judge.temperature", f"is 0, greedy, so that {votes} votes are all one"
  )
  policy = policy_params(params)
  draw = inverse_cdf if temperature > 0 else greedy
  cfg = SampleConfig(max_tokens, stop_tokens, draw, pad=judge.tokenizer.pad)
  generated = functools.partial(
    generate, policy, temperature=jnp.float32(temperature or 1.0), model=judge.model, samples=votes, cfg=cfg
  )

  def sample(prompts: Sequence[str]) -> list[list[Rationale]]:
    """The judge's prompts -> their rationales."""
    rationales: list[list[Rationale]] = [[] for _ in prompts]
    batches = [(places, generated(batch, key)) for places, batch in chunks(judge, prompts)]
    for places, rollout in batches:
      texts = read_rationales(judge, rollout, stop_tokens)
      for row, place in enumerate(places):
        rationales[place] = texts[row * votes : (row + 1) * votes]
    return rationales

  return each_once(sample)


def read_rationales(judge: OnDevice, rollout: Rollout, stop_tokens: tuple[int, ...]) -> list[Rationale]:
  """The responses of a rollout as text, without their stop tokens."""
  tokens, valid = (np.asarray(a)[:, rollout.prompt_width :] for a in (rollout.tokens, rollout.valid))
  decode: Callable[[list[int]], str] = judge.tokenizer.decode
  texts = [
    decode([int(t) for t in row[keep] if int(t) not in stop_tokens]) for row, keep in zip(tokens, valid)
  ]
  return [Rationale(text, bool(done)) for text, done in zip(texts, np.asarray(rollout.finished))]
