"""The text of a shell script in pieces: what is quoted, what is open, what ends a word or a command (bash 5.2).

Comments are left out, and of here-documents those between quotes. Command substitutions and backticks are `$(...)`,
whatever is in them, but for `$(which NAME)`, which is NAME; a process substitution is `<(...)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from estimator.errors import UsageError

_COMMENT = re.compile(r"#[^\n]*")
_HERE = re.compile(r"<<-?[ \t]*(?:\\?([\w.+-]+)|'([^'\n]+)'|\"([^\"\n]+)\")")
_PIECE = re.compile(
    r"""(?P<function>[ \t]*\([ \t]*\)) | (?P<space>(?:[ \t\r]|\\\r?\n|\\\Z)+)
    | (?P<redirection>(?:\d|&)?>{1,2}(?:&[\d-]|\|)?|<{1,3}(?=[ \t&]))
    | (?P<end>[\n;&|]+) | (?P<single>'[^']*') | (?P<double>"(?:\\.|[^"\\])*") | (?P<expression>\$\(+[^()]*\)+|`[^`]*`)
    | (?P<escaped>\\.) | (?P<list>[A-Za-z_]\w*\+?=\() | (?P<bracket>[()])
    | (?P<text>\$\{\w+(?:\[@\])?:?\+"[^"{}\n]*\{[^"{}\n]*\}"\}
        |(?:\$\{[^{}\n]*\}|<[^<>\n]*>|\$\w+|\$(?!\()|[^ \t\r\n;&|'"\\$()<>`])+|[$<>`])""",
    re.VERBOSE | re.DOTALL,
)
_OPENING = re.compile(r"[$<>]\(|\(\(")
_IN_CODE = re.compile(r"\\.|'[^']*'|(?<=[\s;(])#[^\n]*|[\"()]|`[^`]*`", re.DOTALL)
_IN_QUOTES = re.compile(r"\\.|\"|\$\(|`[^`]*`", re.DOTALL)
_CLOSING = {'"': '"', "(": ")", "$(": ")"}
_INSERTED = re.compile(r"\$\(|`(?:\\.|[^`\\])*`", re.DOTALL)
_WHERE = re.compile(r"\$\((?:which|command -v) ([\w.-]+)\)")  # where a program lies: the program, as a word
_MAX_ARITHMETIC = 1_000  # characters of `((...))`


def pieces(text: str, where: str) -> Iterator[tuple[str, str]]:
    """ "text", "quoted", "literal" (as it is), "space", "redirection", "list", "bracket", "function", "here" and "end".

    Raises UsageError where a quote is left open.
    """
    at, fresh, nested = 0, True, True
    here: re.Match[str] | None = None
    while at < len(text):
        if fresh and (comment := _COMMENT.match(text, at)) is not None:
            at = comment.end()
            continue
        opening = _OPENING.match(text, at) if nested and text[at] in "$<>(" else None
        if opening is not None and (opening[0] != "((" or fresh):
            arithmetic = opening[0] == "(("
            end = closing(text, opening.end() - 1 - arithmetic, at + _MAX_ARITHMETIC if arithmetic else len(text))
            nested = end > 0 or arithmetic
            if end > 0 and (not arithmetic or text.endswith("))", at, end)):
                program = _WHERE.fullmatch(text, at, end)
                said = text[at:end] if arithmetic else f"{opening[0]}...)"
                yield "literal", said if program is None else program[1]
                at, fresh = end, False
                continue
        if text[at] == "<" and (document := _HERE.match(text, at)) is not None:
            here, at, fresh = document, document.end(), False
            continue
        match = _PIECE.match(text, at)
        if match is None:
            line = text.count("\n", 0, at) + 1
            raise UsageError(f"a quote of line {line} is left open.", where=where, way_out="close the quote")
        kind, piece, end = str(match.lastgroup), match[0], match.end()
        if kind == "double" and nested and "$(" in piece:
            whole = closing(text, at, len(text))
            nested, end = whole > 0, max(whole, end) if whole > 0 else end
            piece = text[at:end]
        fresh = kind in ("space", "end")
        if here is not None and "\n" in piece and kind == "end":
            start = match.start() + piece.index("\n")
            over, end = _over(text, start, here[1] or here[2] or here[3])
            if here[1] and "\\" not in here[0]:
                yield "here", text[start + 1 : over].replace("\\\n", "")
            here = None
        at = end
        yield _as_piece(kind, piece)
    yield "end", "\n"


def closing(text: str, at: int, end: int) -> int:
    """Where what opens at `at`, a bracket or a double quote, is closed; -1 where it is not before `end`."""
    open_: list[str] = []
    while True:
        match = (_IN_QUOTES if open_ and open_[-1] == '"' else _IN_CODE).search(text, at, end)
        if match is None:
            return -1
        sign, at = match[0], match.end()
        if open_ and sign == open_[-1]:
            open_.pop()
            if not open_:
                return at
        elif sign in _CLOSING:
            open_.append(_CLOSING[sign])


def _over(text: str, start: int, here: str) -> tuple[int, int]:
    """Where the here-document that begins at `start` ends, and where the script goes on."""
    over = re.compile(rf"\n\t*{re.escape(here)}[ \t\r]*(?=\n|\Z)").search(text, start)
    return over.span() if over else (len(text), len(text))


def _as_piece(kind: str, piece: str) -> tuple[str, str]:
    if kind == "double":
        return "quoted", re.sub(r'\\([$`"\\])', r"\1", _without_commands(piece[1:-1]).replace("\\\n", ""))
    if kind in ("single", "escaped"):
        return "literal", piece[1:-1] if kind == "single" else piece[1:]
    return ("literal", "$(...)") if kind == "expression" else (kind, piece)


def _without_commands(text: str) -> str:
    """Quoted text with `$(...)` for what a command would say."""
    parts, at = [], 0
    while (match := _INSERTED.search(text, at)) is not None:
        end = closing(text, match.end() - 1, len(text)) if match[0] == "$(" else match.end()
        if end < 0:
            break
        parts += [text[at : match.start()], "$(...)"]
        at = end
    return "".join((*parts, text[at:]))
