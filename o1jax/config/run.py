"""Options of a whole run: evaluation, checkpoints, mesh, logs, and all of them together."""

import dataclasses
from typing import Any, Mapping

from o1jax.config.base import is_name, replaced, require, require_temperature, validate_finite
from o1jax.config.model import ModelConfig
from o1jax.config.rl import OptimConfig, RLConfig, SftConfig
from o1jax.config.tasks import CountdownConfig, JudgedConfig, MixtureConfig, TaskConfig


@dataclasses.dataclass(frozen=True)
class InitConfig:
  """Where a run's first parameters come from."""

  # A run's folder (its policy) or one of weights in Hugging Face's layout, of this run's model and tokenizer.
  # None: drawn from the seed.
  path: str | None = None
  step: int | None = None  # of that run's checkpoint; None: its newest, whose step config.json keeps

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    require(self.path != "", f"{field}.path", "is empty")
    acts = self.path is not None or self.step is None
    require(acts, f"{field}.step", "is of the run at init.path, and there is none")
    require(self.step is None or self.step > 0, f"{field}.step", "must be positive")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """Evaluation on held-out problems."""

  # Steps between evaluations in the cold start, and in RL; 0: at the end alone.
  every: tuple[int, int] = (0, 0)
  problems: int = 64  # in an evaluation during a stage
  final_problems: int = 512  # in the evaluations that summary.json reports
  samples: int = 8  # K completions a problem
  control_samples: int = 2  # K of the controls and of forced budgets
  batch: int = 64  # problems a compiled call
  max_tokens: int = 64  # response budget of natural stopping
  slots: int = 0  # rows decoded at once, as rl.slots; 0: all of a batch
  temperature: float = 1.0
  top_k: int = 0  # evaluation alone; 0 = off
  top_p: float = 1.0  # evaluation alone; 1 = off
  budgets: tuple[int, ...] = ()  # forced budgets b, tokens, ascending; () = no forced-budget curve
  bootstrap: int = 2000  # resamples behind the share of them in which a paired gain is not above 0

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    counts = ("problems", "final_problems", "samples", "control_samples", "batch", "max_tokens", "bootstrap")
    for name in counts:
      require(vars(self)[name] > 0, f"{field}.{name}", "must be positive")
    require(min(self.every) >= 0, f"{field}.every", "must not be negative")
    rows = self.batch * self.samples
    refills = 0 <= self.slots < rows
    require(refills, f"{field}.slots", f"must lie in [0, {rows}), the rows of a batch, is {self.slots}")
    require(0 < self.top_p <= 1, f"{field}.top_p", "must lie in (0, 1]")
    require(self.top_k >= 0, f"{field}.top_k", "must not be negative")
    require_temperature(self.temperature, f"{field}.temperature", greedy=True)
    sampled = self.temperature > 0 or (self.top_k == 0 and self.top_p == 1)
    require(sampled, f"{field}.temperature", "is 0, greedy, so that top_k and top_p cannot act")
    for name, acts in (("samples", True), ("control_samples", bool(self.budgets))):
      one = self.temperature > 0 or not acts or vars(self)[name] == 1
      require(
        one, f"{field}.{name}", "must be 1 with temperature=0, which is greedy: all samples would be equal"
      )
    require(tuple(sorted(set(self.budgets))) == self.budgets, f"{field}.budgets", "must ascend")
    require(all(b > 0 for b in self.budgets), f"{field}.budgets", "must be positive")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """Checkpoints, written asynchronously by orbax."""

  every: int = 50  # steps between saves; a stage's end and SIGTERM save too
  keep: int = 2  # newest ones kept

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    require(self.every > 0, f"{field}.every", "must be positive")
    require(self.keep > 0, f"{field}.keep", "must be positive")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices along each mesh axis; -1 takes what is left. A mesh may leave devices out."""

  data: int = -1  # over this and fsdp the rows of a batch are spread: -1 there takes as many as divide them
  fsdp: int = 1
  tensor: int = 1

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    sizes = (self.data, self.fsdp, self.tensor)
    require(all(s == -1 or s > 0 for s in sizes), field, "axes are positive, or -1 for what is left")
    require(sizes.count(-1) <= 1, field, "at most one axis may be -1")


@dataclasses.dataclass(frozen=True)
class LogConfig:
  """What a run writes beside its checkpoints."""

  rollouts_every: int = 10  # steps between written rollouts
  rollouts: int = 8  # completions written at a time
  # First and last step (as in metrics.jsonl) of a jax.profiler trace; () = none.
  profile: tuple[int, ...] = ()
  progress: bool = True  # a live progress bar on a terminal
  wandb: str | None = None  # project there that gets the metrics too (extra `wandb`); None = none

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    require(self.rollouts_every > 0, f"{field}.rollouts_every", "must be positive")
    require(self.rollouts >= 0, f"{field}.rollouts", "must not be negative")
    ordered = self.profile == () or (len(self.profile) == 2 and 0 < self.profile[0] <= self.profile[1])
    require(self.wandb != "", f"{field}.wandb", "must be a project's name")
    require(ordered, f"{field}.profile", f"wants a first and a last step, is {self.profile}")


@dataclasses.dataclass(frozen=True)
class DiagnosticsConfig:
  """What is measured of a state beside its training, before some of the RL stage's steps."""

  every: int = 10  # steps from one to the next, the first step's included; 0: none
  problems: int = 64  # held-out ones, and as many of each kind out of distribution
  samples: int = 1  # completions a problem

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field`: this group's dotted name."""
    require(self.every >= 0, f"{field}.every", "must not be negative; 0 is none")
    for name in ("problems", "samples"):
      require(vars(self)[name] > 0, f"{field}.{name}", "must be positive")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """A whole run: cold start, RL, evaluation."""

  name: str  # the run's folder below `out`
  model: ModelConfig
  task: TaskConfig
  out: str = "runs"
  seed: int = 0
  init: InitConfig = InitConfig()
  controls: bool = False  # runs the controls of the gain: no giving up; equal FLOPs of more cold start
  sft: SftConfig = SftConfig()
  rl: RLConfig = RLConfig()
  eval: EvalConfig = EvalConfig()
  diagnostics: DiagnosticsConfig = DiagnosticsConfig()
  checkpoint: CheckpointConfig = CheckpointConfig()
  mesh: MeshConfig = MeshConfig()
  log: LogConfig = LogConfig()

  def validate(self) -> None:
    """Raises ConfigError naming the first field that cannot work."""
    require(is_name(self.name), "name", f"must be a folder's name, is {self.name!r}")
    require(self.out != "", "out", "is empty: the current folder is `.`")
    validate_finite(self, "")
    require(0 <= self.seed < 2**32, "seed", f"must lie in [0, 2**32), is {self.seed}")  # keys take 32 bits
    for name in ("model", "task", "init", "sft", "rl", "eval", "diagnostics", "checkpoint", "mesh", "log"):
      vars(self)[name].validate(name)
    require(self.sft.steps + self.rl.steps > 0, "rl.steps", "and sft.steps are both 0: nothing to run")
    both = self.sft.steps > 0 and self.rl.steps > 0
    require(both or not self.controls, "controls", "compare a cold start with RL: both stages must run")
    greedy = "must be 1 with eval.temperature=0, which is greedy: all samples would be equal"
    several = self.eval.temperature == 0 and self.diagnostics.every > 0 and self.diagnostics.samples > 1
    require(not several, "diagnostics.samples", greedy)
    several = self.eval.temperature == 0 and self.controls and self.eval.control_samples > 1
    require(not several, "eval.control_samples", greedy)
    self._validate_rounding()
    stalls = self.model.param_dtype == "bfloat16" and self.rl.kl.reference == "ema"
    why = "cannot be ema with model.param_dtype=bfloat16, whose rounding swallows small moves"
    require(not stalls, "rl.kl.reference", why)
    tasks = [part.task for part in self.task.parts] if isinstance(self.task, MixtureConfig) else [self.task]
    judged = any(isinstance(task, JudgedConfig) and task.judge.votes == 0 for task in tasks)
    why = "finds no group of zero std: P(Yes) is never equal twice"
    why = f"{why}; set rl.advantage.min_std, or ask the judge for votes"
    require(
      not (self.rl.dynamic_sampling and judged and not self.rl.advantage.min_std), "rl.dynamic_sampling", why
    )

  def _validate_rounding(self) -> None:
    """Where the sampler's log-probs, which bfloat16 rounds, would be the old policy's."""
    kl, loss = self.rl.kl, self.rl.loss
    compares = {
      f"loss.kind={loss.kind}": loss.kind != "reinforce",
      "kl.placement=reward": kl.coef > 0 and kl.placement == "reward",
      "kl.times_ratio": kl.times_ratio,
      "cov.kind=kl_cov": self.rl.cov.kind == "kl_cov",
    }
    rounded = self.model.dtype == "bfloat16" and loss.logp_old == "sampler"
    for name, compared in compares.items():
      why = f"must be learner with model.dtype=bfloat16 and rl.{name}"
      why = f"{why}, which would act on the sampler's rounding"
      require(not (rounded and compared), "rl.loss.logp_old", why)


def xs(name: str, fields: Mapping[str, Any]) -> TrainConfig:
  """XS, for studies of many members: 0.1M parameters, 16 rows of up to 48 tokens, seconds of RL a member.

  Countdown with three numbers of 1..9: RL sees targets up to 12 alone, the cold start larger ones too, so
  that what RL does to problems it never sees can be measured. `fields` are replaced by their dotted names.
  """
  config = TrainConfig(
    name=name,
    model=ModelConfig(
      width=64, layers=2, heads=2, kv_heads=2, head_dim=32, mlp=128, qk_norm="head", embed_scale=3.0
    ),
    task=CountdownConfig(
      count=3, max_number=9, max_value=20, max_target=12, wide_cold_start=True, held_out=256, max_tries=3
    ),
    sft=SftConfig(
      steps=1200, rows=6, length=160, optim=OptimConfig(lr=3e-3, warmup_steps=30, schedule="cosine")
    ),
    rl=RLConfig(
      steps=400,
      prompts=4,
      samples=4,
      max_prompt=6,
      max_tokens=48,
      pad_multiple=0,
      optim=OptimConfig(lr=1e-4, warmup_steps=5),
    ),
    diagnostics=DiagnosticsConfig(every=40, problems=128),
    eval=EvalConfig(final_problems=256, samples=8, batch=128, max_tokens=48),
    checkpoint=CheckpointConfig(every=80),
  )
  return replaced(config, fields)
