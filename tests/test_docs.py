"""Every command in the README and the documentation: run on the tiny world, composed, or named as not for here.

A command that belongs to none of these fails, so a renamed option, stage, role or file of a group breaks a test.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

from alignet.config import Config
from alignet.stages._networks_given import networks_of
from tests.makers.worlds import overrides

CHECKOUT = Path(__file__).parents[1]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "data/README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
NOT_HERE = {
    r"uv run pytest\b": "this suite",
    r"uv (sync|pip)\b|pip install\b": "installs packages",
    r"uv run .*\bmkdocs\b": "CI builds the site",
    r"(uv run )?python -m benchmarks\.\w+": "takes minutes; that the file is there is checked",
    r"(uv run )?python -m tests\.fuzz\b": "takes minutes; tests/fuzz/test_fuzz.py runs it with fewer inputs",
    r"(torchrun|accelerate launch|srun|sbatch)\b": "starts processes; the stage that it starts is composed",
    r"(export|cd|mkdir|cp|ls|cat|tar|scp|rsync|squeue|tail) ": "of the shell",
}
# what the reader fills in, where any text would not do
PLACEHOLDERS = {"student=NAME": "student=vit_small_16", "teacher=NAME": "teacher=siglip_base"}
# what may stand after a stage without being an override
WORDS = {"convert": ("levels", "maps"), "survey": ("import",), "status": ("prune", "remove")}
# commands with words of their own for networks and images
GIVEN = ("where", "robustness", "invariances", "four")
# python that needs another library's exported folder, which tests/student/test_export.py makes
ELSEWHERE = ("import open_clip", "from transformers")


NO_KEYS = re.compile(
    r"\.(py|yaml|npy|npz|txt|csv|parquet|json|md|png|svg|html)$|^data\.sets\."
)  # files; sets by names that vary


class Block(NamedTuple):
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str


def blocks(language: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 2
            found.append(Block(page.relative_to(CHECKOUT).as_posix(), line, match[1], match[2]))
    return [block for block in found if block.language == language]


def commands() -> Iterator[tuple[str, str]]:
    """(where, command) of every command line in the pages, continued lines joined, comments dropped."""
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # VARIABLE=value before a command
                words = words[1:]
            if words:
                yield block.page, shlex.join(words)


def stage_of(command: str) -> tuple[str, list[str]] | None:
    """The stage that a command runs, and its arguments."""
    found = re.search(r"-m alignet\.stages\.(\w+)(.*)", command)
    return (found[1], [PLACEHOLDERS.get(one, one) for one in shlex.split(found[2])]) if found else None


def kind(command: str) -> str:
    """run | compose | help | a reason why not, or '' for a command of no class."""
    stage = stage_of(command)
    launched = re.match(r"(torchrun|accelerate launch|srun|sbatch)\b", command)
    if stage is not None and (launched or re.match(r"(uv run )?python -m alignet\.stages", command)):
        name, arguments = stage
        if "--help" in arguments:
            return "help"
        keys = {argument.partition("=")[0] for argument in arguments}
        # other experiments need data, seeds a world each, models a network, several processes a test of their own
        data, network = {"experiment", "seed", "seeds", "-m"}, {"model", "student", "teacher"}
        elsewhere = data | network | {"runtime.launcher", "runtime.device", "device"}
        heavy = name in ("survey", "prefetch", "doctor", "convert")
        return "compose" if launched or heavy or keys & elsewhere else "run"
    return next((reason for pattern, reason in NOT_HERE.items() if re.match(pattern, command)), "")


COMMANDS = sorted(set(commands()))


def of(*kinds: str) -> list:
    return [pytest.param(text, id=f"{page}: {text[:80]}") for page, text in COMMANDS if kind(text) in kinds]


def test_every_command_belongs_to_a_class() -> None:
    unknown = [f"{page}: {text}" for page, text in COMMANDS if not kind(text)]
    assert not unknown, f"run them, compose them, or say in NOT_HERE why not: {unknown}"
    languages = {
        block.language for language in ("", "bash", "shell", "console") for block in blocks(language)
    }
    assert languages <= {""}, "fence commands as sh, so that they are tested"
    hidden = [block for block in blocks("") if re.search(r"^(\$ )?(uv|python) ", block.text, re.MULTILINE)]
    assert not hidden, "a command in a block without a language is not tested"
    assert sum(kind(text) == "run" for _, text in COMMANDS) >= 6
    for page, text in COMMANDS:
        for name in re.findall(r"-m benchmarks\.(\w+)", text):
            assert (CHECKOUT / f"benchmarks/{name}.py").is_file(), f"{page}: {text}"


@pytest.mark.parametrize("command", of("compose"))
def test_commands_compose(command: str) -> None:
    from alignet.pipeline.cli import load, product
    from alignet.pipeline.graph import build_graph
    from alignet.stages._embed_images import peel
    from alignet.stages.compare import jobs_of
    from alignet.stages.doctor import OWN as DATASET_KEYS

    name, arguments = stage_of(command) or ("", [])
    assert (CHECKOUT / f"alignet/stages/{name}.py").is_file(), f"no stage {name}"
    if name == "embed":
        own, arguments = peel(arguments)
        check_embedding(own)
    if name in GIVEN:
        given_words = importlib.import_module(f"alignet.stages._{name}_given")
        own, arguments = given_words.peel(arguments)
        options = given_words.options_of(own)
        check_networks(options["model"])
        check_inversions(name, options, load(arguments))
    if name == "doctor" and any(item.startswith("dataset=") for item in arguments):
        arguments = [item for item in arguments if item.partition("=")[0] not in DATASET_KEYS]
    if arguments and arguments[0] in WORDS.get(name, ()):  # then files may follow
        own = {"images", "key", "side"} if name == "convert" else set()
        given = [item for item in arguments[1:] if item.partition("=")[0] not in own]
        arguments = [argument for argument in given if "=" in argument or argument == "-m"]
    jobs = product([one for one in arguments if one != "-m"]) if "-m" in arguments else [arguments]
    if name == "compare":
        jobs = jobs_of(arguments)
    for job in jobs:
        config = load(job)
        graph = build_graph(config)
        if config.role is not None:
            roles = {node.role for node in graph.values() if node.stage == name}
            assert config.role in (graph if name == "pipeline" else roles)


def test_keys_in_the_text_are_keys_of_the_configuration() -> None:
    from alignet.pipeline.cli import compose

    known: set[str] = set()
    free: set[str] = set()  # mappings that are empty, whose keys are the reader's

    def walk(value: object, prefix: str) -> None:
        known.add(prefix)
        free.update([prefix] if value == {} else [])
        for name, item in value.items() if isinstance(value, dict) else ():
            walk(item, f"{prefix}.{name}" if prefix else str(name))

    data = ("world", "photos", "paper", "own", "own_dataset", "own_triplets")
    for experiment in (*data, "attack", "ingredients", "ablation/direct"):
        walk(compose([f"experiment={experiment}"]), "")
    sections = {name.partition(".")[0] for name in known}
    unknown = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for code in re.findall(r"`([^`]+)`", text):
            for key in re.findall(r"(?<![\w./<=-])[a-z_]+(?:\.[a-z_0-9]+)+(?=$|[=\s])", code):
                if key.partition(".")[0] not in sections or NO_KEYS.search(key):
                    continue
                if key not in known and key.rpartition(".")[0] not in free:
                    unknown.append(f"{page.name}: {key}")
    assert not unknown


def check_embedding(own: dict[str, str]) -> None:
    """The named model is one that its library knows; nothing is downloaded."""
    from alignet.stages._embed_images import _options

    library, _, architecture = _options(own)["model"].partition(":")
    if library == "timm":
        import timm

        assert timm.is_model_pretrained(architecture)
    elif library == "open_clip":
        import open_clip

        assert tuple(architecture.split("/")) in open_clip.list_pretrained()


def check_networks(model: str) -> None:
    """Named models are some that timm knows; no file is looked for."""
    import timm

    for one in model.split(","):
        if one.startswith("timm:"):
            assert timm.is_model(one.removeprefix("timm:").partition("=")[0])


def check_inversions(name: str, options: dict[str, str], config: Config) -> None:
    """Distances and methods of commands that invert are some that they take."""
    from alignet.stages import _four_given, _invariances_given

    if name == "four":
        _four_given.check_inversions(options, networks_of(options["model"], options["names"]), config)
    if name == "invariances":
        distances = _invariances_given.distances_of(options["distances"], config.perceptual)
        _invariances_given.methods_of(options["methods"], options["against"], config.invert, distances)


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory) -> Path:
    """A working folder with a copy of the tiny world's store as `artifacts`, and a folder `photos`."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(tiny, folder / "artifacts")
    (folder / "photos").mkdir()
    generator = np.random.default_rng(0)
    for name in "abcdef":
        pixels = generator.integers(0, 256, (48, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{name}.png")
    return folder


@pytest.fixture(scope="module")
def folders(place: Path) -> dict[str, str]:
    """What stands for the placeholders of the pages."""
    from alignet.pipeline.cli import load
    from alignet.pipeline.runner import Pipeline

    pipeline = Pipeline(load(overrides(place / "artifacts")))
    made = {
        key: pipeline.store.folder(pipeline.identity(key)).name for key in ("export[alignet]", "export[ud]")
    }
    return {
        "<fingerprint>": made["export[alignet]"],
        "FINGERPRINT": made["export[alignet]"],
        "<map>": made["export[ud]"],
    }


def filled(text: str, folders: dict[str, str]) -> str:
    for placeholder, value in folders.items():
        text = text.replace(placeholder, value)
    return text


def run(command: str, argv: list[str], monkeypatch) -> str:
    """What a stage prints when it is run as a program; an exit status fails the test."""
    monkeypatch.setattr(sys, "argv", [command, *argv])
    monkeypatch.delitem(sys.modules, f"alignet.stages.{command}", raising=False)  # else runpy warns
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_module(f"alignet.stages.{command}", run_name="__main__")
    return printed.getvalue()


@pytest.mark.parametrize("command", of("run"))
def test_commands_run(command: str, place: Path, monkeypatch) -> None:
    monkeypatch.chdir(place)
    name, arguments = stage_of(command) or ("", [])
    words = [argument for argument in arguments if argument in WORDS.get(name, ())]
    given = [argument for argument in arguments if argument not in words]
    # the tiny world's values first, so that the command's own win
    said = run(name, [*words, *overrides(place / "artifacts"), *given], monkeypatch)
    assert said.strip()


@pytest.mark.parametrize("command", of("help"))
def test_help_is_there(command: str, monkeypatch) -> None:
    name, _ = stage_of(command) or ("", [])
    assert f"usage: python -m alignet.stages.{name}" in run(name, ["--help"], monkeypatch)


def test_embedding_a_folder_as_the_page_says(place: Path, folders: dict[str, str], monkeypatch) -> None:
    command = next(text for _, text in COMMANDS if "images=photos" in text and "FINGERPRINT" in text)
    monkeypatch.chdir(place)
    name, arguments = stage_of(filled(command, folders)) or ("", [])
    said = run(name, arguments, monkeypatch)
    assert "6 images x" in said
    assert "next: numpy.load" in said


@pytest.mark.parametrize("page", sorted({block.page for block in blocks("python")}))
def test_python_runs(page: str, place: Path, folders: dict[str, str], monkeypatch) -> None:
    """The blocks of a page one after the other, as a reader would paste them."""
    monkeypatch.chdir(place)
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in blocks("python"):
            if block.page == page:
                code = compile(filled(block.text, folders), f"{page}:{block.line}", "exec")
                if not any(text in block.text for text in ELSEWHERE):
                    exec(code, names)


def test_half_precision_weights_compute_in_single_as_the_page_says(tmp_path, monkeypatch) -> None:
    """The block for transformers, on an export stored in half precision; without dtype it would compute in half."""
    import torch

    from alignet.backbones import embed_images, load_encoder
    from alignet.student.export import export
    from tests.makers.toys import TOYS, pictures
    from tests.student.test_export import CARD

    encoder, image = load_encoder(TOYS["clip output"], seed=3), pictures(0)[0]
    monkeypatch.chdir(tmp_path)
    export(Path("artifacts/export/half"), encoder, encoder.module.state_dict(), CARD, "bfloat16")
    page = (CHECKOUT / "docs/weights.md").read_text(encoding="utf-8")
    block = next(one for one in re.findall(r"```python\n(.*?)```", page, re.S) if "AutoModel" in one)
    block = block.replace("<fingerprint>", "half")
    names = {"image": image}
    with torch.no_grad():
        exec(block, names)
        half = names | {}
        exec(block.replace(", dtype=torch.float32", ""), half)
    encoder.module.bfloat16().float()  # the weights as they are stored
    expected = torch.from_numpy(embed_images(encoder, encoder.transform(image)[None], 1))
    found = names["features"]
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert half["features"].dtype == torch.bfloat16


def test_the_menu_names_every_page() -> None:
    site = yaml.safe_load((CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8"))

    def files(menu: object) -> Iterator[str]:
        if isinstance(menu, str):
            yield menu
        else:
            for item in menu.values() if isinstance(menu, dict) else menu:  # type: ignore[attr-defined]
                yield from files(item)

    assert sorted(files(site["nav"])) == sorted(path.name for path in (CHECKOUT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(CHECKOUT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for word in ("../shared", "DESIGN.md", "STYLE.md", "FORMATS.md"):
        assert word not in text
