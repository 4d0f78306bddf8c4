"""SP2OT: progressive partial optimal transport with semantic regularisation, for imbalanced clustering (arXiv 2404.03446)."""
