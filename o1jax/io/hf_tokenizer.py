"""Tokenizers of Hugging Face folders: a tokenizer.json, read by the library `tokenizers`, and more files.

    FOLDER or FOLDER/tokenizer.json -> load_hf_tokenizer -> HFTokenizer -> encode, decode, save

The files are kept byte for byte, so that a run's folder holds a tokenizer that other programs load as well:

  tokenizer.json           vocabulary, merges, normaliser, byte fallback, added tokens
  tokenizer_config.json    bos_token, eos_token, pad_token and other special tokens; chat_template
  special_tokens_map.json  special tokens that tokenizer_config.json does not name
  generation_config.json   eos_token_id (one or several), pad_token_id
  chat_template.jinja      the chat template; it goes before the one in tokenizer_config.json

Left out: folders without a tokenizer.json, tokenizers made by Python code of the folder, and the changes that
transformers makes to decoded text (clean_up_tokenization_spaces): a verifier reads what the model wrote.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tokenizers

from o1jax.config import ConfigError, require
from o1jax.io.chat_template import literal_text
from o1jax.io.files import write_atomically
from o1jax.io.json_rows import one_line

MAIN = "tokenizer.json"
CONFIG, SPECIAL, GENERATION = "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"
CHAT = "chat_template.jinja"
FILES = (MAIN, CONFIG, SPECIAL, GENERATION, CHAT)
UNKNOWN = "⁇"  # what an id beyond the vocabulary reads, as in SentencePiece

_LOG = logging.getLogger(__name__)


class ChatSource(NamedTuple):
  """A chat template as a folder has it."""

  file: str  # for messages
  text: str
  special_tokens: Mapping[str, str]  # bos_token, eos_token, ... -> their text; those that there are


class _Parsed(NamedTuple):
  """What the files say."""

  model: tokenizers.Tokenizer
  ids: frozenset[int]
  unknown: int | None  # the id of text that the vocabulary lacks; None: it has no such token
  pad: int
  eos_ids: tuple[int, ...]
  hidden: frozenset[int]  # tokens without a text
  control: str
  chat: ChatSource | None


@dataclasses.dataclass(frozen=True)
class HFTokenizer:
  """A tokenizer of a Hugging Face folder as data: (name, content) of its files, in the order of FILES."""

  files: tuple[tuple[str, bytes], ...]
  source: str = dataclasses.field(compare=False)  # the folder, for messages
  saved_as = "tokenizer"

  @functools.cached_property
  def _parsed(self) -> _Parsed:
    return _parse(pathlib.Path(self.source), dict(self.files))

  @property
  def vocab_size(self) -> int:
    """The largest id and 1: ids may have gaps."""
    return max(self._parsed.ids) + 1

  @property
  def pad(self) -> int:
    """The folder's padding, else its first end of text: which positions count is said by masks alone."""
    return self._parsed.pad

  @property
  def eos(self) -> int:
    return self._parsed.eos_ids[0]

  @property
  def eos_ids(self) -> tuple[int, ...]:
    return self._parsed.eos_ids

  @property
  def control(self) -> str:
    return self._parsed.control

  @property
  def chat_source(self) -> ChatSource | None:
    return self._parsed.chat

  @functools.cached_property
  def fingerprint(self) -> str:
    return files_fingerprint(self.files)

  def save(self, path: pathlib.Path) -> None:
    for name, content in self.files:
      write_atomically(path / name, content)

  def encode(self, text: str) -> list[int]:
    """Token ids of `text`, without BOS or EOS of its own; a special token that it spells is that token."""
    return self._parsed.model.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int]) -> str:
    """Text of `ids`; special tokens and padding have none, an id beyond the vocabulary reads "⁇".

    Bytes that are no UTF-8, as of a character that was cut off, read U+FFFD.
    """
    parsed = self._parsed
    visible = (int(i) for i in ids if int(i) not in parsed.hidden)
    runs = itertools.groupby(visible, key=parsed.ids.__contains__)
    decode = functools.partial(parsed.model.decode, skip_special_tokens=False)
    return "".join(decode(list(run)) if known else UNKNOWN * len(list(run)) for known, run in runs)

  def require_known(self, text: str, field: str) -> None:
    """Raises ConfigError where `text` has no token, or naming its first word that cannot be spelt."""
    require(bool(self.encode(text)), field, "has no tokens")
    for word in (*text.split(), text):
      ids = self.encode(word)
      spelt = bool(ids) and self._parsed.unknown not in ids
      require(spelt, field, f"the vocabulary cannot spell {word!r}")


def load_hf_tokenizer(path: pathlib.Path) -> HFTokenizer:
  """Reads a folder, or a tokenizer.json with what stands beside it. Raises ConfigError naming the file.

  A line of the log names the padding where the folder has none.
  """
  folder = path if path.is_dir() else path.parent
  main = folder / MAIN if path.is_dir() else path
  files = [
    (MAIN, _read(main)),
    *((name, _read(folder / name)) for name in FILES[1:] if (folder / name).exists()),
  ]
  tokenizer = HFTokenizer(tuple(files), str(folder))
  if tokenizer.pad == tokenizer.eos:
    text = tokenizer._parsed.model.id_to_token(tokenizer.pad)
    _LOG.warning("%s: padding is %r (id %d), its end of text", folder, text, tokenizer.pad)
  return tokenizer


def folder_files(folder: pathlib.Path) -> tuple[tuple[str, bytes], ...]:
  """(name, content) of the tokenizer's files in a folder, as `HFTokenizer.save` writes them."""
  return tuple((name, (folder / name).read_bytes()) for name in FILES if (folder / name).is_file())


def files_fingerprint(files: Sequence[tuple[str, bytes]]) -> str:
  """Hex SHA-256 over names and contents."""
  digest = hashlib.sha256()
  for name, content in files:
    digest.update(f"{name} {len(content)}\n".encode() + content)
  return digest.hexdigest()


# What the files say


def _read(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _parse(folder: pathlib.Path, files: Mapping[str, bytes]) -> _Parsed:
  """Raises ConfigError naming the file and the token that is wrong."""
  main, config, special, generation = (_json(folder / name, files.get(name)) for name in FILES[:-1])
  model = _model(folder / MAIN, files[MAIN])
  ids = frozenset(model.get_vocab(with_added_tokens=True).values())
  added = _added_tokens(folder, main, config, model)
  tokens = {**_special_tokens(folder / SPECIAL, special), **_special_tokens(folder / CONFIG, config)}
  known = {field: _id_of(folder, field, text, model) for field, text in tokens.items() if field in _NEEDED}
  listed = _id_list(folder / GENERATION, "eos_token_id", generation, ids)
  pads = _id_list(folder / GENERATION, "pad_token_id", generation, ids)
  first = [known["eos_token"]] if "eos_token" in known else []
  eos_ids = tuple(dict.fromkeys([*first, *listed]))
  nowhere = f"has no end of text: neither eos_token in {CONFIG} nor eos_token_id in {GENERATION}"
  require(bool(eos_ids), str(folder), nowhere)
  pad = known["pad_token"] if "pad_token" in known else (*pads, *eos_ids)[0]
  chat = _chat_source(folder, files, config, tokens)
  hidden = {i for i, (_, is_special) in added.items() if is_special} | set(known.values())
  # What a template writes as one token must not come from a question, but for whitespace.
  framed = "" if chat is None else literal_text(chat.file, chat.text)
  frame = {i for i, (text, _) in added.items() if text in framed and not text.isspace()}
  control = {added[i][0] for i in hidden | frame | set(eos_ids) if i in added}
  return _Parsed(model, ids, _unknown(main, model), pad, eos_ids, frozenset(hidden), _either(control), chat)


_NEEDED = ("bos_token", "eos_token", "pad_token")


def _json(path: pathlib.Path, content: bytes | None) -> dict[str, Any]:
  """The object of a JSON file, {} where there is no file."""
  if content is None:
    return {}
  try:
    value = json.loads(content.decode())
  except (ValueError, RecursionError) as error:
    raise ConfigError(f"{path}: is not JSON: {one_line(error)}") from error
  require(isinstance(value, dict), str(path), f"is {type(value).__name__}, not an object")
  return value


def _model(path: pathlib.Path, content: bytes) -> tokenizers.Tokenizer:
  try:
    model = tokenizers.Tokenizer.from_buffer(content)
  except Exception as error:  # the library raises no narrower class
    raise ConfigError(f"{path}: is no tokenizer: {one_line(error)}") from error
  model.no_truncation()  # a length is this package's to bound
  model.no_padding()
  require(model.get_vocab_size() > 0, str(path), "has an empty vocabulary")
  return model


def _added_tokens(
  folder: pathlib.Path, main: Mapping[str, Any], config: Mapping[str, Any], model: tokenizers.Tokenizer
) -> dict[int, tuple[str, bool]]:
  """Id -> (text, whether it is special) of the added tokens, each with the id that the files give it."""
  by_id = config.get("added_tokens_decoder", {})
  require(isinstance(by_id, dict), str(folder / CONFIG), "added_tokens_decoder is no object")
  listed = [(MAIN, token.get("id"), token.get("content")) for token in main.get("added_tokens", ())]
  for number, token in by_id.items():
    text = token.get("content") if isinstance(token, dict) else None
    listed.append((CONFIG, int(number) if number.isdecimal() else number, text))
  for name, number, text in listed:
    present = model.token_to_id(text) if isinstance(text, str) else None
    other = f"added token {text!r} has id {number}, and {present} in the vocabulary"
    require(present is not None and present == number, str(folder / name), other)
  return {i: (token.content, token.special) for i, token in model.get_added_tokens_decoder().items()}


def _special_tokens(path: pathlib.Path, config: Mapping[str, Any]) -> dict[str, str]:
  """bos_token, eos_token, ... -> their text, of those that a file names."""
  tokens = {}
  for field, value in config.items():
    if not field.endswith("_token") or field.startswith("add_") or value is None:
      continue
    text = value.get("content") if isinstance(value, dict) else value
    if isinstance(text, str):
      tokens[field] = text
    require(isinstance(text, str) or field not in _NEEDED, str(path), f"{field} is {value!r}, no token")
  return tokens


def _id_of(folder: pathlib.Path, field: str, text: str, model: tokenizers.Tokenizer) -> int:
  """The id of a special token, which text that spells it is encoded to."""
  number = model.token_to_id(text)
  if number is None:
    raise ConfigError(f"{folder / MAIN}: has no token {text!r}, which is the {field}")
  ids = model.encode(text, add_special_tokens=False).ids
  split = f"splits the {field} {text!r} into {len(ids)} tokens: it must be an added token"
  require(ids == [number], str(folder / MAIN), split)
  return number


def _id_list(path: pathlib.Path, field: str, config: Mapping[str, Any], known: frozenset[int]) -> list[int]:
  """One id or several of generation_config.json; [] where it names none."""
  value = config.get(field)
  ids = value if isinstance(value, list) else [] if value is None else [value]
  for number in ids:
    is_id = isinstance(number, int) and not isinstance(number, bool)
    require(is_id, str(path), f"{field} holds {number!r}, no token id")
    beyond = f"{field} {number} is no token: {MAIN} has ids up to {max(known)}"
    require(number in known, str(path), beyond)
  return ids


def _unknown(main: Mapping[str, Any], model: tokenizers.Tokenizer) -> int | None:
  text = main["model"].get("unk_token")
  return model.token_to_id(text) if isinstance(text, str) else None


def _either(texts: set[str]) -> str:
  """A regular expression of these texts, the longest first; "" of none."""
  return "|".join(re.escape(text) for text in sorted(texts, key=lambda text: (-len(text), text)) if text)


def _chat_source(
  folder: pathlib.Path, files: Mapping[str, bytes], config: Mapping[str, Any], tokens: Mapping[str, str]
) -> ChatSource | None:
  """The chat template, the one named default where there are several; None where the folder has none."""
  if CHAT in files:
    try:
      return ChatSource(str(folder / CHAT), files[CHAT].decode(), tokens)
    except UnicodeDecodeError as error:
      raise ConfigError(f"{folder / CHAT}: is no UTF-8: {one_line(error)}") from error
  path, value = str(folder / CONFIG), config.get("chat_template")
  if isinstance(value, list):
    named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
    require("default" in named, path, "chat_template has several templates, and none is named default")
    value = named["default"]
  require(value is None or isinstance(value, str), path, f"chat_template is {type(value).__name__}, not text")
  return None if value is None else ChatSource(path, value, tokens)
