"""Speed and memory against straightforward peers: `make bench`. Timings are benchmarks, never tests."""
