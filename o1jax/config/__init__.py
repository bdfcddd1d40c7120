"""Every option of a run, as frozen dataclasses, validated with the field's name in the error.

An experiment is a file with `get_config() -> TrainConfig`. The command line overrides any field by its
dotted name.
"""

from o1jax.config.base import (
  ConfigError,
  active_terms,
  host,
  replaced,
  require,
  require_temperature,
  static_config,
  traced,
  traced_values,
)
from o1jax.config.judge import JudgeConfig
from o1jax.config.model import ModelConfig, RopeScaling
from o1jax.config.presets import PRESETS
from o1jax.config.regularisers import CovConfig, CriticConfig, ImportanceConfig, KLConfig, OverlongConfig
from o1jax.config.rl import (
  AdvantageConfig,
  CurriculumConfig,
  LossConfig,
  OptimConfig,
  RewardModelConfig,
  RLConfig,
  SftConfig,
)
from o1jax.config.run import (
  CheckpointConfig,
  DiagnosticsConfig,
  EvalConfig,
  InitConfig,
  LogConfig,
  MeshConfig,
  TrainConfig,
  xs,
)
from o1jax.config.sweep import Arm, Check, Claim, SweepConfig
from o1jax.config.tasks import (
  ArithmeticConfig,
  BugfixConfig,
  ConstrainedWritingConfig,
  CountdownConfig,
  Gsm8kConfig,
  HumanevalConfig,
  IfevalConfig,
  JsonlTaskConfig,
  JudgedConfig,
  MathConfig,
  MbppConfig,
  MixtureConfig,
  Part,
  PolicyConfig,
  ReasoningGymConfig,
  RowsConfig,
  SourceConfig,
  TaskConfig,
  VerifiedTaskConfig,
)
from o1jax.config.text import CHAT_TEMPLATE, TextConfig
