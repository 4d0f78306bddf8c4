"""Papers on quantization, and the pipeline that they share: what happens to weights, outputs and abilities below 4 bits."""
