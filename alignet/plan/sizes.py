"""How many images, triplets and objects a configuration is planned for, none of which need be on this machine.

The pool's number comes from `plan`; the others from `plan.assume` and `doctor.assume`, or from the settings of a
drawn world.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alignet.config import Config
from alignet.plan.networks import Network, network_of

WORLD_BYTES = 2  # of a drawn picture's file, for each pixel


class MissingSize(ValueError):
    """A number that nothing gives. what: of what; option: the one that would give it."""

    def __init__(self, what: str, option: str) -> None:
        super().__init__(f"plan: expected the number of {what}, found none; add {option}")
        self.what, self.option = what, option


@dataclass
class Sizes:
    """The numbers of one configuration. MissingSize for a number that nothing gives."""

    config: Config

    def __post_init__(self) -> None:
        self._networks: dict[tuple[str, bool], Network] = {}
        self.assumed = {**self.config.plan.assume, **self.config.doctor.assume}

    def images(self, name: str) -> int:
        """Images of an image set."""
        plan = self.config.plan
        if name == "pool" and plan.images is not None:
            return plan.images
        if name == "pool" and plan.size is not None:
            return plan.sizes[plan.size].images
        if self.config.data.drawn(name) if name in self.config.data.sets else False:
            return self._drawn(name)
        if name in self.assumed:
            return self.assumed[name]
        option = "plan.images=NUMBER" if name == "pool" else f"++doctor.assume.{name}=NUMBER"
        raise MissingSize(f"images of {name}", option)

    def part(self) -> int:
        """Images of the pool that triplets are drawn from and the student is fine-tuned on."""
        pool, part = self.images("pool"), self.config.data.pool_images
        return pool if part is None else min(pool, part)

    def drawn_triplets(self) -> int:
        """n', triplets that the teacher answers."""
        plan = self.config.plan
        if plan.triplets is not None:
            return plan.triplets
        return self.config.triplets.count if plan.size is None else plan.sizes[plan.size].triplets

    def triplets(self, name: str) -> int:
        """People's choices in a set."""
        world, path = self.config.world, Path(self.config.data.sets[name].path or "")
        if self.config.data.drawn(name) and world is not None:
            known = {"train": world.train_triplets, "val": world.val_triplets}
            return known.get(path.stem, world.test_triplets)
        if name in self.assumed:
            return self.assumed[name]
        raise MissingSize(f"triplets of {name}", f"++doctor.assume.{name}=NUMBER")

    def objects(self) -> int:
        """m, objects that people judged."""
        return (
            self.images(str(self.config.data.objects)) if not self._world_objects() else self._world_objects()
        )

    def _world_objects(self) -> int:
        if self.config.world is None or not self.config.data.drawn(str(self.config.data.objects)):
            return 0
        from alignet.pipeline.pool import world_images

        return world_images(self.config.world, "things")

    def _drawn(self, name: str) -> int:
        from alignet.pipeline.pool import world_images

        assert self.config.world is not None
        return world_images(self.config.world, Path(self.config.data.sets[name].path or "").name)

    def image_bytes(self, name: str) -> int:
        """Mean bytes of a file of an image set."""
        if name.startswith("stimuli."):
            return self.config.stimuli.settings.size**2  # of a grey PNG, about a byte a pixel
        if self.config.world is not None and self.config.data.drawn(name):
            return WORLD_BYTES * self.config.world.size**2
        return self.config.plan.image_bytes

    def width(self, model: str) -> int:
        """Features of a model: p of the teacher, q of the student."""
        settings = self.config.models[model]
        if settings.library == "features":
            names = sorted({rows.features for rows in settings.rows.values()})
            known = [self.assumed[name] for name in names if name in self.assumed]
            if not known:
                key = f"++doctor.assume.{names[0] if names else model}=NUMBER"
                raise MissingSize(f"features of the {model}", key)
            return known[0]
        if settings.library in ("pixels", "histogram"):
            return 3072 if settings.library == "pixels" else 512
        return self.network(model).width

    def network(self, model: str, frozen: bool = False) -> Network:
        """What an image costs a model. frozen: where what finetune.settings.frozen names does not train."""
        if (model, frozen) not in self._networks:
            names = self.config.finetune.settings.frozen if frozen else ()
            self._networks[model, frozen] = network_of(self.config.models[model], names)
        return self._networks[model, frozen]
