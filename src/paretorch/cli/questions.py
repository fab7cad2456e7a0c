"""Questions on a console: a default by Enter, wrong input explained and asked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from paretorch.extras import extra

with extra("studies"):
    from rich.console import Console
    from rich.markup import escape

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """One of several things to choose from.

    Args:
        name: what is chosen.
        about: a line about it.
        note: a second line; empty where there is none.
        missing: why it cannot be taken here; empty where it can.
    """

    name: str
    about: str
    note: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Questions:
    """Asks on a console.

    Args:
        console: where questions are printed; answers come from the standard input.
        silent: take every default without asking.
    """

    console: Console
    silent: bool = False

    def ask(self, question: str, default: str, read: Callable[[str], T], given: str | None = None) -> T:
        """What ``read`` makes of the answer.

        Args:
            question: a few words.
            default: the answer by Enter.
            read: turns the answer into a value, or raises ValueError with a sentence, which is shown before asking again.
            given: the answer, where a flag has given it: nothing is asked, and a wrong one raises.

        Raises:
            ValueError: a flag's answer is wrong.
            EOFError: the input has ended.
        """
        if given is not None or self.silent:
            return read(default if given is None else given)
        while True:
            answer = self.console.input(f"[bold]{escape(question)}[/bold] \\[{escape(default)}] ").strip()
            try:
                return read(answer or default)
            except ValueError as error:
                self.console.print(f"  {escape(str(error))}", highlight=False, soft_wrap=True)

    def choose(self, title: str, options: Sequence[Option], default: int, given: str | None = None) -> Option:
        """One of ``options``, by number from 1 or by name; ``default`` is a number. See :meth:`ask`."""
        if given is None and not self.silent:
            self.show(title, options)
        return self.ask(title, str(default), lambda answer: one_of(title, options, answer), given)

    def show(self, title: str, options: Sequence[Option]) -> None:
        """The list, numbered."""
        self.console.print(f"\n[bold]{escape(title)}[/bold]")
        for number, option in enumerate(options, start=1):
            self.console.print(
                f"  {number}  [bold]{escape(option.name)}[/bold]  {escape(option.about)}",
                highlight=False,
                soft_wrap=True,
            )
            if option.note:
                self.console.print(f"       {escape(option.note)}", style="dim", highlight=False, soft_wrap=True)


def one_of(title: str, options: Sequence[Option], answer: str) -> Option:
    """The option of a number or a name, in any case.

    Raises:
        ValueError: there is none, or it cannot be taken.

    Example:
        >>> one_of("data", [Option("scenes", "drawn"), Option("folders", "yours")], "2").name
        'folders'
    """
    for number, option in enumerate(options, start=1):
        if answer.strip().lower() in (str(number), option.name.lower()):
            if option.missing:
                raise ValueError(option.missing)
            return option
    known = ", ".join(f"{number} {option.name}" for number, option in enumerate(options, start=1))
    raise ValueError(f"{title}: expected a number or a name of {known}; got {answer!r}")


def whole(name: str, least: int, reason: str = "", most: int | None = None) -> Callable[[str], int]:
    """What reads a whole number in a range; ``reason`` says why it is at least so much.

    Example:
        >>> whole("epochs", 1)("12")
        12
    """

    def read(answer: str) -> int:
        try:
            value = int(answer)
        except ValueError:
            raise ValueError(f"{name} is a whole number, got {answer!r}") from None
        if value < least:
            raise ValueError(f"{name} is at least {least}{reason and f', {reason}'}; got {value}")
        if most is not None and value > most:
            raise ValueError(f"{name} is at most {most:,}, as many as there are training images; got {value}")
        return value

    return read
