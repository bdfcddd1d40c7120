"""Every check of the options of the tasks of text."""

import ast
import pathlib
import types
import typing
from typing import Any

import pytest
from tables import failed_rows

from o1jax.config import (
  ArithmeticConfig,
  BugfixConfig,
  ConfigError,
  ConstrainedWritingConfig,
  CountdownConfig,
  Gsm8kConfig,
  HumanevalConfig,
  IfevalConfig,
  JsonlTaskConfig,
  JudgeConfig,
  JudgedConfig,
  MathConfig,
  MbppConfig,
  ReasoningGymConfig,
  SourceConfig,
  TextConfig,
  tasks,
  text,
)
from o1jax.tasks.catalog import BUILDERS, DATASETS

KINDS = [kind for kind in typing.get_args(SourceConfig) if kind is not CountdownConfig]
NEEDED: dict[type, dict[str, Any]] = {
  JudgedConfig: {"path": "rows.jsonl", "judge": JudgeConfig("model")},
  JsonlTaskConfig: {"path": "rows.jsonl", "dataset": "some"},
}
# A hash that is not the published one.
OWN_HASH: dict[type, Any] = {
  **dict.fromkeys((Gsm8kConfig, MathConfig), ("0" * 64, "1" * 64)),
  **dict.fromkeys(
    (MbppConfig, HumanevalConfig, BugfixConfig, IfevalConfig, JudgedConfig, JsonlTaskConfig), "0" * 64
  ),
}
FAULTS: list[tuple[type, dict[str, Any], str]] = [
  *((kind, {"text": TextConfig(vocab=299)}, "task.text.vocab: must be at least 300") for kind in KINDS),
  *(
    (kind, {"held_out": 0}, "task.held_out: must be positive")
    for kind in (Gsm8kConfig, MathConfig, MbppConfig, BugfixConfig, ConstrainedWritingConfig)
  ),
  *(
    (kind, {"held_out": 0}, "task.held_out: must be positive, or None")
    for kind in (HumanevalConfig, IfevalConfig, JudgedConfig)
  ),
  *(
    (kind, {"split_seed": -1}, "task.split_seed: must not be negative")
    for kind in (
      HumanevalConfig,
      IfevalConfig,
      JudgedConfig,
      BugfixConfig,
      ArithmeticConfig,
      ConstrainedWritingConfig,
    )
  ),
  *(
    (kind, {"decontaminate": ("a.jsonl",)}, "task.decontaminate: wants FILE_OR_URL#FIELD, has 'a.jsonl'")
    for kind in (
      Gsm8kConfig,
      MathConfig,
      MbppConfig,
      HumanevalConfig,
      BugfixConfig,
      IfevalConfig,
      JudgedConfig,
      ReasoningGymConfig,
    )
  ),
  *(
    (kind, {"unverified": -1}, "task.unverified: must not be negative")
    for kind in (Gsm8kConfig, MathConfig, MbppConfig, HumanevalConfig, BugfixConfig, ReasoningGymConfig)
  ),
  *(
    (
      kind,
      {"text": TextConfig("some.model", vocab=512)},
      "task.text.vocab: cannot act with tokenizer=some.model",
    )
    for kind in KINDS
  ),
  *(
    (ArithmeticConfig, {"text": fields}, f"task.text.{error}")
    for fields, error in (
      (TextConfig(template="chat"), "template: chat is a tokenizer's: name its folder"),
      (TextConfig(enable_thinking=False), "enable_thinking: acts with template=chat alone"),
      (TextConfig(date="2025-03-09"), "date: acts with template=chat alone"),
      (
        TextConfig("folder", template="chat", date="9 March"),
        "date: must be a day as YYYY-MM-DD, is '9 March'",
      ),
      (TextConfig("folder", template="chat", date="20250309"), "date: must be a day as YYYY-MM-DD"),
    )
  ),
  *(
    (kind, {"held_out": None, "split_seed": 1}, "task.split_seed: cannot act with held_out=None")
    for kind in (HumanevalConfig, IfevalConfig, JudgedConfig)
  ),
  *(
    (
      kind,
      {"path": "rows.jsonl", "sha256": OWN_HASH[kind]},
      "task.sha256: is of a download, and rows.jsonl is a local",
    )
    for kind in OWN_HASH
  ),
  (MathConfig, {"decontaminate": ("#text",)}, "task.decontaminate: wants FILE_OR_URL#FIELD, has '#text'"),
  (MathConfig, {"decontaminate": ("a#b", "a#b")}, "task.decontaminate: names an evaluation set twice"),
  (JudgedConfig, {"name": "my task"}, "task.name: must be letters, digits and _ in lower case, is 'my task'"),
  (JudgedConfig, {"judge": JudgeConfig("")}, "task.judge.model: must name a model"),
  (BugfixConfig, {"bugs": 0}, "task.bugs: must be positive"),
  (ArithmeticConfig, {"digits": 0}, "task.digits: must lie in 1..100, is 0"),
  (ArithmeticConfig, {"digits": 101}, "task.digits: must lie in 1..100, is 101"),
  (ArithmeticConfig, {"operations": ()}, "task.operations: must be distinct ones of + - *"),
  (ArithmeticConfig, {"operations": ("+", "/")}, "task.operations: must be distinct ones of + - *, are + /"),
  (ArithmeticConfig, {"operations": ("+", "+")}, "task.operations: must be distinct ones of + - *, are + +"),
  (ArithmeticConfig, {"size": 2}, "task.size: must be at least one of each of 3 operations"),
  (ArithmeticConfig, {"held_out": 2}, "task.held_out: must be at least one of each of 3 operations"),
  (ArithmeticConfig, {"more_digits": -1}, "task.more_digits: must not be negative"),
  (ReasoningGymConfig, {"dataset": ""}, "task.dataset: must not be empty"),
  (ReasoningGymConfig, {"size": 0}, "task.size: must lie in 1..100,000, is 0"),
  (ReasoningGymConfig, {"held_out": 100_001}, "task.held_out: must lie in 1..100,000, is 100001"),
  (ReasoningGymConfig, {"split_seed": 1001}, "task.split_seed: must lie in 0..1000, is 1001"),
  (ReasoningGymConfig, {"options": (("a", "{"),)}, "task.options: 'a' is '{', which is not JSON"),
  (ReasoningGymConfig, {"options": (("a", "1"), ("a", "2"))}, "task.options: 'a' is given twice"),
  (
    ReasoningGymConfig,
    {"options": (("seed", "1"),)},
    "task.options: 'seed' is given twice, or set by size and split_seed",
  ),
]


def refusal(kind: type, fields: dict[str, Any]) -> ConfigError:
  with pytest.raises(ConfigError) as caught:
    kind(**{**NEEDED.get(kind, {}), **fields}).validate("task")
  return caught.value


def check_refusal(kind, fields, start) -> None:
  message = str(refusal(kind, fields))
  assert message.startswith(start) and "\n" not in message


def test_what_cannot_work_names_its_field() -> None:
  assert failed_rows(check_refusal, FAULTS) == []


def checks(module: types.ModuleType) -> set[tuple[str, int]]:
  """File and line of each call of `require`, but for countdown's and mixtures', which test_config reaches."""
  tree = ast.parse(pathlib.Path(module.__file__).read_text())
  others = ("CountdownConfig", "MixtureConfig")
  nodes = [node for part in tree.body if vars(part).get("name") not in others for node in ast.walk(part)]
  calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
  return {(module.__file__, node.lineno) for node in calls if node.func.id == "require"}


def test_every_check_has_a_case_above() -> None:
  reached = set()
  for kind, fields, _ in FAULTS:
    trace = refusal(kind, fields).__traceback__
    while trace.tb_next.tb_frame.f_code.co_name != "require":
      trace = trace.tb_next
    if trace.tb_frame.f_code.co_filename in (tasks.__file__, text.__file__):
      reached.add((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
  assert reached == checks(tasks) | checks(text) and len(reached) > 20


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_defaults_are_valid_and_build_a_task(kind) -> None:
  assert kind(**NEEDED.get(kind, {})).validate("task") is None
  assert kind in (*BUILDERS, *(dataset.config for dataset in DATASETS.values()), JsonlTaskConfig)
  full = dict(NEEDED.get(kind, {}))
  full |= {"options": (("a", "[1, null]"), ("b", '"x"'))} if kind is ReasoningGymConfig else {}
  assert kind(**full).validate("task") is None and hash(kind(**full)) == hash(kind(**full))


@pytest.mark.parametrize("kind", OWN_HASH, ids=lambda kind: kind.__name__)
def test_a_hash_acts_on_a_download_and_the_published_one_stays_with_a_local_file(kind) -> None:
  for fields in ({"path": "https://host/rows.jsonl", "sha256": OWN_HASH[kind]}, {"path": "rows.jsonl"}):
    assert kind(**{**NEEDED.get(kind, {}), **fields}).validate("task") is None


def test_what_the_tasks_have_in_common_is_written_alike() -> None:
  for kind in KINDS:
    fields = kind.__dataclass_fields__
    assert fields["data_dir"].default == "data" and fields["text"].default == TextConfig()
    assert "decontaminate" in fields or kind in (ArithmeticConfig, ConstrainedWritingConfig)
    assert "sha256" in fields or kind in (ArithmeticConfig, ConstrainedWritingConfig, ReasoningGymConfig)
