"""The engine on a GPU: the step of `alignet.vice.engine`, recorded once as a CUDA graph and then replayed.

A step is some sixty short operations on the embedding, and starting each from Python takes longer than the operation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alignet.vice.engine import Engine


class GraphedEngine(Engine):
    """An `Engine` of CUDA tensors. The first step of each batch size is taken as it is, the second recorded."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._noise = torch.empty_like(self.loc)
        # by batch size: None once a step of it was taken, then what is replayed and the batch it reads
        self._recorded: dict[int, tuple[torch.cuda.CUDAGraph, Tensor] | None] = {}

    def _take(self, batch: Tensor, noise: Tensor) -> None:
        size = len(batch)
        if size not in self._recorded:
            self._recorded[size] = None  # cuBLAS and the allocator prepare themselves outside a graph
            super()._take(batch, noise)
            return
        held = self._recorded[size]
        if held is None:
            graph, place = torch.cuda.CUDAGraph(), batch.clone()
            with torch.cuda.graph(graph):
                super()._take(place, self._noise)
            held = self._recorded[size] = (graph, place)
        graph, place = held
        place.copy_(batch)
        self._noise.copy_(noise)
        graph.replay()
