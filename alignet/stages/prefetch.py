"""List the pretrained weights that the configuration takes from a hub, and download them when told to.

reads   the configuration; the cache of the Hugging Face hub (HF_HOME), which timm, open_clip and transformers share
writes  nothing, unless runtime.download=true: then the files that are missing, into that cache
cost    the download. Afterwards every stage runs without network, with HF_HUB_OFFLINE=1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignet.config import Config, ModelSettings
from alignet.pipeline.cli import main

if TYPE_CHECKING:
    from alignet.backbones.hub import Remote, Wanted


def act(config: Config) -> None:
    """Print what there is and what is missing; download only with runtime.download=true."""
    from alignet.backbones import hub

    models = {name: model for name, model in config.models.items() if model.weights == "hub"}
    if not models:
        print("no model of this configuration takes its weights from a hub; nothing to download")
        return
    missing: list[Remote] = []
    unsure: list[str] = []
    repositories: list[Wanted] = []
    for name, model in models.items():
        for one in hub.wanted(model.library, model.architecture, getattr(model, "tag", "")):
            repositories.append(one)
            lacks, unknown = _print(name, model, one, config.runtime.download)
            missing, unsure = missing + lacks, unsure + unknown
    if unsure and not missing:
        print(
            f"the weights are here; whether {', '.join(unsure)} exist is not known without network: run prefetch "
            f"with network and runtime.download=true once"
        )
        return
    if not missing:
        print("everything is here: the stages run without network, with HF_HUB_OFFLINE=1")
        return
    if not config.runtime.download:
        print(
            f"{len(missing)} files missing, {hub.total(missing)}; to download them, add runtime.download=true"
        )
        return
    for remote in missing:
        path, digest = hub.fetch(remote)
        print(f"downloaded {remote.wanted.repo}/{remote.name}  sha256 {digest}  {path}", flush=True)
    for one in repositories:
        left = hub.cached(one).missing
        if left:
            raise ValueError(
                f"{one.repo}: expected everything to be here now, found no {', '.join(left)}; the repository has "
                f"changed meanwhile or is incomplete: prefetch again."
            )
    print("everything is here now: the stages run without network, with HF_HUB_OFFLINE=1")


def _print(name: str, model: ModelSettings, one: Wanted, download: bool) -> tuple[list[Remote], list[str]]:
    """One line for each file of a repository. Returns those that are missing, and names that only the hub could judge.

    The hub is asked only where the cache does not know everything.
    """
    from alignet.backbones import hub

    print(f"{name}: {model.name}, {model.library} {model.architecture}; licence: {model.licence}")
    cached = hub.cached(one)
    remotes: list[Remote] = []
    unsure: list[str] = []
    if cached.missing or cached.unknown:
        try:
            remotes = hub.listed(one)
        except ValueError:
            if cached.missing:
                if cached.paths:
                    print(f"  not here {one.repo}: {', '.join(cached.missing)}", flush=True)
                raise
            unsure = [f"{one.repo}/{missing}" for missing in cached.unknown]
        else:
            if download:
                listed = {remote.name for remote in remotes}
                hub.remember_absent(one, [absent for absent in cached.unknown if absent not in listed])
    # files of an older state of the repository are none of the present one
    here = {path.name for path in cached.paths if not remotes or path.parent.name == remotes[0].commit}
    for path in cached.paths:
        if path.name in here:
            print(f"  here     {one.repo}/{path.name}  {path.stat().st_size / 1e6:,.1f} MB  {path}")
    missing = [remote for remote in remotes if remote.name not in here]
    for remote in missing:
        size = "size unknown" if remote.size is None else f"{remote.size / 1e6:,.1f} MB"
        print(f"  missing  {one.repo}/{remote.name}  {size}  sha256 {remote.sha256 or 'not listed'}")
    for unknown in unsure:
        print(f"  unknown  {unknown}")
    return missing, unsure


if __name__ == "__main__":
    main("prefetch", __doc__ or "", act)
