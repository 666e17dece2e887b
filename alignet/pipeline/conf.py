"""The folder of configuration files as text: which there are, and their sections with comments."""

from __future__ import annotations

import re
from pathlib import Path


def conf_folder() -> Path:
    """The folder of configuration files: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no conf/config.yaml in {package} or beside it; the installation is damaged")


def names_in(group: str) -> list[str]:
    """The files of a configuration group, without their ending; those in a folder behind its name."""
    folder = conf_folder() / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def config_section(name: str) -> str:
    """The text of one top-level section of config.yaml with its comments, or ''."""
    text = (conf_folder() / "config.yaml").read_text(encoding="utf-8")
    match = re.search(rf"^{re.escape(name)}:.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return match.group(0).rstrip() if match else ""


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
