"""Every option of a run, as frozen dataclasses, validated with the field's name in the error.

An experiment is a file with `get_config() -> TrainConfig`. The command line overrides any field by its dotted name.
"""

import dataclasses
from typing import Literal


class ConfigError(ValueError):
  """A setting or an input that cannot work. One line that names the field, file or row; the CLI exits with 2."""


def require(condition: bool, field: str, problem: str) -> None:
  """Raises ConfigError `field: problem` unless `condition`."""
  if not condition:
    raise ConfigError(f"{field}: {problem}")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """Llama 3's frequency scaling (Llama 3 model card; `rope_scaling` of type llama3)."""

  factor: float = 8.0
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  original_length: int = 8192


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """A decoder of the Llama / Qwen / Gemma family."""

  width: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp: int
  vocab: int = 0  # 0: the tokenizer's size, written into the run's config.json
  activation: Literal["silu", "gelu_tanh"] = "silu"
  norm_eps: float = 1e-6
  norm_placement: Literal["pre", "post", "sandwich"] = "pre"  # on a sublayer's input, output, or both
  norm_plus_one: bool = False  # RMSNorm multiplies by (1 + w), as Gemma does
  qk_norm: Literal["none", "head", "full"] = "none"  # per head (Qwen 3) or over the full width (OLMo 2)
  qkv_bias: bool = False
  tied_head: bool = True
  embed_scale: float = 1.0  # Gemma: sqrt(width)
  query_scale: float | None = None  # multiplies q.k; None: head_dim ** -0.5
  rope_theta: tuple[float, ...] = (10_000.0,)  # one for all layers, or one a layer
  rope_scaling: RopeScaling | None = None
  window: tuple[int, ...] = (0,)  # keys a query sees, itself included; 0 = all; one, or one a layer
  attention_softcap: float = 0.0  # c * tanh(x / c) on attention scores; 0 = off
  head_softcap: float = 0.0  # the same on logits; 0 = off
  dtype: Literal["float32", "bfloat16"] = "float32"  # of the computation; parameters are float32
  scan_layers: bool = False  # one compiled layer (fast to compile), or unrolled (fast on a CPU)
  remat: Literal["none", "full", "dots"] = "none"  # keeps all activations, none, or the products'

  def validate(self, field: str) -> None:
    for name in ("width", "layers", "heads", "kv_heads", "head_dim", "mlp"):
      require(vars(self)[name] > 0, f"{field}.{name}", f"must be positive, is {vars(self)[name]}")
    require(self.heads % self.kv_heads == 0, f"{field}.kv_heads", f"does not divide heads={self.heads}")
    require(self.head_dim % 2 == 0, f"{field}.head_dim", f"must be even, is {self.head_dim}")
    for name in ("rope_theta", "window"):
      count = len(vars(self)[name])
      require(count in (1, self.layers), f"{field}.{name}", f"wants 1 or {self.layers} values, has {count}")
    require(all(theta > 0 for theta in self.rope_theta), f"{field}.rope_theta", "must be positive")
    require(all(keys >= 0 for keys in self.window), f"{field}.window", "must not be negative; 0 is all keys")


@dataclasses.dataclass(frozen=True)
class CountdownConfig:
  """Reach the target with every number once, by + - *; intermediate results stay within [0, max_value]."""

  count: int = 3  # numbers in a problem
  max_number: int = 15  # numbers are drawn from 1..max_number
  max_value: int = 99  # largest target and intermediate result; the vocabulary has a token for each up to it
  held_out: int = 1024  # problems kept from training, disjoint by canonical form (sorted numbers and target)
  max_tries: int = 10  # tries in a cold-start trace at most
  hint_rate: float = 0.15  # probability that a cold-start try is a solution
  give_up_rate: float = 0.35  # probability of giving up after each failed try of a cold-start trace
  split_seed: int = 0  # which problems are held out

  def validate(self, field: str) -> None:
    require(2 <= self.count <= 6, f"{field}.count", f"must lie in 2..6, is {self.count}")
    require(self.max_number >= 1, f"{field}.max_number", "must be positive")
    require(self.max_value >= self.max_number, f"{field}.max_value", "must be at least max_number")
    require(0.0 <= self.give_up_rate < 1.0, f"{field}.give_up_rate", "must lie in [0, 1)")
    require(0.0 < self.hint_rate <= 1.0, f"{field}.hint_rate", "must lie in (0, 1]")
    require(self.max_tries >= 1, f"{field}.max_tries", "must be positive")
    require(self.held_out >= 1, f"{field}.held_out", "must be positive")
    require(self.split_seed >= 0, f"{field}.split_seed", "must not be negative")


@dataclasses.dataclass(frozen=True)
class Gsm8kConfig:
  """Grade-school maths (Cobbe et al. 2021), from the published JSONL files."""

  # A folder or URL that holds train.jsonl and test.jsonl, or one .jsonl file.
  path: str = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data"
  sha256: tuple[str, str] | None = (
    "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
  )  # of train.jsonl and test.jsonl, checked on a download; None: unchecked
  data_dir: str = "data"  # where the prepared array_record files go
  held_out: int = 256  # rows held out of a single file; with two files, the first of test.jsonl
  tokenizer: str | None = None  # a SentencePiece model file; None: trained on the training split's text
  vocab: int = 1024  # of a trained tokenizer

  def validate(self, field: str) -> None:
    require(self.held_out >= 1, f"{field}.held_out", "must be positive")
    require(self.vocab >= 300, f"{field}.vocab", "must be at least 300: 256 bytes and some pieces")


TaskConfig = CountdownConfig | Gsm8kConfig


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """AdamW with a warm-up and an optional decay, and clipping by global norm."""

  lr: float = 2e-4
  warmup: int = 0  # optimiser steps of linear warm-up from 0
  schedule: Literal["constant", "linear", "cosine"] = "constant"
  final_fraction: float = 0.0  # of lr, at the end of a linear or cosine decay
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  decay: float = 0.0  # decoupled weight decay, on matrices alone
  clip_norm: float = 1.0  # global gradient norm; 0 = off

  def validate(self, field: str) -> None:
    require(self.lr > 0, f"{field}.lr", f"must be positive, is {self.lr}")
    require(self.warmup >= 0, f"{field}.warmup", "must not be negative")
    require(self.clip_norm >= 0, f"{field}.clip_norm", "must not be negative")
    require(self.decay >= 0, f"{field}.decay", "must not be negative")
    for name in ("b1", "b2"):
      require(0 <= vars(self)[name] < 1, f"{field}.{name}", "must lie in [0, 1)")
    acts = self.final_fraction == 0.0 or self.schedule != "constant"
    require(acts, f"{field}.final_fraction", "cannot act with schedule=constant")


@dataclasses.dataclass(frozen=True)
class SftConfig:
  """The cold start: next-token loss on the task's demonstrations, packed into rows."""

  steps: int = 0  # 0: no cold start
  rows: int = 32  # packed rows a step
  length: int = 256  # tokens a row
  micro_batches: int = 1
  optim: OptimConfig = OptimConfig(lr=2e-3, warmup=50, schedule="cosine")

  def validate(self, field: str) -> None:
    require(self.steps >= 0, f"{field}.steps", "must not be negative")
    require(self.rows > 0 and self.length > 0, f"{field}.rows", "rows and length must be positive")
    split = self.micro_batches > 0 and self.rows % self.micro_batches == 0
    require(split, f"{field}.micro_batches", f"must divide rows={self.rows}")
    self.optim.validate(f"{field}.optim")


@dataclasses.dataclass(frozen=True)
class AdvantageConfig:
  """Which estimator, and the conventions in which implementations differ (FORMULAS: advantages)."""

  kind: Literal["grpo", "dr_grpo", "rloo", "reinforce++", "remax", "opo", "maxrl", "pass@k"] = "grpo"
  ddof: int = 1  # of grpo's standard deviation: 1 as TRL and verl, 0 as open-instruct
  eps: float = 1e-4  # added to grpo's standard deviation: TRL 1e-4, verl 1e-6, open-instruct 1e-8
  group_baseline: bool = False  # reinforce++ subtracts the group's mean before it whitens

  def validate(self, field: str) -> None:
    require(self.ddof in (0, 1), f"{field}.ddof", f"must be 0 or 1, is {self.ddof}")
    require(self.eps > 0, f"{field}.eps", "must be positive")
    acts = not self.group_baseline or self.kind == "reinforce++"
    require(acts, f"{field}.group_baseline", "acts with kind=reinforce++ alone")
    default = AdvantageConfig
    touched = self.ddof != default.ddof or self.eps != default.eps
    require(not touched or self.kind == "grpo", f"{field}.ddof", "ddof and eps act with kind=grpo alone")


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """The policy loss and its aggregation over tokens (FORMULAS: policy losses)."""

  kind: Literal["reinforce", "ppo_clip", "dual_clip", "cispo", "gspo", "rloo", "sapo"] = "reinforce"
  aggregation: Literal["seq_mean_token_mean", "token_mean", "dr_grpo"] = "token_mean"
  clip_low: float | None = None  # ppo_clip, dual_clip, gspo, rloo: the ratio's lower bound is 1 - clip_low
  clip_high: float | None = None  # ... and its upper bound 1 + clip_high; cispo's cap is 1 + clip_high
  dual: float | None = None  # dual_clip's c (Ye et al. 2020: 3)
  logp_old: Literal["sampler", "learner"] = "sampler"  # where the ratio's denominator comes from

  def validate(self, field: str) -> None:
    clips = {"ppo_clip": (1, 1), "dual_clip": (1, 1), "cispo": (0, 1), "gspo": (1, 1), "rloo": (1, 1)}
    for name, wanted in zip(("clip_low", "clip_high"), clips.get(self.kind, (0, 0))):
      value = vars(self)[name]
      problem = "is needed" if wanted else "cannot act"
      require(bool(wanted) == (value is not None), f"{field}.{name}", f"{problem} with kind={self.kind}")
      require(value is None or value > 0, f"{field}.{name}", "must be positive")
    dual = self.kind == "dual_clip"
    require(dual == (self.dual is not None), f"{field}.dual", "goes with kind=dual_clip, and is needed there")
    require(self.dual is None or self.dual > 1, f"{field}.dual", "must be above 1")
    # The sequence's ratio has every token's gradient already: a sum over tokens would count length twice.
    whole = self.kind != "rloo" or self.aggregation == "seq_mean_token_mean"
    require(
      whole, f"{field}.aggregation", "must be seq_mean_token_mean with kind=rloo, one loss a completion"
    )


@dataclasses.dataclass(frozen=True)
class KLConfig:
  """Regularisation towards the reference (FORMULAS: KL to the reference)."""

  coef: float = 0.0  # 0: no term, and no reference forward pass
  estimator: Literal["k1", "k2", "k3", "reverse", "forward"] = "k3"  # the last two are exact
  placement: Literal["loss", "reward"] = "loss"
  times_ratio: bool = False  # multiplies the sampled estimator by the (undetached) ratio
  reference: Literal["frozen", "ema", "reset"] = "frozen"
  ema: float | None = None  # share of the policy that enters an EMA reference each step
  reset_every: int | None = None  # steps between copies of the policy into a reset reference
  reset_optimizer: bool = False  # a reset clears the optimiser's moments too (ProRL)

  def validate(self, field: str) -> None:
    require(self.coef >= 0, f"{field}.coef", "must not be negative")
    moves, resets = self.reference == "ema", self.reference == "reset"
    require(moves == (self.ema is not None), f"{field}.ema", "goes with reference=ema, and is needed there")
    require(self.ema is None or 0 < self.ema <= 1, f"{field}.ema", "must lie in (0, 1]")
    given = self.reset_every is not None
    require(resets == given, f"{field}.reset_every", "goes with reference=reset, and is needed there")
    require(self.reset_every is None or self.reset_every > 0, f"{field}.reset_every", "must be positive")
    require(resets or not self.reset_optimizer, f"{field}.reset_optimizer", "goes with reference=reset")
    exact = self.estimator in ("reverse", "forward")
    paid = self.placement == "reward"
    require(not (exact and paid), f"{field}.placement", f"{self.estimator} is exact, and goes into the loss")
    idle = self.times_ratio and (exact or paid)
    require(not idle, f"{field}.times_ratio", "multiplies a sampled estimator in the loss alone")
    if self.coef == 0:
      plain = dataclasses.replace(KLConfig(), estimator=self.estimator, placement=self.placement)
      require(self == plain, f"{field}.coef", "is 0, so that no other field of the reference can act")


@dataclasses.dataclass(frozen=True)
class RLConfig:
  """The reinforcement-learning stage."""

  steps: int = 0  # rollouts; 0: no RL stage
  prompts: int = 32  # P, problems a step
  samples: int = 8  # G, completions a problem
  max_prompt: int = 16  # Lp; a longer prompt is an error that names the problem
  max_tokens: int = 64  # R, response tokens
  temperature: float = 1.0
  epochs: int = 1  # passes over a rollout
  minibatches: int = 1  # optimiser steps a pass, split by prompt group
  micro_batches: int = 1  # accumulated within one optimiser step
  head_chunk: int = 4096  # response positions whose logits exist at once in the learner
  loss: LossConfig = LossConfig()
  advantage: AdvantageConfig = AdvantageConfig()
  kl: KLConfig = KLConfig()
  entropy: float = 0.0  # coefficient of the entropy bonus
  optim: OptimConfig = OptimConfig()

  def validate(self, field: str) -> None:
    counts = ("prompts", "max_prompt", "max_tokens", "epochs", "minibatches", "micro_batches", "head_chunk")
    for name in counts:
      require(vars(self)[name] > 0, f"{field}.{name}", f"must be positive, is {vars(self)[name]}")
    require(self.steps >= 0, f"{field}.steps", "must not be negative")
    grouped = self.advantage.kind not in ("reinforce++", "remax")
    least = 2 if grouped else 1
    require(self.samples >= least, f"{field}.samples", f"{self.advantage.kind} needs at least {least}")
    require(self.temperature > 0, f"{field}.temperature", "must be positive: greedy is for evaluation")
    group, rest = divmod(self.prompts, self.minibatches)
    require(rest == 0, f"{field}.minibatches", f"does not divide prompts={self.prompts}")
    split = group % self.micro_batches == 0
    require(split, f"{field}.micro_batches", f"does not divide the {group} prompts of a minibatch")
    self.loss.validate(f"{field}.loss")
    self.advantage.validate(f"{field}.advantage")
    self.kl.validate(f"{field}.kl")
    self.optim.validate(f"{field}.optim")
    on_policy = self.epochs * self.minibatches == 1
    why = "with one optimiser step a rollout the ratio is 1 and"
    clipped = self.loss.clip_low is not None or self.loss.clip_high is not None
    cure = "raise epochs or minibatches, or use reinforce"
    require(not (on_policy and clipped), f"{field}.loss.kind", f"{why} {self.loss.kind} cannot clip: {cure}")
    gated = self.loss.kind == "sapo"
    require(not (on_policy and gated), f"{field}.loss.kind", f"{why} sapo's gate cannot act: {cure}")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """Evaluation on held-out problems."""

  every: tuple[int, int] = (
    0,
    0,
  )  # steps between evaluations in the cold start, and in RL; 0: at the end alone
  problems: int = 64  # in an evaluation during a stage
  final_problems: int = 512  # in the evaluations that summary.json reports
  samples: int = 8  # K completions a problem
  control_samples: int = 2  # K of the controls and of forced budgets
  batch: int = 64  # problems a compiled call
  max_tokens: int = 64  # response budget of natural stopping
  temperature: float = 1.0
  top_k: int = 0  # evaluation alone; 0 = off
  top_p: float = 1.0  # evaluation alone; 1 = off
  budgets: tuple[int, ...] = ()  # forced budgets b, tokens, ascending; () = no forced-budget curve
  bootstrap: int = 2000  # resamples behind each interval

  def validate(self, field: str) -> None:
    for name in (
      "problems",
      "final_problems",
      "samples",
      "control_samples",
      "batch",
      "max_tokens",
      "bootstrap",
    ):
      require(vars(self)[name] > 0, f"{field}.{name}", "must be positive")
    require(min(self.every) >= 0, f"{field}.every", "must not be negative")
    require(0 < self.top_p <= 1, f"{field}.top_p", "must lie in (0, 1]")
    require(self.top_k >= 0, f"{field}.top_k", "must not be negative")
    require(self.temperature >= 0, f"{field}.temperature", "must not be negative; 0 is greedy")
    require(tuple(sorted(set(self.budgets))) == self.budgets, f"{field}.budgets", "must ascend")
    require(all(b > 0 for b in self.budgets), f"{field}.budgets", "must be positive")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """Checkpoints, written asynchronously by orbax."""

  every: int = 50  # steps between saves; a stage's end and SIGTERM save too
  keep: int = 2  # newest ones kept

  def validate(self, field: str) -> None:
    require(self.every > 0, f"{field}.every", "must be positive")
    require(self.keep > 0, f"{field}.keep", "must be positive")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices along each mesh axis; -1 takes what is left."""

  data: int = -1
  fsdp: int = 1
  tensor: int = 1

  def validate(self, field: str) -> None:
    sizes = (self.data, self.fsdp, self.tensor)
    require(all(s == -1 or s > 0 for s in sizes), field, "axes are positive, or -1 for what is left")
    require(sizes.count(-1) <= 1, field, "at most one axis may be -1")


@dataclasses.dataclass(frozen=True)
class LogConfig:
  """What a run writes beside its checkpoints."""

  rollouts_every: int = 10  # steps between written rollouts
  rollouts: int = 8  # completions written at a time
  profile: tuple[
    int, ...
  ] = ()  # first and last step (as in metrics.jsonl) of a jax.profiler trace; () = none
  progress: bool = True  # a live progress bar on a terminal
  wandb: str | None = None  # project there that gets the metrics too (extra `wandb`); None = none

  def validate(self, field: str) -> None:
    require(self.rollouts_every > 0, f"{field}.rollouts_every", "must be positive")
    require(self.rollouts >= 0, f"{field}.rollouts", "must not be negative")
    ordered = self.profile == () or (len(self.profile) == 2 and 0 < self.profile[0] <= self.profile[1])
    require(self.wandb != "", f"{field}.wandb", "must be a project's name")
    require(ordered, f"{field}.profile", f"wants a first and a last step, is {self.profile}")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """A whole run: cold start, RL, evaluation."""

  name: str  # the run's folder below `out`
  model: ModelConfig
  task: TaskConfig
  out: str = "runs"
  seed: int = 0
  controls: bool = False  # runs the controls of the gain: no giving up; equal FLOPs of more cold start
  sft: SftConfig = SftConfig()
  rl: RLConfig = RLConfig()
  eval: EvalConfig = EvalConfig()
  checkpoint: CheckpointConfig = CheckpointConfig()
  mesh: MeshConfig = MeshConfig()
  log: LogConfig = LogConfig()

  def validate(self) -> None:
    """Raises ConfigError naming the first field that cannot work."""
    plain = self.name not in ("", ".", "..") and "/" not in self.name
    require(plain, "name", f"must be a folder's name, is {self.name!r}")
    require(0 <= self.seed < 2**32, "seed", f"must lie in [0, 2**32), is {self.seed}")  # keys take 32 bits
    for name in ("model", "task", "sft", "rl", "eval", "checkpoint", "mesh", "log"):
      vars(self)[name].validate(name)
    require(self.sft.steps + self.rl.steps > 0, "rl.steps", "and sft.steps are both 0: nothing to run")
    both = self.sft.steps > 0 and self.rl.steps > 0
    require(both or not self.controls, "controls", "compare a cold start with RL: both stages must run")
