"""A run's metrics to wandb, where `log.wandb` names a project (extra `wandb`)."""

import pathlib
from typing import Any

from o1jax.config import ConfigError
from o1jax.io.run_config import read_json


def connect(project: str, folder: pathlib.Path, *, resumed: bool) -> Any:
  """The wandb run of the run in `folder`, whose name is its id there; `log(values, step=)` and `finish()` it.

  Raises ConfigError where the package is missing, or where wandb refuses: no login, or a run of that name already.
  """
  try:
    import wandb
  except ImportError as error:
    raise ConfigError("log.wandb: needs the package: pip install 'o1jax[wandb]'") from error
  path = folder / "config.json"
  config = read_json(path) if path.is_file() else {}
  try:
    return wandb.init(
      project=project, id=folder.name, name=folder.name, dir=str(folder), config=config,
      resume="allow" if resumed else "never",
    )  # fmt: skip
  except wandb.Error as error:
    raise ConfigError(f"log.wandb: {error}") from error
