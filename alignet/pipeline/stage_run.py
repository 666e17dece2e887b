"""What a stage is given when it runs; also as text, for the other processes of the run."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignet.config import RuntimeSettings, build
from alignet.pipeline.graph import Node
from alignet.runtime.artifacts import Artifact, ArtifactError, read_manifest


@dataclass(frozen=True)
class StageRun:
    """What a stage may see: its own section, its inputs, its folders, and how to run on this machine."""

    node: Node
    section: Mapping[str, Any]
    inputs: Mapping[str, Artifact]
    sources: Mapping[str, Path]  # inputs that are data sets -> where their files are on this machine
    folder: Path
    checkpoints: Path
    runtime: RuntimeSettings

    def as_text(self) -> str:
        """JSON from which another process makes the same run; paths are absolute, for disks that are shared."""
        inputs = {name: str(artifact.folder.absolute()) for name, artifact in self.inputs.items()}
        sources = {name: str(path.absolute()) for name, path in self.sources.items()}
        folders = [str(self.folder.absolute()), str(self.checkpoints.absolute())]
        return json.dumps([asdict(self.node), inputs, sources, folders, asdict(self.runtime)])

    @classmethod
    def from_text(cls, text: str) -> StageRun:
        """What `as_text` wrote; ArtifactError where this machine does not see the first one's folders."""
        node, inputs, sources, folders, runtime = json.loads(text)
        for path in (*inputs.values(), *sources.values(), folders[0]):
            if not Path(path).exists():
                raise ArtifactError(
                    f"{platform.node()}: expected {path}, which the first process of this run sees, found nothing "
                    f"there; put paths.artifacts and the data on a disk that every machine shares, at the same path."
                )
        return cls(
            Node(**node), node["section"],
            {name: Artifact(Path(path), read_manifest(Path(path))) for name, path in inputs.items()},
            {name: Path(path) for name, path in sources.items()},
            Path(folders[0]), Path(folders[1]), build(RuntimeSettings, runtime, "runtime"),
        )  # fmt: skip
