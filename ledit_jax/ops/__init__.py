"""Array operations that know nothing of modules: the causal scans and attention over them."""
