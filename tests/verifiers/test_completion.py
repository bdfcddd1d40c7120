"""What of a completion is its answer, and that every verifier is made by policy."""

import importlib
from typing import get_args, get_type_hints

import pytest

from o1jax.config import PolicyConfig
from o1jax.config.tasks import ProgramConfig
from o1jax.verifiers.catalog import CATALOG
from o1jax.verifiers.completion import Policy, in_thoughts, without_end_tokens, without_thoughts


@pytest.mark.parametrize(
  ("text", "kept"),
  [
    ("5", "5"),
    ("5 \n", "5 \n"),
    ("5</s>", "5"),
    ("5 <|im_end|>\n<|endoftext|>\n", "5 "),
    ("5<end_of_turn>", "5"),
    ("5<turn|>", "5"),
    ("5<|EOT|>", "5"),
    ("5<｜end▁of▁sentence｜>", "5"),
    ("<|im_end|> 5", "<|im_end|> 5"),
    ("a <b>", "a <b>"),
  ],
)
def test_end_tokens_are_taken_off_the_end(text, kept):
  assert without_end_tokens(text) == kept


@pytest.mark.parametrize(
  ("text", "answer", "cut_off"),
  [
    ("5", "5", False),
    ("<think>4</think>5", "5", False),
    ("4</think> 5", " 5", False),
    ("<think>3</think>4</think>5", "5", False),
    ("<thinking>4</thinking>5", "5", False),
    ("<reasoning>4</reasoning>5", "5", False),
    ("[THINK]4[/THINK]5", "5", False),
    ("◁think▷4◁/think▷5", "5", False),
    ("<|channel|>analysis<|message|>4<|end|><|start|>assistant<|channel|>final<|message|>5", "5", False),
    (" <think>4", " <think>4", True),
    ("<think>3</think> <think>4", " <think>4", True),
    ("I <think> so", "I <think> so", False),
  ],
)
def test_thoughts_end_with_the_last_mark_that_closes_them(text, answer, cut_off):
  assert (without_thoughts(text), in_thoughts(text)) == (answer, cut_off)


@pytest.mark.parametrize("name", CATALOG)
def test_every_verifier_is_made_by_policy(name):
  make_verify = importlib.import_module(CATALOG[name].module).make_verify
  for policy in get_args(Policy):
    assert make_verify(policy=policy)([], []) == []


@pytest.mark.parametrize("name", ["gsm8k", "constraints", "countdown"])
def test_an_unknown_policy_is_an_error(name):
  with pytest.raises(ValueError, match="'lax' is no policy; there are strict, standard"):
    importlib.import_module(CATALOG[name].module).make_verify(policy="lax")


def test_the_configuration_knows_the_same_policies():
  assert get_type_hints(PolicyConfig)["policy"] == Policy
  assert get_args(get_type_hints(ProgramConfig)["block"]) == ("last", "first")
