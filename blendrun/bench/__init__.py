"""Benchmarks: what orders take on workloads that are made for it, or on the user's own."""
