"""The command line: `o1jax train|sweep|eval|report|verify|sample`.

    arguments -> experiment or saved run -> overridden, checked configuration -> train, evaluate or report

Every field of a configuration is an option under its dotted name. A user's mistake ends in one line on
standard error and exit code 2; a fault of the program keeps its traceback. Heavy modules are imported when
their command runs, so that help and errors come at once.
"""

import dataclasses
import difflib
import errno
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

import tyro
from tyro import _errors as tyro_errors  # not yet public there, so that pyproject.toml pins tyro exactly

from o1jax.config import ConfigError, EvalConfig, TrainConfig, require, require_temperature
from o1jax.io.run_config import (
  config_from_dict,
  config_to_dict,
  load_experiment,
  load_sweep,
  optional_structs,
  read_run_config,
  what_is_run,
)
from o1jax.io.screen import lasting_screen, open_stderr

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
# Errors of the operating system that are no fault of the program; others keep their traceback.
OUTSIDE_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS)
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")  # as XLA says it
LESS_MEMORY = "a smaller model, fewer rows or completions, or more micro_batches need less"
HELP = ("-h", "--help")

Args = TypeVar("Args")
# `--log.progress False` rather than `--log.no-progress`: one rule, `--field VALUE`, for every field.
Fields = Annotated[TrainConfig, tyro.conf.FlagConversionOff, tyro.conf.arg(name="")]
Resume = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Experiment = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="EXPERIMENT")]
Run = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]


@dataclasses.dataclass(frozen=True)
class _TrainUsage:
  """Run an experiment: cold start, RL, evaluation, report.

  Every field of its configuration can be overridden by its dotted name, as in `--rl.steps 50 \
--task.path FILE`;
  `o1jax train EXPERIMENT --help` lists them with this experiment's values.
  """

  experiment: Experiment  # a Python file with get_config()
  resume: Resume = False  # go on from the newest checkpoint of the run


@dataclasses.dataclass(frozen=True)
class _TrainOptions:
  config: Fields
  resume: Resume = False  # go on from the newest checkpoint of the run


@dataclasses.dataclass(frozen=True)
class _SweepUsage:
  """Run an experiment's sweep: all its arms and seeds, the claim they test, a report.

  `o1jax sweep EXPERIMENT --help` lists the options, with the fields of the base run under their dotted names.
  """

  experiment: Experiment  # a Python file with sweep()
  full: Resume = False  # the longer form of the experiment
  resume: Resume = False  # go on where the sweep was stopped


@dataclasses.dataclass(frozen=True)
class _SweepOptions:
  base: Fields
  seeds: tuple[int, ...]  # one member of each arm a seed
  # Whole steps on the device where the task has a verifier there; else the stepwise loop, member by member.
  fused: Annotated[bool, tyro.conf.FlagConversionOff]
  vmapped: int  # members in one vmap: 1 is lax.map alone; 0: chosen by a short measurement at the start
  devices: int  # that members are spread over; 0: all accelerators, or one CPU device a core
  chunk: int  # steps in one executable call, which divides diagnostics.every; 0: at most 10
  full: Resume = False  # the longer form of the experiment
  resume: Resume = False  # go on where the sweep was stopped


@dataclasses.dataclass(frozen=True)
class _EvalUsage:
  """Evaluate a run's newest checkpoint on held-out problems.

  It starts from the settings in the run's config.json; `o1jax eval RUN --help` lists them, and each can be
  overridden, as in `--eval.samples 16`.
  """

  run: Run  # a run's folder


@dataclasses.dataclass(frozen=True)
class _EvalOptions:
  eval: Annotated[EvalConfig, tyro.conf.FlagConversionOff]


@dataclasses.dataclass(frozen=True)
class _ReportOptions:
  """Write report.html and its pictures from what a run or a sweep has logged, and print where it is."""

  run: Run  # a run's or a sweep's folder


@dataclasses.dataclass(frozen=True)
class _SampleOptions:
  """Sample completions of one prompt from a run's newest checkpoint."""

  run: Run  # a run's folder
  prompt: str  # the text to continue, in the task's prompt format
  samples: int = 1  # completions to draw
  temperature: float = 1.0  # of sampling; 0 is greedy
  seed: int = 0  # of the sampling noise


def _train(arguments: list[str]) -> int:
  path, rest = _target("train", _TrainUsage, arguments)
  experiment = _checked(load_experiment(path))
  default = _TrainOptions(_with_named_structs(experiment, rest))
  options = _parse(f"o1jax train {path}", _TrainOptions, rest, default, f"Experiment {path}, and its values.")
  config = _checked(options.config)
  config.validate()
  from o1jax.train import train

  return train(config, resume=options.resume)


SWEEP_FIELDS = ("seeds", "fused", "vmapped", "devices", "chunk")


def _sweep(arguments: list[str]) -> int:
  path, rest = _target("sweep", _SweepUsage, arguments)
  declared = load_sweep(path, full="--full" in rest)
  base = _with_named_structs(_checked(declared.base), rest)
  default = _SweepOptions(base, **{field: vars(declared)[field] for field in SWEEP_FIELDS})
  options = _parse(f"o1jax sweep {path}", _SweepOptions, rest, default, f"Sweep {path}, and its values.")
  chosen = {field: vars(options)[field] for field in SWEEP_FIELDS}
  config = dataclasses.replace(declared, base=_checked(options.base), **chosen)
  config.validate()
  same = config.seeds == declared.seeds and what_is_run(config.base) == what_is_run(declared.base)
  from o1jax.sweep.run import sweep

  command = shlex.join(["o1jax", "sweep", path, *rest])
  return sweep(
    config, experiment=path, command=command, record=same, full=options.full, resume=options.resume
  )


def _eval(arguments: list[str]) -> int:
  run, rest = _target("eval", _EvalUsage, arguments)
  config = read_run_config(run, quiet=True)
  options = _parse(
    f"o1jax eval {run}", _EvalOptions, rest, _EvalOptions(config.eval), f"The evaluation of {run}."
  )
  config = _checked(dataclasses.replace(config, eval=options.eval))
  config.eval.validate("eval")
  from o1jax.evaluate.figures import evaluate_run

  return evaluate_run(run, overrides=config.eval)


def _report(arguments: list[str]) -> int:
  options = _parse("o1jax report", _ReportOptions, arguments)
  from o1jax.io.report.run import write_report
  from o1jax.io.report.sweep import holds_sweep, write_sweep_report

  write = write_sweep_report if holds_sweep(options.run) else write_report
  print(write(options.run))
  return 0


def _verify(arguments: list[str]) -> int:
  from o1jax.verify_command.grade import verify_stream
  from o1jax.verify_command.options import ABOUT, VerifyOptions

  return verify_stream(_parse("o1jax verify", VerifyOptions, arguments, about=ABOUT))


def _sample(arguments: list[str]) -> int:
  options = _parse("o1jax sample", _SampleOptions, arguments)
  require(options.samples > 0, "--samples", f"must be positive, is {options.samples}")
  require(options.samples < 2**31, "--samples", "must be below 2**31")
  require_temperature(options.temperature, "--temperature", greedy=True)
  require(0 <= options.seed < 2**32, "--seed", f"must lie in [0, 2**32), is {options.seed}")
  from o1jax.evaluate.figures import sample_run

  fields = vars(options)
  code = sample_run(fields.pop("run"), fields.pop("prompt"), **fields)
  sys.stdout.flush()  # a full disk is an error here: what is shown is the result
  return code


COMMANDS: dict[str, Callable[[list[str]], int]] = {
  "train": _train,
  "sweep": _sweep,
  "eval": _eval,
  "report": _report,
  "verify": _verify,
  "sample": _sample,
}

USAGE = """\
usage: o1jax COMMAND ...

How far does plain outcome-reward RL take a reasoning model?

commands:
  train EXPERIMENT [--any.field VALUE ...] [--resume]
                          run an experiment: cold start, RL, evaluation, report
  sweep EXPERIMENT [--any.field VALUE ...] [--full] [--resume]
                          run its arms and seeds as one program, test its claim
  eval RUN [--eval.field VALUE ...]
                          evaluate a run's newest checkpoint on held-out problems
  report RUN              write a run's or a sweep's report.html and its pictures
  verify --verifier NAME < IN.jsonl > OUT.jsonl
                          grade completions, one JSON object a line
  sample RUN --prompt TEXT
                          sample completions of one prompt

`o1jax COMMAND --help` says more. Exit codes: 0 done, 2 bad input (one line says which), 75 stopped by a \
signal
and saved (run again with --resume), 76 stopped by a NaN or an infinity.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command (`argv`, or the process's own arguments) and returns its exit code.

  0 done; 2 for bad input and where disk or memory end, with one line on standard error; 130 for Ctrl-C at the
  start; `o1jax.train` and `o1jax.evaluate` return codes of their own. Raises SystemExit(0) after help, and
  lets every unforeseen exception through.
  """
  arguments = list(sys.argv[1:] if argv is None else argv)
  open_stderr()
  command = arguments[0] if arguments else ""
  if command == "verify":  # handles its streams itself
    return _run(arguments)
  with lasting_screen(results=command == "sample"):
    return _run(arguments)


def _run(arguments: list[str]) -> int:
  try:
    return _dispatch(arguments)
  except KeyboardInterrupt:  # before a run or a grader handles signals itself
    return EXIT_INTERRUPTED
  except ConfigError as error:
    return _fail(str(error))
  except OSError as error:
    if error.errno not in OUTSIDE_FAULTS:
      raise
    return _fail(f"{error.filename or 'a file of the run'}: {error.strerror}")
  except (MemoryError, RuntimeError) as error:
    text = " ".join(str(error).split())[:200]
    if not (isinstance(error, MemoryError) or any(word in text for word in OUT_OF_MEMORY)):
      raise
    return _fail(f"out of memory: {LESS_MEMORY} ({text})")


def _dispatch(arguments: list[str]) -> int:
  if arguments and arguments[0] in HELP:
    print(USAGE, end="")
    return 0
  known = ", ".join(COMMANDS)
  if not arguments:
    raise ConfigError(f"a command is missing: {known} (see o1jax --help)")
  if arguments[0] not in COMMANDS:
    raise ConfigError(f"{arguments[0]}: no such command; there are {known} (see o1jax --help)")
  return COMMANDS[arguments[0]](arguments[1:])


def _fail(line: str) -> int:
  print(f"error: {' '.join(line.split())}", file=sys.stderr)
  return EXIT_BAD_INPUT


def _target(command: str, usage: type, arguments: list[str]) -> tuple[str, list[str]]:
  """Splits off the experiment or run, which comes first and decides which options there are."""
  if arguments and arguments[0] not in HELP and not arguments[0].startswith("-"):
    return arguments[0], arguments[1:]
  if arguments and arguments[0] in HELP:
    _parse(f"o1jax {command}", usage, ["--help"])
  name = dataclasses.fields(usage)[0].name.upper()
  example = f"o1jax {command} {name} --field VALUE"
  raise ConfigError(f"{command}: {name} is missing; it comes first, as in {example}")


def _checked(config: TrainConfig) -> TrainConfig:
  """The configuration with every field's type checked; numbers from the command line may be NaN."""
  return config_from_dict(config_to_dict(config))


def _with_named_structs(config: TrainConfig, arguments: list[str]) -> TrainConfig:
  """The configuration with its optional groups filled where an option names one of their fields."""

  def fill(value: Any, prefix: str) -> Any:
    """The same for a dataclass whose fields are options under `prefix`."""
    filled = {}
    for field, struct in optional_structs(type(value)):
      named = any(argument.replace("-", "_").startswith(f"__{prefix}{field}.") for argument in arguments)
      if named and vars(value)[field] is None:
        filled[field] = struct()
    for name, item in vars(value).items():
      if dataclasses.is_dataclass(item):
        filled[name] = fill(item, f"{prefix}{name}.")
    return dataclasses.replace(value, **filled)

  return fill(config, "")


def _parse(
  prog: str, kind: type[Args], arguments: list[str], default: Args | None = None, about: str | None = None
) -> Args:
  """Parses `arguments` into `kind`, starting from `default`. Raises ConfigError naming the wrong option."""
  known = list(_flags(default)) if default is not None else [f"--{name}" for name in kind.__annotations__]

  def refuse(event: tyro_errors.ParseErrorEvent) -> None:
    raise ConfigError(_explain(event, known))

  with tyro_errors.on_parse_error(refuse):
    return tyro.cli(
      kind,
      prog=prog,
      args=arguments,
      default=tyro.MISSING_NONPROP if default is None else default,
      description=about,
      use_underscores=True,
      config=(tyro.conf.AvoidSubcommands,),
    )


def _flags(value: Any, prefix: str = "--") -> Iterator[str]:
  """Options of a dataclass instance; the fields of `config` and `base` have no prefix."""
  structs = dict(optional_structs(type(value)))
  for field in dataclasses.fields(value):
    item = vars(value)[field.name]
    if item is None and field.name in structs:
      item = structs[field.name]()  # no option by itself: naming one of its fields makes it
    if dataclasses.is_dataclass(item):
      yield from _flags(item, prefix if field.name in ("config", "base") else f"{prefix}{field.name}.")
    else:
      yield f"{prefix}{field.name}"


def _explain(event: tyro_errors.ParseErrorEvent, known: list[str]) -> str:
  """One line about a parse error, naming the option."""
  match event:
    case tyro_errors.UnrecognizedArgs():
      return _explain_unrecognized(event, known)
    case tyro_errors.InstantiationFailure(argument=None):
      return event.message
    case tyro_errors.InstantiationFailure(argument=argument) if argument is not None:
      return f"{_name(argument)}: wants {argument.lowered.metavar}: {event.message.splitlines()[0]}"
    case tyro_errors.InvalidChoice():
      return f"{_name(event.argument)}: wants one of {', '.join(event.choices)}, has {event.value!r}"
    case tyro_errors.BadValue():
      return f"{_name(event.argument)}: wants {event.argument.lowered.metavar}"
    case tyro_errors.MissingArgs():
      names = ", ".join(_name(missing.arg) for missing in event.missing_arguments)
      return f"{names}: is missing (see {event.prog} --help)"
  return f"{event.prog}: {type(event).__name__}"


def _explain_unrecognized(event: Any, known: list[str]) -> str:
  options = [token for token in event.tokens if token.startswith("-")]
  if not options:
    return f"{event.tokens[0]}: unexpected argument (see {event.prog} --help)"
  option = options[0].partition("=")[0]
  spelt = "--" + option.lstrip("-").replace("-", "_")  # both spellings are accepted
  close = difflib.get_close_matches(spelt, known, n=1, cutoff=0.75)
  hint = f"did you mean {close[0]}?" if close else f"see {event.prog} --help"
  return f"{option}: no such field; {hint}"


def _name(argument: Any) -> str:
  return argument.lowered.metavar if argument.is_positional() else argument.lowered.name_or_flags[0]
