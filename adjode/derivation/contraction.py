"""`np.einsum` with constant subscripts, as loops."""

from __future__ import annotations

import linecache
import string
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation.calls import into_out
from adjode.derivation.objects import Object
from adjode.derivation.refusals import Refusal


def einsum(reader: Any, function: Object, subscripts: Any, *operands: Any, out: Any = None, optimize: Any = None) -> Any:
    text = getattr(subscripts, "value", None)
    if not isinstance(text, str):
        raise Refusal(f"`{function.text}` is called without a string of subscripts", "write it as np.einsum('ij,j->i', A, x)")
    arrays = [reader.session.addressable(reader, reader.whole(reader.number_or_array(one))) for one in operands]
    inputs, output = _read(_spelled_out(text, [len(array.shape) for array in arrays]), len(operands))
    if any(len(array.shape) != len(letters) for array, letters in zip(arrays, inputs, strict=True)):
        raise Refusal(f"the subscripts {text!r} do not fit the arrays", "give one letter for each axis")
    _require_one_length(inputs, arrays)
    product = _as_product(reader, inputs, output, arrays)
    result = reader.session.inlined(_loops(inputs, output), arrays, {}) if product is None else reader.seen(product)
    return into_out(reader, result, out)


def _require_one_length(inputs: list[str], arrays: list[Any]) -> None:
    """Refuse axes of length 1 that stand for longer ones, as far as lengths are known: the loops would leave them."""
    lengths: dict[str, int] = {}
    axes = [N.value_of(length) for array in arrays for length in array.shape]
    for letter, length in zip("".join(inputs), axes, strict=True):
        if length is not None and lengths.setdefault(letter, length) != length:
            what = f"axes of `np.einsum` that have one letter have the lengths {lengths[letter]} and {length}"
            raise Refusal(what, "give arrays that fit, or leave the letter of an axis of length 1 out")


def _spelled_out(text: str, ranks: list[int]) -> str:
    """The subscripts with letters in place of `...`, the same from the right in all operands."""
    left, arrow, output = text.replace(" ", "").partition("->")
    inputs = left.split(",")
    if "..." not in left or len(inputs) != len(ranks):
        return text
    counts = [rank - len(one.replace("...", "")) if "..." in one else 0 for one, rank in zip(inputs, ranks, strict=True)]
    free = [letter for letter in string.ascii_uppercase if letter not in text][: max(counts)]
    letters = ["".join(free[len(free) - count :]) for count in counts]
    spelled = ",".join(one.replace("...", more) for one, more in zip(inputs, letters, strict=True))
    if not arrow:  # what is left out comes first, then in alphabetical order those that are there once
        named = left.replace("...", "").replace(",", "")
        output = "..." + "".join(letter for letter in sorted(set(named)) if named.count(letter) == 1)
    return f"{spelled}->{output.replace('...', ''.join(free))}"


def _read(text: str, count: int) -> tuple[list[str], str]:
    """The letters of each operand, and of the result."""
    text = text.replace(" ", "")
    left, arrow, output = text.partition("->")
    inputs = left.split(",")
    letters = left.replace(",", "")
    if not arrow:  # in alphabetical order those that are there once
        output = "".join(letter for letter in sorted(set(letters)) if letters.count(letter) == 1)
    fits = len(inputs) == count and (letters + output).isalpha() and set(output) <= set(letters)
    if not fits or len(set(output)) < len(output):
        raise Refusal(f"the subscripts {text!r} of `np.einsum` are not known", "write one letter for each axis, or a loop")
    return inputs, output


def _as_product(reader: Any, inputs: list[str], output: str, arrays: list) -> Any:
    """A product of two matrices, or of a matrix and a vector, as `np.dot`; None where it is something else."""
    if len(inputs) != 2 or any(len(set(one)) < len(one) or len(one) > 2 for one in inputs):
        return None
    common = set(inputs[0]) & set(inputs[1])
    if len(common) != 1 or common & set(output) or len(output) != sum(map(len, inputs)) - 2:
        return None
    (letter,) = common
    a, b = map(reader.session.floats, arrays)
    a = a if inputs[0].endswith(letter) else N.transpose(a)
    b = b if inputs[1].startswith(letter) else N.transpose(b)
    product = N.dot(a, b)
    return product if output == (inputs[0] + inputs[1]).replace(letter, "") else N.transpose(product)


def _loops(inputs: list[str], output: str) -> Any:
    """A function of the operands that loops over all letters, those that are summed over inside."""
    summed = [letter for letter in dict.fromkeys("".join(inputs)) if letter not in output]
    lengths = {letter: f"x{k}.shape[{axis}]" for k, one in enumerate(inputs) for axis, letter in enumerate(one)}
    term = " * ".join(f"x{k}[{', '.join(one)}]" for k, one in enumerate(inputs))
    lines = [f"def contracted({', '.join(f'x{k}' for k in range(len(inputs)))}):"]
    if output:
        lines.append(f"    y = np.empty(({', '.join(lengths[letter] for letter in output)},))")
    depth = 1
    for letter in output:
        lines.append("    " * depth + f"for {letter} in range({lengths[letter]}):")
        depth += 1
    lines.append("    " * depth + "total = 0.0")
    inner = depth
    for letter in summed:
        lines.append("    " * inner + f"for {letter} in range({lengths[letter]}):")
        inner += 1
    lines.append("    " * inner + f"total += {term}")
    lines.append("    " * depth + f"y[{', '.join(output)}] = total" if output else "    return total")
    if output:
        lines.append("    return y")
    return _made("\n".join(lines) + "\n")


def _made(text: str) -> Any:
    import numpy as np

    file = f"<einsum: {text}>"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    space: dict[str, Any] = {"np": np}
    exec(compile(text, file, "exec"), space)
    return space["contracted"]
