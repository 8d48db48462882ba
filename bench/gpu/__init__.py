"""Benchmarks that need a CUDA device: `python -m bench.gpu`."""
