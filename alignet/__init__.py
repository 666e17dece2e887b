"""alignet: align the similarity structure of vision models with people's (AligNet in PyTorch).

alignet.load, alignet.embed, alignet.odd_one_out, alignet.load_map stand in api.py. Each package is a room of its own,
and imports point one way between them (the order is in test_imports.py). Open first: api.py.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.api import Embedding, FeatureMap, Model, OddOneOut, embed, load, load_map, odd_one_out

__all__ = ["Embedding", "FeatureMap", "Model", "OddOneOut", "embed", "load", "load_map", "odd_one_out"]


def __getattr__(name: str) -> Any:
    # torch comes with the first use, so that command lines answer --help at once
    if name in __all__:
        from alignet import api

        return getattr(api, name)
    raise AttributeError(f"module 'alignet' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
