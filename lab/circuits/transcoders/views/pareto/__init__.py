"""View: sparsity against faithfulness."""
