"""`np.einsum` with constant subscripts, as loops."""

from __future__ import annotations

import linecache
from typing import Any

from adjode.derivation import nodes as N
from adjode.derivation.objects import Object
from adjode.derivation.refusals import Refusal


def einsum(reader: Any, function: Object, subscripts: Any, *operands: Any) -> Any:
    text = getattr(subscripts, "value", None)
    if not isinstance(text, str):
        raise Refusal(f"`{function.text}` is called without a string of subscripts", "write it as np.einsum('ij,j->i', A, x)")
    inputs, output = _read(text, len(operands))
    arrays = [reader.session.addressable(reader, reader.whole(reader.number_or_array(one))) for one in operands]
    if any(len(array.shape) != len(letters) for array, letters in zip(arrays, inputs, strict=True)):
        raise Refusal(f"the subscripts {text!r} do not fit the arrays", "give one letter for each axis")
    product = _as_product(reader, inputs, output, arrays)
    return reader.session.inlined(_loops(inputs, output), arrays, {}) if product is None else reader.seen(product)


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
