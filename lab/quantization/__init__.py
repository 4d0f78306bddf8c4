"""Papers on quantization, and the bench that they share: what happens to weights, outputs and abilities below 4 bits."""
