"""The ``posenc`` command: which encoding should I use, and how did one idea lead to the next, answered by measurement.

Nothing is imported here. ``__main__`` is the one door, ``cli`` declares the verbs, ``compare`` is the main job.
"""
