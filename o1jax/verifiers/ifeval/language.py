"""The language of a text, by langdetect 1.0.9, with its sampling made repeatable.

langdetect (after Shuyo 2010, "Language Detection Library for Java") tries letter n-grams in a random order
and breaks off early, so that without a seed a short text is now one language, now another.
"""

import os
import pathlib

from langdetect import LangDetectException
from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory

SEED = 0  # of every detection, so that a verdict depends on its text alone
# Codes such as "en" and "zh-cn"; a profile's file is called by its language.
LANGUAGES = frozenset(name for name in os.listdir(PROFILES_DIRECTORY) if not name.startswith("."))


def _load() -> DetectorFactory:
  """All profiles, in an order that does not depend on the file system."""
  factory = DetectorFactory()
  factory.set_seed(SEED)
  folder = pathlib.Path(PROFILES_DIRECTORY)
  factory.load_json_profile([(folder / name).read_text(encoding="utf-8") for name in sorted(LANGUAGES)])
  return factory


_FACTORY = _load()  # at import, a quarter of a second: a fork server's workers share it


def detect(text: str) -> str | None:
  """ISO 639-1 code of the likeliest language; "unknown" where none is, None where nothing tells it.

  Web and mail addresses are passed over, and all but the first 10,000 characters.
  """
  detector = _FACTORY.create()
  try:
    detector.append(text)
    return detector.detect()
  except LangDetectException:
    return None
