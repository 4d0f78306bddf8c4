"""The room's pictures: pure functions from a Result to a plotly figure."""

from __future__ import annotations

from lab.quantization.figures import layer_bill, layer_columns, layer_histogram, layer_maps, layer_peers

__all__ = ["layer_bill", "layer_columns", "layer_histogram", "layer_maps", "layer_peers"]
