"""The rotation against its peers: ``python -m benchmarks.run``, or ``posenc bench`` in a checkout."""
