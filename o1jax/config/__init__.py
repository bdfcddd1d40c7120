"""Every option of a run, as frozen dataclasses, validated with the field's name in the error.

An experiment is a file with `get_config() -> TrainConfig`. The command line overrides any field by its dotted name.
"""

from o1jax.config.base import ConfigError, require
from o1jax.config.learning import AdvantageConfig, KLConfig, LossConfig, OptimConfig, RLConfig, SftConfig
from o1jax.config.model import ModelConfig, RopeScaling
from o1jax.config.run import CheckpointConfig, EvalConfig, LogConfig, MeshConfig, TrainConfig
from o1jax.config.tasks import CountdownConfig, Gsm8kConfig, TaskConfig

__all__ = [
  "AdvantageConfig",
  "CheckpointConfig",
  "ConfigError",
  "CountdownConfig",
  "EvalConfig",
  "Gsm8kConfig",
  "KLConfig",
  "LogConfig",
  "LossConfig",
  "MeshConfig",
  "ModelConfig",
  "OptimConfig",
  "RLConfig",
  "RopeScaling",
  "SftConfig",
  "TaskConfig",
  "TrainConfig",
  "require",
]
