"""What the experiments run on: real data that needs no network, and generated data with a known truth."""
