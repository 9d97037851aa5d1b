"""What adjode takes for granted about Numba's inside, a test for each: the name of the one that fails says what has changed.

They use Numba as adjode does, but nothing of adjode. What is lost meanwhile is in `test_fallbacks.py`.
"""

import ctypes
import operator
import os
import pickle
import sys
import types as python

import numpy as np
import pytest
from llvmlite import binding, ir
from llvmlite.ir.instructions import CallInstrAttributes
from numba import njit, types
from numba.core import cgutils, codegen, config
from numba.core.compiler import CompilerBase, CompileResult, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import AnalysisPass, PassManager, register_pass
from numba.core.datamodel import models, register_default
from numba.core.dispatcher import Dispatcher
from numba.core.environment import lookup_environment
from numba.core.errors import TypingError
from numba.core.extending import _Intrinsic
from numba.core.registry import cpu_target
from numba.core.serialize import dumps
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
from numba.extending import get_cython_function_address, intrinsic, register_model, typeof_impl
from numba.np.arrayobj import populate_array

pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")

i8, f8 = types.int64, types.float64
vector = types.Array(types.float64, 1, "C")
INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def double(n):
    return 2 * n


def compiled(function, *arguments, **options):
    """The result of compiling a function for the types of its arguments."""
    dispatcher = njit(**options)(function)
    dispatcher.compile(arguments)
    return dispatcher.overloads[arguments]


def pipeline(*passes):
    """A compiler with these passes."""

    class Compiler(CompilerBase):
        def define_pipelines(self):
            manager = PassManager("test")
            for one in passes:
                manager.add_pass(one, one.__name__)
            manager.finalize()
            return [manager]

    return Compiler


def standard_with(lowering):
    """Numba's own compiler with another pass in the place of its lowering."""

    class Compiler(CompilerBase):
        def define_pipelines(self):
            manager = PassManager("test")
            for one, text in DefaultPassBuilder.define_nopython_pipeline(self.state).passes:
                manager.add_pass(lowering if one is NativeLowering else one, text)
            manager.finalize()
            return [manager]

    return Compiler


def seen_flags():
    """A list of the flags of what is compiled from now on, by the pipeline that is returned with it."""
    seen = []

    @register_pass(mutates_CFG=False, analysis_only=True)
    class Look(AnalysisPass):
        _name = "look_at_flags"

        def __init__(self):
            super().__init__()

        def run_pass(self, state):
            seen.append(state.flags)
            return False

    class Compiler(CompilerBase):
        def define_pipelines(self):
            manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
            manager.add_pass_after(Look, IRProcessing)
            manager.finalize()
            return [manager]

    return seen, Compiler


# --- pipelines ------------------------------------------------------------------------------------------------------


def test_njit_takes_a_pipeline_class():
    used = []

    class Compiler(CompilerBase):
        def define_pipelines(self):
            used.append(self.state.func_id.func_name)
            return [DefaultPassBuilder.define_nopython_pipeline(self.state)]

    assert njit(pipeline_class=Compiler)(double)(21) == 42 and used == ["double"]


def test_a_kernel_needs_eleven_passes_before_it_is_lowered():
    passes = (
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
        NativeLowering,
        NoPythonBackend,
    )

    @njit(pipeline_class=pipeline(*passes))
    def total(values):
        found = 0.0
        for k in range(values.size):
            if values[k] > 0.0:
                found += values[k]
        return found

    assert total(np.array([1.0, -2.0, 3.0])) == 4.0


def test_passes_can_be_registered():
    ran = []

    @register_pass(mutates_CFG=True, analysis_only=False)
    class Own(NativeLowering):
        _name = "own_lowering"

        def run_pass(self, state):
            ran.append(state.func_id.func_qualname)
            return super().run_pass(state)

    assert njit(pipeline_class=standard_with(Own))(double)(21) == 42 and ran == ["double"]


def test_numbas_passes_are_listed_and_lowering_is_one_of_them():
    class Lists(CompilerBase):
        def define_pipelines(self):
            manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
            listed.extend(one for one, _ in manager.passes)
            return [manager]

    listed: list = []
    assert njit(pipeline_class=Lists)(lambda n: 2 * n)(21) == 42
    assert listed.count(NativeLowering) == 1


def test_lowering_goes_into_the_library_of_the_state():
    made = []

    @register_pass(mutates_CFG=True, analysis_only=False)
    class Own(NativeLowering):
        _name = "lowering_into"

        def run_pass(self, state):
            made.append(codegen.JITCodeLibrary(state.targetctx.codegen(), state.func_id.func_qualname))
            state.library = made[-1]
            return super().run_pass(state)

    result = compiled(double, i8, pipeline_class=standard_with(Own))
    assert result.library is made[0]
    assert result.fndesc.llvm_func_name in {function.name for function in made[0].get_defined_functions()}


def test_what_is_lowered_need_not_be_compiled():
    stand_in = {}.update
    before = []

    @register_pass(mutates_CFG=True, analysis_only=False)
    class Own(NativeLowering):
        _name = "lowering_alone"

        def run_pass(self, state):
            state.flags.no_compile = True
            super().run_pass(state)
            before.append(state["cr"].cfunc)
            state.targetctx.insert_user_function(stand_in, state["cr"].fndesc, [state.library])
            state["cr"] = state["cr"]._replace(cfunc=stand_in)
            return True

    inner = njit(pipeline_class=standard_with(Own), **INNER)(double)
    assert njit(lambda n: inner(n) + 1)(20) == 41
    assert before == [None] and inner.overloads[i8,].entry_point is stand_in
    with pytest.raises(TypeError):
        inner(20)


def test_the_compiler_lock_can_be_taken_twice():
    with global_compiler_lock, global_compiler_lock:
        assert njit(double)(21) == 42


# --- flags ----------------------------------------------------------------------------------------------------------


def test_counting_references_is_a_flag_and_inherited():
    seen, look = seen_flags()
    unsaid, said = njit(pipeline_class=look)(double), njit(_nrt=True, pipeline_class=look)(lambda n: 2 * n)
    compiled(lambda n: unsaid(n) + said(n), i8, _nrt=False, pipeline_class=look)
    assert [flags.nrt for flags in seen] == [False, False, True]


@pytest.mark.parametrize(("option", "value", "other"), [("fastmath", {"contract"}, False), ("error_model", "numpy", "python")])
def test_options_that_are_not_said_are_inherited(option, value, other):
    seen, look = seen_flags()
    unsaid, said = njit(pipeline_class=look)(double), njit(**{option: other}, pipeline_class=look)(lambda n: 2 * n)
    compiled(lambda n: unsaid(n) + said(n), i8, **{option: value}, pipeline_class=look)
    outer, inner, explicit = (str(getattr(flags, option)) for flags in seen)
    assert inner == outer != explicit


def test_fast_math_can_be_a_set_of_flags():
    text = compiled(lambda x, y: x * y + y, f8, f8, fastmath={"contract", "nsz"}).library.get_llvm_str()
    assert "fmul nsz contract double" in text and "fmul fast" not in text and "nnan" not in text


def test_wrappers_can_be_left_out():
    def names(**options):
        return {function.name for function in compiled(double, i8, **options).library.get_defined_functions()}

    plain = compiled(double, i8).fndesc
    wrappers = {name.split("::")[0][:6] for name in (plain.llvm_cpython_wrapper_name, plain.llvm_cfunc_wrapper_name)}
    assert wrappers == {"_ZN7cp", "cfunc."}
    assert {name[:6] for name in names()} > wrappers
    assert not {name[:6] for name in names(**INNER)} & wrappers


def test_bounds_are_checked_if_the_configuration_says_so_when_something_is_compiled():
    def last(values):
        return values[values.size]

    kept, config.BOUNDSCHECK = config.BOUNDSCHECK, 1
    try:
        checked = njit(last)
        checked.compile((vector,))
    finally:
        config.BOUNDSCHECK = kept
    with pytest.raises(IndexError):
        checked(np.zeros(3))


def test_the_configuration_has_what_the_cache_reads():
    assert isinstance(config.CACHE_DIR, str) and config.OPT is not None and config.DISABLE_JIT in (0, False)
    assert hasattr(config, "BOUNDSCHECK")


# --- libraries of code ----------------------------------------------------------------------------------------------


class Plain(codegen.JITCodeLibrary):
    """A library that keeps what nothing calls."""

    def _optimize_final_module(self):
        pass


def library_with(*functions, kind=Plain, calls=None):
    """A library that is not final, with functions of one number that return a constant, or what the function `calls` returns."""
    library = kind(cpu_target.target_context.codegen(), "test")
    module = library.create_ir_module("test")
    kind_of_function = ir.FunctionType(ir.IntType(64), [ir.IntType(64)])
    called = calls and ir.Function(module, kind_of_function, calls)
    for k, name in enumerate(functions):
        function = ir.Function(module, kind_of_function, name)
        builder = ir.IRBuilder(function.append_basic_block())
        builder.ret(ir.IntType(64)(k) if calls is None else builder.call(called, function.args))
    library.add_ir_module(module)
    return library


def test_a_library_optimises_when_it_takes_a_module_and_when_it_becomes_final():
    calls = []

    class Library(codegen.JITCodeLibrary):
        def _optimize_functions(self, ll_module):
            calls.append("functions")
            ll_module.data_layout = self._codegen._data_layout

        def _optimize_final_module(self):
            calls.append("final")

    with global_compiler_lock:
        library_with("one", kind=Library).finalize()
    assert calls == ["functions", "final"]


def test_a_library_has_a_module_that_is_not_final_yet():
    library = library_with("one", "two")
    assert [function.name for function in library._final_module.functions] == ["one", "two"]
    library._raise_if_finalized()
    library._finalized = True
    with pytest.raises(RuntimeError):
        library._raise_if_finalized()


def test_a_library_lists_those_that_it_links():
    with global_compiler_lock:
        inner, outer = library_with("one"), library_with("two", calls="one")
        inner.finalize()
        assert outer._linking_libraries == []
        outer.add_linking_library(inner)
        assert outer._linking_libraries == [inner]
        outer.finalize()
    assert {function.name for function in outer.get_defined_functions()} == {"one", "two"}


def test_what_a_library_links_can_be_replaced_before_it_is_final():
    with global_compiler_lock:
        inner, outer = library_with("one"), library_with("two", calls="one")
        inner.finalize()
        outer._linking_libraries = [inner]
        outer.finalize()
    assert {function.name for function in outer.get_defined_functions()} == {"one", "two"}


def test_functions_are_linkonce_odr_in_the_module_for_linking():
    library = library_with("one")
    library._finalized = True
    (function,) = library._get_module_for_linking().functions
    assert function.linkage == binding.Linkage.linkonce_odr
    assert next(library._final_module.functions).linkage == binding.Linkage.external


def test_a_round_of_optimisation_is_a_pair_of_passes_and_builder():
    library = library_with("one")
    with global_compiler_lock:
        passes, builder = library._codegen._module_pass_manager()
        passes.run(library._final_module, builder)
    assert [function.name for function in library._final_module.functions] == ["one"]


def test_functions_can_be_renamed_made_internal_and_marked_for_inlining():
    library = library_with("one")
    (function,) = library._final_module.functions
    function.name = "other"
    function.linkage = binding.Linkage.internal
    function.add_function_attribute("alwaysinline")
    text = str(library._final_module)
    assert "define internal i64 @other" in text and "alwaysinline" in text and not function.is_declaration


def test_modules_can_be_linked_and_kept_as_bitcode():
    one, two = library_with("one")._final_module, library_with("two")._final_module
    one.link_in(two, preserve=True)
    again = binding.parse_bitcode(one.as_bitcode())
    assert [function.name for function in again.functions] == ["one", "two"]
    assert [function.name for function in two.functions] == ["two"]


def test_object_code_can_be_kept():
    library = library_with("one")
    with global_compiler_lock:
        library.enable_object_caching()
        library.finalize()
        name, kind, (code, _) = library.serialize_using_object_code()
    assert (name, kind) == ("test", "object") and code


# --- what is compiled -----------------------------------------------------------------------------------------------


def test_the_address_of_compiled_code_is_that_of_a_c_function():
    result = compiled(double, i8, no_cpython_wrapper=True)
    address = result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(21) == 42


def test_a_dispatcher_has_its_function_and_options():
    dispatcher = njit(double, error_model="numpy")
    assert isinstance(dispatcher, Dispatcher) and dispatcher.py_func is double
    assert dispatcher.targetoptions["error_model"] == "numpy"
    assert dispatcher.signatures == []


def test_a_dispatcher_says_whether_it_can_compile():
    lazy, eager = njit(double), njit((i8,))(double)
    assert lazy._can_compile and not eager._can_compile
    lazy.compile((i8,))
    lazy.disable_compile()
    assert not lazy._can_compile


def test_a_dispatcher_can_forget_what_it_has_compiled():
    dispatcher = njit(double)
    dispatcher.compile((i8,))
    dispatcher._reset_overloads()
    assert not dispatcher.overloads


def test_a_function_can_be_compiled_without_its_dispatcher_knowing():
    dispatcher = njit(double)
    result = dispatcher._compiler._compile_core((i8,), None)
    assert result.fndesc.llvm_func_name in {function.name for function in result.library.get_defined_functions()}
    assert not dispatcher.overloads


def test_an_intrinsic_has_the_function_that_it_was_made_of():
    def own(typingctx, n):
        return None

    made = intrinsic(own)
    assert isinstance(made, _Intrinsic) and made._defn is own


def test_errors_of_typing_have_a_place():
    @njit
    def wrong(n):
        return n.nothing

    with pytest.raises(TypingError) as raised:
        wrong(1)
    first = wrong.py_func.__code__.co_firstlineno
    assert os.path.samefile(raised.value.loc.filename, __file__) and raised.value.loc.line == first + 2


# --- the cache ------------------------------------------------------------------------------------------------------


def test_a_dispatcher_asks_its_cache_before_it_compiles_and_tells_it_afterwards():
    asked = []

    class Cache:
        cache_path = None

        def load_overload(self, sig, target_context):
            asked.append(("load", sig, target_context is cpu_target.target_context))

        def save_overload(self, sig, cres):
            asked.append(("save", sig, type(cres) is CompileResult))

    dispatcher = njit(double)
    assert hasattr(dispatcher, "_cache")
    dispatcher._cache = Cache()
    dispatcher.compile((i8,))
    assert asked == [("load", (i8,), True), ("save", (i8,), True)]
    assert sum(dispatcher.stats.cache_misses.values()) == 1


def test_a_dispatcher_knows_where_it_compiles_for():
    assert njit(double).targetctx is cpu_target.target_context


def test_what_is_loaded_needs_the_symbols_of_the_runtime_and_of_hashes():
    from numba.core.runtime import rtsys
    from numba.cpython import hashing

    rtsys.initialize(cpu_target.target_context)
    assert binding.address_of_symbol("NRT_MemInfo_alloc_safe") and hashing._hashsecret
    assert all(binding.address_of_symbol(entry.symbol) for entry in hashing._hashsecret.values())


def test_a_type_can_be_a_vector_of_the_machine():
    class Pair(types.Type):
        def __init__(self):
            super().__init__(name="a pair of this test")

    pair, vector_type = Pair(), ir.VectorType(ir.DoubleType(), 2)

    @register_model(Pair)
    class Model(models.PrimitiveModel):
        def __init__(self, data_model_manager, type_):
            super().__init__(data_model_manager, type_, vector_type)

    @intrinsic
    def both(typingctx, x):
        def codegen(context, builder, sig, args):
            once = builder.insert_element(ir.Constant(vector_type, ir.Undefined), args[0], ir.IntType(32)(0))
            return builder.insert_element(once, args[0], ir.IntType(32)(1))

        return pair(f8), codegen

    @intrinsic
    def second(typingctx, p):
        return f8(pair), lambda context, builder, sig, args: builder.extract_element(args[0], ir.IntType(32)(1))

    assert njit(lambda x: second(both(x)))(3.0) == 3.0


def test_what_is_compiled_can_be_pickled_and_made_anew():
    result = compiled(double, i8)
    context = cpu_target.target_context
    rebuilt = CompileResult._rebuild(context, *pickle.loads(dumps(result._reduce())))
    assert rebuilt.entry_point(21) == 42 and rebuilt.signature == result.signature

    class Cache:
        cache_path = None

        def load_overload(self, sig, target_context):
            return rebuilt

    dispatcher = njit(lambda n: 0 * n)
    dispatcher._cache = Cache()
    dispatcher.compile((i8,))
    assert dispatcher(21) == 42 and not dispatcher.stats.cache_misses


def test_environments_come_last_in_what_is_pickled_and_know_their_globals():
    *_, environments = compiled(double, i8)._reduce()
    (environment,) = environments
    assert environment.globals["__name__"] == __name__ in sys.modules


def test_an_environment_is_found_by_the_global_of_its_address():
    def prints():
        print(1)

    library = compiled(prints).library
    (name,) = (one.name for one in library._final_module.global_variables if lookup_environment(one.name) is not None)
    library.codegen.set_env(name, lookup_environment(name))


def test_the_code_generator_says_for_which_cpu():
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    assert "-" in triple and cpu == (config.CPU_NAME or binding.get_host_cpu_name()) and isinstance(features, str)
    assert repr((i8, vector)) == repr((types.int64, types.Array(types.float64, 1, "C")))


def test_addresses_of_this_process_are_noticed():
    large = np.ones(1_000_001)
    assert compiled(lambda k: large[k], i8).library.has_dynamic_globals
    assert not compiled(double, i8).library.has_dynamic_globals

    @intrinsic
    def address(typingctx):
        def code(context, builder, sig, args):
            return builder.ptrtoint(context.add_dynamic_addr(builder, 1234, "a number"), ir.IntType(64))

        return i8(), code

    result = compiled(lambda: address())
    assert result.library.has_dynamic_globals and result.entry_point() == 1234


# --- contexts -------------------------------------------------------------------------------------------------------


def test_the_order_of_overloads_can_be_changed():
    """Numba keeps the ways to type an operator in a `types.Function`, in the order in which it tries them."""
    typing = cpu_target.typing_context
    with global_compiler_lock:
        typing.refresh()
        kind = typing._lookup_global(operator.getitem)
        before = kind.templates
        overloads = [template for template in before if hasattr(template, "_overload_func")]
        others = [template for template in before if template not in overloads]
        assert overloads and others
        try:
            kind.templates = (*others, *overloads)
            assert njit(lambda x, k: x[k])(np.arange(3.0), 2) == 2.0
        finally:
            kind.templates = before
    assert njit(lambda x: x[1])("abc") == "b"


def test_rules_for_arrays_are_told_from_those_for_numbers():
    typing = cpu_target.typing_context
    typing.refresh()
    for operation in (operator.add, operator.mul, operator.truediv, operator.lt, operator.iadd):
        found = [issubclass(one, NumpyRulesArrayOperator) for one in typing._lookup_global(operation).templates]
        assert any(found) and not all(found)


def test_the_passes_for_functions_can_be_replaced():
    """The code generator makes them anew, with a builder, for each function, and hands both to nothing but `run`."""
    generator, names = cpu_target.target_context.codegen(), []
    standard = generator._function_pass_manager

    def manager(**options):
        passes, builder = standard(**options)
        made = python.SimpleNamespace(run=lambda function, given: names.append(function.name) or passes.run(function, given))
        return made, builder

    with global_compiler_lock:
        generator._function_pass_manager = manager
        try:
            assert njit(double)(21) == 42
        finally:
            del generator._function_pass_manager
    assert any("double" in name for name in names)


def test_refreshing_can_be_replaced():
    context, refreshed = cpu_target.target_context, []

    def refresh():
        refreshed.append(True)
        type(context).refresh(context)

    with global_compiler_lock:
        context.refresh = refresh
        try:
            assert "refresh" in vars(context)
            assert njit(double)(21) == 42
        finally:
            del context.refresh
    assert refreshed and "refresh" not in vars(context)


def test_registries_list_what_is_declared():
    context = cpu_target.target_context
    context.refresh()
    for registries, kinds in (
        (context._registries, ("functions", "getattrs", "setattrs", "casts", "constants")),
        (context.typing_context._registries, ("functions", "attributes", "globals")),
    ):
        assert len(registries) > 5
        for kind in kinds:
            assert any(isinstance(getattr(registry, kind), list) for registry in registries), kind


def test_a_declaration_makes_a_registry_longer():
    context = cpu_target.target_context

    def count():
        return sum(len(registry.functions) for registry in context.typing_context._registries)

    def lowering():
        return sum(len(registry.functions) for registry in context._registries)

    before = count(), lowering()

    @intrinsic
    def one(typingctx):
        return i8(), lambda context, builder, sig, args: context.get_constant(i8, 1)

    assert njit(lambda: one())() == 1
    assert (count(), lowering()) != before


# --- code by hand ---------------------------------------------------------------------------------------------------


def test_compiled_code_can_be_called_by_its_symbol():
    result = compiled(double, i8, **INNER)

    @intrinsic
    def call(typingctx, n):
        def code(context, builder, sig, args):
            convention = context.call_conv
            function_type = convention.get_function_type(types.int64, sig.args)
            function = cgutils.get_or_insert_function(builder.module, function_type, result.fndesc.llvm_func_name)
            status, value = convention.call_function(builder, function, types.int64, sig.args, args)
            with cgutils.if_unlikely(builder, status.is_error):
                convention.return_status_propagate(builder, status)
            context.add_linking_libs([result.library])
            return value

        return i8(i8), code

    assert njit(lambda n: call(n))(21) == 42


def test_errors_go_up_through_a_call_by_symbol():
    def fail(n):
        if n > 0:
            raise ValueError("positive")
        return n

    result = compiled(fail, i8, **INNER)

    @intrinsic
    def call(typingctx, n):
        def code(context, builder, sig, args):
            convention = context.call_conv
            function_type = convention.get_function_type(types.int64, sig.args)
            function = cgutils.get_or_insert_function(builder.module, function_type, result.fndesc.llvm_func_name)
            status, value = convention.call_function(builder, function, types.int64, sig.args, args)
            with cgutils.if_unlikely(builder, status.is_error):
                convention.return_status_propagate(builder, status)
            context.add_linking_libs([result.library])
            return value

        return i8(i8), code

    @njit
    def guarded(n):
        try:
            call(n)
        except Exception:
            return 1
        return 0

    assert [guarded(-1), guarded(1)] == [0, 1]


def test_code_can_see_whether_a_dispatcher_fails():
    """It has the function that belongs to a call, of the types of its signatures, which may be others than those that are given."""

    def fail(values):
        if values[0] > 0.0:
            raise ValueError("positive")
        return values + 1.0

    inner = njit([types.Array(f8, 1, "C")(types.Array(f8, 1, "A"))])(fail)

    @intrinsic
    def attempt(typingctx, values):
        kind = typingctx.resolve_value_type(inner)
        called = kind.get_call_type(typingctx, (values,), {})

        def code(context, builder, sig, args):
            result = kind.dispatcher.get_compile_result(called)
            takes, returns = result.fndesc.argtypes, result.fndesc.restype
            assert takes == (types.Array(f8, 1, "A"),)
            context.add_linking_libs([result.library])
            function = context.declare_function(builder.module, result.fndesc)
            given = [context.cast(builder, args[0], values, takes[0])]
            status, value = context.call_conv.call_function(builder, function, returns, takes, given)
            with builder.if_then(status.is_ok):
                context.nrt.decref(builder, returns, value)
            return builder.zext(status.is_error, ir.IntType(64))

        return i8(values), code

    run = njit(lambda values: attempt(values))
    assert [run(np.array([-1.0])), run(np.array([1.0]))] == [0, 1]


def test_code_knows_the_library_that_it_is_generated_for():
    found = []

    @intrinsic
    def look(typingctx):
        def code(context, builder, sig, args):
            found.append(context.active_code_library)
            return context.get_constant(i8, 0)

        return i8(), code

    dispatcher = njit(lambda: look())
    dispatcher.compile(())
    assert found == [dispatcher.overloads[()].library]


def test_code_can_call_a_dispatcher():
    inner = njit(double, **INNER)

    @intrinsic
    def twice(typingctx, n):
        kernel_type = typingctx.resolve_value_type(inner)
        called = kernel_type.get_call_type(typingctx, (types.intp,), {})

        def code(context, builder, sig, args):
            call = context.get_function(kernel_type, called)
            context.add_linking_libs(getattr(call, "libs", ()))
            return context.cast(builder, call(builder, args), called.return_type, types.int64)

        return i8(i8), code

    assert njit(lambda n: twice(n))(21) == 42


def test_an_array_can_be_made_of_a_pointer_and_its_shape():
    @intrinsic
    def tail(typingctx, array):
        def code(context, builder, sig, args):
            source = context.make_array(sig.args[0])(context, builder, args[0])
            (size,) = cgutils.unpack_tuple(builder, source.shape)
            itemsize = context.get_constant(types.intp, 8)
            view = context.make_array(vector)(context, builder)
            populate_array(
                view,
                data=builder.gep(source.data, [itemsize.type(1)]),
                shape=[builder.sub(size, size.type(1))],
                strides=[itemsize],
                itemsize=itemsize,
                meminfo=None,
            )
            return view._getvalue()

        return vector(array), code

    @njit
    def read(values):
        found = tail(values)
        return found.size, found[0]

    assert read(np.array([1.0, 2.0, 3.0])) == (2, 2.0)


def test_an_intrinsic_may_prefer_literals():
    @intrinsic(prefer_literal=True)
    def known(typingctx, n):
        value = n.literal_value
        return i8(n), lambda context, builder, sig, args: context.get_constant(i8, 2 * value)

    assert njit(lambda: known(21))() == 42


def test_memory_can_be_had_on_the_stack_and_copied_as_a_constant():
    @intrinsic
    def copied(typingctx):
        def code(context, builder, sig, args):
            word = ir.IntType(64)
            block = ir.ArrayType(word, 2)
            constant = cgutils.global_constant(builder, "test.known", ir.Constant(block, [word(20), word(22)]))
            stack = builder.bitcast(cgutils.alloca_once(builder, block), word.as_pointer())
            cgutils.memset(builder, stack, word(16), 0)
            cgutils.raw_memcpy(builder, stack, builder.bitcast(constant, word.as_pointer()), word(2), 8, align=8)
            first, second = (builder.load(builder.gep(stack, [word(k)])) for k in range(2))
            return builder.add(first, second)

        return i8(), code

    assert njit(lambda: copied())() == 42


def test_a_loop_can_be_left_early():
    @intrinsic
    def first(typingctx, n):
        def code(context, builder, sig, args):
            kept = cgutils.alloca_once_value(builder, context.get_constant(i8, 0))
            for k in range(3):
                with builder.if_then(cgutils.is_null(builder, builder.load(kept)), likely=True):
                    builder.store(builder.add(args[0], context.get_constant(i8, k)), kept)
            return builder.load(kept)

        return i8(i8), code

    assert [njit(lambda n: first(n))(n) for n in (0, 5)] == [1, 5]


def test_an_intrinsic_may_return_nothing():
    @intrinsic
    def nothing(typingctx):
        return types.none(), lambda context, builder, sig, args: context.get_dummy_value()

    assert njit(lambda: nothing())() is None


def test_an_object_can_be_taken_for_an_intrinsic():
    class Own:
        def __init__(self, n):
            self.n = n

    def reader(n):
        @intrinsic
        def read(typingctx, m):
            return i8(i8), lambda context, builder, sig, args: builder.mul(args[0], context.get_constant(i8, n))

        read.factor = n
        return read

    readers = {n: reader(n) for n in (2, 3)}
    context = cpu_target.typing_context
    context.refresh()
    functions = {n: context.resolve_value_type(read) for n, read in readers.items()}
    typeof_impl.register(Own)(lambda own, c: functions[own.n])
    double, triple = Own(2), Own(3)
    assert njit(lambda m: double(m) + triple(m))(1) == 5
    assert [function.typing_key.factor for function in functions.values()] == [2, 3]


def test_an_object_can_say_that_it_is_a_jitted_function():
    class Scaled:
        def __init__(self, factor):
            self.compiled = njit(lambda n: factor * n)

        @property
        def _numba_type_(self):
            return self.compiled._numba_type_

    first, second = Scaled(2), Scaled(3)
    assert isinstance(first._numba_type_, types.Dispatcher) and first._numba_type_.dispatcher is first.compiled
    inner = njit(lambda n: first(n) + 1)
    assert njit(lambda n: inner(n) + second(n))(10) == 51


def test_a_pointer_can_have_a_type_of_its_own():
    class Own(types.CPointer):
        def __init__(self):
            super().__init__(types.int64)
            self.name = "Own"

        @property
        def key(self):
            return self.name

    register_default(Own)(models.PointerModel)

    @intrinsic
    def new(typingctx):
        return Own()(), lambda context, builder, sig, args: builder.inttoptr(ir.IntType(64)(42), ir.IntType(64).as_pointer())

    @intrinsic
    def address(typingctx, pointer):
        assert isinstance(pointer, Own)
        return i8(pointer), lambda context, builder, sig, args: builder.ptrtoint(args[0], ir.IntType(64))

    assert njit(lambda: address(new()))() == 42


@pytest.mark.skipif(not binding.get_host_cpu_features().get("avx2"), reason="which vectors there are is known of AVX2 alone")
def test_loops_take_the_forms_for_vectors_that_a_call_names():
    double = ir.DoubleType()

    class Attributes(CallInstrAttributes):
        words = ("nounwind", "readnone", "willreturn", '"vector-function-abi-variant"="_ZGV_LLVM_M4v_cbrt(doubled)"')
        _known = frozenset(words)

    @intrinsic
    def cube_root(typingctx, x):
        def codegen(context, builder, sig, args):
            of_numbers = cgutils.get_or_insert_function(builder.module, ir.FunctionType(double, [double]), "cbrt")
            vector, mask = ir.VectorType(double, 4), ir.VectorType(ir.IntType(1), 4)
            form = ir.Function(builder.module, ir.FunctionType(vector, [vector, mask]), "doubled")
            form.linkage = "weak_odr"
            inside = ir.IRBuilder(form.append_basic_block())
            inside.ret(inside.fadd(form.args[0], form.args[0]))
            call = builder.call(of_numbers, args)
            call.attributes = Attributes(Attributes.words)
            return call

        return f8(f8), codegen

    def loop(x, out):
        for i in range(x.size):
            out[i] = cube_root(x[i])

    x, out = np.full(41, 27.0), np.zeros(41)
    njit(loop)(x, out)
    assert out[0] == 54.0 and out[-1] == pytest.approx(3.0)


def test_data_types_are_those_of_llvm():
    context = cpu_target.target_context
    assert context.get_data_type(types.float64) == ir.DoubleType()
    assert str(context.get_data_type(types.complex128)) == "{double, double}"


# --- other libraries ------------------------------------------------------------------------------------------------


def test_scipy_offers_lapack_by_name():
    for name in ("dgetrf", "dgetrs", "zgetrf", "zgetrs"):
        assert get_cython_function_address("scipy.linalg.cython_lapack", name)
    for name in ("dgemm", "zgemm"):
        assert get_cython_function_address("scipy.linalg.cython_blas", name)


def test_modules_can_have_attributes_resolved_on_a_gpu():
    pytest.importorskip("numba_cuda")
    from numba.cuda.typing import templates

    class Attributes(templates.AttributeTemplate):
        key = types.Module(python.ModuleType("test"))

        def generic_resolve(self, module, name):
            return None

    templates.infer_getattr(Attributes)
