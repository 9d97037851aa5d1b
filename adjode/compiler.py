"""Numba's compiler for kernels: shorter, because a kernel is only ever a part of an entry.

LLVM meets a kernel first inside the entry that calls it. Optimising and emitting every kernel by itself, and whatever it calls once
more with it, would take half of the time that an entry takes to compile.
"""

from __future__ import annotations

from llvmlite.binding import Linkage
from numba.core import codegen
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.typed_passes import IRLegalization, NativeLowering, NoPythonBackend, NopythonTypeInference, PreLowerStripPhis
from numba.core.untyped_passes import (
    DeadBranchPrune,
    FixupArgs,
    GenericRewrites,
    IRProcessing,
    ReconstructSSA,
    RewriteSemanticConstants,
    TranslateByteCode,
)


class _Library(codegen.JITCodeLibrary):
    """Code whose functions are not optimised one by one."""

    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self._codegen._data_layout


class _LinkedLibrary(_Library):
    """Code that is only linked into other code: neither optimised nor emitted by itself."""

    def finalize(self):  # what it calls is linked once, by the entry
        self._raise_if_finalized()
        self._finalized = True


class _KernelLibrary(_LinkedLibrary):
    pass


class _LoweringInto(NativeLowering):
    """Lowering into a library of a given kind."""

    library: type[_Library]

    def run_pass(self, state):
        state.library = self.library(state.targetctx.codegen(), state.func_id.func_qualname)
        return super().run_pass(state)


@register_pass(mutates_CFG=True, analysis_only=False)
class _LinkedLowering(_LoweringInto):
    _name = "linked_lowering"
    library = _LinkedLibrary

    def run_pass(self, state):
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        stand_in = object().__sizeof__  # never called: what Numba files the kernel under
        state.targetctx.insert_user_function(stand_in, lowered.fndesc, [state.library])
        state["cr"] = lowered._replace(cfunc=stand_in)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _KernelLowering(_LinkedLowering):
    _name = "kernel_lowering"
    library = _KernelLibrary


class _EntryLibrary(_Library):
    """An entry with all its kernels: nothing but the entry itself is visible from outside, so that LLVM inlines as it sees fit."""

    inline_kernels = False

    def __init__(self, codegen, name):
        super().__init__(codegen, name)
        self.enable_object_caching()

    def finalize(self):
        reached, waiting = [], list(self._linking_libraries)
        while waiting:
            library = waiting.pop()
            if library not in reached:
                reached.append(library)
                waiting += library._linking_libraries if isinstance(library, _LinkedLibrary) else []
        self._linking_libraries = reached
        kernels = (library for library in reached if isinstance(library, _KernelLibrary))
        self._kernels = {function.name for library in kernels for function in library._final_module.functions}
        super().finalize()

    def _optimize_final_module(self):
        for function in self._final_module.functions:
            if function.is_declaration or function.linkage != Linkage.linkonce_odr:
                continue
            if self.inline_kernels and function.name in self._kernels:
                function.add_function_attribute("alwaysinline")
            # LLVM may change how an internal function is called, but its run-time linker still offers it to other modules by name
            function.name = f"{function.name}.in.{self.name}"
            function.linkage = Linkage.internal
        if self.inline_kernels:  # a first round makes the stack's arrays registers, a second one unrolls the loops over them
            super()._optimize_final_module()
        else:
            passes, builder = self._codegen._module_pass_manager()
            passes.run(self._final_module, builder)


class _InlinedEntryLibrary(_EntryLibrary):
    inline_kernels = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _EntryLowering(_LoweringInto):
    _name = "entry_lowering"
    library = _EntryLibrary


@register_pass(mutates_CFG=True, analysis_only=False)
class _InlinedEntryLowering(_LoweringInto):
    _name = "inlined_entry_lowering"
    library = _InlinedEntryLibrary


class KernelCompiler(CompilerBase):
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

    lowering = _KernelLowering

    def define_pipelines(self):
        manager = PassManager("kernel")
        for one in (*self._PASSES, self.lowering, NoPythonBackend):
            manager.add_pass(one, one.__name__)
        manager.finalize()
        return [manager]


class EntryCompiler(KernelCompiler):
    lowering = _EntryLowering


class InlinedEntryCompiler(KernelCompiler):
    """For entries of the fused tier, where all kernels are inlined; whether the callbacks are is for LLVM to say."""

    lowering = _InlinedEntryLowering


class LinkedCompiler(CompilerBase):
    """For the user's functions inside an entry: every pass, but neither optimised nor emitted by themselves."""

    def define_pipelines(self):
        manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager.passes = [(_LinkedLowering if one is NativeLowering else one, text) for one, text in manager.passes]
        manager._finalized = False
        manager.finalize()
        return [manager]
