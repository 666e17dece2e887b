"""Runs of doctor on small configurations, for its tests."""

from alignet.doctor.estimates import Estimates
from alignet.doctor.measure import Measurements
from alignet.doctor.models import Models
from alignet.doctor.sources import Sources
from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline
from alignet.stages import doctor

QUICK = ["doctor.seconds=0.01", "doctor.images=8"]


SMALL = [
    "experiment=photos", "student=world", "student.weights=file", "student.weights_set=student_weights",
    "runtime.threads=1", "vice.settings.dim=8", "vice.settings.batch=512", "cluster.clusters=6",
    "finetune.settings.batch=16", "finetune.settings.frozen=[]", "triplets.count=500", "evaluate.bootstrap=50",
    "distill.settings.teacher.batch=512", "distill.settings.student.batch=512", *QUICK,
    "~evaluate.datasets.pairs",  # the world's few choices leave pairs of objects that were never shown together
]  # fmt: skip


def examine(capsys, tmp_path, *arguments) -> tuple[int, list[str]]:
    """Exit status and lines of one run."""
    status = 0
    try:
        doctor.main([*arguments, f"paths.artifacts={tmp_path / 'store'}"])
    except SystemExit as end:
        status = int(end.code or 0)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    return status, (shown.out + shown.err).splitlines()


def faults(lines):
    """The faults, where they are found; the summary counts them and names what they are about, once."""
    found = [line for line in lines if line.startswith("fault ")]
    summary = next((line for line in lines if line.endswith(" ok") and " fault" in line), "")
    assert int(summary.split()[0]) == len(found)
    assert all(line.split()[1] in summary for line in found)
    return found


def estimates_of(*given):
    config = load([*given])
    sources = Sources(config, tuple(given), Pipeline(config))
    return Estimates(sources, Measurements(sources, Models(sources)))
