"""Reference problems and the asv benchmarks that time them."""
