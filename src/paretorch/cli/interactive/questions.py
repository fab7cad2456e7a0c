"""Questions on a console, with a default and a check of every answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from paretorch.cli.console import print_line
from paretorch.extras import extra

with extra("studies"):
    from rich.console import Console
    from rich.markup import escape

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """One of several options of a question.

    Args:
        name: name of the option.
        about: one line about it.
        note: a second line, if any.
        unavailable: why it cannot be chosen; empty if it can.
    """

    name: str
    about: str
    note: str = ""
    unavailable: str = ""


@dataclass(frozen=True)
class Questions:
    """Questions on a console.

    Args:
        console: console of the questions; answers are lines of the standard input.
        silent: every answer is the default, without a question.
    """

    console: Console
    silent: bool = False

    def ask(self, question: str, default: str, parse: Callable[[str], T], given: str | None = None) -> T:
        """Asks until an answer can be parsed, and returns the parsed answer.

        Args:
            question: the text of the question.
            default: the answer if the line is empty.
            parse: converts an answer, or raises ValueError with a message, which is printed before the next attempt.
            given: an answer from the command line: there is no question, and errors of ``parse`` are raised.

        Raises:
            ValueError: ``given`` cannot be parsed.
            EOFError: the input has ended.
        """
        if given is not None or self.silent:
            return parse(default if given is None else given)
        while True:
            if sys.stdin is None:  # it was closed before the command began
                raise EOFError
            answer = self.console.input(f"[bold]{escape(question)}[/bold] \\[{escape(default)}] ").strip()
            try:
                return parse(answer or default)
            except ValueError as error:
                print_line(self.console, f"  {error}")

    def choose(self, title: str, options: Sequence[Option], default: int, given: str | None = None) -> Option:
        """Asks for one of ``options``, by number from 1 or by name; ``default`` is a number. See :meth:`ask`."""
        if given is None and not self.silent:
            self.show(title, options)
        return self.ask(title, str(default), lambda answer: find_option(title, options, answer), given)

    def show(self, title: str, options: Sequence[Option]) -> None:
        """Prints the numbered options."""
        self.console.print(f"\n[bold]{escape(title)}[/bold]")
        for number, option in enumerate(options, start=1):
            line = f"  {number}  [bold]{escape(option.name)}[/bold]  {escape(option.about)}"
            self.console.print(line, highlight=False, soft_wrap=True)
            if option.note:
                print_line(self.console, f"       {option.note}", style="dim")


def find_option(title: str, options: Sequence[Option], answer: str) -> Option:
    """The option with a number or a name, in upper or lower case.

    Raises:
        ValueError: there is no such option, or it is unavailable.

    Example:
        >>> find_option("data", [Option("scenes", "drawn"), Option("folders", "yours")], "2").name
        'folders'
    """
    for number, option in enumerate(options, start=1):
        if answer.strip().lower() in (str(number), option.name.lower()):
            if option.unavailable:
                raise ValueError(option.unavailable)
            return option
    known = ", ".join(f"{number} {option.name}" for number, option in enumerate(options, start=1))
    raise ValueError(f"{title}: expected a number or a name of {known}; got {answer!r}")


def integer(name: str, low: int, reason: str = "", high: int | None = None) -> Callable[[str], int]:
    """A parser of integers in a range; ``reason`` explains the lower end.

    Example:
        >>> integer("epochs", 1)("12")
        12
    """

    def parse(answer: str) -> int:
        try:
            value = int(answer)
        except ValueError:
            raise ValueError(f"{name} is a whole number, got {answer!r}") from None
        if value < low:
            raise ValueError(f"{name} is at least {low}{reason and f', {reason}'}; got {value}")
        if high is not None and value > high:
            raise ValueError(f"{name} is at most {high:,}, the number of training images; got {value}")
        return value

    return parse
