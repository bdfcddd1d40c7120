"""Chat templates render as transformers renders them, and a bad one is an error of one line."""

import datetime
import json
import pathlib

import pytest

from o1jax.config import ConfigError
from o1jax.io.chat_template import MAX_TURNS, ChatRenderer, literal_text

GOLDEN = pathlib.Path(__file__).parents[1] / "data" / "golden" / "chat"
RENDERS = json.loads((GOLDEN / "renders.json").read_text(encoding="utf-8"))
DAY = datetime.date.fromisoformat(RENDERS["day"])
QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]


def template(name: str) -> str:
  return (GOLDEN / f"{name}.jinja").read_text(encoding="utf-8")


def rendered(text: str, **variables: object) -> str:
  return ChatRenderer("mine.jinja", text, variables, DAY).render(QUESTION)


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.jinja")))
def test_renders_are_those_of_transformers(name: str) -> None:
  cases = [case for case in RENDERS["cases"] if case["template"] == name]
  assert len(cases) >= 10
  for case in cases:
    renderer = ChatRenderer(name, template(name), {**RENDERS["tokens"], **case["variables"]}, DAY)
    messages = RENDERS["conversations"][case["conversation"]]
    if "error" in case:
      with pytest.raises(ConfigError) as caught:
        renderer.render(messages, case["add_generation_prompt"])
      assert str(caught.value) == f"{name}: the chat template refuses: {case['error']}"
    else:
      assert renderer.render(messages, case["add_generation_prompt"]) == case["text"]


@pytest.mark.parity
def test_the_golden_renders_are_those_of_todays_transformers(tmp_path) -> None:
  pytest.importorskip("transformers")
  import shutil
  import subprocess
  import sys

  shutil.copytree(GOLDEN, tmp_path / "chat")
  script = GOLDEN.parents[3] / "scripts" / "make_golden_chat.py"
  subprocess.run([sys.executable, str(script), "--folder", str(tmp_path / "chat")], check=True)
  assert json.loads((tmp_path / "chat" / "renders.json").read_text(encoding="utf-8")) == RENDERS


def test_what_a_template_reads_and_writes() -> None:
  reads = lambda name: ChatRenderer(name, template(name), {}, DAY).reads
  assert "enable_thinking" in reads("qwen3") and "enable_thinking" not in reads("qwen2.5")
  assert "strftime_now" in reads("llama3.2") and "strftime_now" not in reads("llama3.1")
  written = literal_text("qwen3", template("qwen3"))
  assert "<think>" in written and "<|im_end|>" in written and "enable_thinking" not in written


def test_the_day_is_the_one_that_is_given() -> None:
  day = datetime.date(2020, 2, 29)
  renderer = ChatRenderer("llama3.2", template("llama3.2"), {"bos_token": ""}, day)
  assert "Today Date: 29 Feb 2020\n" in renderer.render(QUESTION)


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("{% for m in messages %}", "the chat template, line 1: Unexpected end of template"),
    ("\n{{ messages | backwards }}", "the chat template, line 2: No filter named 'backwards'."),
    ("{% include 'other' %}", "the chat template fails: TypeError: no loader for this environment specified"),
    ("{{ raise_exception('Two\nlines') }}", "the chat template refuses: Two lines"),
    (
      "{{ messages.__class__() }}",
      "the chat template refuses: access to attribute '__class__' of 'list' object is",
    ),
    (
      "{{ messages[0].content.__class__.__mro__ }}",
      "the chat template refuses: access to attribute '__class__'",
    ),
    (
      "{{ messages.append(1) }}",
      "the chat template refuses: access to attribute 'append' of 'list' object is",
    ),
    ("{{ messages[9].content }}", "the chat template refuses: list object has no element 9"),
    ("{{ 1 / 0 }}", "the chat template fails: ZeroDivisionError: division by zero"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "the chat template fails: RecursionError"),
    (
      "{% for i in range(10 ** 9) %}{% endfor %}",
      "the chat template refuses: its loops take more than 100,000",
    ),
    (
      "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
      "the chat template refuses: its loops take more than 100,000",
    ),
  ],
)
def test_a_bad_template_is_one_line(text: str, expected: str) -> None:
  with pytest.raises(ConfigError) as caught:
    rendered(text)
  assert str(caught.value).startswith(f"mine.jinja: {expected}") and "\n" not in str(caught.value)


def test_each_rendering_has_the_whole_bound() -> None:
  renderer = ChatRenderer("mine", f"{{% for i in range({MAX_TURNS}) %}}{{% endfor %}}x", {}, DAY)
  assert [renderer.render(QUESTION) for _ in range(2)] == ["x", "x"]


def test_a_template_changes_no_message() -> None:
  messages = [dict(message) for message in QUESTION]
  ChatRenderer("mine", "{% set messages = messages + [1] %}{{ messages | length }}", {}, DAY).render(messages)
  assert messages == QUESTION
