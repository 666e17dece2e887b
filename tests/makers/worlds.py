"""Command lines of a tiny world: the whole chain in well under a minute. Its figures mean nothing."""

from pathlib import Path

TINY = [
    "world.concepts=3", "world.unjudged=1", "world.exemplars=2", "world.pool=60",
    "world.strangers=20", "world.fresh=3", "world.probe=4",
    "world.train_triplets=3000", "world.val_triplets=500", "world.test_triplets=400", "world.teacher_images=256",
    "world.student_images=256",
    "world.participants=15", "world.participant_trials=24", "world.rated=2",
    "pretrain.teacher.steps=6", "pretrain.student.steps=6", "pretrain.teacher.batch=64",
    "pretrain.student.batch=64", "pretrain.teacher.warmup=1", "pretrain.student.warmup=1",
    "vice.settings.max_epochs=12", "vice.settings.burn_in=4", "vice.settings.window=2", "vice.settings.dim=8",
    "soft_labels.samples=5", "distill.settings.teacher.steps=10", "distill.settings.student.steps=10",
    "distill.settings.teacher.penalties=[1.0]", "distill.settings.student.penalties=[1.0]",
    "distill.settings.teacher.lrs=[0.001]", "distill.settings.student.lrs=[0.001]", "cluster.grid=[2,3,4,6]",
    "finetune.settings.steps=6", "finetune.settings.warmup=1", "finetune.settings.batch=16",
    "evaluate.bootstrap=50", "evaluate.datasets.labels.options.count=500",
    "evaluate.datasets.few.options.shots=[1,3]", "evaluate.datasets.kinds.options.shots=[1,3]",
    "evaluate.datasets.drawn.options.count=500",
    "runtime.threads=1", "embed.shard=40",
]  # fmt: skip

# The same with importance maps: beside `overrides` or `everything`.
MAPS = [
    "experiment=harmonize", "world.mapped=30", "world.mapped_plain=30", "world.mapped_test=20", "world.raters=2",
    "harmonize.settings.steps=4", "harmonize.settings.warmup=1", "harmonize.settings.batch=8",
    "harmonize.settings.part=2", "saliency.shard=8", "stimuli.settings.levels=2", "stimuli.settings.size=32",
    "evaluate.datasets.where.options.splits=10",
]  # fmt: skip

# The same attacked, which has importance maps as well: beside `overrides` or `everything`, in the place of MAPS.
ATTACK = [
    *MAPS[1:], "experiment=attack", "attack.batch=4", "attack.shard=8", "attack.logit=top1",
    "attack.methods.fast.steps=10", "attack.methods.linf.steps=10",
    "robust.settings.steps=4", "robust.settings.warmup=1", "robust.settings.batch=8",
]  # fmt: skip

# The same with students trained for their invariances, and images that they take for the same: in the place of ATTACK.
INVARIANCE = [
    *(one.replace("experiment=attack", "experiment=invariance") for one in ATTACK),
    "invert.images=4", "invert.draws=2", "invert.batch=4", "invert.shard=2", "invert.methods.free.steps=4",
    "invert.methods.adversarial.steps=4", "invert.methods.adversarial.finish=1", "perceptual.batch=3",
    "+robust.roles.simclr-adversarial={loss: simclr, temperature: 0.5, projection: 8, norm: l2, eps: 0.5, steps: 1, "
    "step: 0.5, begin: random, snapshots: [2]}",
    "+robust.roles.trades-6={loss: trades, beta: 6.0, norm: l2, eps: 0.5, steps: 1, step: 0.5}",
    "evaluate.datasets.invariance.settings=[original, trades-6, simclr-adversarial, simclr-adversarial@2]",
    "robust.settings.batch_norm=training",
]  # fmt: skip

# Evaluations of which one run is enough: most tests leave them out, and the page of what is left has few figures.
FURTHER = (
    "various", "within", "cichy", "king1", "king2", "levels", "participants", "certainty", "few", "kinds", "tree",
    "components", "drawn", "changed",
)  # fmt: skip


def overrides(root: Path, *more: str) -> list[str]:
    """The tiny world's command line over a store at `root`, without the further evaluations."""
    without = [f"~evaluate.datasets.{name}" for name in FURTHER]
    without += [
        f"~report.published.{name}"
        for name in ("cichy", "king", "peterson_coarse", "peterson_fine", "levels")
    ]
    kept = [
        item for item in TINY if not item.startswith(tuple(f"evaluate.datasets.{name}." for name in FURTHER))
    ]
    return [*kept, *without, f"paths.artifacts={root}", *more]


def everything(root: Path, *more: str) -> list[str]:
    """The tiny world's command line over a store at `root`, with all that the world measures."""
    return [*TINY, f"paths.artifacts={root}", *more]
