"""Flags of XLA that the suite's programs are compiled with."""

import importlib.metadata

_JAXLIB = tuple(int(part) for part in importlib.metadata.version("jaxlib").split(".")[:2])
_EMITTER = "--xla_cpu_use_fusion_emitters"
# Later versions end the process at a flag that they no longer have.
_HAS_EMITTER = _JAXLIB < (0, 11)

# Nearly all of the suite's time is compiling. Level 0 halves it, and XLA's older emitter of fused loops takes
# another third off; the programs' mathematics stay as they are.
FAST = {
  "--xla_force_host_platform_device_count": "8",
  "--xla_backend_optimization_level": "0",
  **({_EMITTER: "false"} if _HAS_EMITTER else {}),
}


def as_users_have_it(devices: int) -> str:
  """The flags of a process whose programs are to be a user's to the last bit, on so many devices."""
  flags = {
    "--xla_force_host_platform_device_count": devices,
    "--xla_backend_optimization_level": 3,
    **({_EMITTER: "true"} if _HAS_EMITTER else {}),
  }
  return " ".join(f"{name}={value}" for name, value in flags.items())
