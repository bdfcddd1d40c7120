"""GSM8K as a task, from a dozen rows of its format."""

import dataclasses
import json
import logging
import pathlib
import shutil

import numpy as np
import pytest

from o1jax.config import ConfigError, Gsm8kConfig, TextConfig
from o1jax.io.data import Source
from o1jax.io.run_config import config_to_dict, load_experiment, with_overrides
from o1jax.io.tokenizer import EOS, train_text_tokenizer, train_tokenizer
from o1jax.tasks import base
from o1jax.tasks.base import Task, check_demonstrations
from o1jax.tasks.catalog import build_task
from o1jax.tasks.dataset import read_examples, train_and_test_files
from o1jax.tasks.gsm8k import DATASET

ROWS = pathlib.Path(__file__).parent.parent / "data" / "gsm8k_rows.jsonl"
EXPERIMENT = pathlib.Path(__file__).parent.parent.parent / "experiments" / "gsm8k_smoke.py"


def config(path, tmp_path, **fields) -> Gsm8kConfig:
  text = TextConfig(fields.pop("tokenizer", None), fields.pop("vocab", 400))
  return Gsm8kConfig(
    path=str(path), data_dir=str(tmp_path / "prepared"), text=text, **{"held_out": 4, **fields}
  )


def build(cfg: Gsm8kConfig) -> Task:
  return build_task(cfg)


def load(cfg: Gsm8kConfig) -> list:
  return read_examples(DATASET, train_and_test_files(cfg), cfg.data_dir)


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Task:
  return build(config(ROWS, tmp_path_factory.mktemp("gsm8k")))


def write(path: pathlib.Path, *answers: str | float, question: str = "How many?") -> pathlib.Path:
  """Rows with these answers and questions of their own."""
  rows = [
    {"question": f"{question} {number}", "answer": answer} for number, answer in enumerate(answers, start=1)
  ]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def test_one_file_holds_its_last_rows_out(task):
  assert [problem.id for problem in task.train] == [f"train/{n}" for n in range(1, 9)]
  assert [problem.id for problem in task.held_out] == [f"train/{n}" for n in range(9, 13)]


def test_a_problem_reads_as_question_answer_and_number(task):
  problem = task.train[2]
  assert problem.prompt == (
    "A ferry takes 240 cars a trip and makes 9 trips a day. How many cars can it take in a day?\nAnswer:\n"
  )
  assert (problem.answer, problem.source) == ("2,160", "gsm8k")


def test_demonstrations_are_the_solutions_without_annotations_and_verify(task):
  rng = np.random.default_rng(0)
  problems = [*task.train, *task.held_out]
  texts = [task.demonstrate(problem, rng) for problem in problems]
  assert texts[0] == "The baker makes 6*12 = 72 rolls.\nAfter the sale 72-50 = 22 rolls are left.\n#### 22"
  assert not any("<<" in text for text in texts)
  assert all(verdict.correct for verdict in task.verify(problems, texts))
  assert [verdict.parsed for verdict in task.verify(problems[2:4], texts[2:4])] == ["2160", "-7"]


def test_the_policy_of_the_configuration_is_that_of_the_verdicts(task, tmp_path):
  standard = build(config(ROWS, tmp_path, policy="standard"))
  assert [made.verify(task.train[:1], ["So 22 are left."])[0].error for made in (task, standard)] == [
    "unparsable",
    None,
  ]
  overridden = with_overrides(load_experiment(str(EXPERIMENT)), {"task.policy": "standard"})
  assert config_to_dict(overridden)["task"]["policy"] == "standard"
  with pytest.raises(ConfigError, match="task.policy: wants one of strict, standard, has 'lax'"):
    with_overrides(overridden, {"task.policy": "lax"})


def test_a_solution_that_fits_no_row_is_named_before_any_step(task):
  encode = task.tokenizer.encode
  sizes = {p.id: len(encode(p.prompt)) + len(encode(p.meta["solution"])) + 1 for p in task.train}
  longest = max(sizes, key=sizes.__getitem__)
  check_demonstrations(task, sizes[longest])
  with pytest.raises(ConfigError, match=f"^sft.length: problem '{longest}' and its demonstration have"):
    check_demonstrations(task, sizes[longest] - 1)


def test_the_tokenizer_gives_every_text_back(task):
  assert task.tokenizer.vocab_size <= 400
  for problem in [*task.train, *task.held_out]:
    for text in (problem.prompt, problem.meta["solution"]):
      assert task.tokenizer.decode(task.tokenizer.encode(text)) == text


def test_steering(task):
  assert task.stop_tokens == (EOS,)
  assert task.give_up_token is None and task.retry_token is None
  assert task.count_tries(task.train[0], "#### 1\nWait.\n#### 2") == 2


def test_two_builds_are_one(tmp_path):
  first = build(config(ROWS, tmp_path))
  second = build(config(ROWS, tmp_path))
  assert (first.train, first.held_out, first.tokenizer) == (second.train, second.held_out, second.tokenizer)


def test_a_trained_tokenizer_is_kept_beside_the_data_and_knows_its_text_and_size(tmp_path, monkeypatch):
  cfg = config(ROWS, tmp_path)
  built = build(cfg)
  kept = sorted((tmp_path / "prepared" / "tokenizers").glob("*.model"))
  assert [path.read_bytes() for path in kept] == [built.tokenizer.proto]
  with monkeypatch.context() as patch:
    patch.delattr(base, "train_text_tokenizer")
    assert build(cfg).tokenizer == built.tokenizer
  assert build(dataclasses.replace(cfg, held_out=3)).tokenizer != built.tokenizer
  assert build(config(ROWS, tmp_path, vocab=330)).tokenizer.vocab_size == 330


def test_held_out_text_is_not_in_the_tokenizer(tmp_path):
  path = write(tmp_path / "a.jsonl", "#### 1", "#### 2", "zyzzyva zyzzyva zyzzyva\n#### 3")
  tokenizer = build(config(path, tmp_path, held_out=1, vocab=1000)).tokenizer
  assert len(tokenizer.encode("zyzzyva")) > len(tokenizer.encode("zyzzyv"))
  with pytest.raises(ConfigError, match="'z'"):
    tokenizer.token("z")


def test_a_folder_has_a_training_and_a_test_file(tmp_path):
  lines = ROWS.read_text().splitlines(keepends=True)
  (tmp_path / "train.jsonl").write_text("".join(lines[:7]))
  (tmp_path / "test.jsonl").write_text("".join(lines[7:]))
  for path in (tmp_path, tmp_path.as_uri()):
    built = build(config(path, tmp_path, sha256=None))
    assert len(built.train) == 7
    assert [problem.id for problem in built.held_out] == [f"test/{n}" for n in range(1, 5)]


def test_a_result_may_stand_alone(tmp_path):
  built = build(config(write(tmp_path / "a.jsonl", 17, "1,200", "#### 3", -2.5), tmp_path, held_out=1))
  told = [(problem.answer, problem.meta["solution"]) for problem in [*built.train, *built.held_out]]
  assert told == [("17", "#### 17"), ("1,200", "#### 1,200"), ("3", "#### 3"), ("-2.5", "#### -2.5")]


FILES = ["/rows.JSONL", "/rows.json", "/rows.jsonl.gz", "/rows.jsonl?download=true", "/a.b/rows.json?x=1#top"]


@pytest.mark.parametrize("place", FILES)
def test_a_url_of_one_file_is_one_file(place):
  assert train_and_test_files(Gsm8kConfig(f"https://host{place}", None)) == {
    "train": Source(f"https://host{place}")
  }


def test_a_query_goes_with_each_file_of_a_folder(tmp_path):
  files = train_and_test_files(Gsm8kConfig("https://host/a.jsonl/b/?token=x/y.jsonl", ("0", "1")))
  assert {split: source.location for split, source in files.items()} == {
    "train": "https://host/a.jsonl/b/train.jsonl?token=x/y.jsonl",
    "test": "https://host/a.jsonl/b/test.jsonl?token=x/y.jsonl",
  }
  named = tmp_path / "no ending"
  shutil.copy(ROWS, named)
  assert list(train_and_test_files(Gsm8kConfig(str(named), None))) == ["train"]


def test_the_data_hash_follows_the_content(tmp_path):
  copy = shutil.copy(ROWS, tmp_path / "copy.jsonl")
  assert build(config(copy, tmp_path)).data_hash == build(config(ROWS, tmp_path)).data_hash
  other = write(tmp_path / "other.jsonl", *[f"#### {number}" for number in range(12)])
  assert build(config(other, tmp_path)).data_hash != build(config(ROWS, tmp_path)).data_hash


def test_a_held_out_question_is_not_trained_on(tmp_path, caplog):
  path = write(tmp_path / "a.jsonl", "#### 1", "#### 2", "#### 3")
  with path.open("a") as file:
    file.write(json.dumps({"question": " how  MANY? 2", "answer": "#### 2"}) + "\n")
  with caplog.at_level(logging.WARNING):
    built = build(config(path, tmp_path, held_out=1))
  assert [problem.id for problem in built.train] == ["train/1", "train/3"]
  assert "1 training rows ask a held-out question" in caplog.text


@pytest.mark.parametrize("held_out", [12, 13])
def test_too_few_rows_are_an_error_that_names_the_field(tmp_path, held_out):
  with pytest.raises(ConfigError, match=rf"task\.held_out: {held_out} rows cannot be held out of the 12"):
    build(config(ROWS, tmp_path, held_out=held_out))


BAD = {
  "just words": "has no '####' before its result",
  "#### words": "'words' is not one number",
  "####": "'' is not one number",
  "#### 1 or 2": "'1 or 2' is not one number",
  "#### 1\n#### 2": "its reference does not verify: wrong",
}


@pytest.mark.parametrize("answer", BAD)
def test_a_bad_answer_names_its_file_and_row(tmp_path, answer):
  path = write(tmp_path / "a.jsonl", "#### 1", answer, "#### 3")
  with pytest.raises(ConfigError) as error:
    build(config(path, tmp_path, held_out=1))
  assert str(error.value).startswith(f"{path} row 2: ") and BAD[answer] in str(error.value)


def test_an_empty_question_names_its_row(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text(json.dumps({"question": " ", "answer": "#### 1"}) + "\n")
  with pytest.raises(ConfigError, match=r"a\.jsonl row 1: field 'question' is empty"):
    build(config(path, tmp_path, held_out=1))


def test_a_source_that_cannot_be_had_names_the_option(tmp_path):
  for path in (tmp_path / "nowhere", tmp_path / "nowhere.jsonl", "http://127.0.0.1:9/x"):
    with pytest.raises(ConfigError, match=r"^--task\.path: "):
      build(config(path, tmp_path))


def test_hashes_are_checked_on_a_download_alone(tmp_path):
  shutil.copy(ROWS, tmp_path / "train.jsonl")
  (tmp_path / "test.jsonl").write_text(ROWS.read_text().splitlines()[0])
  assert len(load(config(tmp_path, tmp_path))) == 12 + 1
  with pytest.raises(ConfigError, match="has SHA-256"):
    load(config(tmp_path.as_uri(), tmp_path))
  with pytest.raises(ConfigError, match=r"^--task\.sha256: "):
    load(config(ROWS.as_uri(), tmp_path))
  assert len(load(config(ROWS.as_uri(), tmp_path, sha256=None))) == 12


def test_a_tokenizer_file_is_used_if_it_keeps_the_answers(tmp_path, task):
  text = [problem.prompt + problem.meta["solution"] for problem in task.train]
  good, bad = tmp_path / "good.model", tmp_path / "bad.model"
  good.write_bytes(train_text_tokenizer(text, vocab_size=350).proto)
  bad.write_bytes(train_tokenizer(["no digit to be seen"], vocab_size=50).proto)
  assert build(config(ROWS, tmp_path, tokenizer=str(good))).tokenizer.vocab_size == 350
  with pytest.raises(ConfigError, match=r"bad\.model: loses the answer of train/1"):
    build(config(ROWS, tmp_path, tokenizer=str(bad)))


def test_the_smoke_experiment_is_valid_and_its_limits_hold_these_rows(tmp_path):
  cfg = load_experiment(str(EXPERIMENT))
  cfg.validate()
  assert cfg.task.path.startswith("https://") and cfg.task.sha256 is not None
  local = dataclasses.replace(cfg.task, path=str(ROWS), data_dir=str(tmp_path), held_out=4)
  built = build(local)
  for problem in [*built.train, *built.held_out]:
    prompt, solution = (
      len(built.tokenizer.encode(text)) for text in (problem.prompt, problem.meta["solution"])
    )
    assert prompt <= cfg.rl.max_prompt
    assert prompt + solution + 1 <= cfg.sft.length
