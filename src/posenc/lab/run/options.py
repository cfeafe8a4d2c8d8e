"""Options of the command line, each declared once, as a field of the job's dataclass.

A field whose type is ``Annotated[T, typer.Option(...)]`` or ``Annotated[T, typer.Argument(...)]`` is an option or an
argument of the verb. A field with a plain type can be set from Python only.
"""

import dataclasses
import inspect
import itertools
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo, OptionInfo

from posenc.lab.run.errors import Interrupted, number_of

NOT_TEXT = (".gguf", ".json", ".py")
WIDTH_OF_BOXES = 80
"""Minimum terminal columns for help in boxes; in narrower boxes, long words would be cut."""


def option(said: str, metavar: str, default: str | bool = True, *names: str, where: str = "", **more: Any) -> Any:
    """An option with a value: its help, the name of its value, and the default that the help shows, if any;
    ``where`` is the box in the help."""
    options: dict[str, Any] = {"metavar": metavar, "help": said, "show_default": default, **more}
    return typer.Option(*names, rich_help_panel=where or None, **options)


def _filled(text: str | None) -> str | None:
    """Join each paragraph of the help into one line, which the terminal breaks; indented lines are kept."""
    first, *more = (part if "\n " in part else part.replace("\n", " ") for part in (text or "").split("\n\n"))
    # Typer dedents all after the first paragraph by the lines after its first one: an empty first line keeps examples
    # indented where they are all that follows.
    return "\n\n".join((first, "", *more) if more else (first,)) or None


class _Explained:
    """Help without boxes in a narrow terminal, so that nothing is cut."""

    rich_markup_mode: Any
    help: str | None

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters; the help shows no type for a flag or an argument."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if parameter.param_type_name == "argument" or getattr(parameter, "is_flag", False):
                parameter.display_type_rich = lambda ctx: None
        return parameters

    def format_help(self, ctx: Any, formatter: Any) -> None:
        if shutil.get_terminal_size().columns >= WIDTH_OF_BOXES:
            super().format_help(ctx, formatter)  # type: ignore[misc]
            return
        before = self.rich_markup_mode, self.help
        self.rich_markup_mode = None
        self.help = re.sub(r"\n\n+(Examples?:)", "\n\n\b\n\\1", self.help or "")  # \b keeps line breaks
        try:
            super().format_help(ctx, formatter)  # type: ignore[misc]
        finally:
            self.rich_markup_mode, self.help = before
        formatter.buffer = [re.sub(r"\[(?:bold|/)\]", "", "".join(formatter.buffer))]


class Verbs(_Explained, TyperGroup):
    """The command group, used without a verb."""


class Verb(_Explained, TyperCommand):
    """A verb that accepts several files after one ``--text``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.help = _filled(self.help)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Interrupted("stopped.", number_of(stop)) from None

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first sentence, whole: the list of verbs in a narrow terminal breaks it into lines."""
        return (self.help or "").partition("\n\n")[0]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _refuse_empty(self.name or "", args)
        return super().parse_args(ctx, list(_with_every_text(args)))


def _refuse_empty(verb: str, args: list[str]) -> None:
    """Refuse ``--out ""``, which an unset variable of the shell makes: as a path it would be the present folder.

    Raises:
        ValueError: as said.
    """
    for before, word in itertools.pairwise(("", *args)):
        option = before if word == "" else word.removesuffix("=") if word.endswith("=") else ""
        if option.startswith("--") and "=" not in option:
            raise ValueError(
                f"{verb}: got an empty word after {option}, expected a value; perhaps a shell variable is not set."
            )


def _with_every_text(args: list[str]) -> Iterator[str]:
    """Expand ``--text a.txt b.txt`` to ``--text a.txt --text b.txt``: a further word is a text if it is a file, not a
    model or a program."""
    after_text = False
    for at, word in enumerate(args):
        if after_text and args[at - 1] != "--text":
            path = Path(word)
            after_text = not word.startswith("-") and path.suffix not in NOT_TEXT and path.is_file()
            if after_text:
                yield "--text"
        after_text = after_text or word == "--text"
        yield word


def options_of(cls: type[Any]) -> dict[str, tuple[Any, ArgumentInfo | OptionInfo]]:
    """For each field of a dataclass that is an option: its type for Typer, and its declaration."""
    hints = get_type_hints(cls, include_extras=True)
    annotated = {f.name: hints[f.name] for f in dataclasses.fields(cls) if get_origin(hints[f.name]) is Annotated}
    return {name: (hint, get_args(hint)[1]) for name, hint in annotated.items()}


def takes(**classes: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a verb with the options of these dataclasses, which it receives as arguments with these names.

    It also receives ``given``, the names of the options on the command line, and the options that it
    declares itself.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        fields = {name: {f.name: f for f in dataclasses.fields(cls)} for name, cls in classes.items()}
        parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
        for name, cls in classes.items():
            for option, (hint, _) in options_of(cls).items():
                default = fields[name][option].default
                default = None if default is dataclasses.MISSING else default
                kind = inspect.Parameter.KEYWORD_ONLY
                parameters.append(inspect.Parameter(option, kind, default=default, annotation=hint))
        own = inspect.signature(verb, eval_str=True).parameters.values()
        parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own if p.name not in {*classes, "given"}]

        def run(ctx: Any, **values: Any) -> None:
            sources = {name: getattr(ctx.get_parameter_source(name), "name", "") for name in values}
            made = {}
            for name, cls in classes.items():
                chosen = {option: values.pop(option) for option in options_of(cls)}
                chosen = {option: value for option, value in chosen.items() if value is not None}
                made[name] = cls(**chosen)
            given = frozenset(name for name, source in sources.items() if source == "COMMANDLINE")
            verb(**made, **values, given=given)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__name__, run.__doc__, run.__module__ = verb.__name__, verb.__doc__, verb.__module__
        return run

    return decorate


def words_of(chosen: Any) -> list[str]:
    """The words of a command line for a dataclass; fields with their default values are left out."""
    arguments, options = [], []
    for name, (_, info) in options_of(type(chosen)).items():
        field = next(f for f in dataclasses.fields(chosen) if f.name == name)
        value = getattr(chosen, name)
        made = field.default_factory
        default: Any = field.default if made is dataclasses.MISSING else made()
        several = isinstance(value, (list, tuple))
        if value is None or (list(value) == list(default) if several else value == default):
            continue
        values = [str(one) for one in value] if several else [str(value)]
        if isinstance(info, ArgumentInfo):
            arguments += values
            continue
        declared = [info.default] if isinstance(info.default, str) else []
        option = [*declared, *(info.param_decls or ()), f"--{name.replace('_', '-')}"][0]
        if isinstance(value, bool):
            options.append(option.split("/")[0 if value else 1])
        else:
            options += [word for one in values for word in (option, one)]
    return [*arguments, *options]


def command_of(verb: str, *chosen: Any) -> str:
    """The command that gives the same dataclass."""
    return shlex.join(["posenc", verb, *(word for one in chosen for word in words_of(one))])
