"""Every check of the configuration, and its way through JSON and back."""

import ast
import dataclasses
import json
import math
import pathlib
import re
import types
import typing
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from o1jax import config as config_module
from o1jax.config import (
  ConfigError,
  CountdownConfig,
  Gsm8kConfig,
  ModelConfig,
  RLConfig,
  RopeScaling,
  SftConfig,
  TrainConfig,
)
from o1jax.io.run_config import config_from_dict, config_to_dict, load_experiment, read_run_config
from o1jax.model.transformer import Decoder, init_params

EXPERIMENTS = sorted((pathlib.Path(__file__).parents[1] / "experiments").glob("*.py"))
BASE = TrainConfig(
  name="x",
  model=ModelConfig(width=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=32),
  task=CountdownConfig(),
  sft=SftConfig(steps=1),
  rl=RLConfig(steps=1),
)
OFF_POLICY = {"rl.epochs": 2}
CRITIC = {"rl.critic.kind": "head", "rl.advantage.kind": "gae"}
CLIPPED = {**OFF_POLICY, "rl.loss.clip_low": 0.2, "rl.loss.clip_high": 0.2}


def changed(value: Any, changes: dict[str, Any]) -> Any:
  """A copy of a nested dataclass with the fields under dotted names replaced."""
  for name, item in changes.items():
    head, _, rest = name.partition(".")
    item = changed(vars(value)[head], {rest: item}) if rest else item
    value = dataclasses.replace(value, **{head: item})
  return value


def positive(*names: str) -> list[tuple[dict[str, Any], str]]:
  return [({name: 0}, f"{name}: must be positive") for name in names]


def not_negative(*names: str) -> list[tuple[dict[str, Any], str]]:
  return [({name: -1}, f"{name}: must not be negative") for name in names]


GSM8K = {"task": Gsm8kConfig()}
FAULTS: list[tuple[dict[str, Any], str]] = [
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
  ({"model.rope_scaling": RopeScaling(original_length=0)}, "model.rope_scaling.original_length: must be positive"),
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
  *not_negative("task.split_seed"),
  ({**GSM8K, "task.held_out": 0}, "task.held_out: must be positive"),
  ({**GSM8K, "task.vocab": 299}, "task.vocab: must be at least 300"),
  *positive("sft.optim.lr", "rl.optim.lr"),
  *not_negative("rl.optim.warmup", "rl.optim.clip_norm", "rl.optim.decay"),
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
  ({"rl.advantage.kind": "rloo", "rl.advantage.ddof": 0}, "rl.advantage.ddof: ddof and eps act with kind=grpo"),
  ({"rl.advantage.kind": "opo", "rl.advantage.eps": 1e-6}, "rl.advantage.ddof: ddof and eps act with kind=grpo"),
  ({**OFF_POLICY, "rl.loss.kind": "ppo_clip"}, "rl.loss.clip_low: is needed with kind=ppo_clip"),
  ({**OFF_POLICY, "rl.loss.kind": "cispo"}, "rl.loss.clip_high: is needed with kind=cispo"),
  ({**CLIPPED, "rl.loss.kind": "cispo"}, "rl.loss.clip_low: cannot act with kind=cispo"),
  ({"rl.loss.clip_low": 0.2}, "rl.loss.clip_low: cannot act with kind=reinforce"),
  ({"rl.loss.clip_high": 0.2}, "rl.loss.clip_high: cannot act with kind=reinforce"),
  ({**CLIPPED, "rl.loss.kind": "gspo", "rl.loss.clip_low": 0.0}, "rl.loss.clip_low: must be positive"),
  ({**CLIPPED, "rl.loss.kind": "gspo", "rl.loss.clip_high": -0.2}, "rl.loss.clip_high: must be positive"),
  ({"rl.loss.dual": 3.0}, "rl.loss.dual: goes with kind=dual_clip, and is needed there"),
  ({**CLIPPED, "rl.loss.kind": "dual_clip"}, "rl.loss.dual: goes with kind=dual_clip, and is needed there"),
  ({**CLIPPED, "rl.loss.kind": "dual_clip", "rl.loss.dual": 1.0}, "rl.loss.dual: must be above 1"),
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
  ({"rl.kl.estimator": "reverse", "rl.kl.times_ratio": True}, "rl.kl.times_ratio: multiplies a sampled estimator"),
  ({"rl.kl.placement": "reward", "rl.kl.times_ratio": True}, "rl.kl.times_ratio: multiplies a sampled estimator"),
  ({"rl.kl.reference": "ema", "rl.kl.ema": 0.1}, "rl.kl.coef: is 0, so that no other field"),
  ({"rl.kl.times_ratio": True}, "rl.kl.coef: is 0, so that no other field"),
  *positive(
    "rl.prompts", "rl.max_prompt", "rl.max_tokens", "rl.epochs", "rl.minibatches", "rl.micro_batches",
    "rl.head_chunk", "rl.temperature",
  ),
  ({"rl.critic.lam": 0.9}, "rl.critic.kind: is none, so that no other field of the critic can act"),
  ({**CRITIC, "rl.critic.coef": 0.0}, "rl.critic.coef: must be positive"),
  ({**CRITIC, **OFF_POLICY, "rl.critic.clip": 0.0}, "rl.critic.clip: must be positive"),
  ({**CRITIC, "rl.critic.gamma": 1.5}, "rl.critic.gamma: must lie in [0, 1]"),
  ({**CRITIC, "rl.critic.lam": -0.1}, "rl.critic.lam: must lie in [0, 1]"),
  ({"rl.advantage.kind": "gae"}, "rl.critic.kind: is needed with advantage.kind=gae"),
  ({"rl.critic.kind": "own"}, "rl.advantage.kind: is grpo, so that critic.kind=own cannot act"),
  ({**CRITIC, "rl.critic.clip": 0.2}, "rl.critic.clip: cannot act with one optimiser step a rollout"),
  ({"rl.samples": 1}, "rl.samples: grpo needs at least 2"),
  ({"rl.samples": 0, "rl.advantage.kind": "remax"}, "rl.samples: remax needs at least 1"),
  ({"rl.minibatches": 3}, "rl.minibatches: does not divide prompts=32"),
  ({"rl.minibatches": 4, "rl.micro_batches": 3}, "rl.micro_batches: does not divide the 8 prompts"),
  ({**CLIPPED, "rl.epochs": 1, "rl.loss.kind": "ppo_clip"}, "rl.loss.kind: with one optimiser step a rollout"),
  ({"rl.loss.kind": "cispo", "rl.loss.clip_high": 4.0}, "rl.loss.kind: with one optimiser step a rollout"),
  ({"rl.loss.kind": "sapo"}, "rl.loss.kind: with one optimiser step a rollout the ratio is 1 and sapo's gate"),
  *positive(
    "eval.problems", "eval.final_problems", "eval.samples", "eval.control_samples", "eval.batch",
    "eval.max_tokens", "eval.bootstrap",
  ),
  ({"eval.temperature": 0.0, "eval.top_k": 3}, "eval.temperature: is 0, greedy"),
  ({"rl.loss.logp_old": "learner"}, "rl.loss.logp_old: cannot act with kind=reinforce"),
  ({"eval.every": (0, -1)}, "eval.every: must not be negative"),
  *not_negative("eval.top_k", "eval.temperature"),
  ({"eval.top_p": 0.0}, "eval.top_p: must lie in (0, 1]"),
  ({"eval.top_p": 1.1}, "eval.top_p: must lie in (0, 1]"),
  ({"eval.budgets": (8, 4)}, "eval.budgets: must ascend"),
  ({"eval.budgets": (8, 8)}, "eval.budgets: must ascend"),
  ({"eval.budgets": (0, 8)}, "eval.budgets: must be positive"),
  *positive("checkpoint.every", "checkpoint.keep"),
  ({"mesh.fsdp": 0}, "mesh: axes are positive, or -1"),
  ({"mesh.tensor": -2}, "mesh: axes are positive, or -1"),
  ({"mesh.tensor": -1}, "mesh: at most one axis may be -1"),
  *positive("log.rollouts_every"),
  *not_negative("log.rollouts"),
  ({"log.wandb": ""}, "log.wandb: must be a project's name"),
  ({"log.profile": (3,)}, "log.profile: wants a first and a last step, is (3,)"),
  ({"log.profile": (3, 2)}, "log.profile: wants a first and a last step"),
  ({"log.profile": (0, 2)}, "log.profile: wants a first and a last step"),
  *(({"name": name}, f"name: must be a folder's name, is {name!r}") for name in ("", "a/b", ".", "..")),
  ({"seed": -1}, "seed: must lie in [0, 2**32), is -1"),
  ({"seed": 2**32}, "seed: must lie in [0, 2**32)"),
  ({"sft.steps": 0, "rl.steps": 0}, "rl.steps: and sft.steps are both 0"),
  ({"controls": True, "rl.steps": 0}, "controls: compare a cold start with RL"),
]  # fmt: skip


def refusal(changes: dict[str, Any]) -> ConfigError:
  with pytest.raises(ConfigError) as caught:
    changed(BASE, changes).validate()
  return caught.value


@pytest.mark.parametrize(("changes", "start"), FAULTS, ids=[start.split(":")[0] for _, start in FAULTS])
def test_what_cannot_work_names_its_field(changes, start) -> None:
  message = str(refusal(changes))
  assert message.startswith(start) and "\n" not in message


def checks() -> set[tuple[str, int]]:
  """The file and first line of every call of `require` in a `validate` method."""
  found = set()
  for path in pathlib.Path(config_module.__file__).parent.glob("*.py"):
    methods = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]
    calls = [n for m in methods if "validate" in m.name for n in ast.walk(m) if isinstance(n, ast.Call)]
    found |= {(path.name, n.lineno) for n in calls if isinstance(n.func, ast.Name) and n.func.id == "require"}
  return found


def test_every_check_has_a_case_above() -> None:
  reached = set()
  for changes, _ in FAULTS:
    trace = refusal(changes).__traceback__
    while trace.tb_next.tb_frame.f_code.co_name != "require":
      trace = trace.tb_next
    reached.add((pathlib.Path(trace.tb_frame.f_code.co_filename).name, trace.tb_lineno))
  assert len(reached) > 50 and reached == checks()


def through_json(config: TrainConfig) -> TrainConfig:
  return config_from_dict(json.loads(json.dumps(config_to_dict(config), allow_nan=False)))


WORKS: list[dict[str, Any]] = [
  {},
  {"sft.steps": 0},
  {"rl.steps": 0},
  {"controls": True, "seed": 2**32 - 1},
  {**CLIPPED, "rl.loss.kind": "dual_clip", "rl.loss.dual": 3.0},
  {**CLIPPED, "rl.loss.kind": "rloo", "rl.loss.aggregation": "seq_mean_token_mean"},
  {"rl.minibatches": 2, "rl.loss.kind": "cispo", "rl.loss.clip_high": 4.0},
  {**OFF_POLICY, "rl.loss.kind": "sapo", "rl.loss.logp_old": "learner"},
  {"rl.kl.coef": 0.1, "rl.kl.reference": "ema", "rl.kl.ema": 1.0},
  {"rl.kl.coef": 0.1, "rl.kl.reference": "reset", "rl.kl.reset_every": 1, "rl.kl.reset_optimizer": True},
  {"rl.kl.coef": 0.1, "rl.kl.estimator": "k1", "rl.kl.placement": "reward"},
  {"rl.kl.coef": 0.1, "rl.kl.estimator": "k2", "rl.kl.times_ratio": True},
  {"rl.advantage.kind": "reinforce++", "rl.advantage.group_baseline": True, "rl.samples": 1},
  {"rl.advantage.ddof": 0, "rl.advantage.eps": 1e-8},
  {**CRITIC, "rl.samples": 1},
  {**CRITIC, "rl.critic.kind": "own", "rl.minibatches": 2, "rl.critic.clip": 0.2, "rl.critic.whiten": False},
  {"rl.optim.schedule": "linear", "rl.optim.final_fraction": 0.1, "rl.optim.clip_norm": 0.0},
  {"model.rope_scaling": RopeScaling(), "model.attention_softcap": 50.0, "model.head_softcap": 30.0},
  {"model.window": (4, 0), "model.rope_theta": (1e4, 1e6), "eval.budgets": (4, 8), "eval.temperature": 0.0},
  {"mesh.data": 2, "mesh.tensor": -1, "log.profile": (2, 2), "log.rollouts": 0, "task": Gsm8kConfig()},
]


@pytest.mark.parametrize("changes", WORKS, ids=[", ".join(changes) or "defaults" for changes in WORKS])
def test_what_can_work_is_accepted(changes) -> None:
  config = changed(BASE, changes)
  config.validate()
  assert through_json(config) == config


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_is_valid_and_its_model_has_parameters(path) -> None:
  config = load_experiment(str(path))
  config.validate()
  assert config.name == path.stem and through_json(config) == config
  model = Decoder(dataclasses.replace(config.model, vocab=config.model.vocab or 64))
  params = jax.eval_shape(lambda key: nn.meta.unbox(init_params(model, key)), jax.random.key(0))
  layers = [name for name in params if name.startswith("layer")]
  assert len(layers) == (1 if config.model.scan_layers else config.model.layers)
  assert params["embedding"].shape == (model.cfg.vocab, config.model.width)


def any_value(kind: Any, rng: np.random.Generator) -> Any:
  """A value that a field of this type may hold."""
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return any_value(args[rng.integers(len(args))], rng)
  if origin is typing.Literal:
    return args[rng.integers(len(args))]
  if origin is tuple:
    items = (args[0],) * int(rng.integers(4)) if args[-1] is Ellipsis else args
    return tuple(any_value(item, rng) for item in items)
  if dataclasses.is_dataclass(kind):
    hints = typing.get_type_hints(kind)
    return kind(**{field.name: any_value(hints[field.name], rng) for field in dataclasses.fields(kind)})
  plain = {
    int: lambda: int(rng.integers(-(2**40), 2**40)),
    float: lambda: float(rng.standard_normal() * 10.0 ** rng.integers(-30, 30)),
    bool: lambda: bool(rng.integers(2)),
    str: lambda: "".join(map(chr, rng.integers(1, 0x3000, 5))),
    types.NoneType: lambda: None,
  }
  return plain[kind]()


def test_any_configuration_comes_back_from_json() -> None:
  drawn = [any_value(TrainConfig, np.random.default_rng(seed)) for seed in range(40)]
  assert {type(config.task) for config in drawn} == {CountdownConfig, Gsm8kConfig}
  assert {type(config.model.rope_scaling) for config in drawn} == {RopeScaling, types.NoneType}
  for config in drawn:
    assert through_json(config) == config


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("colour", 1, "colour: is no field of TrainConfig"),
    ("rl.kl.coeff", 0.1, "rl.kl.coeff: is no field of KLConfig"),
    ("rl.steps", ..., "rl.steps: is missing"),
    ("model", ..., "model: is missing"),
    ("rl.steps", 1.0, "rl.steps: wants int, has 1.0"),
    ("rl.steps", True, "rl.steps: wants int, has True"),
    ("rl.entropy", "0.1", "rl.entropy: wants float, has '0.1'"),
    ("rl.optim.lr", math.nan, "rl.optim.lr: must be finite, is nan"),
    ("rl.optim.lr", math.inf, "rl.optim.lr: must be finite, is inf"),
    ("controls", 1, "controls: wants bool, has 1"),
    ("name", None, "name: wants str, has None"),
    ("model.dtype", "float16", "model.dtype: wants one of float32, bfloat16, has 'float16'"),
    ("model.dtype", ["float32"], "model.dtype: wants one of float32, bfloat16, has ['float32']"),
    ("model.window", 4, "model.window: wants tuple[int, ...], has 4"),
    ("model.window", [4, "x"], "model.window[1]: wants int, has 'x'"),
    ("model.rope_scaling", [], "model.rope_scaling: wants the fields of RopeScaling, has []"),
    ("rl.loss.dual", "3", "rl.loss.dual: wants float, has '3'"),
    ("rl.kl", None, "rl.kl: wants the fields of KLConfig, has None"),
    ("task", None, "task: wants CountdownConfig | Gsm8kConfig, has None"),
    ("task.type", "Chess", "task.type: wants one of CountdownConfig, Gsm8kConfig, has 'Chess'"),
    ("task.type", ..., "task.type: wants one of CountdownConfig, Gsm8kConfig, has None"),
    ("task.path", "x", "task.path: is no field of CountdownConfig"),
  ],
)
def test_a_wrong_entry_names_its_dotted_field(name, value, message) -> None:
  data = config_to_dict(BASE)
  *above, last = name.split(".")
  inner = data
  for part in above:
    inner = inner[part]
  inner.pop(last, None)
  if value is not ...:
    inner[last] = value
  with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
    config_from_dict(data)


def test_a_pair_wants_two_values_and_a_float_takes_a_whole_number() -> None:
  data = config_to_dict(changed(BASE, GSM8K))
  data["rl"]["entropy"] = 1
  assert type(config_from_dict(data).rl.entropy) is float
  data["task"]["sha256"] = ["one"]
  with pytest.raises(ConfigError, match=r"^task\.sha256: wants 2 values, has 1$"):
    config_from_dict(data)


def test_a_run_keeps_its_configuration_beside_what_it_ran_on(tmp_path) -> None:
  data = {**config_to_dict(BASE), "meta": {"git": None}}
  (tmp_path / "config.json").write_text(json.dumps(data))
  assert read_run_config(str(tmp_path)) == BASE


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (None, "no such file; is .* a run's folder"),
    ("{", "cannot be read as JSON"),
    ("[]", "must hold one JSON object"),
    ("{}", "name: is missing"),
  ],
)
def test_an_unreadable_run_names_its_file(tmp_path, text, message) -> None:
  if text is not None:
    (tmp_path / "config.json").write_text(text)
  with pytest.raises(ConfigError, match=f"^{re.escape(str(tmp_path / 'config.json'))}: {message}"):
    read_run_config(str(tmp_path))


@pytest.mark.parametrize(
  ("body", "message"),
  [
    ("1 / 0", "ZeroDivisionError: division by zero"),
    ("def get_config(): return TrainConfig(nam='x')", "NameError: name 'TrainConfig' is not defined"),
    ("def get_config(): return 3", r"get_config\(\) gives a int, no TrainConfig"),
    ("x = 1", "AttributeError: .*get_config"),
    ("def get_config(", "SyntaxError: "),
    (None, "no such experiment file"),
  ],
)
def test_a_broken_experiment_names_its_file(tmp_path, body, message) -> None:
  path = tmp_path / "study.py"
  if body is not None:
    path.write_text(body)
  with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: {message}"):
    load_experiment(str(path))
