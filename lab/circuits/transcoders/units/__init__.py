"""Units: what a feature or a neuron does over texts, and what its weights alone say of it."""
