"""Derives the golden files of tests/rl/test_parity.py from torch and TRL (extra `parity`). Reads no o1jax
code.

  python scripts/make_golden.py [--out tests/data/golden]

TRL's own methods run, on trainers made without their set-up: the numbers that a model and a reward function
would give are set by hand, the rest is TRL's. What TRL lacks is derived by torch's autograd from the
definitions, in plain loops. All arithmetic is float64; the files hold ten digits.

  losses.json      TRL's losses, their gradients by each token's log-prob and entropy, and the metrics beside
  them advantages.json  TRL's GRPO and RLOO advantages and reward metrics; the other estimators in plain loops
  scores.json      log-probs and entropies at a temperature (TRL), exact KLs (torch.distributions), and
  gradients
"""

import argparse
import json
import math
import pathlib
from collections import defaultdict

import torch
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.trainer.utils import selective_log_softmax_and_entropy

LENGTHS = (4, 1, 3, 2)
R_MAX = 5
SEED = 5  # with it, every clip of every case acts on some token
REWARDS = ((1.0, 0.0, 0.25, 1.0), (0.5, 0.5, 0.5, 0.5), (0.0, 0.0, 1.0, 0.0))
ROW_LENGTHS = ((3, 1, 2, 2), (1, 2, 3, 3), (2, 3, 3, 2))
GREEDY = (0.5, 0.25, 1.0)
REWARD_METRICS = ("reward", "reward_std", "frac_reward_zero_std")


class OneProcess:
  """What a loss asks of accelerate's Accelerator where there is one process."""

  device = torch.device("cpu")
  num_processes, process_index, sync_gradients = 1, 0, True

  def gather(self, value):
    return value

  def gather_for_metrics(self, value):
    return value

  def reduce(self, value, reduction):
    del reduction
    return value


class Bare:
  """A trainer without its set-up: the attributes that TRL's methods read, and the model's numbers as
  given."""

  def __init__(self, args, **attributes):
    self.args, self.accelerator = args, OneProcess()
    self.model = argparse.Namespace(training=True, is_gradient_checkpointing=False)
    self.beta, self.num_iterations, self.use_vllm = args.beta, args.num_iterations, args.use_vllm
    self.epsilon_low = args.epsilon
    self.epsilon_high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    self.max_completion_length, self.num_generations = R_MAX, args.num_generations
    self.aux_loss_enabled = False
    self._metrics = {"train": defaultdict(list)}
    self._logs = {"prompt": [], "completion": [], "advantages": [], "rewards": defaultdict(list), "extra": {}}
    self._pending_extra_logs, self._pending_metrics = {}, {}
    for name, value in attributes.items():
      setattr(self, name, value)

  def last_metrics(self):
    """The last value of each metric."""
    return {name: values[-1] for name, values in self._metrics["train"].items()}

  def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
    return self.logps if model is self.model else self.ref_logps, self.entropies, None

  def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
    return torch.tensor(REWARDS, dtype=torch.float64).reshape(-1, 1)


class BareGRPO(Bare, GRPOTrainer):
  """GRPOTrainer's arithmetic."""

  def _generate(self, prompts):
    ids = [[7] * n for row in ROW_LENGTHS for n in row]
    return [[5]] * len(ids), ids, None, [""] * len(ids), None, {}, None, None


class BareRLOO(Bare, RLOOTrainer):
  """RLOOTrainer's arithmetic."""

  def _generate(self, prompts):
    ids = [[7] * n for row in ROW_LENGTHS for n in row]
    return [[5]] * len(ids), ids, [""] * len(ids)


def grpo_trainer(attributes=None, **options):
  """A BareGRPO with TRL's defaults but for `options`, and a KL that is not multiplied by the ratio unless
  they say so."""
  args = GRPOConfig(
    output_dir="unused", use_cpu=True, bf16=False, report_to="none", per_device_train_batch_size=4,
    num_generations=4, max_completion_length=R_MAX, gradient_accumulation_steps=1, steps_per_generation=1,
    **{"use_bias_correction_kl": False, **options},
  )  # fmt: skip
  return BareGRPO(
    args, loss_type=args.loss_type, importance_sampling_level=args.importance_sampling_level,
    top_entropy_quantile=args.top_entropy_quantile, off_policy_mask_threshold=args.off_policy_mask_threshold,
    scale_rewards=args.scale_rewards, multi_objective_aggregation=args.multi_objective_aggregation,
    current_gradient_accumulation_steps=1, entropy_coef=args.entropy_coef, use_adaptive_entropy=False,
    _entropy_bonus_enabled=args.entropy_coef != 0.0, environment_factories=None, environments=None, tools=[],
    **(attributes or {}),
  )  # fmt: skip


def rloo_trainer(attributes=None, **options):
  """A BareRLOO with TRL's defaults but for `options`."""
  args = RLOOConfig(
    output_dir="unused", use_cpu=True, bf16=False, report_to="none", per_device_train_batch_size=4,
    num_generations=4, max_completion_length=R_MAX, **options,
  )  # fmt: skip
  return BareRLOO(
    args, normalize_advantages=args.normalize_advantages, reward_clip_range=args.reward_clip_range,
    **(attributes or {}),
  )  # fmt: skip


# Losses

CLIP = {"epsilon": 0.2, "epsilon_high": 0.3}
GRPO_CASES = {
  "grpo": {"loss_type": "grpo", "beta": 0.0, **CLIP},
  "grpo, k3": {"loss_type": "grpo", "beta": 0.25, **CLIP},
  "grpo, k3 times ratio": {"loss_type": "grpo", "beta": 0.25, "use_bias_correction_kl": True, **CLIP},
  "grpo, two-sided": {"loss_type": "grpo", "beta": 0.0, "delta": 1.5, **CLIP},
  "bnpo": {"loss_type": "bnpo", "beta": 0.0, **CLIP},
  "dapo": {"loss_type": "dapo", "beta": 0.0, **CLIP},
  "dapo, k3 and entropy": {"loss_type": "dapo", "beta": 0.25, "entropy_coef": 0.5, **CLIP},
  "dr_grpo": {"loss_type": "dr_grpo", "beta": 0.0, **CLIP},
  "dr_grpo, k3": {"loss_type": "dr_grpo", "beta": 0.25, **CLIP},
  "grpo, entropy": {"loss_type": "grpo", "beta": 0.0, "entropy_coef": 0.5, **CLIP},
  "cispo": {"loss_type": "cispo", "beta": 0.0, "epsilon_high": 1.25},
  "gspo": {"loss_type": "grpo", "beta": 0.0, "importance_sampling_level": "sequence", **CLIP},
  "gspo, dapo": {"loss_type": "dapo", "beta": 0.0, "importance_sampling_level": "sequence", **CLIP},
  "gspo, k3": {"loss_type": "grpo", "beta": 0.25, "importance_sampling_level": "sequence", **CLIP},
  "sapo": {"loss_type": "sapo", "beta": 0.0, **CLIP},
  "on-policy": {"loss_type": "dapo", "beta": 0.0, **CLIP},
}


def loss_inputs():
  """Off-policy float64 numbers [4, 4], 0 behind each completion's end."""
  rng = torch.Generator().manual_seed(SEED)
  draw = lambda scale: scale * torch.randn(4, 4, generator=rng, dtype=torch.float64)
  mask = torch.arange(4)[None] < torch.tensor(LENGTHS)[:, None]
  logp = -draw(1.0).abs() - 0.1
  numbers = {
    "logp": logp, "logp_old": logp + draw(0.7), "logp_ref": logp + draw(0.4), "entropy": draw(1.0).abs(),
  }  # fmt: skip
  numbers = {name: torch.round(torch.where(mask, v, 0.0), decimals=4) for name, v in numbers.items()}
  return numbers | {
    "mask": mask.long(),
    "advantage": torch.tensor([1.0, -0.75, -1.5, 0.5], dtype=torch.float64),
  }


def batch_of(numbers):
  """The part of TRL's batch that says where a completion is."""
  ones = torch.ones(4, 1, dtype=torch.long)
  return {
    "prompt_ids": ones, "prompt_mask": ones, "completion_ids": numbers["mask"],
    "completion_mask": numbers["mask"], "advantages": numbers["advantage"],
  }  # fmt: skip


def leaves(numbers):
  """Log-probs and entropies to differentiate by."""
  names = {"logps": "logp", "entropies": "entropy"}
  return {ours: numbers[name].clone().requires_grad_() for ours, name in names.items()}


def loss_record(loss, given, metrics):
  """The loss, its gradients and its metrics."""
  grads = torch.autograd.grad(loss, list(given.values()), allow_unused=True)
  blank = [torch.zeros_like(g) if d is None else d for g, d in zip(given.values(), grads, strict=True)]
  return {"loss": loss, "d_logp": blank[0], "d_entropy": blank[1], "metrics": metrics}


def trl_losses(numbers):
  """TRL's records by name."""
  records = {}
  for name, options in GRPO_CASES.items():
    given = leaves(numbers)
    trainer = grpo_trainer(given, **options)
    batch = batch_of(numbers) | {"num_items_in_batch": numbers["mask"].sum()}
    batch |= {"ref_per_token_logps": numbers["logp_ref"]}
    if name != "on-policy":
      batch |= {"old_per_token_logps": numbers["logp_old"]}
    records[name] = loss_record(trainer._compute_loss(trainer.model, batch), given, trainer.last_metrics())
  given = leaves(numbers)
  trainer = rloo_trainer(given, beta=0.0, **CLIP)
  batch = batch_of(numbers) | {"old_logps": (numbers["logp_old"] * numbers["mask"]).sum(1)}
  records["rloo"] = loss_record(trainer._compute_loss(trainer.model, batch), given, trainer.last_metrics())
  return records


def hand_losses(numbers):
  """What TRL has not: REINFORCE, dual clip for negative advantages alone, and k1 and k2 in the loss; token
  means."""
  rows = [(i, t) for i, n in enumerate(LENGTHS) for t in range(n)]

  def mean_over_tokens(loss_of_token):
    given = leaves(numbers)
    total = sum(loss_of_token(given["logps"][at], *(numbers[k][at] for k in ("logp_old", "logp_ref")),
                              numbers["advantage"][at[0]]) for at in rows)  # fmt: skip
    return loss_record(total / len(rows), given, {})

  def dual(lp, old, ref, advantage):
    ratio = torch.exp(lp - old)
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.3) * advantage)
    return -(torch.maximum(surrogate, 1.5 * advantage) if advantage < 0 else surrogate)

  ratio = lambda lp, old: torch.exp(lp - old)
  return {
    "reinforce": mean_over_tokens(lambda lp, old, ref, a: -a * lp),
    "reinforce, k1": mean_over_tokens(lambda lp, old, ref, a: -a * lp + 0.25 * (lp - ref)),
    "reinforce, k2": mean_over_tokens(lambda lp, old, ref, a: -a * lp + 0.25 * (lp - ref) ** 2 / 2),
    "reinforce, k1 times ratio": mean_over_tokens(
      lambda lp, old, ref, a: -a * lp + 0.25 * (lp - ref) * ratio(lp, old)
    ),
    "dual clip": mean_over_tokens(dual),
  }


# Advantages


def trl_advantages():
  """TRL's advantages of REWARDS, [3, 4], and its metrics of the rewards."""
  rng = torch.Generator().manual_seed(1)
  mask = torch.arange(3)[None] < torch.tensor(ROW_LENGTHS).reshape(-1, 1)
  draw = lambda: torch.round(-torch.rand(12, 3, generator=rng, dtype=torch.float64) * mask, decimals=4)
  logp, ref = draw(), draw()
  shared = {
    "logps": logp, "ref_logps": ref, "entropies": None, "ref_model": "reference", "pad_to_multiple_of": None,
    "mask_truncated_completions": False, "reward_weights": torch.ones(1, dtype=torch.float64),
    "log_multimodal": False,
    "reward_func_names": ["reward"], "_tokenizer": argparse.Namespace(pad_token_id=0),
  }  # fmt: skip
  trainers = {
    "grpo": grpo_trainer(shared, beta=0.0),
    "dr_grpo": grpo_trainer(shared, beta=0.0, scale_rewards="none"),
    "rloo": rloo_trainer(shared, beta=0.0),
    "rloo, k1 in the reward": rloo_trainer(shared, beta=0.25),
  }
  records = {}
  for name, trainer in trainers.items():
    output = trainer._generate_and_score_completions([{"prompt": ""}] * 12)
    metrics = {k: v for k, v in trainer.last_metrics().items() if k in REWARD_METRICS}
    records[name] = {"advantage": output["advantages"].reshape(3, 4), "metrics": metrics}
  return records, {"logp": logp, "logp_ref": ref}


def whitened(returns):
  """Lists of returns by token -> the same, less the mean of all and over their deviation (ddof 0)."""
  every = [x for row in returns for x in row]
  mean = sum(every) / len(every)
  deviation = math.sqrt(sum((x - mean) ** 2 for x in every) / len(every))
  return [[(x - mean) / deviation for x in row] for row in returns]


def hand_advantages():
  """Estimators that TRL has not, one completion at a time."""
  records = defaultdict(list)
  plain, based = [], []
  for rewards, lengths, greedy in zip(REWARDS, ROW_LENGTHS, GREEDY, strict=True):
    mean = sum(rewards) / len(rewards)
    weighted = sum(r * n for r, n in zip(rewards, lengths, strict=True)) / sum(lengths)
    second, best = sorted(rewards)[-2:]
    records["reinforce"].append(list(rewards))
    records["remax"].append([r - greedy for r in rewards])
    records["opo"].append([r - weighted for r in rewards])
    records["maxrl"].append([(r - mean) / mean for r in rewards])
    records["pass@k"].append([best - second if r == best else 0.0 for r in rewards])
    plain += [[r] * n for r, n in zip(rewards, lengths, strict=True)]
    based += [[r - mean] * n for r, n in zip(rewards, lengths, strict=True)]
  for name, returns in (("reinforce++", plain), ("reinforce++, group baseline", based)):
    firsts = [row[0] for row in whitened(returns)]
    records[name] = [firsts[4 * p : 4 * p + 4] for p in range(3)]
  return {
    name: {"advantage": torch.tensor(value, dtype=torch.float64), "metrics": {}}
    for name, value in records.items()
  }


# Scores


def scores():
  """A bigram model's scores of one text at temperature 0.7, and gradients of a fixed mixture of them by its
  table."""
  rng = torch.Generator().manual_seed(2)
  table, reference = torch.round(torch.randn(2, 5, 5, generator=rng, dtype=torch.float64), decimals=3)
  tokens, temperature = torch.tensor([1, 4, 0, 2, 2, 3]), 0.7
  table.requires_grad_()
  logits = table[tokens[:-1]] / temperature
  logp, entropy = selective_log_softmax_and_entropy(table[tokens[:-1]], tokens[1:], temperature=temperature)
  policy = torch.distributions.Categorical(logits=logits)
  target = torch.distributions.Categorical(logits=reference[tokens[:-1]] / temperature)
  reverse = torch.distributions.kl_divergence(policy, target)
  forward = torch.distributions.kl_divergence(target, policy)
  nll = torch.nn.functional.cross_entropy(logits, tokens[1:])
  parts = {"logp": logp, "entropy": entropy, "kl_reverse": reverse, "kl_forward": forward}
  ramp = torch.arange(1.0, 6.0, dtype=torch.float64)
  slopes = {f"d_{k}": torch.autograd.grad(ramp @ v, table, retain_graph=True)[0] for k, v in parts.items()}
  (d_nll,) = torch.autograd.grad(nll, table)
  given = {"table": table, "reference": reference, "tokens": tokens, "temperature": temperature}
  return {"inputs": given, **parts, **slopes, "nll": nll, "d_nll": d_nll}


def plain(value):
  """Tensors and nested dicts as lists of numbers with ten digits."""
  if isinstance(value, dict):
    return {name: plain(v) for name, v in value.items()}
  if isinstance(value, torch.Tensor):
    return plain(value.detach().tolist())
  if isinstance(value, (list, tuple)):
    return [plain(v) for v in value]
  return float(f"{value:.10g}") if isinstance(value, float) else value


def layout(value, indent=""):
  """JSON with a line for each list of lists, so that a change shows where it is."""
  if not isinstance(value, dict):
    return json.dumps(value)
  inner = indent + " "
  rows = [f"{inner}{json.dumps(name)}: {layout(v, inner)}" for name, v in value.items()]
  return "{\n" + ",\n".join(rows) + f"\n{indent}}}" if rows else "{}"


def main():
  parser = argparse.ArgumentParser(description="Derives the golden files from torch and TRL.")
  default = pathlib.Path(__file__).parents[1] / "tests" / "data" / "golden"
  parser.add_argument("--out", type=pathlib.Path, default=default)
  out = parser.parse_args().out
  numbers = loss_inputs()
  advantages, extra = trl_advantages()
  files = {
    "losses": {"inputs": {**numbers, "r_max": R_MAX}, "cases": trl_losses(numbers) | hand_losses(numbers)},
    "advantages": {
      "inputs": {"reward": REWARDS, "length": ROW_LENGTHS, "greedy": GREEDY, **extra},
      "cases": advantages | hand_advantages(),
    },
    "scores": scores(),
  }
  out.mkdir(parents=True, exist_ok=True)
  for name, content in files.items():
    (out / f"{name}.json").write_text(layout(plain(content)) + "\n")
    print(out / f"{name}.json")


if __name__ == "__main__":
  main()
