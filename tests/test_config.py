"""Every check of the configuration, and what passes them (through JSON, too: test_config_json)."""

import ast
import functools
import json
import pathlib
from typing import Any

import pytest
from config_changes import changed, not_negative, positive
from idle_options import ACTS, IDLE
from sweep_faults import ARMS, SWEEP_FAULTS, checked
from tables import failed_rows

from o1jax import config as config_module
from o1jax.config import (
  Check,
  Claim,
  ConfigError,
  CountdownConfig,
  Gsm8kConfig,
  JudgeConfig,
  JudgedConfig,
  MixtureConfig,
  ModelConfig,
  Part,
  RLConfig,
  RopeScaling,
  SftConfig,
  SweepConfig,
  TextConfig,
  TrainConfig,
)
from o1jax.io.run_config import config_from_dict, config_to_dict

BASE = TrainConfig(
  name="x",
  model=ModelConfig(width=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=32),
  task=CountdownConfig(),
  sft=SftConfig(steps=1),
  rl=RLConfig(steps=1),
)
OFF_POLICY = {"rl.epochs": 2, "rl.loss.kind": "sapo"}
CRITIC = {"rl.critic.kind": "head", "rl.advantage.kind": "gae"}
CLIPPED = {**OFF_POLICY, "rl.loss.clip_low": 0.2, "rl.loss.clip_high": 0.2}
PROXY = {"rl.reward_model.kind": "outcome"}
KL = {"rl.kl.coef": 0.1, "rl.steps": 9}
SCHEDULED = {**KL, "rl.kl.schedule": "linear"}
ADAPTIVE = {**KL, "rl.kl.target": 0.1, "rl.kl.horizon": 100}
JUDGE = JudgedConfig(path="rows.jsonl", judge=JudgeConfig("model"))
JUDGED = (JUDGE, MixtureConfig(parts=(Part(JUDGE), Part(CountdownConfig()))))
BONUS = {"rl.steps": 9, "rl.entropy_target": 1.0, "rl.entropy_rate": 0.1}
COVS: dict[str, dict[str, Any]] = {
  "clip_cov": {"rl.cov.kind": "clip_cov", "rl.cov.fraction": 2e-4, "rl.cov.low": 1.0, "rl.cov.high": 5.0},
  "kl_cov": {**OFF_POLICY, "rl.cov.kind": "kl_cov", "rl.cov.fraction": 2e-3, "rl.cov.coef": 1.0},
}
FAULTS: list[tuple[dict[str, Any], str]] = [
  *IDLE,
  *positive(*(f"model.{name}" for name in ("width", "layers", "heads", "kv_heads", "head_dim", "mlp"))),
  ({"model.kv_heads": 3}, "model.kv_heads: does not divide heads=4"),
  ({"model.head_dim": 7}, "model.head_dim: must be even, is 7"),
  ({"model.rope_theta": (1e4, 1e4, 1e4)}, "model.rope_theta: wants 1 or 2 values, has 3"),
  ({"model.rope_theta": (0.0,)}, "model.rope_theta: must be positive"),
  ({"model.window": ()}, "model.window: wants 1 or 2 values, has 0"),
  ({"model.window": (0, -4)}, "model.window: must not be negative"),
  *positive("model.norm_eps"),
  *not_negative("model.attention_softcap", "model.head_softcap"),
  ({"model.rope_scaling": RopeScaling(factor=0.0)}, "model.rope_scaling.factor: must be positive"),
  ({"model.rope_scaling": RopeScaling(original_length=0)},
   "model.rope_scaling.original_length: must be positive"),
  (
    {"model.rope_scaling": RopeScaling(low_freq_factor=4.0, high_freq_factor=4.0)},
    "model.rope_scaling.high_freq_factor: must be above low_freq_factor=4.0, is 4.0",
  ),
  ({"task.count": 1}, "task.count: must lie in 2..4, is 1"),
  ({"task.count": 5}, "task.count: must lie in 2..4, is 5"),
  *positive("task.max_number", "task.max_tries", "task.held_out"),
  ({"task.max_value": 14}, "task.max_value: must be at least max_number"),
  ({"task.give_up_rate": 1.0}, "task.give_up_rate: must lie in [0, 1)"),
  ({"task.hint_rate": 0.0}, "task.hint_rate: must lie in (0, 1]"),
  *positive("rl.problems"),
  ({"task.wide_cold_start": True}, "task.wide_cold_start: cannot act without max_target"),
  *(
    ({"task.max_target": target}, f"task.max_target: must be positive and below max_value=99, is {target}")
    for target in (0, 99)
  ),
  *not_negative("task.split_seed", "task.more_numbers"),
  (
    {"task": MixtureConfig((Part(CountdownConfig()), Part(Gsm8kConfig(text=TextConfig(vocab=400)))))},
    "task.parts[1].task.text: cannot act in a mixture: task.text serves all parts",
  ),
  ({"task": MixtureConfig(())}, "task.parts: must be two or more"),
  ({"task": MixtureConfig((Part(CountdownConfig()), Part(CountdownConfig(), 0.0)))},
   "task.parts[1].weight: must be positive, is 0.0"),
  (
    {"task": MixtureConfig((Part(CountdownConfig(), 1e-9), Part(CountdownConfig())))},
    "task.parts[0].weight: must be at least 0.0001 of all weights together, is 1e-09 of 1.000000001",
  ),
  ({"rl.curriculum.kind": "pass_rate", "rl.curriculum.rate": 0.5},
   "rl.curriculum.min_probability: goes with kind=pass_rate, and is needed"),
  ({"rl.curriculum.rate": 0.5}, "rl.curriculum.rate: goes with kind=pass_rate"),
  (
    {"rl.curriculum.kind": "pass_rate", "rl.curriculum.rate": 0.5, "rl.curriculum.min_probability": 0.0},
    "rl.curriculum.min_probability: must lie in [0.01, 1], is 0.0",
  ),
  *not_negative("rl.curriculum.drop_solved", "rl.curriculum.drop_unsolved"),
  ({"rl.chunks": 0}, "rl.chunks: must divide prompts=32, is 0"),
  ({"rl.chunks": 3}, "rl.chunks: must divide prompts=32, is 3"),
  *positive("sft.optim.lr", "rl.optim.lr"),
  *not_negative("rl.optim.warmup_steps", "rl.optim.clip_norm", "rl.optim.weight_decay"),
  ({"rl.optim.b1": 1.0}, "rl.optim.b1: must lie in [0, 1)"),
  ({"sft.optim.b2": -0.1}, "sft.optim.b2: must lie in [0, 1)"),
  ({"rl.optim.final_fraction": 0.1}, "rl.optim.final_fraction: cannot act with schedule=constant"),
  *not_negative("sft.steps", "rl.steps"),
  ({"sft.rows": 0}, "sft.rows: rows and length must be positive"),
  ({"sft.length": 0}, "sft.rows: rows and length must be positive"),
  ({"sft.micro_batches": 0}, "sft.micro_batches: must divide rows=32"),
  ({"sft.micro_batches": 3}, "sft.micro_batches: must divide rows=32"),
  ({"rl.advantage.ddof": 2}, "rl.advantage.ddof: must be 0 or 1, is 2"),
  *positive("rl.advantage.eps"),
  ({"rl.advantage.group_baseline": True}, "rl.advantage.group_baseline: acts with kind=reinforce++ alone"),
  ({"rl.advantage.kind": "rloo", "rl.advantage.ddof": 0},
   "rl.advantage.ddof: ddof and eps act with kind=grpo"),
  ({"rl.advantage.kind": "opo", "rl.advantage.eps": 1e-6},
   "rl.advantage.ddof: ddof and eps act with kind=grpo"),
  ({**OFF_POLICY, "rl.loss.kind": "ppo_clip"}, "rl.loss.clip_low: is needed with kind=ppo_clip"),
  ({**OFF_POLICY, "rl.loss.kind": "cispo"}, "rl.loss.clip_high: is needed with kind=cispo"),
  ({**CLIPPED, "rl.loss.kind": "cispo"}, "rl.loss.clip_low: cannot act with kind=cispo"),
  ({"rl.loss.clip_low": 0.2}, "rl.loss.clip_low: cannot act with kind=reinforce"),
  ({"rl.loss.clip_high": 0.2}, "rl.loss.clip_high: cannot act with kind=reinforce"),
  ({**CLIPPED, "rl.loss.kind": "gspo", "rl.loss.clip_low": 0.0}, "rl.loss.clip_low: must be positive"),
  ({**CLIPPED, "rl.loss.kind": "gspo", "rl.loss.clip_high": -0.2}, "rl.loss.clip_high: must be positive"),
  ({"rl.loss.dual_clip": 3.0}, "rl.loss.dual_clip: goes with kind=dual_clip, and is needed there"),
  ({**CLIPPED, "rl.loss.kind": "dual_clip"}, "rl.loss.dual_clip: goes with kind=dual_clip, and is needed there"),
  ({**CLIPPED, "rl.loss.kind": "dual_clip", "rl.loss.dual_clip": 1.0}, "rl.loss.dual_clip: must be above 1"),
  ({**CLIPPED, "rl.loss.kind": "rloo"}, "rl.loss.aggregation: must be seq_mean_token_mean with kind=rloo"),
  *not_negative("rl.kl.coef"),
  ({"rl.kl.reference": "ema"}, "rl.kl.ema: goes with reference=ema, and is needed there"),
  ({"rl.kl.ema": 0.1}, "rl.kl.ema: goes with reference=ema, and is needed there"),
  ({"rl.kl.reference": "ema", "rl.kl.ema": 1.5}, "rl.kl.ema: must lie in (0, 1]"),
  ({"rl.kl.reference": "reset"}, "rl.kl.reset_every: goes with reference=reset, and is needed there"),
  ({"rl.kl.reset_every": 5}, "rl.kl.reset_every: goes with reference=reset, and is needed there"),
  ({"rl.kl.reference": "reset", "rl.kl.reset_every": 0}, "rl.kl.reset_every: must be positive"),
  ({"rl.kl.reset_optimizer": True}, "rl.kl.reset_optimizer: goes with reference=reset"),
  ({"rl.kl.estimator": "forward", "rl.kl.placement": "reward"}, "rl.kl.placement: forward is exact"),
  ({"rl.kl.estimator": "reverse", "rl.kl.times_ratio": True},
   "rl.kl.times_ratio: multiplies a sampled estimator"),
  ({"rl.kl.placement": "reward", "rl.kl.times_ratio": True},
   "rl.kl.times_ratio: multiplies a sampled estimator"),
  ({"rl.kl.reference": "ema", "rl.kl.ema": 0.1}, "rl.kl.coef: is 0, so that no other field"),
  ({"rl.kl.times_ratio": True}, "rl.kl.coef: is 0, so that no other field"),
  ({**SCHEDULED, "rl.kl.final_fraction": 1.5}, "rl.kl.final_fraction: must lie in [0, 1]"),
  ({**KL, "rl.kl.final_fraction": 0.5}, "rl.kl.final_fraction: cannot act with schedule=constant"),
  ({**KL, "rl.kl.target": 0.1}, "rl.kl.horizon: goes with target, and is needed there"),
  ({**KL, "rl.kl.horizon": 100}, "rl.kl.horizon: goes with target, and is needed there"),
  ({**ADAPTIVE, "rl.kl.target": 0.0}, "rl.kl.target: must be positive"),
  ({**ADAPTIVE, "rl.kl.horizon": 0}, "rl.kl.horizon: must be positive"),
  ({**ADAPTIVE, "rl.kl.schedule": "cosine"}, "rl.kl.schedule: cannot act beside target"),
  ({**ADAPTIVE, "rl.kl.coef": 0.0}, "rl.kl.coef: is 0, so that no other field"),
  ({**SCHEDULED, "rl.kl.coef": 0.0}, "rl.kl.coef: is 0, so that no other field"),
  ({**SCHEDULED, "rl.steps": 1}, "rl.kl.schedule: cannot act in a stage of one step"),
  ({**ADAPTIVE, "rl.steps": 1}, "rl.kl.target: cannot act in a stage of one step"),
  ({**KL, "rl.steps": 1, "rl.kl.reference": "ema", "rl.kl.ema": 0.1},
   "rl.kl.reference: cannot act in a stage of one"),
  ({**KL, "rl.kl.reference": "reset", "rl.kl.reset_every": 9}, "rl.kl.reset_every: must be below steps=9"),
  *((({**COVS[kind], f"rl.cov.{name}": None}), f"rl.cov.{name}: is needed with kind={kind}")
    for kind, names in {"clip_cov": ("fraction", "low", "high"),
                        "kl_cov": ("fraction", "coef")}.items() for name in names),
  ({**COVS["clip_cov"], "rl.cov.coef": 1.0}, "rl.cov.coef: cannot act with kind=clip_cov"),
  ({"rl.cov.low": 1.0}, "rl.cov.low: cannot act with kind=none"),
  ({**COVS["clip_cov"], "rl.cov.fraction": 0.0}, "rl.cov.fraction: must lie in (0, 1]"),
  ({**COVS["clip_cov"], "rl.cov.high": 1.0}, "rl.cov.high: must be above low=1.0"),
  ({**COVS["kl_cov"], "rl.cov.coef": -1.0}, "rl.cov.coef: must not be negative"),
  ({**COVS["kl_cov"], "rl.epochs": 1, "rl.loss.kind": "reinforce"},
   "rl.cov.kind: with one optimiser step a rollout the ratio is 1 and kl_cov"),
  ({**CLIPPED, **COVS["clip_cov"], "rl.loss.kind": "gspo"},
   "rl.cov.kind: clip_cov picks tokens, gspo has one ratio"),
  ({"rl.overlong.buffer": 64}, "rl.overlong.buffer: must lie in [0, max_tokens=64)"),
  ({"rl.overlong.buffer": 8, "rl.overlong.penalty": -1.0}, "rl.overlong.penalty: must be positive"),
  ({"rl.overlong.penalty": 2.0}, "rl.overlong.penalty: cannot act with buffer=0"),
  ({"rl.overlong.truncation_penalty": 1.0}, "rl.overlong.truncation_penalty: must not be positive"),
  ({"rl.overlong.truncation_penalty": -1.0, "rl.overlong.mask": True},
   "rl.overlong.truncation_penalty: cannot act with mask"),
  ({"rl.overlong.buffer": 8, "rl.advantage.kind": "remax"},
   "rl.overlong: buffer and truncation_penalty cannot act on remax's"),
  ({"rl.overlong.truncation_penalty": -1.0, "rl.advantage.kind": "remax"},
   "rl.overlong: buffer and truncation_penalty cannot act on"),
  ({**KL, "rl.kl.placement": "reward", "rl.advantage.kind": "remax"},
   "rl.kl.placement: reward cannot act on remax's"),
  ({"rl.advantage.min_std": -0.1}, "rl.advantage.min_std: must not be negative, is -0.1"),
  ({"rl.advantage.min_std": 0.1, "rl.advantage.kind": "rloo"},
   "rl.advantage.min_std: acts with kind=grpo or reinforce++"),
  ({**CRITIC, "rl.critic.whiten": False, "rl.advantage.min_std": 0.1},
   "rl.advantage.min_std: acts with kind=grpo or"),
  *(({"model.dtype": "bfloat16", **asked},
     "rl.loss.logp_old: must be learner with model.dtype=bfloat16") for asked in (
    {**CLIPPED, "rl.loss.kind": "gspo"}, {**KL, "rl.kl.placement": "reward"},
    {**KL, "rl.kl.times_ratio": True}, COVS["kl_cov"])),
  *(({"rl.dynamic_sampling": 1, "task": task},
     "rl.dynamic_sampling: finds no group of zero std: P(Yes) is never equal twice") for task in JUDGED),
  ({"rl.importance.cap": 0.0, "rl.loss.logp_old": "learner"}, "rl.importance.cap: must be positive"),
  ({"rl.importance.level": "sequence"}, "rl.importance.cap: is None, so that level and mode cannot act"),
  ({"rl.importance.mode": "mask"}, "rl.importance.cap: is None, so that level and mode cannot act"),
  ({"rl.importance.cap": 2.0}, "rl.importance.cap: compares the learner with the sampler"),
  ({"rl.entropy_target": 1.0}, "rl.entropy_rate: goes with entropy_target, and is needed there"),
  ({"rl.entropy_rate": 0.1}, "rl.entropy_rate: goes with entropy_target, and is needed there"),
  ({**BONUS, "rl.entropy_target": 0.0}, "rl.entropy_target: must be positive"),
  ({**BONUS, "rl.entropy_rate": 0.0}, "rl.entropy_rate: must be positive"),
  ({**BONUS, "rl.entropy": -0.1}, "rl.entropy: must not be negative with entropy_target"),
  ({**BONUS, "rl.steps": 1}, "rl.entropy_target: cannot act in a stage of one step"),
  *not_negative("rl.l2_init", "rl.dynamic_sampling", "rl.pad_multiple", "rl.slots", "rl.pack_length"),
  *(({"rl.pack_length": n}, f"rl.pack_length: {why}") for n, why in ((79, "must be 0, or at"), (4096, "cannot act"))),
  ({"rl.slots": 256}, "rl.slots: must be below the 256 rows"), ({"eval.slots": -1}, "eval.slots: must lie in [0, 512)"),
  ({"rl.l2_init": 0.1}, "rl.l2_init: cannot act in a stage of one step"),
  ({"rl.dynamic_sampling": 1, "rl.samples": 1, "rl.advantage.kind": "remax"},
   "rl.dynamic_sampling: cannot act with one sample a problem"),
  ({"rl.dynamic_sampling": 2, "rl.problems": 95}, "rl.problems: must be at least prompts * (1 + dynamic_sampling) = 96"),
  *positive(
    "rl.prompts", "rl.max_prompt", "rl.max_tokens", "rl.epochs", "rl.minibatches", "rl.micro_batches",
    "rl.head_chunk",
  ),
  ({"rl.critic.lam": 0.9}, "rl.critic.kind: is none, so that no other field of the critic can act"),
  ({**CRITIC, "rl.critic.coef": 0.0}, "rl.critic.coef: must be positive"),
  ({**CRITIC, **OFF_POLICY, "rl.critic.clip": 0.0}, "rl.critic.clip: must be positive"),
  ({**CRITIC, "rl.critic.gamma": 1.5}, "rl.critic.gamma: must lie in [0, 1]"),
  ({**CRITIC, "rl.critic.lam": -0.1}, "rl.critic.lam: must lie in [0, 1]"),
  ({"rl.advantage.kind": "gae"}, "rl.critic.kind: is needed with advantage.kind=gae"),
  ({"rl.critic.kind": "own"}, "rl.advantage.kind: is grpo, so that critic.kind=own cannot act"),
  ({**CRITIC, "rl.critic.clip": 0.2}, "rl.critic.clip: cannot act with one optimiser step a rollout"),
  ({"rl.reward_model.noise": 0.1}, "rl.reward_model.kind: is none, so that no other field of the reward model can act"),
  *(({**PROXY, f"rl.reward_model.{name}": 0}, f"rl.reward_model.{name}: must be positive, is 0")
    for name in ("examples", "steps", "rows", "lr", "best_of")),
  ({**PROXY, "rl.reward_model.noise": 0.6}, "rl.reward_model.noise: must lie in [0, 0.5]"),
  ({**PROXY, "rl.dynamic_sampling": 1}, "rl.dynamic_sampling: chooses by the verifier's rewards"),
  ({**PROXY, "rl.reward_model.examples": 8}, "rl.reward_model.rows: must not exceed examples=8"),
  ({"rl.samples": 1}, "rl.samples: grpo needs at least 2"),
  ({"rl.samples": 0, "rl.advantage.kind": "remax"}, "rl.samples: remax needs at least 1"),
  ({"rl.minibatches": 3}, "rl.minibatches: does not divide prompts=32"),
  ({"rl.minibatches": 4, "rl.micro_batches": 3}, "rl.micro_batches: does not divide the 8 prompts"),
  ({**CLIPPED, "rl.epochs": 1, "rl.loss.kind": "ppo_clip"},
   "rl.loss.kind: with one optimiser step a rollout"),
  ({"rl.loss.kind": "cispo", "rl.loss.clip_high": 4.0}, "rl.loss.kind: with one optimiser step a rollout"),
  ({"rl.loss.kind": "sapo"},
   "rl.loss.kind: with one optimiser step a rollout the ratio is 1 and sapo's gate"),
  *positive(
    "eval.problems", "eval.final_problems", "eval.samples", "eval.control_samples", "eval.batch",
    "eval.max_tokens", "eval.bootstrap",
  ),
  ({"eval.temperature": 0.0, "eval.top_k": 3}, "eval.temperature: is 0, greedy"),
  ({"rl.loss.logp_old": "learner"}, "rl.loss.logp_old: cannot act with kind=reinforce"),
  ({"eval.every": (0, -1)}, "eval.every: must not be negative"),
  *not_negative("eval.top_k"),
  *(({"eval.temperature": t},
     "eval.temperature: must lie in [0.0001, 10000], or be 0, greedy") for t in (-1.0, 1e-45, 1e39)),
  *(({"rl.temperature": t}, "rl.temperature: must lie in [0.0001, 10000]") for t in (0.0, 1e-45, 1e39)),
  ({"eval.top_p": 0.0}, "eval.top_p: must lie in (0, 1]"),
  ({"eval.top_p": 1.1}, "eval.top_p: must lie in (0, 1]"),
  ({"eval.budgets": (8, 4)}, "eval.budgets: must ascend"),
  ({"eval.budgets": (8, 8)}, "eval.budgets: must ascend"),
  ({"eval.budgets": (0, 8)}, "eval.budgets: must be positive"),
  *not_negative("diagnostics.every"),
  *positive("diagnostics.problems", "diagnostics.samples"),
  *positive("checkpoint.every", "checkpoint.keep"),
  ({"mesh.fsdp": 0}, "mesh: axes are positive, or -1"),
  ({"mesh.tensor": -2}, "mesh: axes are positive, or -1"),
  ({"mesh.tensor": -1}, "mesh: at most one axis may be -1"),
  *positive("log.rollouts_every"),
  *not_negative("log.rollouts"),
  ({"log.wandb": ""}, "log.wandb: must be a project's name"),
  ({"init.path": ""}, "init.path: is empty"),
  ({"init.step": 3}, "init.step: is of the run at init.path, and there is none"),
  ({"init.path": "run", "init.step": 0}, "init.step: must be positive"),
  ({**KL, **OFF_POLICY, "model.param_dtype": "bfloat16", "rl.kl.reference": "ema", "rl.kl.ema": 0.1},
   "rl.kl.reference: cannot be ema with model.param_dtype=bfloat16"),
  ({"log.profile": (3,)}, "log.profile: wants a first and a last step, is (3,)"),
  ({"log.profile": (3, 2)}, "log.profile: wants a first and a last step"),
  ({"log.profile": (0, 2)}, "log.profile: wants a first and a last step"),
  *(({"name": name}, f"name: must be a folder's name, is {name!r}") for name in ("", "a/b", ".", "..")),
  ({"seed": -1}, "seed: must lie in [0, 2**32), is -1"),
  ({"seed": 2**32}, "seed: must lie in [0, 2**32)"),
  ({"sft.steps": 0, "rl.steps": 0}, "rl.steps: and sft.steps are both 0"),
  ({"controls": True, "rl.steps": 0}, "controls: compare a cold start with RL"),
]  # fmt: skip


SWEEP = SweepConfig(BASE, ARMS, Claim("text", "source", "figure", (Check("greater", "reward"),)))


def refusal(changes: dict[str, Any], of: Any = BASE) -> ConfigError:
  with pytest.raises(ConfigError) as caught:
    changed(of, changes).validate()
  return caught.value


def check_refusal(changes, start, base=BASE) -> None:
  message = str(refusal(changes, base))
  assert message.startswith(start) and "\n" not in message


def test_what_cannot_work_names_its_field() -> None:
  assert failed_rows(check_refusal, FAULTS) == []


def test_a_sweep_that_cannot_work_names_its_field() -> None:
  SWEEP.validate()
  assert failed_rows(functools.partial(check_refusal, base=SWEEP), SWEEP_FAULTS) == []


@pytest.mark.parametrize("kind", ["greater", "rising", "falling", "fit_entropy", "fit_gao"])
def test_a_check_of_two_strengths_can_be_tested(kind) -> None:
  for sweep in (changed(SWEEP, checked(kind)), changed(SWEEP, checked("lasts", arms=("weak",)))):
    assert sweep.validate() is None


NOT_OF_TEXT = ("CountdownConfig", "MixtureConfig")


def checks() -> set[tuple[str, int]]:
  """The file and first line of every call of `require` in a `validate` method, or in one of its parts.

  But for those of judges and of the tasks of text, which test_judge_config and test_config_tasks reach.
  """
  found = set()
  for path in pathlib.Path(config_module.__file__).parent.glob("*.py"):
    if path.name in ("judge.py", "text.py"):
      continue
    nodes = ast.parse(path.read_text()).body
    here = [n for n in nodes if path.name != "tasks.py" or vars(n).get("name") in NOT_OF_TEXT]
    methods = [n for node in here for n in ast.walk(node) if isinstance(n, ast.FunctionDef)]
    calls = [n for m in methods if "validate" in m.name for n in ast.walk(m) if isinstance(n, ast.Call)]
    found |= {
      (path.name, n.lineno) for n in calls if isinstance(n.func, ast.Name) and n.func.id.startswith("require")
    }
  return found


def test_every_check_has_a_case_above() -> None:
  reached = set()
  for of, (changes, _) in [*((BASE, fault) for fault in FAULTS), *((SWEEP, fault) for fault in SWEEP_FAULTS)]:
    trace = refusal(changes, of).__traceback__
    while not trace.tb_next.tb_frame.f_code.co_name.startswith("require"):
      trace = trace.tb_next
    reached.add((pathlib.Path(trace.tb_frame.f_code.co_filename).name, trace.tb_lineno))
  assert len(reached) > 50 and reached == checks()


def through_json(config: TrainConfig) -> TrainConfig:
  return config_from_dict(json.loads(json.dumps(config_to_dict(config), allow_nan=False)))


GREEDY = {"eval.temperature": 0.0, "eval.samples": 1, "eval.control_samples": 1}
WORKS: list[dict[str, Any]] = [
  {},
  {"sft.steps": 0},
  {"rl.steps": 0},
  {"controls": True, "seed": 2**32 - 1},
  {**CLIPPED, "rl.loss.kind": "dual_clip", "rl.loss.dual_clip": 3.0},
  {**CLIPPED, "rl.loss.kind": "rloo", "rl.loss.aggregation": "seq_mean_token_mean"},
  *ACTS,
  {"rl.minibatches": 2, "rl.loss.kind": "cispo", "rl.loss.clip_high": 4.0},
  {**OFF_POLICY, "rl.loss.kind": "sapo", "rl.loss.logp_old": "learner"},
  {**KL, **OFF_POLICY, "rl.kl.reference": "ema", "rl.kl.ema": 1.0},
  {**KL, "rl.kl.reference": "reset", "rl.kl.reset_every": 8, "rl.kl.reset_optimizer": True},
  {**SCHEDULED, "rl.kl.final_fraction": 1.0},
  {**ADAPTIVE, "rl.kl.placement": "reward"},
  {**BONUS, "rl.l2_init": 0.1, "rl.overlong.buffer": 63, "rl.overlong.truncation_penalty": -10.0},
  {**COVS["clip_cov"], "rl.overlong.mask": True, "rl.advantage.kind": "remax"},
  {**COVS["kl_cov"], "rl.l2_init": 0.1},
  {"rl.loss.logp_old": "learner", "rl.importance.cap": 2.0, "rl.importance.level": "sequence"},
  {"rl.kl.coef": 0.1, "rl.kl.estimator": "k1", "rl.kl.placement": "reward"},
  {"rl.kl.coef": 0.1, "rl.kl.estimator": "k2", "rl.kl.times_ratio": True},
  {"rl.advantage.kind": "reinforce++", "rl.advantage.group_baseline": True, "rl.samples": 1},
  {"rl.advantage.kind": "reinforce", "rl.samples": 1},
  {"rl.advantage.ddof": 0, "rl.advantage.eps": 1e-8},
  {**CRITIC, "rl.samples": 1},
  {**PROXY, "rl.reward_model.examples": 32, "rl.reward_model.noise": 0.5, "rl.reward_model.best_of": 1},
  {**CRITIC, "rl.critic.kind": "own", **OFF_POLICY, "rl.critic.clip": 0.2, "rl.critic.whiten": False},
  {"rl.dynamic_sampling": 2, "rl.problems": 96},
  {"model.dtype": "bfloat16", **KL, "rl.kl.placement": "reward", "rl.loss.logp_old": "learner"},
  {"rl.dynamic_sampling": 1, "task": JUDGE, "rl.advantage.min_std": 0.1, "rl.advantage.kind": "rloo"},
  {"rl.dynamic_sampling": 1, "task": JudgedConfig(path="rows.jsonl", judge=JudgeConfig("model", votes=4))},
  *({"rl.dynamic_sampling": 1, "rl.advantage.kind": kind} for kind in ("remax", "reinforce++", "maxrl")),
  {**CRITIC, "rl.dynamic_sampling": 1, "rl.advantage.min_std": 0.1},
  {"rl.steps": 3, "rl.optim.schedule": "linear", "rl.optim.final_fraction": 0.1, "rl.optim.clip_norm": 0.0},
  {"model.rope_scaling": RopeScaling(), "model.attention_softcap": 50.0, "model.head_softcap": 30.0},
  {"model.window": (4, 0), "model.rope_theta": (1e4, 1e6), "eval.budgets": (4, 8), **GREEDY},
  {"rl.problems": 1, "task.max_target": 98, "task.more_numbers": 1},
  {"mesh.data": 2, "mesh.tensor": -1, "log.profile": (2, 2), "log.rollouts": 0, "task": Gsm8kConfig()},
]


def check_accepted(changes) -> None:
  config = changed(BASE, changes)
  config.validate()
  assert through_json(config) == config


def test_what_can_work_is_accepted() -> None:
  assert failed_rows(check_accepted, [(changes,) for changes in WORKS]) == []
