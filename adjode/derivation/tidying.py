"""Small changes of a program that make it shorter."""

from __future__ import annotations

from adjode.derivation import nodes as N
from adjode.derivation import program as P


def tidied(block: P.Block) -> None:
    """Join branches with the same condition, and what sets an entry to zero with what adds to it."""
    block.statements[:] = _joined(block.statements)
    _set_once(block)
    block.statements[:] = [_by_entries(s) for s in block.statements]
    for statement in block.statements:
        for inside in statement.blocks:
            tidied(inside)


def _joined(statements: list[P.Statement]) -> list[P.Statement]:
    result: list[P.Statement] = []
    for statement in statements:
        last = result[-1] if result else None
        if isinstance(statement, P.If) and isinstance(last, P.If) and last.condition is statement.condition:
            if _independent(last, statement):
                last.then.statements += statement.then.statements
                last.other.statements += statement.other.statements
                last.results += statement.results
                continue
        result.append(statement)
    return result


def _independent(first: P.If, second: P.If) -> bool:
    """Whether nothing in the second needs what the first decides, but what is in the same branch."""
    decided = set(first.defines)
    nodes = [node for block in second.blocks for s in block.walk() for node in s.needs]
    nodes += second.needs
    return all(node.deps.isdisjoint(decided) for node in nodes)


def _set_once(block: P.Block) -> None:
    """`x[i] = 0.0` and `x[i] += y` are `x[i] = y`."""
    for zero in [s for s in block.statements if isinstance(s, P.Store) and s.late and not s.adds and N.is_zero(s.value)]:
        base = N.root(zero.array)
        for later in block.statements[block.statements.index(zero) + 1 :]:
            same = isinstance(later, P.Store) and later.array is zero.array and later.indices == zero.indices
            if same and later.adds and base not in later.value.deps:  # type: ignore[attr-defined]
                block.statements.remove(zero)
                later.adds = False  # type: ignore[attr-defined]
            if later.blocks or any(base in node.deps for node in later.uses):
                break


def _by_entries(statement: P.Statement) -> P.Statement:
    """`X += outer(a, b)` as loops, which make no array and compile quickly."""
    if not (isinstance(statement, P.Store) and statement.late and not statement.indices and statement.value.op == "outer"):
        return statement
    a, b = statement.value.args
    if any(x.op not in ("sym", *N.VIEWS) for x in (a, b)):
        return statement
    i, j = N.symbol("i"), N.symbol("i")
    store = P.Store(statement.array, (i, j), N.mul(N.load(a, (i,)), N.load(b, (j,))), statement.adds)
    inner = P.For(j, N.I0, b.shape[0], N.I1, P.Block([store]), [])
    outer = P.For(i, N.I0, a.shape[0], N.I1, P.Block([inner]), [])
    store.late = inner.late = outer.late = True
    return outer
