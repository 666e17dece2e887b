"""Two processes, on gloo, harmonize as one does, and stop together."""

import json
import shutil

import numpy as np

from alignet.pipeline.cli import load
from alignet.pipeline.commands import run_pipeline
from tests.harmonizer.many_harmonize import VARIANTS, run
from tests.makers.together import by_two, weights
from tests.makers.worlds import MAPS, overrides
from tests.pipeline.test_many_processes import finish, stage


def test_two_processes_harmonize_as_one_and_stop_together(ready, tmp_path):
    found = by_two(ready, "tests.harmonizer.many_harmonize", tmp_path, "maps")
    for name in VARIANTS:
        alone = run(name)
        np.testing.assert_allclose(
            found[f"{name}.weights"], weights(alone), rtol=1e-4, atol=1e-5, err_msg=name
        )
        np.testing.assert_allclose(found[f"{name}.maps"], alone.curves["maps"], rtol=1e-4, err_msg=name)


def test_two_processes_make_the_same_saliency_and_stimuli(ready, mapped, tmp_path):
    """Shards and images are dealt; the bytes are one process's, with reading processes as well."""
    digests = []
    for name, more in (
        ("two", ["runtime.launcher=torchrun", "runtime.processes=2"]),
        ("one", []),
        ("readers", ["runtime.workers=1"]),
    ):
        root = tmp_path / name
        shutil.copytree(mapped, root)
        for role in ("saliency[student.mapped_test]", "embed[student:logits.stimuli.mapped_test_maps]"):
            options = [*MAPS, f"role={role}", *more]
            if name == "two":
                status, _, err = finish(ready.start(*stage(root, "pipeline", *options)))
                assert status == 0, err
            else:
                run_pipeline(load(overrides(root, *options)))
        found = [
            json.loads(path.read_text())
            for stage_name in ("saliency", "stimuli", "embed")
            for path in sorted(root.glob(f"{stage_name}/*/MANIFEST.json"))
        ]
        assert len(found) == 3
        assert {one["provenance"]["world_size"] for one in found} == {2 if name == "two" else 1}
        digests.append([one["digest"] for one in found])
    assert digests[0] == digests[1] == digests[2]
