"""JAX's backend, signals that ask a run to stop, and exit codes.

A scheduler that takes a machine back sends SIGTERM; a person presses Ctrl-C (SIGINT); a terminal that is
closed sends SIGHUP. They only set a flag, which the training loop reads between steps: it saves, prints one
line and exits with EXIT_PREEMPTED.
"""

import os
import signal
import threading
import types
import warnings

import jax

from o1jax.config import ConfigError

# EX_TEMPFAIL of sysexits.h, "try again later": a scheduler should start a run that saved and stopped again.
EXIT_PREEMPTED = 75
# A NaN or an infinity stopped the run: running it again will fail again.
EXIT_NONFINITE = 76


def start_backend() -> None:
  """Starts JAX's backend, in 32 bits whatever JAX_ENABLE_X64 is.

  Raises ConfigError where JAX_PLATFORMS names a device that is not there.
  """
  jax.config.update("jax_enable_x64", False)
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:  # JAX raises a bare assertion for some devices
    why = " ".join(str(error).split())[:200] or "it cannot be started"
    named = f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}"
    raise ConfigError(f"{named}: no such device here: name another, or leave it out ({why})") from error


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
OUTSIDE = (
  "outside the main thread Python handles no signals: SIGTERM, Ctrl-C and SIGHUP are left as they were"
)


class Preemption:
  """Context manager that turns SIGTERM, SIGINT and SIGHUP into a flag.

  `requested` is None, or the name of the first signal that arrived ("SIGTERM", "SIGINT", "SIGHUP"). A second
  SIGINT raises KeyboardInterrupt, so that a step that hangs can be left by hand. An ignored SIGHUP, as under
  `nohup`, stays ignored. The previous handlers are restored on exit. Outside the main thread, where Python
  takes no handlers, signals are left alone, with a warning.
  """

  def __init__(self) -> None:
    self.requested: str | None = None
    self._interrupts = 0
    self._previous: dict[signal.Signals, object] = {}

  def __enter__(self) -> "Preemption":
    if threading.current_thread() is not threading.main_thread():
      warnings.warn(OUTSIDE, stacklevel=2)
      return self
    for number in SIGNALS:
      if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
        self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._previous.items():
      # None: the old handler was not installed from Python; the default is the nearest to it.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
    self._previous.clear()

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    name = signal.Signals(number).name
    if number == signal.SIGINT:
      self._interrupts += 1
      if self._interrupts > 1:
        raise KeyboardInterrupt
    self.requested = self.requested or name
