"""Hugging Face folders with a small byte-level BPE tokenizer, sound and broken."""

import functools
import json
import pathlib
from collections.abc import Callable, Sequence

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]  # ids 0 to 3
EOT, IM_START, IM_END, PAD = range(4)
PLAIN = ["<think>", "</think>", "<table>"]  # added, but not special
TEXT = ["A baker fills 6 trays with 12 rolls each.", "Ines reads 35 pages a day, so 28*35 = 980 pages."]
CHAT = (
  "{% for message in messages %}"
  "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
  "{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
  "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
  "{% endif %}"
)
CONFIG = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
GENERATION = {"eos_token_id": [IM_END, EOT]}


@functools.cache
def trained() -> tokenizers.Tokenizer:
  """A byte-level BPE of a little over 256 tokens; the same each time."""
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(
    vocab_size=300, special_tokens=SPECIAL, initial_alphabet=sorted(alphabet), show_progress=False
  )
  tokenizer.train_from_iterator(TEXT, trainer)
  tokenizer.add_tokens([AddedToken(text, normalized=False) for text in PLAIN])
  return tokenizer


def bytes_of(tokenizer, token: int) -> bytes:
  """The bytes that a token of `trained` stands for."""
  shown = trained().id_to_token(token)
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = (byte for byte in range(256) if byte not in printable)
  letters = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
  return bytes(letters[letter] for letter in shown)


def write_folder(
  folder: pathlib.Path,
  *,
  main: str | None = None,
  change: Callable[[dict], None] | None = None,
  config: dict | str | None = CONFIG,
  special: dict | None = None,
  generation: dict | None = GENERATION,
  template: str | bytes | None = CHAT,
) -> pathlib.Path:
  """Writes the files of a folder, each left out where it is None; `change` edits tokenizer.json."""
  folder.mkdir(parents=True, exist_ok=True)
  content = json.loads(trained().to_str())
  if change is not None:
    change(content)
  files = {
    "tokenizer.json": json.dumps(content) if main is None else main,
    "tokenizer_config.json": config,
    "special_tokens_map.json": special,
    "generation_config.json": generation,
    "chat_template.jinja": template,
  }
  for name, value in files.items():
    (folder / name).unlink(missing_ok=True)
    if value is not None:
      text = json.dumps(value) if isinstance(value, dict) else value
      (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
  return folder


def write_words(folder: pathlib.Path, words: Sequence[str]) -> pathlib.Path:
  """A folder whose tokenizer knows words alone; the first is the unknown one, the second ends a text."""
  tokenizer = tokenizers.Tokenizer(models.WordLevel(dict(zip(words, range(len(words)))), unk_token=words[0]))
  tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
  tokenizer.add_special_tokens(list(words[:2]))
  return write_folder(
    folder, main=tokenizer.to_str(), config={"eos_token": words[1]}, generation=None, template=None
  )


def _unknown_kind(main: dict) -> None:
  main["model"]["type"] = "Other"


def _moved(main: dict) -> None:
  main["added_tokens"][-1]["id"] = 9999


def _no_added_tokens(main: dict) -> None:
  main["added_tokens"] = []


# name -> (what is changed in a sound folder, how its error begins)
BROKEN: dict[str, tuple[dict, str]] = {
  "empty file": ({"main": ""}, "{folder}/tokenizer.json: is "),
  "broken JSON": ({"main": '{"model": '}, "{folder}/tokenizer.json: is not JSON: JSONDecodeError"),
  "a list": ({"main": "[1]"}, "{folder}/tokenizer.json: is list, not an object"),
  "no model": ({"main": "{}"}, "{folder}/tokenizer.json: is no tokenizer: "),
  "unknown kind of model": ({"change": _unknown_kind}, "{folder}/tokenizer.json: is no tokenizer: "),
  "an id beyond the vocabulary": (
    {"change": _moved},
    "{folder}/tokenizer.json: added token '<table>' has id 9999",
  ),
  "a special token that splits": (
    {"change": _no_added_tokens, "template": None},
    "{folder}/tokenizer.json: splits the eos_token '<|im_end|>' into ",
  ),
  "an end that is no token": (
    {"config": {"eos_token": "</s>"}},
    "{folder}/tokenizer.json: has no token '</s>', which is the eos_token",
  ),
  "a padding that is no token": (
    {"config": {**CONFIG, "pad_token": "[PAD]"}},
    "{folder}/tokenizer.json: has no token '[PAD]', which is the pad_token",
  ),
  "an end that is a number": (
    {"config": {"eos_token": 7}},
    "{folder}/tokenizer_config.json: eos_token is 7, no token",
  ),
  "broken configuration": ({"config": "{"}, "{folder}/tokenizer_config.json: is not JSON: JSONDecodeError"),
  "an added token elsewhere": (
    {"config": {**CONFIG, "added_tokens_decoder": {"5": {"content": "<|im_end|>"}}}},
    "{folder}/tokenizer_config.json: added token '<|im_end|>' has id 5, and 2 in the vocabulary",
  ),
  "no end": (
    {"config": {}, "generation": None},
    "{folder}: has no end of text: neither eos_token in tokenizer_config.json nor eos_token_id in",
  ),
  "an end out of range": (
    {"generation": {"eos_token_id": [IM_END, 9999]}},
    "{folder}/generation_config.json: eos_token_id 9999 is no token: tokenizer.json has ids up to ",
  ),
  "an end that is text": (
    {"generation": {"eos_token_id": "<|im_end|>"}},
    "{folder}/generation_config.json: eos_token_id holds '<|im_end|>', no token id",
  ),
  "a template with a syntax error": (
    {"template": "\n{% for message in messages %}"},
    "{folder}/chat_template.jinja: the chat template, line 2: Unexpected end of template",
  ),
  "a template of other bytes": ({"template": b"\xff"}, "{folder}/chat_template.jinja: is no UTF-8: "),
  "templates without a default": (
    {"config": {**CONFIG, "chat_template": [{"name": "tool_use", "template": ""}]}, "template": None},
    "{folder}/tokenizer_config.json: chat_template has several templates, and none is named default",
  ),
  "a template that is a number": (
    {"config": {**CONFIG, "chat_template": 7}, "template": None},
    "{folder}/tokenizer_config.json: chat_template is int, not text",
  ),
}
