"""A tokenizer or a chat template that cannot work is one line that names the file, and changes nothing."""

import pathlib

import pytest
from hf_folder import BROKEN, CHAT, write_folder
from refusals import MODEL, experiment, gsm8k, refusal

ROWS = pathlib.Path(__file__).parent / "data" / "gsm8k_rows.jsonl"

CHATS = {
  "no chat template": ({"template": None}, "", "task.text.template: {folder} has no chat template ("),
  "one that raises": (
    {"template": "{{ raise_exception('No system\nprompt') }}"},
    "",
    "{folder}/chat_template.jinja: the chat template refuses: No system prompt",
  ),
  "one that raises at an instruction": (
    {"template": "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}"},
    "instruction='boxed'",
    "{folder}/chat_template.jinja: the chat template refuses: No system role",
  ),
  "one that reaches for classes": (
    {"template": "{{ messages.__class__.__base__.__subclasses__() }}"},
    "",
    "{folder}/chat_template.jinja: the chat template refuses: access to attribute '__class__'",
  ),
  "one without an end": (
    {"template": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"},
    "",
    "{folder}/chat_template.jinja: the chat template refuses: its loops take more than 100,000 turns",
  ),
  "a switch that it lacks": (
    {"template": CHAT.replace("enable_thinking", "other")},
    "enable_thinking=False",
    "task.text.enable_thinking: cannot act: {folder}/chat_template.jinja does not read enable_thinking",
  ),
  "a day that it does not name": (
    {},
    "date='2025-03-09'",
    "task.text.date: cannot act: {folder}/chat_template.jinja does not read strftime_now",
  ),
}


@pytest.mark.parametrize(("changes", "expected"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_tokenizer_is_named(tmp_path, capfd, changes, expected) -> None:
  folder = write_folder(tmp_path / "model", **changes)
  assert chat_refusal(capfd, tmp_path, folder).startswith(expected.format(folder=folder))


@pytest.mark.parametrize(("changes", "options", "expected"), CHATS.values(), ids=list(CHATS))
def test_a_chat_template_that_cannot_work_is_named(tmp_path, capfd, changes, options, expected) -> None:
  folder = write_folder(tmp_path / "model", **changes)
  line = chat_refusal(capfd, tmp_path, folder, options)
  assert line.startswith(expected.format(folder=folder))


def test_a_vocabulary_that_does_not_fit_is_named(tmp_path, capfd) -> None:
  folder = write_folder(tmp_path / "model", generation=None)
  model = MODEL.replace("width=16", "width=16, vocab=64")
  line = chat_refusal(capfd, tmp_path, folder, model=model)
  assert line.startswith("model.vocab: 64 is below the tokenizer's 3")


def chat_refusal(capfd, place: pathlib.Path, folder: pathlib.Path, options: str = "", model=MODEL) -> str:
  """The line in which `train` refuses a folder with its chat template."""
  path = place / "rows.jsonl"
  path.write_text(ROWS.read_text())
  task = gsm8k(place, str(path), tokenizer=str(folder))
  task = task.replace("TextConfig(", f"TextConfig(template='chat', {options + ', ' if options else ''}")
  return refusal(capfd, place, "train", experiment(place, task=task, model=model))
