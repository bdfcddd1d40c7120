"""Paths of the standard streams and of /dev/null for a program whose root has no devices."""

import builtins
import functools
import io
import os
from typing import Any

# Descriptor 2 of a program is /dev/null.
_DESCRIPTORS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2, "/dev/null": 2} | {
  f"{folder}/{number}": number for folder in ("/dev/fd", "/proc/self/fd") for number in (0, 1, 2)
}


def install() -> None:
  """Makes `open` and `os.open` take the paths above too."""
  duplicate, real_open, real_os_open = os.dup, io.open, os.open

  @functools.wraps(real_open)
  def opened(file: Any, *args: Any, **kwargs: Any) -> Any:
    descriptor = _descriptor(file)
    return real_open(file if descriptor is None else duplicate(descriptor), *args, **kwargs)

  @functools.wraps(real_os_open)
  def os_opened(path: Any, *args: Any, **kwargs: Any) -> int:
    descriptor = _descriptor(path)
    return real_os_open(path, *args, **kwargs) if descriptor is None else duplicate(descriptor)

  builtins.open = io.open = opened
  os.open = os_opened


def _descriptor(file: Any) -> int | None:
  path = os.fspath(file) if isinstance(file, os.PathLike) else file
  return _DESCRIPTORS.get(path) if isinstance(path, str) else None
