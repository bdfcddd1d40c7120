"""Which members of a sweep share a compiled program, and which a cold start."""

from typing import Any

import numpy as np
import pytest

from o1jax.config import (
  Arm,
  Claim,
  ConfigError,
  CountdownConfig,
  CovConfig,
  CriticConfig,
  EvalConfig,
  KLConfig,
  ModelConfig,
  RLConfig,
  SftConfig,
  SweepConfig,
  TrainConfig,
  active_terms,
  static_config,
)
from o1jax.io.run_config import with_overrides
from o1jax.rl.learner import Learner, hyperparams, rl_learner
from o1jax.sweep.groups import tail_means
from o1jax.sweep.members import cold_start_key, groups_of, members_of

MODEL = ModelConfig(width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=32)
BASE = TrainConfig(
  "sweep", MODEL, CountdownConfig(), sft=SftConfig(steps=3), rl=RLConfig(steps=8, pad_multiple=0)
)
OFF_POLICY = {"rl.epochs": 2, "rl.loss.kind": "sapo"}
CLIP = {**OFF_POLICY, "rl.loss.kind": "ppo_clip", "rl.loss.clip_low": 0.2, "rl.loss.clip_high": 0.2}


def swept(*overrides: dict[str, Any], base: TrainConfig = BASE, seeds: tuple[int, ...] = (0,)) -> list:
  arms = tuple(Arm(f"arm{i}", each) for i, each in enumerate(overrides))
  return members_of(SweepConfig(base, arms, Claim("", "", "", ()), seeds=seeds))


# What the base has beside, and a strength with another value.
STRENGTHS: dict[str, tuple[dict[str, Any], Any]] = {
  "rl.kl.coef": ({"rl.kl.coef": 0.1}, 0.0),
  "rl.kl.ema": ({"rl.kl": KLConfig(0.1, reference="ema", ema=0.1)}, 0.5),
  "rl.kl.reset_every": ({"rl.kl": KLConfig(0.1, reference="reset", reset_every=2)}, 3),
  "rl.kl.schedule": ({"rl.kl.coef": 0.1}, "linear"),
  "rl.kl.final_fraction": ({"rl.kl": KLConfig(0.1, schedule="linear")}, 0.5),
  "rl.entropy": ({"rl.entropy": 0.1}, 0.0),
  "rl.l2_init": ({"rl.l2_init": 0.1}, 0.0),
  "rl.loss.clip_low": (CLIP, 0.1),
  "rl.loss.clip_high": (CLIP, 0.4),
  "rl.cov.coef": ({**OFF_POLICY, "rl.cov": CovConfig("kl_cov", fraction=0.1, coef=1.0)}, 0.0),
  "rl.critic.coef": ({"rl.advantage.kind": "gae", "rl.critic": CriticConfig("head")}, 1.0),
  "rl.optim.lr": ({}, 0.1),
  "rl.optim.weight_decay": ({}, 0.1),
  "rl.optim.warmup_steps": ({}, 3),
  "rl.optim.schedule": ({}, "cosine"),
  "rl.optim.final_fraction": ({"rl.optim.schedule": "cosine"}, 0.5),
  "rl.temperature": ({}, 0.5),
  "rl.problems": ({}, 7),
}


@pytest.mark.parametrize("field", STRENGTHS)
def test_members_that_differ_in_a_strength_share_a_program(field) -> None:
  beside, value = STRENGTHS[field]
  members = swept({}, {field: value}, base=with_overrides(BASE, beside), seeds=(0, 1))
  assert [[m.name for m in group] for group in groups_of(members)] == [
    ["arm0-seed0", "arm0-seed1", "arm1-seed0", "arm1-seed1"]
  ]
  if field != "rl.problems":
    told = []
    for member in members[::2]:
      learner = rl_learner(member.config)
      told.append([hyperparams(member.config, learner, step) for step in range(4, 12)])
    assert told[0] != told[1]  # it reaches the program nonetheless


STATIC = {
  "rl.samples": 4, "rl.steps": 5, "rl.epochs": 3, "rl.kl": KLConfig(0.1, "k2"), "rl.entropy_target": None,
  "rl.kl.placement": "reward", "rl.advantage.kind": "rloo", "rl.max_tokens": 32, "rl.optim.b1": 0.5,
  "rl.optim.clip_norm": 0.0, "sft.steps": 2, "model.width": 32, "task.count": 2, "rl.overlong.mask": True,
}  # fmt: skip


@pytest.mark.parametrize("field", STATIC)
def test_members_that_differ_in_what_is_static_do_not(field) -> None:
  base = with_overrides(BASE, OFF_POLICY if field == "rl.epochs" else {})
  groups = groups_of(swept({}, {field: STATIC[field]}, {"rl.optim.lr": 0.1}, base=base, seeds=(0, 1)))
  same = field == "rl.entropy_target"  # None is what it was
  assert [len(group) for group in groups] == ([6] if same else [4, 2])
  assert [m.seed for group in groups for m in group] == [0, 1] * 3


def test_whether_a_strength_is_there_at_all_is_static() -> None:
  """None is no number: a reference that does not move is another program than one that moves little."""
  cfg = static_config(RLConfig(kl=KLConfig(0.1)))
  assert (cfg.kl.ema, cfg.kl.reset_every, cfg.loss.clip_low, cfg.cov.coef) == (None,) * 4
  moving = KLConfig(0.1, reference="ema", ema=0.1)
  assert len(groups_of(swept({"rl.kl.coef": 0.1}, {"rl.kl": moving}))) == 2


def test_learners_that_differ_in_host_fields_are_one_to_a_compiled_program() -> None:
  learner = rl_learner(BASE)
  other = Learner(**{**vars(learner), "steps": 99, "first": 1, "eval_every": 7})
  assert learner == other and hash(learner) == hash(other)


@pytest.mark.parametrize(
  ("overrides", "kept"),
  [
    ([{}, {}], set()),
    ([{}, {"rl.kl.coef": 0.1}], {"kl"}),
    ([{"rl.entropy": -0.1}, {"rl.l2_init": 0.1}], {"entropy", "l2_init"}),
    (
      [{**OFF_POLICY, "rl.cov": CovConfig("kl_cov", fraction=0.1, coef=coef)} for coef in (0.0, 1.0)],
      {"cov"},
    ),
    ([{**OFF_POLICY, "rl.cov": CovConfig("kl_cov", fraction=0.1, coef=0.0)}], set()),
  ],
)
def test_a_term_is_kept_where_any_member_has_it(overrides, kept) -> None:
  members = swept(*overrides)
  active = active_terms(member.config.rl for member in members)
  assert active == kept
  names = {term.name for term in rl_learner(members[0].config, active).terms}
  assert kept - {"l2_init"} <= names


def test_members_share_a_cold_start_where_model_task_sft_and_seed_agree() -> None:
  plain, again, rl, sft, task, model = (
    cold_start_key(member.config)
    for member in swept(
      {}, {}, {"rl.kl.coef": 0.1, "rl.samples": 4}, {"sft.optim.lr": 0.1}, {"task.hint_rate": 0.5}, {"model.width": 32}
    )
  )  # fmt: skip
  assert plain == again == rl
  other_seed = cold_start_key(swept({}, seeds=(1,))[0].config)
  assert len({plain, sft, task, model, other_seed}) == 5
  assert plain.startswith("seed0-") and other_seed.startswith("seed1-")


def test_a_group_of_options_can_be_replaced_whole() -> None:
  whole, json, single = swept(
    {"rl.kl": KLConfig(0.3)}, {"rl.kl": vars(KLConfig(0.3))}, {"task": CountdownConfig(count=2)}
  )
  assert whole.config.rl.kl == json.config.rl.kl == KLConfig(0.3)
  assert single.config.task == CountdownConfig(count=2)


FAULTS: list[tuple[dict[str, Any], str]] = [
  ({"rl.stepz": 1}, "arm arm0: rl.stepz: is no field"),
  ({"rl.steps.more": 1}, "arm arm0: rl.steps.more: is no field"),
  ({"rl.steps": "many"}, "arm arm0: rl.steps: wants int, has 'many'"),
  ({"rl.steps": 0}, "arm arm0: rl.steps: must be positive in a sweep"),
  ({"rl.temperature": 0.0}, "arm arm0: rl.temperature: must lie in [0.0001, 10000]"),
  ({"rl.optim.lr": float("nan")}, "arm arm0: rl.optim.lr: must be finite"),
  ({"seed": 3}, "arm arm0: seed: is one for all members: an arm may change model, task, sft, rl"),
  *(({field: value}, f"arm arm0: {field}: is one for all members") for field, value in {
    "name": "x", "out": "x", "controls": False, "eval.samples": 2, "eval": EvalConfig(), "diagnostics.every": 5,
    "checkpoint.every": 1, "log.progress": False, "mesh.data": 1}.items()),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "line"), FAULTS, ids=[line for _, line in FAULTS])
def test_what_an_arm_cannot_change_names_arm_and_field(overrides, line) -> None:
  with pytest.raises(ConfigError) as caught:
    swept(overrides)
  assert str(caught.value).startswith(line)


def test_a_seed_out_of_range_is_named() -> None:
  with pytest.raises(ConfigError, match=r"arm arm0: seed: must lie in \[0, 2\*\*32\)"):
    swept({}, seeds=(2**32,))


# Means over a member's last steps


@pytest.mark.parametrize("accuracy", [0.9, 0.993, 0.2])
def test_lengths_of_some_completions_are_pooled_over_steps(accuracy: float) -> None:
  # 16 completions a step; right ones have 30 tokens on average and wrong ones 40, and a step may have none of one kind.
  rng = np.random.default_rng(0)
  lines = []
  for _ in range(4000):
    right = rng.random(16) < accuracy
    length = np.where(right, 30.0, 40.0) + rng.normal(0, 4, 16)
    line = {"accuracy": right.mean(), "correct/mean_length": length[right].mean() if right.any() else None}
    line["incorrect/mean_length"] = None if right.all() else length[~right].mean()
    lines.append({name: value for name, value in line.items() if value is not None})
  told = tail_means(lines)
  assert told["last/incorrect/mean_length"] == pytest.approx(40, abs=0.5)
  assert told["last/correct/mean_length"] == pytest.approx(30, abs=0.5)
  assert told["last/accuracy"] == np.mean([line["accuracy"] for line in lines[3000:]])


def test_a_step_that_lacks_a_metric_leaves_the_others_theirs() -> None:
  lines = [
    {"accuracy": 0.5, "rewards/a/mean": 1.0, "prompts/a": 1.0, "incorrect/mean_length": 8.0},
    {"accuracy": 1.0, "rewards/a/mean": 0.0, "prompts/a": 3.0},
    {"accuracy": 1.0, "prompts/a": 0.0},
    {"accuracy": 0.0, "rewards/a/mean": 0.0, "prompts/a": 4.0, "incorrect/mean_length": 2.0},
  ]
  told = tail_means(lines * 4)  # the last quarter of them
  assert told["last/incorrect/mean_length"] == pytest.approx((0.5 * 8 + 2) / 1.5)
  assert told["last/rewards/a/mean"] == pytest.approx(1 / 8)
  assert "last/incorrect/mean_length" not in tail_means([{"accuracy": 1.0}] * 4)
