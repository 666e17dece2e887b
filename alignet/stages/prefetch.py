"""List the pretrained weights that the configuration takes from a hub, and download them when told to.

reads   the configuration; the cache of the Hugging Face hub (HF_HOME), which timm, open_clip and transformers share
writes  nothing, unless runtime.download=true: then the files that are missing, into that cache
cost    the download. Afterwards every stage runs without network, with HF_HUB_OFFLINE=1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignet.cli import main
from alignet.config import Config, ModelSettings

if TYPE_CHECKING:
    from alignet.hub import Remote, Wanted


def act(config: Config) -> None:
    """Print what there is and what is missing; download only with runtime.download=true."""
    from alignet import hub

    models = {name: model for name, model in config.models.items() if model.weights == "hub"}
    if not models:
        print("no model of this configuration takes its weights from a hub; nothing to download")
        return
    missing: list[Remote] = []
    for name, model in models.items():
        for one in hub.wanted(model.library, model.architecture, getattr(model, "tag", "")):
            missing += _print(name, model, one)
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
    print("everything is here now: the stages run without network, with HF_HUB_OFFLINE=1")


def _print(name: str, model: ModelSettings, one: Wanted) -> list[Remote]:
    """One line for each file of a repository; returns those that are missing."""
    from alignet import hub

    print(f"{name}: {model.name}, {model.library} {model.architecture}; licence: {model.licence}")
    here = hub.present(one)
    if here is not None:
        for path in here:
            print(f"  here     {one.repo}/{path.name}  {path.stat().st_size / 1e6:,.1f} MB  {path}")
        return []
    remotes = hub.listed(one)
    for remote in remotes:
        size = "size unknown" if remote.size is None else f"{remote.size / 1e6:,.1f} MB"
        print(f"  missing  {one.repo}/{remote.name}  {size}  sha256 {remote.sha256 or 'not listed'}")
    return remotes


if __name__ == "__main__":
    main("prefetch", __doc__ or "", act)
