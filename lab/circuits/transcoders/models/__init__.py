"""Models: which language models circuits are read in, their texts, and the coders that the lab ships for them."""
