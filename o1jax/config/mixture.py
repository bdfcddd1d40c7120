"""Options of a mixture of tasks."""

import dataclasses

from o1jax.config.base import require
from o1jax.config.tasks import SourceConfig
from o1jax.config.text_tasks import TextConfig, TextTaskConfig

LEAST_SHARE = 1e-4  # of a part: its problems come in proportion within as many positions as make two of them


@dataclasses.dataclass(frozen=True)
class Part:
  """One task of a mixture."""

  task: SourceConfig  # without a `text` of its own: the mixture's serves all parts
  weight: float = 1.0  # how often its problems come, against the others' weights


@dataclasses.dataclass(frozen=True)
class MixtureConfig(TextTaskConfig):
  """Problems of many tasks, in proportion to their weights; `text` serves all of them."""

  parts: tuple[Part, ...]

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is the dotted name of this group."""
    require(len(self.parts) > 1, f"{field}.parts", "must be two or more")
    whole = sum(part.weight for part in self.parts)
    for i, part in enumerate(self.parts):
      require(part.weight > 0, f"{field}.parts[{i}].weight", f"must be positive, is {part.weight}")
      rare = f"must be at least {LEAST_SHARE} of all weights together, is {part.weight} of {whole}"
      require(part.weight / whole >= LEAST_SHARE, f"{field}.parts[{i}].weight", rare)
      part.task.validate(f"{field}.parts[{i}].task")
      plain = vars(part.task).get("text", TextConfig()) == TextConfig()
      require(
        plain, f"{field}.parts[{i}].task.text", f"cannot act in a mixture: {field}.text serves all parts"
      )
    super().validate(field)
