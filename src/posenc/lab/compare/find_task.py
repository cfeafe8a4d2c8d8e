"""Finds a task by name: one that ships with posenc, or a class in a user's file."""

import importlib
import pkgutil
from pathlib import Path

from posenc.lab.compare.task import Task
from posenc.lab.encodings.spec import class_in_file, classes_of


def names() -> tuple[str, ...]:
    """The names of the tasks that ship with posenc."""
    from posenc.lab.compare import tasks

    return tuple(sorted(module.name for module in pkgutil.iter_modules(tasks.__path__) if not module.ispkg))


def find(name: str) -> Task:
    """Return the task of a name such as ``images``, or of a class in a user's file such as ``mine.py:MyTask``.

    Raises:
        ValueError, TypeError: the name is unknown, the file fails on import, or the class is no task.
        FileNotFoundError: a file that does not exist.
    """
    file, of_a_file, own = name.partition(".py:")
    if of_a_file:
        path = Path(f"{file}.py")
        if not path.is_file():
            raise FileNotFoundError(f"--task: there is no file {path}; expected FILE.py:Class, such as mine.py:MyTask.")
        return class_in_file(path, own, Task)()  # type: ignore[type-abstract]
    if name not in names():
        raise ValueError(f"--task: got {name!r}, expected text, {', '.join(names())}, or FILE.py:Class.")
    module = importlib.import_module(f"posenc.lab.compare.tasks.{name}")
    (task,) = classes_of(module, Task).values()  # type: ignore[type-abstract]
    return task()
