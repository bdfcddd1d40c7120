"""A configuration's way through JSON and back, and what cannot be read as one."""

import dataclasses
import json
import math
import pathlib
import re
import sys
import types
import typing
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from o1jax.config import (
  ConfigError,
  CountdownConfig,
  Gsm8kConfig,
  ModelConfig,
  RLConfig,
  RopeScaling,
  SftConfig,
  TaskConfig,
  TrainConfig,
)
from o1jax.io.run_config import config_from_dict, config_to_dict, load_experiment, load_sweep, read_run_config
from o1jax.model.transformer import Decoder, init_params

TASKS = typing.get_args(TaskConfig)
NAMES = [task.__name__ for task in TASKS]
EXPERIMENTS = sorted((pathlib.Path(__file__).parents[1] / "experiments").glob("*.py"))
BASE = TrainConfig(
  name="x",
  model=ModelConfig(width=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=32),
  task=CountdownConfig(),
  sft=SftConfig(steps=1),
  rl=RLConfig(steps=1),
)


def through_json(config: TrainConfig) -> TrainConfig:
  return config_from_dict(json.loads(json.dumps(config_to_dict(config), allow_nan=False)))


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
    int: lambda: int(rng.integers(-(2**31), 2**31)),
    float: lambda: float(rng.standard_normal() * 10.0 ** rng.integers(-30, 30)),
    bool: lambda: bool(rng.integers(2)),
    str: lambda: "".join(map(chr, rng.integers(1, 0x3000, 5))),
    types.NoneType: lambda: None,
  }
  return plain[kind]()


def test_any_configuration_comes_back_from_json() -> None:
  drawn = [any_value(TrainConfig, np.random.default_rng(seed)) for seed in range(60)]
  assert {type(config.task) for config in drawn} == set(TASKS)
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
    ("rl.loss.dual_clip", "3", "rl.loss.dual_clip: wants float, has '3'"),
    ("rl.kl", None, "rl.kl: wants the fields of KLConfig, has None"),
    ("task", None, f"task: wants {' | '.join(NAMES)}, has None"),
    ("task.type", "Chess", f"task.type: wants one of {', '.join(NAMES)}, has 'Chess'"),
    ("task.type", ..., f"task.type: wants one of {', '.join(NAMES)}, has None"),
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
  data = config_to_dict(dataclasses.replace(BASE, task=Gsm8kConfig()))
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
    ("x = 1", r"has no function get_config\(\)"),
    ("def get_config(", "SyntaxError: "),
    (None, "no such experiment file"),
    ("raise SystemExit(3)", "SystemExit: 3"),
    ("def get_config(): exit()", "SystemExit: "),
  ],
)
def test_a_broken_experiment_names_its_file(tmp_path, body, message) -> None:
  path = tmp_path / "study.py"
  if body is not None:
    path.write_text(body)
  with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: {message}"):
    load_experiment(str(path))


EXPERIMENT = """
from __future__ import annotations

import dataclasses
import numpy as np
import beside_it
from o1jax.config import *

@dataclasses.dataclass
class Mine:
  width: int = 16

def get_config():
  import beside_it_later
  model = ModelConfig(width=Mine().width, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32)
  numbers = {"entropy": np.float32(0.5), "samples": np.uint8(4), "temperature": np.int32(2)}
  rl = RLConfig(steps=np.int64(beside_it.STEPS), **numbers)
  return TrainConfig("study", model, CountdownConfig(), seed=np.int32(beside_it_later.SEED), rl=rl)

def sweep(full):
  arm = Arm("a", {"rl.entropy": np.float64(0.25)}, np.float32(1.5))
  return SweepConfig(get_config(), (arm,), Claim("", "", "", ()))
"""


@pytest.mark.parametrize(
  "load", [load_experiment, lambda path: load_sweep(path, full=False).base], ids=["run", "sweep"]
)
def test_an_experiment_is_python_as_any_other(tmp_path, load) -> None:
  """Its own dataclasses, modules beside it, and numbers of numpy."""
  (tmp_path / "beside_it.py").write_text("STEPS = 7")
  (tmp_path / "beside_it_later.py").write_text("SEED = 3")
  (tmp_path / "study.py").write_text(EXPERIMENT)
  before = list(sys.path)
  got = through_json(config_from_dict(config_to_dict(load(str(tmp_path / "study.py")))))
  assert (got.rl.steps, got.rl.entropy, got.rl.samples, got.rl.temperature, got.seed) == (7, 0.5, 4, 2.0, 3)
  assert [type(n) for n in (got.rl.steps, got.rl.entropy, got.rl.temperature)] == [int, float, float]
  assert sys.path == before


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"steps": np.float64(3)}, "rl.steps: wants int, has"),
    ({"steps": np.bool_(True)}, "rl.steps: wants int, has"),
    ({"entropy": np.float64("nan")}, "rl.entropy: must be finite"),
    ({"entropy": 10**400}, "rl.entropy: must be finite"),
  ],
)
def test_numbers_of_another_kind_are_refused(changes, message) -> None:
  data = {**config_to_dict(BASE), "rl": {**config_to_dict(BASE)["rl"], **changes}}
  with pytest.raises(ConfigError, match=message):
    config_from_dict(data)
