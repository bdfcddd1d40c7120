"""FLOP ledger of a dense decoder (Kaplan et al. 2020, section 2.1, with attention and head counted exactly).

Forward a token = 2 (N_layers + V D where the head is applied) + 4 n_layers n_heads head_dim c, c = keys
attended; backward is twice the forward. Two counts: `useful` (real tokens, exact causality: for curves and
comparisons at equal compute) and `executed` (padding, finished rows and recomputation too: for utilisation).
Totals leave out diagnostics, which are no cost of a method. Left out: norms, softmax and a value head (2 D a
token).
"""

import dataclasses
from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np

from o1jax.config import ModelConfig

RECOMPUTE = {"none": 0.0, "dots": 0.0, "full": 1.0}  # forwards done again in the backward pass
PHASES = ("prefill", "decode", "reference", "update", "diagnostics", "judge")
TOTALLED = tuple(phase for phase in PHASES if phase != "diagnostics")


@dataclasses.dataclass(frozen=True)
class Flops:
  """Floating-point operations, two a multiply-add."""

  useful: float = 0.0
  executed: float = 0.0

  def __add__(self, other: "Flops") -> "Flops":
    return Flops(self.useful + other.useful, self.executed + other.executed)

  def times(self, useful: float, executed: float | None = None) -> "Flops":
    """Both counts scaled; `executed` by a factor of its own where given."""
    return Flops(self.useful * useful, self.executed * (useful if executed is None else executed))


class Sizes(NamedTuple):
  """Real tokens of a rollout."""

  prompts: Sequence[int]  # [P]
  lengths: np.ndarray  # i[P, G], of the responses


@dataclasses.dataclass(frozen=True)
class Ledger:
  """FLOPs by phase, and the number of completions sampled again; ledgers add."""

  prefill: Flops = Flops()
  decode: Flops = Flops()
  reference: Flops = Flops()
  update: Flops = Flops()
  diagnostics: Flops = Flops()
  judge: Flops = Flops()
  extra_samples: int = 0  # completions of dynamic sampling's rounds; prefill and decode hold their FLOPs

  def __add__(self, other: "Ledger") -> "Ledger":
    both: dict[str, Any] = {name: vars(self)[name] + vars(other)[name] for name in vars(self)}
    return Ledger(**both)

  @property
  def useful(self) -> float:
    return sum(vars(self)[phase].useful for phase in TOTALLED)

  @property
  def executed(self) -> float:
    return sum(vars(self)[phase].executed for phase in TOTALLED)

  def metrics(self) -> dict[str, float]:
    """`flops/<phase>` (useful) of each phase that ran, both totals, and `samples/extra` if not 0."""
    metrics = {f"flops/{phase}": vars(self)[phase].useful for phase in PHASES if vars(self)[phase].executed}
    if self.extra_samples:
      metrics["samples/extra"] = float(self.extra_samples)
    return {**metrics, "flops/useful": self.useful, "flops/executed": self.executed}

  def to_json(self) -> dict[str, Any]:
    flops = {phase: [vars(self)[phase].useful, vars(self)[phase].executed] for phase in PHASES}
    return {**flops, "extra_samples": self.extra_samples}

  @staticmethod
  def from_json(data: Mapping[str, Any]) -> "Ledger":
    flops: dict[str, Any] = {phase: Flops(*data[phase]) for phase in PHASES}
    return Ledger(**flops, extra_samples=data.get("extra_samples", 0))


def product_params(cfg: ModelConfig) -> int:
  """Parameters in all layers' matrix products, the head left out."""
  attention = cfg.width * cfg.head_dim * (2 * cfg.heads + 2 * cfg.kv_heads)
  return cfg.layers * (attention + 3 * cfg.width * cfg.mlp)


def attention_flops(cfg: ModelConfig, first: np.ndarray, last: np.ndarray) -> float:
  """FLOPs of attention at positions first .. last - 1 of sequences (i[n] each), exactly causal."""
  per_key = 4 * cfg.heads * cfg.head_dim
  total = 0.0
  for window in cfg.window if len(cfg.window) == cfg.layers else cfg.window * cfg.layers:
    total += float((_keys_before(last, window) - _keys_before(first, window)).sum())
  return per_key * total


def _keys_before(end: np.ndarray, window: int) -> np.ndarray:
  """Number of keys attended, itself included, summed over the positions 0 .. end - 1."""
  end = np.asarray(end, np.float64)
  if not window:
    return end * (end + 1) / 2
  short = np.minimum(end, window)
  return short * (short + 1) / 2 + (end - short) * window


def forward_flops(cfg: ModelConfig, first: np.ndarray, last: np.ndarray, heads: float) -> float:
  """FLOPs of a forward pass over positions first .. last - 1 (i[n] each), the head at `heads` of them."""
  tokens = float((np.asarray(last) - np.asarray(first)).sum())
  return (
    2 * product_params(cfg) * tokens + attention_flops(cfg, first, last) + 2 * cfg.vocab * cfg.width * heads
  )


def _dense(cfg: ModelConfig, rows: int, queries: int, keys: int, heads: float) -> float:
  """FLOPs executed on `rows` rows of `queries` tokens, each against all `keys` keys, masked or not."""
  attention = 4 * cfg.layers * cfg.heads * cfg.head_dim * float(rows) * queries * keys
  return 2 * product_params(cfg) * float(rows) * queries + attention + 2 * cfg.vocab * cfg.width * heads


def sft_flops(cfg: ModelConfig, rows: int, length: int, lengths: Sequence[int], actions: int) -> Flops:
  """Forward and backward on packed rows.

  lengths: tokens of each demonstration; actions: imitated tokens.
  """
  end = np.asarray(lengths)
  useful = forward_flops(cfg, np.zeros_like(end), end, actions)
  executed = _dense(cfg, rows, length, length, rows * (length - 1))
  return Flops(3 * useful, (3 + RECOMPUTE[cfg.remat]) * executed)


def pass_flops(
  cfg: ModelConfig, rollout: Sizes, max_prompt: int, width: int, *, head: int = 1, packed: bool = False
) -> Flops:
  """FLOPs of a forward pass over a rollout, prompts encoded once a group; `width`: response columns that run.

  head: 1 where the head over the vocabulary is applied, at response positions; 0 for a critic's decoder.
  packed: rows of several completions run, each with its prompt, and the head at all of their positions.
  """
  prompt, (start, end) = np.asarray(rollout.prompts), _spans(rollout)
  count, rows = len(prompt), rollout.lengths.size
  useful = forward_flops(cfg, np.zeros_like(prompt), prompt, 0)
  useful += forward_flops(cfg, start, end, head * float(rollout.lengths.sum()))
  if packed:
    return Flops(useful, forward_flops(cfg, np.zeros_like(end), end, head * float(end.sum())))
  executed = _dense(cfg, count, max_prompt, max_prompt, 0)
  return Flops(useful, executed + _dense(cfg, rows, width, max_prompt + width, head * rows * width))


def _spans(rollout: Sizes) -> tuple[np.ndarray, np.ndarray]:
  """i[P * G] first position of each response, and the position behind its last."""
  start = np.repeat(np.asarray(rollout.prompts), rollout.lengths.shape[1])
  return start, start + rollout.lengths.reshape(-1)


def diagnostic_flops(
  cfg: ModelConfig, learned: Sizes, max_prompt: int, width: int, *, passes: int, draws: Sequence[Sizes]
) -> Ledger:
  """FLOPs of diagnostics: `passes` forward passes over a step's rollout, and the sampling of `draws`."""
  flops = pass_flops(cfg, learned, max_prompt, width).times(passes)
  for draw in draws:
    sampling = sampling_flops(cfg, draw, max_prompt, width)
    flops = flops + sampling.prefill + sampling.decode
  return Ledger(diagnostics=flops)


def learning_flops(
  cfg: ModelConfig,
  rollout: Sizes,
  max_prompt: int,
  width: int,
  *,
  updates: int,
  references: int,
  values: int = 0,
  value_updates: int = 0,
  packed: bool = False,
) -> Ledger:
  """FLOPs that follow a rollout in an RL step: passes as in `pass_flops`, of which updates may be packed.

  updates: passes of forward and backward; references: forward passes alone. values and value_updates are the
  same for a critic's decoder, which has no head over the vocabulary.
  """
  policy = pass_flops(cfg, rollout, max_prompt, width)
  critic = pass_flops(cfg, rollout, max_prompt, width, head=0)

  def run(head: int) -> Flops:
    return pass_flops(cfg, rollout, max_prompt, width, head=head, packed=packed)

  def learn(forward: Flops, times: int) -> Flops:
    return forward.times(3 * times, (3 + RECOMPUTE[cfg.remat]) * times)

  return Ledger(
    reference=policy.times(references) + critic.times(values),
    update=learn(run(1), updates) + learn(run(0), value_updates),
  )


def judging_flops(cfg: ModelConfig, rollout: Sizes, max_prompt: int, width: int, *, judges: int) -> Ledger:
  """FLOPs of `judges` forward passes of a reward model, as in `pass_flops`."""
  return Ledger(judge=pass_flops(cfg, rollout, max_prompt, width, head=0).times(judges))


def sampling_flops(
  cfg: ModelConfig, rollout: Sizes, max_prompt: int, width: int, *, refilled: bool = False
) -> Ledger:
  """FLOPs of prefill and decode of one rollout; `width`: columns of its key buffer behind the prompt.

  refilled: slots take row after row and read the keys that are filled, so that what runs is what is useful.

  Each prompt is encoded once a group. The head is applied at the last prompt position and at response
  positions.
  """
  prompt, (start, end) = np.asarray(rollout.prompts), _spans(rollout)
  count, rows = len(prompt), rollout.lengths.size
  prefill = Flops(
    forward_flops(cfg, np.zeros_like(prompt), prompt, count),
    _dense(cfg, count, max_prompt, max_prompt, count),
  )
  # The last token drawn is never fed back, and a row's first comes from the prefill.
  fed = np.maximum(end - 1, start)
  steps = max(int(rollout.lengths.max()) - 1, 0)
  useful = forward_flops(cfg, start, fed, float((fed - start).sum()))
  executed = useful if refilled else _dense(cfg, rows, steps, max_prompt + width, float(rows) * steps)
  return Ledger(prefill, Flops(useful, executed))
