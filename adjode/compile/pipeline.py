"""Numba's compiler for kernels and callbacks: shorter, because they are only ever parts of an entry.

LLVM meets them first inside the entry that calls them. Optimising and emitting each by itself, and whatever it calls once more with
it, would take half of the time that an entry takes to compile.
"""

from __future__ import annotations

import gc
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite.binding import Linkage, create_new_function_pass_manager, parse_bitcode
from numba.core import codegen
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.environment import lookup_environment
from numba.core.registry import cpu_target
from numba.core.typed_passes import IRLegalization, NativeLowering, NoPythonBackend, NopythonTypeInference, PreLowerStripPhis
from numba.core.typing.npydecl import NumpyRulesArrayOperator
from numba.core.untyped_passes import (
    DeadBranchPrune,
    FixupArgs,
    GenericRewrites,
    IRProcessing,
    ReconstructSSA,
    RewriteSemanticConstants,
    TranslateByteCode,
)

_ORDERED = (
    *(operator.getitem, operator.setitem, bool, operator.add, operator.sub, operator.mul, operator.truediv),
    *(operator.iadd, operator.isub, operator.imul, operator.itruediv),
    *(operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
)
_MANY = 300  # variables of a function, from which LLVM takes long
PASS = "adjode.pass"  # what the kernel of a pass is called in its bitcode


@contextmanager
def undisturbed() -> Iterator[None]:
    """Compile without what takes a third of the time and finds nothing: garbage collections, and new looks at what Numba knows.

    Numba reads its registries anew for every intrinsic and operator that it does not find at once. Here it does so only if
    something has been registered since. And it asks whether an array is a string, a list or a dictionary before it asks whether it
    is an array, and whether numbers are arrays before it multiplies them; here it does so afterwards. Long functions are shortened
    for LLVM, see `_CombiningFirst`.
    """
    context = cpu_target.target_context
    with global_compiler_lock:
        if Pipeline.standard or "refresh" in vars(context):  # inside another
            yield
            return
        context.refresh()
        context.typing_context.refresh()
        known, collects = _registered(context), gc.isenabled()

        def refresh() -> None:
            nonlocal known
            if _registered(context) != known:
                type(context).refresh(context)
                known = _registered(context)

        context.refresh = refresh
        put_back = _frequent_first(context.typing_context)
        generator = context.codegen()
        generator._function_pass_manager = _combining_first(generator._function_pass_manager)
        gc.disable()
        try:
            yield
        finally:
            put_back()
            del context.refresh, generator._function_pass_manager
            if collects:
                gc.enable()


def _frequent_first(context: Any) -> Callable[[], None]:
    """Have operators tried for numbers first, then for arrays, and last what overloads them for other types; what puts it back."""
    before = [(kind, kind.templates) for kind in map(context._lookup_global, _ORDERED)]

    def put_back() -> None:
        for kind, templates in before:
            kind.templates = templates

    for kind, templates in before:
        kind.templates = tuple(sorted(templates, key=lambda one: (_is_overload(one), NumpyRulesArrayOperator in one.__mro__)))
    return put_back


def _is_overload(template: Any) -> bool:
    return hasattr(template, "_overload_func")


def _registered(context: Any) -> int:
    """How many declarations Numba has."""
    lowering = ((r.functions, r.getattrs, r.setattrs, r.casts, r.constants) for r in context._registries)
    typing = ((r.functions, r.attributes, r.globals) for r in context.typing_context._registries)
    return sum(len(kept) for registry in (*lowering, *typing) for kept in registry)


class _CombiningFirst:
    """LLVM's passes for a function; where it has many variables, behind one that does away with most of them.

    Numba puts an array into a variable of its own for each entry that is read or written. To dissolve them (SROA) takes a time that
    grows with the square of their number: minutes for a network of 500 reactions. What is loaded from where it has just been
    stored needs no variable: `instcombine` sees that in one round.
    """

    def __init__(self, passes: Any):
        self._passes = passes

    def run(self, function: Any, builder: Any) -> Any:
        if _variables(function) > _MANY:
            combining = create_new_function_pass_manager()
            combining.add_instruction_combine_pass()
            combining.run(function, builder)
        return self._passes.run(function, builder)


def _combining_first(made: Callable) -> Callable:
    def manager(**options: Any) -> tuple[_CombiningFirst, Any]:
        passes, builder = made(**options)
        return _CombiningFirst(passes), builder

    return manager


def _variables(function: Any) -> int:
    """How many an LLVM function has: all are made in its first block."""
    first = next(iter(function.blocks), None)
    return 0 if first is None else sum(one.opcode == "alloca" for one in first.instructions)


class _Library(codegen.JITCodeLibrary):
    """Code whose functions are not optimised one by one."""

    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self._codegen._data_layout


class _LinkedLibrary(_Library):
    """Code that is only linked into other code: neither optimised nor emitted by itself."""

    def finalize(self):  # what it calls is linked once, by the entry
        self._raise_if_finalized()
        self._finalized = True


class _LoweringInto(NativeLowering):
    """Lowering into a library of a given kind."""

    library: type[_Library]

    def run_pass(self, state):
        state.library = self.library(state.targetctx.codegen(), state.func_id.func_qualname)
        return super().run_pass(state)


class _CallbackLibrary(_LinkedLibrary):
    """A user's code, whose functions may be long: what is short is sooner optimised as a whole."""

    def _optimize_functions(self, ll_module):
        codegen.JITCodeLibrary._optimize_functions(self, ll_module)


@register_pass(mutates_CFG=True, analysis_only=False)
class _LinkedLowering(_LoweringInto):
    _name = "linked_lowering"
    library = _LinkedLibrary

    def run_pass(self, state):
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        stand_in = {}.update  # what Numba files the kernel under: a function in C, which refuses what Python might call it with
        state.targetctx.insert_user_function(stand_in, lowered.fndesc, [state.library])
        state["cr"] = lowered._replace(cfunc=stand_in)
        return True


def _reached(library: Any) -> list:
    """The libraries that an entry needs, those that its kernels need among them, each behind all that call it.

    LLVM links a function that may be defined more than once where something linked before has asked for it, and else leaves it out.
    """
    last_first: list = []

    def visit(one: Any) -> None:
        if one not in seen:
            seen.append(one)
            for needed in one._linking_libraries if isinstance(one, _LinkedLibrary) else []:
                visit(needed)
            last_first.append(one)

    seen: list = []
    for one in library._linking_libraries:
        visit(one)
    return last_first[::-1]


class _PassLibrary(_LinkedLibrary):
    """A kernel with all kernels that it calls, to be linked into the entries of the fused tier."""

    def bitcode(self, kernel: str, symbol: str) -> bytes:
        """The module, in which everything but `kernel`, now called `symbol`, is internal; all of it is to be inlined."""
        for library in _reached(self):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        for function in self._final_module.functions:
            if function.is_declaration:
                continue
            function.add_function_attribute("alwaysinline")
            if function.name == kernel:
                function.name = symbol
            else:
                function.linkage = Linkage.internal
        return self._final_module.as_bitcode()


class _EntryLibrary(_Library):
    """An entry with all its kernels: nothing but the entry itself is visible from outside, so that LLVM inlines as it sees fit."""

    def __init__(self, codegen, name):
        super().__init__(codegen, name)
        self.enable_object_caching()
        self._imported: set[str] = set()

    def link_pass(self, bitcode: bytes, names: dict[str, str]) -> None:
        """Link a pass in; `names` has the mangled names of the functions that it imports."""
        module = parse_bitcode(bitcode)
        for function in module.functions:
            function.name = names.get(function.name, function.name)
        self._final_module.link_in(module)
        self._imported |= set(names.values())

    def finalize(self):
        self._linking_libraries = _reached(self)
        super().finalize()

    def _optimize_final_module(self):
        for function in self._final_module.functions:
            if function.name in self._imported:
                function.add_function_attribute("alwaysinline")
            inner = function.linkage in (Linkage.linkonce_odr, Linkage.internal) or function.name == PASS
            counts = function.name.startswith("NRT_")  # whose calls Numba's pruning of reference counts finds by name
            if inner and not counts and not function.is_declaration:
                # LLVM may change how it is called, but its run-time linker still offers internal functions to other modules by name
                function.name = f"{function.name}.in.{self.name}"
                function.linkage = Linkage.internal
        if self._imported or any(isinstance(one, _CallbackLibrary) for one in self._linking_libraries):
            # a first round makes the stack's arrays registers, a second one unrolls the loops over them
            super()._optimize_final_module()
        else:
            passes, builder = self._codegen._module_pass_manager()
            passes.run(self._final_module, builder)


@register_pass(mutates_CFG=True, analysis_only=False)
class _EntryLowering(_LoweringInto):
    _name = "entry_lowering"
    library = _EntryLibrary

    def run_pass(self, state):
        super().run_pass(state)
        for one in state.library._final_module.global_variables:
            if (environment := lookup_environment(one.name)) is not None:  # of a callback that prints
                state.targetctx.codegen().set_env(one.name, environment)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _CallbackLowering(_LinkedLowering):
    _name = "callback_lowering"
    library = _CallbackLibrary


@register_pass(mutates_CFG=True, analysis_only=False)
class _PassLowering(_LinkedLowering):
    _name = "pass_lowering"
    library = _PassLibrary


class Pipeline(CompilerBase):
    """A pipeline of this module's, or Numba's own for nopython mode."""

    standard = False  # whether all are Numba's own, because these do not work with it

    def define_pipelines(self):
        if Pipeline.standard:
            return [DefaultPassBuilder.define_nopython_pipeline(self.state)]
        manager = PassManager(type(self).__name__)
        for one in self.passes():
            manager.add_pass(one, one.__name__)
        manager.finalize()
        return [manager]

    def passes(self) -> list[type]:
        raise NotImplementedError


class CallbackCompiler(Pipeline):
    """For callbacks, which may use all that Numba knows."""

    def passes(self):
        numbas = DefaultPassBuilder.define_nopython_pipeline(self.state).passes
        return [_CallbackLowering if one is NativeLowering else one for one, _ in numbas]


class KernelCompiler(Pipeline):
    """For kernels, which use neither closures nor array expressions nor exceptions: without the passes for those."""

    _PASSES = (
        TranslateByteCode,
        FixupArgs,
        IRProcessing,
        RewriteSemanticConstants,
        DeadBranchPrune,
        GenericRewrites,
        ReconstructSSA,
        DeadBranchPrune,
        NopythonTypeInference,
        PreLowerStripPhis,
        IRLegalization,
    )

    lowering: type[_LoweringInto] = _LinkedLowering

    def passes(self):
        return [*self._PASSES, self.lowering, NoPythonBackend]


class EntryCompiler(KernelCompiler):
    lowering = _EntryLowering


class PassCompiler(KernelCompiler):
    lowering = _PassLowering
