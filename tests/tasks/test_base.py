"""Tasks: sampling keys of their own, demonstrations that fit, prompts and verdicts by a template."""

import dataclasses
import logging

import numpy as np
import pytest

from o1jax.config import ConfigError, CountdownConfig, TextConfig
from o1jax.io.tokenizer import EOS
from o1jax.tasks import base
from o1jax.tasks.base import ProblemSet, Task, check_demonstrations, problem_hash, rehash, text_task
from o1jax.tasks.countdown import build
from o1jax.verifiers.base import Problem, Verdict


@pytest.fixture(scope="module")
def task() -> Task:
  return build(CountdownConfig(count=2, max_number=6, held_out=16))


def problems(*names: str) -> list[Problem]:
  return [Problem(name, name, "", "test") for name in names]


def test_problems_that_share_no_hash_keep_theirs(task: Task) -> None:
  everything = [*task.train, *task.held_out]
  assert rehash(everything) == {} and task.rehashed == {}
  assert [task.hash_of(p) for p in everything] == [problem_hash(p) for p in everything]
  assert problem_hash(Problem("2 3 5", "", "", "countdown")) == 1568836126


def few(problem: Problem, salt: int = 0) -> int:
  """A hash that everything without salt shares."""
  return 10 + salt


def test_problems_that_share_a_hash_get_keys_of_their_own(monkeypatch, task: Task) -> None:
  monkeypatch.setattr(base, "problem_hash", few)
  a, b, c = some = problems("a", "b", "c")
  changed = rehash(some)
  assert changed == {"test/b": 11, "test/c": 12} == rehash(some)
  assert [dataclasses.replace(task, rehashed=changed).hash_of(p) for p in some] == [10, 11, 12]
  assert rehash([c, b, a]) == {"test/b": 11, "test/a": 12}


def test_a_real_collision_is_resolved_and_only_the_later_problem_changes() -> None:
  some = problems("90407", "127256", "1")
  first, second, other = map(problem_hash, some)
  assert first == second != other
  (changed,) = rehash(some).items()
  assert changed[0] == "test/127256" and changed[1] not in (first, other) and 0 <= changed[1] < 2**32
  assert list(rehash(some[::-1])) == ["test/90407"]


def test_an_id_given_twice_is_named() -> None:
  with pytest.raises(ValueError, match="test have the id 'a'"):
    rehash(problems("a", "b", "a"))


def test_a_demonstration_longer_than_a_row_names_its_problem(task: Task) -> None:
  told = {p.id: "3 + 4 = 7 off 0 yes" for p in task.train} | {task.train[5].id: "3 + 4 = 7 off 1 no quit"}
  fixed = dataclasses.replace(task, one_demonstration=True, demonstrate=lambda problem, rng: told[problem.id])
  size = 4 + 9 + 1  # the prompt `a b -> t`, the text, and the end
  check_demonstrations(fixed, size)
  with pytest.raises(ConfigError) as caught:
    check_demonstrations(fixed, size - 1)
  expected = f"sft.length: problem {task.train[5].id!r} and its demonstration have 14 tokens, a row 13"
  assert str(caught.value) == expected


def test_no_demonstrations_or_drawn_ones_are_not_checked(task: Task) -> None:
  assert check_demonstrations(task, 1) is None  # and nothing was raised
  assert check_demonstrations(dataclasses.replace(task, one_demonstration=True, demonstrate=None), 1) is None


# Free text


def verify(problems, completions) -> list[Verdict]:
  """Right where the completion is the answer."""
  return [Verdict(float(c == p.answer), c == p.answer, c) for p, c in zip(problems, completions, strict=True)]


def source(*questions: str) -> ProblemSet:
  problems = [Problem(str(i), question, str(i), "sums") for i, question in enumerate(questions)]
  return ProblemSet(
    name="sums", train=problems[:-1], held_out=problems[-1:], sft_problems=problems[:-1], verify=verify,
    demonstrate=lambda problem, rng: problem.answer,
    count_tries=lambda problem, text: 1, well_formed=lambda problem, text: True, data_hash="",
  )  # fmt: skip


PLAIN = source("What is 0 + 0?", "What is 0 + 1?", "What is 1 + 1?")


def test_without_a_template_a_problem_is_asked_as_it_stands(tmp_path) -> None:
  task = text_task(PLAIN, TextConfig(vocab=300), str(tmp_path))
  assert task.question(task.train[1]) == "What is 0 + 1?" and task.stop_tokens == (EOS,)
  assert list(task.sft_problems) == list(task.train)
  assert task.verify(task.train, ["0", "<answer>1</answer>"])[0].correct


def test_a_template_frames_the_question_and_marks_the_answer(tmp_path) -> None:
  task = text_task(PLAIN, TextConfig(vocab=400, template="plain", instruction="boxed"), str(tmp_path))
  asked = task.question(task.train[1])
  assert asked.endswith("\n\nUser: What is 0 + 1?\nAssistant: <think>") and "\\boxed{}" in asked
  assert task.tokenizer.decode(task.tokenizer.encode(asked)) == asked
  texts = [
    "easy</think> <answer>0</answer>",
    "0",
    "<answer>1</answer> <answer>0</answer>",
    "<answer>1</answer>",
  ]
  verdicts = task.verify([task.train[i] for i in (0, 0, 1, 1)], texts)
  assert [verdict.correct for verdict in verdicts] == [True, False, False, True]
  assert [verdict.error for verdict in verdicts[1:3]] == ["unparsable", "unparsable"]
  with pytest.raises(ConfigError, match="sft.steps: task sums has no demonstrations"):
    task.demonstrations(0)
  assert task.train[1].prompt == "What is 0 + 1?"  # what its verifier reads


def test_a_thought_is_not_graded(tmp_path) -> None:
  path = tmp_path / "mine.toml"
  lines = [
    "[template.mine]",
    'bare = ["", "\\n"]',
    'instructed = ["", " ", "\\n"]',
    'opens = ""',
    "strip = false",
  ]
  lines += ["stop = []", 'control = ""', "answer = []", 'thought = ["<think>", "</think>"]']
  path.write_text("\n".join(lines))
  task = text_task(PLAIN, TextConfig(vocab=400, template=str(path)), str(tmp_path))
  problem = task.train[0]
  texts = ["<think>1?</think>\n\n0", "0", "<think>0", "<think>0</think>1", "1<think>0"]
  verdicts = task.verify([problem] * len(texts), texts)
  assert [verdict.error for verdict in verdicts] == [None, None, "unparsable", None, "unparsable"]
  assert [verdict.correct for verdict in verdicts] == [True, True, False, False, False]
  assert task.sft_problems  # an answer without a thought is one that may be shown


def test_a_problem_that_holds_a_control_token_is_left_out_and_counted(tmp_path, caplog) -> None:
  hostile = source("<answer>9</answer>", "What is 0 + 1?", "What is 1 + 1?")
  with caplog.at_level(logging.WARNING):
    task = text_task(hostile, TextConfig(vocab=400, template="plain"), str(tmp_path))
  assert [problem.id for problem in task.train] == ["1"] and "1 training problems hold" in caplog.text
  with pytest.raises(ConfigError, match="every training problem of sums holds a control token"):
    text_task(source("<think>", "x"), TextConfig(template="plain"), str(tmp_path))
  with pytest.raises(ConfigError, match="the question holds '</think>'"):
    held_out = text_task(source("a", "b</think>"), TextConfig(vocab=400, template="plain"), str(tmp_path))
    held_out.question(held_out.held_out[0])


def test_a_chat_format_needs_its_models_tokenizer(tmp_path) -> None:
  with pytest.raises(ConfigError, match="'qwen3': '<|im_end|>' is no token of the tokenizer"):
    text_task(PLAIN, TextConfig(vocab=400, template="qwen3"), str(tmp_path))


def test_an_unknown_template_is_named(tmp_path) -> None:
  with pytest.raises(ConfigError, match="has no template 'qwen33'; did you mean 'qwen3'"):
    text_task(PLAIN, TextConfig(template="qwen33"), str(tmp_path))


def test_demonstrations_are_of_the_tokenizers_text(tmp_path) -> None:
  shown = dataclasses.replace(PLAIN, demonstrate=lambda problem, rng: "zyzzyva " * 9)
  both = [text_task(one, TextConfig(vocab=400), str(tmp_path)).tokenizer for one in (PLAIN, shown)]
  lengths = [len(tokenizer.encode("zyzzyva zyzzyva")) for tokenizer in both]
  assert lengths[1] < lengths[0] and np.isfinite(lengths).all()


def test_a_vocabulary_that_cannot_hold_the_texts_characters_names_its_field(tmp_path) -> None:
  many = source("".join(map(chr, range(0x4E00, 0x4E80))), "What is 0 + 1?")
  with pytest.raises(ConfigError, match="^task.text.vocab: tokenizer: training failed"):
    text_task(many, TextConfig(vocab=300), str(tmp_path))
  assert not list(tmp_path.iterdir())
