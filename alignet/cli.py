"""From a command line to a validated configuration, and from an error to one clear message.

Every stage is `python -m alignet.stages.<stage> [override ...]`. Overrides follow Hydra's grammar;
`-m` runs the product of comma-separated values. `--help` answers from text files alone.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from alignet import interrupt, processes

if TYPE_CHECKING:
    from alignet.config import Config

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def conf_folder() -> Path:
    """The folder of configuration files: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no conf/config.yaml in {package} or beside it; the installation is damaged")


def main(
    stage: str,
    doc: str,
    act: Callable[[Config], None],
    argv: Sequence[str] | None = None,
    finish: Callable[[], None] | None = None,
    launches: bool = False,
    typed: Sequence[str] | None = None,
) -> None:
    """Run one stage's command line; exits with status 1 and one message on bad input, 75 when asked to end.

    argv: without the program's name, by default the process's own. finish: what to do after all jobs of a multirun.
    launches: whether runtime.launcher may start other processes for it. Of several processes that were started,
    the first runs `act` and the others follow it. typed: the command line to give again,
    where argv is only a part of it.
    """
    # read when torch is loaded: a thread without work sleeps after a moment. By default it spins for milliseconds, on a
    # busy machine instead of the thread that it waits for; what is computed is the same
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        print(help_text(stage, doc))
        return
    with interrupt.listening():  # to the last word: what ends one process of several signals the others
        try:
            _take_part(stage, act, arguments, finish, launches)
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except Exception as error:
            _end_of(error, stage, list(arguments if typed is None else typed))


def _take_part(
    stage: str,
    act: Callable[[Config], None],
    arguments: list[str],
    finish: Callable[[], None] | None,
    launches: bool,
) -> None:
    """Run the command line as the first process of its run, or follow the first."""
    if processes.join().first:
        _run(stage, act, arguments, launches)
        if finish is not None:
            finish()
        processes.current().tell("")
    else:
        from alignet.pipeline import follow

        follow()
    processes.leave()


def _end_of(error: Exception, stage: str, typed: list[str]) -> NoReturn:
    """End with the status and the message of what went wrong, or with how to go on where the run was asked to end."""
    everyone = processes.current()
    lost = isinstance(error, processes.PeerLost)
    # a worker dies of a signal that comes before it ignores them
    dead_worker = isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
    asked = everyone.was_asked()
    if isinstance(error, interrupt.Stopped) or (asked and (lost or dead_worker)):
        everyone.note_asked()
        stopped = error if isinstance(error, interrupt.Stopped) else interrupt.stop()
        again = f"python -m alignet.stages.{stage} {shlex.join(typed)}".rstrip()
        anew = " (force=true would begin anew)" if "force=true" in typed else ""
        line = f"{stopped}; what was finished is kept. To go on, run the same command again{anew}: {again}"
        _end(interrupt.STATUS, line if everyone.first else None, lost)
    if lost:
        _end(
            1,
            f"error: another process of this run has ended without a word (killed, or out of memory?): {error}. What "
            f"was finished is kept: run the same command again.",
            lost,
        )
    message = None if os.environ.get("ALIGNET_TRACEBACK") else explain(error, typed)
    if message is None and everyone.size == 1:
        raise error
    _end(1, traceback.format_exc() if message is None else f"error: {message}")


def _run(stage: str, act: Callable[[Config], None], arguments: list[str], launches: bool) -> None:
    """Do what a command line says: in this process, or in others that its launcher starts."""
    several = bool({"-m", "--multirun"} & set(arguments))
    jobs = (
        product([item for item in arguments if item not in ("-m", "--multirun")]) if several else [arguments]
    )
    for number, overrides in enumerate(jobs):
        config = load(overrides)
        if launches and config.runtime.launcher != "local" and not processes.launched():
            from alignet.launch import launch

            launch(stage, arguments, config.runtime)
            return
        if several:
            print(f"[job {number}] {' '.join(overrides)}", flush=True)
        for job in jobs_of(config, overrides):
            act(job)


def jobs_of(config: Config, overrides: Sequence[str]) -> list[Config]:
    """The jobs of an ablation, one for each combination of its values and seeds; of any other configuration itself.

    overrides: the command line that the configuration comes from. A job's `ablation.point` holds its values.
    """
    ablation = config.ablation
    if ablation is None:
        return [config]
    from dataclasses import replace
    from itertools import product as combinations

    from alignet.graph import build_graph

    jobs = []
    for values in combinations(*ablation.over.values()):
        point = dict(zip(ablation.over, values, strict=True))
        for seed in ablation.seeds or (config.seed,):
            own = [f"{key}={'null' if value is None else value}" for key, value in point.items()]
            job = load([*overrides, *own, f"seed={seed}"])
            assert job.ablation is not None
            jobs.append(replace(job, ablation=replace(job.ablation, point=point)))
            build_graph(jobs[-1])  # what cannot be made of the last job is said before the first is made
    return jobs


def _end(status: int, message: str | None, lost: bool = False) -> NoReturn:
    """End with a status and at most one message from all processes of the run; lost: see Processes.may_speak."""
    several = processes.current().size > 1
    sys.stdout.flush()
    if message is not None and processes.current().may_speak(lost):
        print(message, file=sys.stderr, flush=True)
    if several:
        os._exit(status)  # an orderly end would wait for the others
    raise SystemExit(status) from None


def stage_main(stage: str, doc: str | None) -> None:
    """The command line of a stage that makes one node."""

    def act(config: Config) -> None:
        from alignet.commands import run_stage

        run_stage(config, stage)

    main(stage, doc or "", act, launches=True)


def help_text(stage: str, doc: str) -> str:
    """What --help prints: the stage's own description and its section of conf/config.yaml."""
    lines = [
        doc.strip(),
        "",
        f"usage: python -m alignet.stages.{stage} [key=value ...] [-m key=a,b,c ...]",
        "",
    ]
    for group in ("experiment", "student", "teacher"):
        lines += [f"{group}=... one of: " + ", ".join(names_in(group))]
    lines += ["common options: seed=0 role=NAME force=true paths.artifacts=FOLDER runtime.threads=2", ""]
    section = config_section(stage)
    if section:
        lines += [f"its section of {conf_folder() / 'config.yaml'}:", "", section]
    return "\n".join(lines)


def names_in(group: str) -> list[str]:
    """The files of a configuration group, without their ending; those in a folder behind its name."""
    folder = conf_folder() / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def config_section(name: str) -> str:
    """The text of one top-level section of config.yaml with its comments, or ''."""
    text = (conf_folder() / "config.yaml").read_text(encoding="utf-8")
    match = re.search(rf"^{re.escape(name)}:.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return match.group(0).rstrip() if match else ""


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration as plain values, from conf/ and Hydra overrides."""
    import yaml
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    _check_aliases()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        try:
            composed = hydra_compose("config", overrides=[quoted(item) for item in _based(overrides)])
        except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
            found = " ".join(str(error).split())[:400]
            raise ValueError(
                f"expected files below {conf_folder()} in YAML, found {found}; mend that file."
            ) from None
    return OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)  # type: ignore[return-value]


MOST_ALIASES = 24  # of a configuration file: nested aliases multiply, and so few cannot fill the memory


def _check_aliases() -> None:
    """ValueError for a file below conf/ that repeats its parts so often that reading it might not end."""
    for path in sorted(conf_folder().rglob("*.yaml")):
        found = len(re.findall(rb"(?<![^\s\[{,:-])\*\w", path.read_bytes()))
        if found > MOST_ALIASES:
            raise ValueError(
                f"{path}: expected at most {MOST_ALIASES} aliases (*name), found {found}; write out what they name."
            )


def _based(overrides: Sequence[str]) -> list[str]:
    """`base=photos`, the experiment that an ablation is laid over, as Hydra names the groups that it selects."""
    found = []
    for item in overrides:
        key, _, name = item.partition("=")
        found += [f"experiment@_global_={name}", f"ablation={name}"] if key == "base" else [item]
    return found


# keys whose values are text whatever they look like, and of these the ones that name a file or a folder
_TEXT = re.compile(r"role|survey\.(title|consent|hand_in)")
_PATH = re.compile(
    r"paths\.\w+|data\.sets\.[\w-]+\.(path|ids|under)|survey\.(images|folder|posterior|consent_file)|runtime\.slurm\.logs"
)
_SWEEP = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(.*\)")


def quoted(override: str, several: bool = False) -> str:
    """An override of Hydra's grammar for one that was typed: paths and texts are quoted, and ~ becomes the home folder.

    So a folder may be called `2024`, `a,b` or `[x]`, and a title may hold any letter. null, interpolations and what is
    quoted already stay what they are. several: for a multirun, whose commas part values.
    """
    key, equals, value = override.partition("=")
    name = key.lstrip("+")
    path = bool(_PATH.fullmatch(name))
    if not equals or not (path or _TEXT.fullmatch(name)):
        return override
    if several and _SWEEP.fullmatch(value):
        return override
    parts = _at_commas(value) if several else [value]
    return f"{key}=" + ",".join(_quoted(part, path) for part in parts)


def _quoted(value: str, path: bool) -> str:
    if value in ("", "null") or (len(value) > 1 and value[0] in "'\"" and value[0] == value[-1]):
        return value
    if (
        "${" in value and "'" in value
    ):  # quotes of the interpolation's own, which mean nothing inside of others
        return value
    if path:
        value = os.path.expanduser(value)
    # a backslash is one, unless a quote follows
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), value) + "'"


def _at_commas(value: str) -> list[str]:
    """The parts of a text between commas that stand outside of brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in value:
        if letter == "," and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += letter
        if letter == quote or (letter in "'\"" and len(parts[-1]) == 1):
            quote = "" if quote else letter
        elif not quote:
            depth += (letter in "[{(") - (letter in "]})")
    return parts


def load(overrides: Sequence[str]) -> Config:
    """The validated configuration of a command line."""
    from alignet.config import parse

    return parse(compose(overrides))


def product(overrides: Sequence[str]) -> list[list[str]]:
    """The jobs of a multirun: every combination of comma-separated values, by Hydra's own sweeper."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([quoted(item, several=True) for item in overrides])
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(job) for job in jobs]


def explain(error: BaseException, typed: Sequence[str] = ()) -> str | None:
    """One message for an error that its user can mend; None for a defect of ours (a traceback helps).

    typed: the command line, whose experiment says which keys there are.
    """
    from alignet.artifacts import ArtifactError

    ours = isinstance(error, (ArtifactError, ValueError, FileNotFoundError)) and not _is_foreign(error)
    if ours and not isinstance(error, UnicodeDecodeError):  # a codec's message names no file
        return shortened(str(error))
    number = _system_error(error)
    if number in DISK_FULL:
        what = getattr(error, "filename", None) or "a file"
        return (
            f"no room to write {what} ({os.strerror(number)}); what was finished is kept: "
            f"free space, or set paths.artifacts to another disk, and run the same command again."
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"cannot write or read {error.filename}: {error.strerror}; check its permissions or paths.artifacts."
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        name = max(str(error.filename).split("/"), key=len)
        return (
            f"expected names of at most 255 bytes, found one of {len(name):,} that begins with {name[:60]!r}; check "
            "the command line, the configuration, and the names of files."
        )
    return _explain_hydra(error, typed)


def shortened(text: str, most: int = 1500) -> str:
    """A message of at most so many characters: one that quotes a cell of thousands is no help."""
    return text if len(text) <= most else f"{text[: most - 400]} ... {text[-390:]}"


def _system_error(error: BaseException) -> int:
    """The error number of the operating system behind an error, 0 if there is none."""
    if isinstance(error, OSError) and re.search(r"\d+ requested and \d+ written", str(error)):
        return errno.ENOSPC  # numpy forgets the number
    if isinstance(error, OSError):
        return error.errno or 0
    told = re.search(r"\(os error (\d+)\)", str(error))  # safetensors puts it into words
    return int(told.group(1)) if told else 0


def _is_foreign(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("hydra", "omegaconf", "json")


def _explain_hydra(error: BaseException, typed: Sequence[str]) -> str | None:
    if type(error).__module__.partition(".")[0] not in ("hydra", "omegaconf"):
        return None
    text = " ".join(str(error.__cause__ or error).split())
    found = re.search(r"Key '([^']+)' is not in struct", text) or re.search(
        r"Could not override '([^']+)'", text
    )
    if found:
        key = re.search(r"full_key: (\S+)", text)
        name = key.group(1) if key else found.group(1)
        known = [key for key in _known_keys(typed) if key != name]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        return f"no configuration key {name!r}.{meant} The keys and their meaning are in {conf_folder()}."
    lost = re.search(r"Could not find '(\w+)/([^']+)'", text)
    if lost and names_in(lost[1]):
        names = names_in(lost[1])
        folder, slash, last = lost[2].rpartition("/")  # of ablation/imagse, those of ablation
        inside = [name.removeprefix(folder + slash) for name in names if name.startswith(folder + slash)]
        near = difflib.get_close_matches(last, inside, n=1, cutoff=0.6)
        meant = f" Did you mean {folder}{slash}{near[0]}?" if near else ""
        fitting = [folder + slash + name for name in inside] or names
        return f"{lost[1]}: expected one of {', '.join(fitting)}, found {lost[2]!r}.{meant}"
    return f"the configuration could not be read: {text[:1000]}"


_CHOICES = re.compile(
    r"\+?(experiment|base|student|teacher|recipe|also)=[^,]*"
)  # of files, with one value each


def _known_keys(typed: Sequence[str]) -> list[str]:
    """Every key of the configuration that a command line chooses, or where that cannot be read, of the default one."""

    def walk(value: Any, prefix: str) -> list[str]:
        if not isinstance(value, dict):
            return [prefix]
        return [
            key for name, item in value.items() for key in walk(item, f"{prefix}.{name}" if prefix else name)
        ]

    try:
        return walk(compose([item for item in typed if _CHOICES.fullmatch(item)]), "")
    except Exception:  # the choice itself may be what is wrong
        return walk(compose([]), "")
