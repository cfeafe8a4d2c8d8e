"""The rotation against its peers: ``python -m benchmarks.run``, or ``posenc bench`` in a checkout."""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler, which counts the memory, talks on stderr
