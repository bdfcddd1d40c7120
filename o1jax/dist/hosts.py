"""How a run is told to stop, and what it answers with.

A scheduler that takes a machine back sends SIGTERM; a person presses Ctrl-C (SIGINT). Both only set a flag, which
the training loop reads between steps: it saves, says so in one line and exits with a code of its own.
"""

import signal
import types

# EX_TEMPFAIL of sysexits.h: "try again later", which is what a scheduler should do with a run that saved and left.
EXIT_PREEMPTED = 75
# A NaN or an infinity stopped the run. Next to EX_TEMPFAIL but unlike it: running again will fail again.
EXIT_NONFINITE = 76


class Preemption:
  """Context manager that turns SIGTERM and SIGINT into a flag.

  `requested` is None, or the name of the first signal that arrived ("SIGTERM", "SIGINT"). A second SIGINT raises
  KeyboardInterrupt, so that a step that hangs can still be left by hand. The handlers that stood before are put
  back on exit. Enter it in the main thread: Python delivers signals there alone, and raises ValueError elsewhere.
  """

  def __init__(self) -> None:
    self.requested: str | None = None
    self._interrupts = 0
    self._previous: dict[signal.Signals, object] = {}

  def __enter__(self) -> "Preemption":
    for number in (signal.SIGTERM, signal.SIGINT):
      self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._previous.items():
      # None says that the old handler was not installed from Python; the default is the nearest to it.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
    self._previous.clear()

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    name = signal.Signals(number).name
    if number == signal.SIGINT:
      self._interrupts += 1
      if self._interrupts > 1:
        raise KeyboardInterrupt
    self.requested = self.requested or name
