"""Tasks by their names: those that ship, and classes in a user's file."""

import hashlib
import importlib
import inspect
import pkgutil
from pathlib import Path

from posenc.lab.compare.task import Task
from posenc.lab.encodings.spec import import_file


def names() -> tuple[str, ...]:
    """The tasks that ship."""
    from posenc.lab.compare import tasks

    return tuple(sorted(module.name for module in pkgutil.iter_modules(tasks.__path__) if not module.ispkg))


def find(name: str) -> Task:
    """The task of a name, or of a class in a user's file: ``images``, ``mine.py:MyTask``.

    Raises:
        ValueError: an unknown name, a file that does not run, a class that is no task.
        FileNotFoundError: a file that does not exist.
    """
    if ".py:" not in name:
        if name not in names():
            raise ValueError(f"--task: got {name!r}, expected text, {', '.join(names())}, or FILE.py:Class.")
        module = importlib.import_module(f"posenc.lab.compare.tasks.{name}")
        found = [
            value
            for value in vars(module).values()
            if inspect.isclass(value) and issubclass(value, Task) and value.__module__ == module.__name__
        ]
        task: Task = found[0]()
        return task
    file, _, cls = name.partition(".py:")
    path = Path(f"{file}.py")
    if not path.is_file():
        raise FileNotFoundError(f"--task: there is no file {path}; expected FILE.py:Class, such as mine.py:MyTask.")
    value = getattr(import_file(path), cls, None)
    if not (inspect.isclass(value) and issubclass(value, Task)):
        raise ValueError(f"--task: got {name!r}, expected a class that inherits from posenc.lab.compare.task.Task.")
    own: Task = value()
    return own


def digest(name: str) -> str | None:
    """SHA-256 of a user's file, by which a resumed run sees that it is still the same."""
    if ".py:" not in name:
        return None
    return hashlib.sha256(Path(name.rpartition(":")[0]).read_bytes()).hexdigest()
