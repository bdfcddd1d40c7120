"""The paths of the standard streams and of /dev/null, for a program whose root has no devices: by its own descriptors."""

import functools
import os
from collections.abc import Callable
from typing import Any

# Descriptor 2 of a program is /dev/null.
_DESCRIPTORS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2, "/dev/null": 2} | {
  f"{folder}/{number}": number for folder in ("/dev/fd", "/proc/self/fd") for number in (0, 1, 2)
}


def opening(real: Callable[..., Any]) -> Callable[..., Any]:
  """`open`, which takes the paths above too."""

  @functools.wraps(real)
  def opened(file: Any, *args: Any, **kwargs: Any) -> Any:
    path = os.fspath(file) if isinstance(file, os.PathLike) else file
    descriptor = _DESCRIPTORS.get(path) if isinstance(path, str) else None
    return real(file if descriptor is None else os.dup(descriptor), *args, **kwargs)

  return opened
