"""Tokenizers of Hugging Face folders: special tokens, text in and out, and what a folder may not be."""

import json
import logging
import pathlib
import re

import hf_folder
import pytest
from hf_folder import EOT, write_folder

from o1jax.config import ConfigError
from o1jax.io.hf_tokenizer import HFTokenizer
from o1jax.io.tokenizer import load_tokenizer, saved_fingerprint


def loaded(folder: pathlib.Path, **changes: object) -> HFTokenizer:
  tokenizer = load_tokenizer(str(write_folder(folder, **changes)))
  assert isinstance(tokenizer, HFTokenizer)
  return tokenizer


@pytest.mark.parametrize(
  "text",
  [
    "",
    "A baker fills 6 trays.\n",
    "  two  spaces ",
    "é ½ 日本 😀 ﬁ",
    "\x00\r\n\t",
    "x" * 3000,
    "1,234 = 12*34",
    "▁ Ġ",
  ],
)
def test_any_text_comes_back(tmp_path, text: str) -> None:
  tokenizer = loaded(tmp_path)
  assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_come_from_the_folder(tmp_path) -> None:
  tokenizer = loaded(tmp_path)
  of = lambda text: tokenizer.encode(text)
  assert of("<|pad|>") == [tokenizer.pad] and of("<|im_end|>") == [tokenizer.eos]
  assert tokenizer.eos_ids == (tokenizer.eos, *of("<|endoftext|>"))
  assert tokenizer.encode("<|im_start|>a<|im_end|>") == [*of("<|im_start|>"), *of("a"), *of("<|im_end|>")]
  assert tokenizer.vocab_size == max(hf_folder.trained().get_vocab().values()) + 1
  assert (
    tokenizer.chat_source is not None and tokenizer.chat_source.special_tokens["eos_token"] == "<|im_end|>"
  )


def test_one_end_of_text_alone(tmp_path) -> None:
  tokenizer = loaded(tmp_path, generation=None)
  assert tokenizer.eos_ids == (tokenizer.eos,) == tuple(tokenizer.encode("<|im_end|>"))


def test_tokens_of_the_map_fill_what_the_configuration_lacks(tmp_path) -> None:
  config = {"eos_token": {"content": "<|im_end|>", "special": True}, "pad_token": None}
  special = {"eos_token": "<|endoftext|>", "pad_token": {"content": "<|pad|>"}}
  tokenizer = loaded(tmp_path, config=config, special=special, generation=None)
  assert [tokenizer.eos] == tokenizer.encode("<|im_end|>") and [tokenizer.pad] == tokenizer.encode("<|pad|>")


def test_a_folder_without_padding_pads_with_its_end_and_says_so(tmp_path, caplog) -> None:
  with caplog.at_level(logging.WARNING):
    tokenizer = loaded(tmp_path, config={"eos_token": "<|im_end|>"}, generation=None)
  assert tokenizer.pad == tokenizer.eos
  assert caplog.messages == [f"{tmp_path}: padding is '<|im_end|>' (id {tokenizer.eos}), its end of text"]
  assert tokenizer.decode([tokenizer.pad, *tokenizer.encode("6 rolls"), tokenizer.eos]) == "6 rolls"


def test_special_tokens_have_no_text_and_unknown_ids_a_mark(tmp_path) -> None:
  tokenizer = loaded(tmp_path)
  ids = tokenizer.encode("6 rolls")
  assert (
    tokenizer.decode([tokenizer.pad, *ids, *tokenizer.encode("<|im_start|>"), tokenizer.eos]) == "6 rolls"
  )
  assert tokenizer.decode([*ids, tokenizer.vocab_size, -1, *ids]) == "6 rolls⁇⁇6 rolls"
  assert (
    tokenizer.decode(tokenizer.encode("<think>4</think>")) == "<think>4</think>"
  )  # added, but no control token


def test_a_character_that_is_cut_off_reads_as_the_replacement(tmp_path) -> None:
  """Every prefix of a text's tokens has one text: the same twice, whole characters unchanged, no byte lost."""
  tokenizer, text = loaded(tmp_path), "1 日 😀!"
  ids = tokenizer.encode(text)
  spelt = [hf_folder.bytes_of(tokenizer, token) for token in ids]
  assert b"".join(spelt) == text.encode()
  for cut in range(len(ids) + 1):
    expected = b"".join(spelt[:cut]).decode(errors="replace")
    assert tokenizer.decode(ids[:cut]) == tokenizer.decode(ids[:cut]) == expected
  assert "\ufffd" in {tokenizer.decode(ids[:cut])[-1:] for cut in range(len(ids))}


def test_control_tokens_are_the_special_ones_and_those_of_the_template(tmp_path) -> None:
  control = re.compile(loaded(tmp_path).control)
  assert control.fullmatch("<|im_end|>") and control.fullmatch("<|pad|>")
  assert control.fullmatch("<think>")  # which the chat template writes
  assert not control.search("<table> \n\n 6 rolls </s> <|other|>")  # an added token too, which nothing frames
  bare = re.compile(loaded(tmp_path, template=None).control)
  assert bare.fullmatch("<|im_end|>") and not bare.search("<think>")


def test_a_chat_template_of_its_own_file_goes_first(tmp_path) -> None:
  named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
  config = {"eos_token": "<|im_end|>", "chat_template": "C"}
  for changes, expected in (
    ({"template": "F", "config": config}, ("F", "chat_template.jinja")),
    ({"template": None, "config": config}, ("C", "tokenizer_config.json")),
    ({"template": None, "config": {**config, "chat_template": named}}, ("D", "tokenizer_config.json")),
  ):
    source = loaded(tmp_path, **changes).chat_source
    assert source is not None and (source.text, pathlib.Path(source.file).name) == expected
  assert loaded(tmp_path, template=None).chat_source is None


def test_a_saved_tokenizer_loads(tmp_path) -> None:
  tokenizer = loaded(tmp_path / "model")
  copy = tmp_path / "run" / tokenizer.saved_as
  assert saved_fingerprint(copy) is None
  tokenizer.save(copy)
  assert load_tokenizer(str(copy)) == tokenizer and saved_fingerprint(copy) == tokenizer.fingerprint
  assert load_tokenizer(str(tmp_path / "model" / "tokenizer.json")) == tokenizer
  generation = copy / "generation_config.json"
  generation.write_text(json.dumps({"eos_token_id": [tokenizer.eos]}))
  assert saved_fingerprint(copy) != tokenizer.fingerprint


def test_truncation_and_padding_of_the_file_do_not_act(tmp_path) -> None:
  def change(main: dict) -> None:
    main["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    main["padding"] = {
      "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
      "pad_token": "<|pad|>",
    }  # fmt: skip

  tokenizer = loaded(tmp_path, change=change)
  assert tokenizer.encode("A baker fills 6 trays") == loaded(tmp_path / "plain").encode(
    "A baker fills 6 trays"
  )


def test_text_that_the_vocabulary_lacks_is_named(tmp_path) -> None:
  loaded(tmp_path).require_known("any ü 日本 at all", "--prompt")
  with pytest.raises(ConfigError, match="^--prompt: has no tokens$"):
    loaded(tmp_path).require_known("", "--prompt")
  words = load_tokenizer(str(hf_folder.write_words(tmp_path / "words", ["[UNK]", "<eos>", "one", "two"])))
  words.require_known("one two", "--prompt")
  with pytest.raises(ConfigError, match="^--prompt: the vocabulary cannot spell 'three'$"):
    words.require_known("one three", "--prompt")


@pytest.mark.parametrize(("changes", "expected"), hf_folder.BROKEN.values(), ids=list(hf_folder.BROKEN))
def test_a_broken_folder_is_one_line(tmp_path, changes: dict, expected: str) -> None:
  folder = write_folder(tmp_path, **changes)
  with pytest.raises(ConfigError) as caught:
    load_tokenizer(str(folder))
  assert str(caught.value).startswith(expected.format(folder=folder)) and "\n" not in str(caught.value)


def test_a_folder_that_is_none(tmp_path) -> None:
  with pytest.raises(ConfigError, match=f"^{tmp_path}: holds no tokenizer.json$"):
    load_tokenizer(str(tmp_path))
  (tmp_path / "tokenizer.model").write_bytes(b"")
  with pytest.raises(ConfigError, match="holds no tokenizer.json; it has a tokenizer.model: name that file$"):
    load_tokenizer(str(tmp_path))
  with pytest.raises(ConfigError, match="none/tokenizer.json: cannot be read: No such file or directory$"):
    load_tokenizer(str(tmp_path / "none" / "tokenizer.json"))


def test_ends_of_text_stand_apart(tmp_path) -> None:
  assert EOT in loaded(tmp_path).eos_ids and len(set(loaded(tmp_path).eos_ids)) == 2
