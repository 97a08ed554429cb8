"""Batchscope against its peers, on the same work: ``make bench``; the method stands in docs/benchmarks.md."""
