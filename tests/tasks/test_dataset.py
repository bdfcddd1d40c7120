"""What tasks share: references verified once, splits that share nothing, a hash of all that matters."""

import dataclasses
import json
import logging
import pathlib
from fractions import Fraction

import numpy as np
import pytest

from o1jax.config import ConfigError, Gsm8kConfig, HumanevalConfig
from o1jax.tasks import dataset as dataset_module
from o1jax.tasks.base import Example
from o1jax.tasks.dataset import (
  Dataset,
  content_hash,
  drawn_by_seed,
  from_plain,
  grade,
  last_or_test,
  make_problem_set,
  plain,
  verified,
)
from o1jax.verifiers.base import Problem, Verdict

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen"


class Verifier:
  """Accepts a problem's own answer, refuses problems without one, and counts what it is asked."""

  def __init__(self):
    self.asked = 0

  def __call__(self, problems, texts):
    self.asked += len(problems)
    for problem in problems:
      if not problem.answer:
        raise ValueError(f"problem {problem.id}: has no answer")
    told = [problem.answer == text for problem, text in zip(problems, texts, strict=True)]
    return [Verdict(float(right), right, None, None if right else "wrong") for right in told]


def accepted(examples, verifier, unverified: int, folder, settings: str = "own") -> list[Example]:
  return verified(examples, "test", verifier, settings, unverified, str(folder))


def row(
  number: int, question: str, answer: str = "yes", reference: str | None = "yes", split: str = "train"
) -> Example:
  problem = Problem(f"{split}/{number}", f"{question}?", answer, "test")
  return Example(f"file row {number}", question, problem, reference)


def test_references_are_verified_once(tmp_path):
  verifier, some = Verifier(), [row(1, "a"), row(2, "b", reference=None)]
  assert accepted(some, verifier, 0, tmp_path) == some
  assert accepted(some, verifier, 0, tmp_path) == some
  assert verifier.asked == 1


CHANGED = {
  "the answer": lambda some, settings: ([row(1, "a", "no", "no")], settings),
  "the prompt": lambda some, settings: ([row(1, "b")], settings),
  "the reference": lambda some, settings: ([row(1, "a", reference="no")], settings),
  "the verifier": lambda some, settings: (some, "another"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_changes_is_verified_anew(tmp_path, what):
  verifier = Verifier()
  some, settings = CHANGED[what]([row(1, "a")], "own")
  accepted([row(1, "a")], verifier, 1, tmp_path)
  accepted(some, verifier, 1, tmp_path, settings)
  assert verifier.asked == 2


def test_other_code_of_the_verifiers_verifies_anew(tmp_path, monkeypatch):
  verifier = Verifier()
  accepted([row(1, "a")], verifier, 0, tmp_path)
  monkeypatch.setattr(dataset_module, "verifiers_hash", lambda: "another")
  accepted([row(1, "a")], verifier, 0, tmp_path)
  assert verifier.asked == 2


def test_a_reference_that_does_not_verify_names_its_file_and_row(tmp_path):
  bad = [row(1, "a"), row(2, "b", reference="no"), row(3, "c", reference="no")]
  for _ in range(2):  # the second time from what was kept
    with pytest.raises(
      ConfigError,
      match=r"^file row 2: its reference does not verify: wrong \(such rows: 2, task\.unverified=0\)$",
    ):
      accepted(bad, Verifier(), 0, tmp_path)
  with pytest.raises(ConfigError, match=r"^file row 2: .*wrong \(such rows: 2, task\.unverified=1\)$"):
    accepted(bad, Verifier(), 1, tmp_path)


def test_rows_that_may_fail_are_left_out_and_named(tmp_path, caplog):
  bad = [row(1, "a"), row(2, "b", reference="no"), row(3, "c", answer="")]
  with caplog.at_level(logging.WARNING):
    kept = accepted(bad, Verifier(), 2, tmp_path)
  assert kept == bad[:1]
  assert "file row 2: its reference does not verify: wrong" in caplog.text
  assert "file row 3: nothing can be graded by it: problem train/3: has no answer" in caplog.text
  assert "test: 2 rows whose reference does not verify are left out" in caplog.text


def test_one_bad_problem_does_not_take_its_batch_along():
  problems = [row(n, "a", answer="" if n == 3 else "yes").problem for n in range(1, 6)]
  told = grade(Verifier(), problems, ["yes", "no", "yes", "yes", "yes"])
  assert [t if isinstance(t, str) else t.correct for t in told] == [
    True, False, "problem train/3: has no answer", True, True,
  ]  # fmt: skip
  assert grade(Verifier(), [], []) == []


def test_the_last_of_one_file_or_the_first_of_the_test_file_are_held_out():
  train, test = [row(n, "a") for n in range(4)], [row(n, "a", split="test") for n in range(3)]
  assert last_or_test(train, Gsm8kConfig("path", held_out=1)) == (train[:3], train[3:])
  assert last_or_test([*train, *test], Gsm8kConfig("path", held_out=2)) == (train, test[:2])
  for rows, count in ((train, 4), ([*train, *test], 4), (test, 1)):
    with pytest.raises(
      ConfigError, match=rf"^task\.held_out: {count} rows cannot be held out of the {len(rows)}"
    ):
      last_or_test(rows, Gsm8kConfig("path", held_out=count))


def test_an_evaluation_set_is_held_out_whole_or_in_part():
  rows = [row(n, str(n)) for n in range(10)]
  assert drawn_by_seed(rows, HumanevalConfig("path")) == ([], rows)
  train, held_out = drawn_by_seed(rows, HumanevalConfig("path", held_out=4))
  assert (len(train), len(held_out)) == (6, 4)
  assert sorted([*train, *held_out], key=rows.index) == rows and held_out == sorted(held_out, key=rows.index)
  assert drawn_by_seed(rows, HumanevalConfig("path", held_out=4, split_seed=1))[1] != held_out
  with pytest.raises(ConfigError, match=r"^task\.held_out: 10 of the 10 rows in path; None is all"):
    drawn_by_seed(rows, HumanevalConfig("path", held_out=10))


def problem_set(train, held_out, *names: str, data_dir: pathlib.Path | str = "unused", **fields):
  dataset = Dataset(name="test", verifier="own", count_tries=len, **fields)
  return make_problem_set(dataset, Verifier(), train, held_out, names, str(data_dir))


def test_training_rows_that_ask_or_repeat_what_is_held_out_are_left_out(caplog):
  train = [row(1, "How many?"), row(2, f"Say {LONG} now"), row(3, "What else")]
  held_out = [row(4, "how MANY", split="test"), row(5, f"{LONG} fourteen", split="test")]
  with caplog.at_level(logging.WARNING):
    made = problem_set(train, held_out)
  assert [problem.id for problem in made.train] == ["train/3"]
  assert [problem.id for problem in made.held_out] == ["test/4", "test/5"]
  assert "test: 1 training rows ask a held-out question and are left out" in caplog.text
  assert "1 training rows share 8 words in a row with held-out problems of its own" in caplog.text
  assert "the first: file row 2, with text 2" in caplog.text


def test_where_problems_are_alike_their_words_tell_nothing():
  train, held_out = [row(1, f"{LONG} 3 + 4")], [row(2, f"{LONG} 3 - 4", split="test")]
  with pytest.raises(ConfigError, match=r"^task\.path: every training problem of test is held out or tested"):
    problem_set(train, held_out)
  assert (
    len(problem_set(train, held_out, distinct_words=False, question_key=dataset_module.without_spacing).train)
    == 1
  )


def evaluation(path: pathlib.Path, field: str, *texts: str) -> str:
  path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts))
  return f"{path}#{field}"


def test_other_evaluation_sets_are_compared_too(tmp_path, caplog):
  train = [row(1, f"Say {LONG} now"), row(2, "a b"), row(3, "something else")]
  held_out = [row(4, "nothing", split="test")]
  first = evaluation(tmp_path / "first.jsonl", "question", f"{LONG} and more words of all kinds")
  second = evaluation(tmp_path / "second.jsonl", "text", "A, b!")
  with caplog.at_level(logging.WARNING):
    made = problem_set(train, held_out, first, second, data_dir=tmp_path)
  assert [problem.id for problem in made.train] == ["train/3"]
  assert f"share 13 words in a row with {first}" in caplog.text and second in caplog.text


def test_an_evaluation_set_that_cannot_be_read_names_the_option_or_the_row(tmp_path):
  some = [row(1, "a")], [row(2, "b", split="test")]
  with pytest.raises(ConfigError, match=r"^--task\.decontaminate: .*absent\.jsonl cannot be read"):
    problem_set(*some, f"{tmp_path}/absent.jsonl#text", data_dir=tmp_path)
  named = evaluation(tmp_path / "a.jsonl", "text", "words").replace("#text", "#prompt")
  with pytest.raises(ConfigError, match=r"a\.jsonl row 1: has no field 'prompt'"):
    problem_set(*some, named, data_dir=tmp_path)


def test_the_data_hash_follows_problems_and_evaluation_sets(tmp_path):
  train, held_out = [row(1, "a"), row(2, "b")], [row(3, "c", split="test")]
  set_ = evaluation(tmp_path / "a.jsonl", "text", "unrelated words")
  known = problem_set(train, held_out).data_hash
  assert problem_set(train, held_out).data_hash == known
  other = row(2, "b")
  other = dataclasses.replace(other, problem=dataclasses.replace(other.problem, meta={"tests": ["x"]}))
  hashes = [
    known,
    problem_set(train[::-1], held_out).data_hash,
    problem_set(train[:1], held_out).data_hash,
    problem_set([*train, row(4, "d")], held_out).data_hash,
    problem_set([train[0], other], held_out).data_hash,
    problem_set(train, held_out, set_, data_dir=tmp_path).data_hash,
  ]
  assert len(set(hashes)) == len(hashes)


def test_equal_content_has_one_hash_and_other_values_are_refused():
  words = [f"word {n}" for n in range(50)]
  assert content_hash([{"a": set(words)}]) == content_hash([{"a": set(words[::-1])}])
  assert len({content_hash(value) for value in ([1], ["1"], (1,), {1}, {"a": 1}, {1: "a"}, [1.0])}) == 7
  with pytest.raises(TypeError, match="it holds a object"):
    content_hash([object()])


def test_without_training_problems_there_is_nothing_to_imitate():
  made = problem_set([], [row(1, "a")])
  assert (list(made.train), list(made.sft_problems), made.demonstrate) == ([], [], None)
  with pytest.raises(ConfigError, match=r"^sft\.steps: task test has no demonstrations"):
    made.demonstrations(0)


VALUES = [
  None, True, 7, 2.5, "a", [1, [2]], (1, (2, "x")), {"a": 1}, {1: "a", (2, 3): [4]}, {1, 2}, frozenset({3}), Fraction(-1, 3), [], (), {},
  {"tuple": [1]}, {"x": None, "y": {"set": {5}}}, float("inf"), 10**40, "ﬁ\ud800",
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_from_text_as_they_were(value):
  back = from_plain(json.loads(json.dumps(plain(value))))
  assert back == value and type(back) is type(value)


def test_numpy_scalars_become_pythons_and_other_objects_are_refused():
  back = plain([np.float64(0.5), np.str_("a"), np.int64(3), np.bool_(True)])
  assert back == [0.5, "a", 3, True] and list(map(type, back)) == [float, str, int, bool]
  with pytest.raises(TypeError, match="it holds a object"):
    plain({"a": [object()]})


def test_sets_have_one_order():
  words = [f"word {n}" for n in range(50)]
  assert plain(set(words)) == plain(set(words[::-1])) == {"set": sorted(words)}
