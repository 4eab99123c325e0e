"""Numba's compiler for kernels, less the work they do not need.

For those that only other kernels call, these are passes of Numba's that change no instruction, and
take most of the time in which Numba, itself written in Python, turns two hundred functions into
LLVM's language; and LLVM's own, which are run on the whole. An entry point does without what LLVM
would make of its loops over elements.

It reaches below Numba's public interface, so that pyproject.toml bounds Numba's version.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import llvmlite.binding as llvm
from numba.core import types, typing
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.extending import models, register_model

from fastbackprop._kernels.signals import let_signals_in

# Passes that look for what no kernel has: closures, with blocks, dynamic exceptions, literal_unroll
# and literally, functions to be inlined in Numba's own language, parallel loops; that check and
# describe; and, last, one that ends the life of objects with a count of references. Those are an
# error in a kernel, as are with blocks and the others.
_UNUSED_PASSES = {
    "WithLifting",
    "InlineClosureLikes",
    "RewriteDynamicRaises",
    "MakeFunctionToJitFunction",
    "InlineInlinables",
    "FindLiterallyCalls",
    "LiteralUnroll",
    "LiteralPropagationSubPipelinePass",
    "InlineOverloads",
    "NoPythonSupportedFeatureValidation",
    "AnnotateTypes",
    "DumpParforDiagnostics",
    "IRLegalization",
}


class _LinkedLibrary(JITCodeLibrary):
    """The code of a kernel that only other kernels call: linked into theirs, never run by itself.

    Numba would optimize and translate it once by itself and again in every caller, and those again
    in theirs. Left as it is, it is linked, optimized and translated once, in the entry point. To
    have LLVM simplify each before that takes a tenth of all the time, and makes nothing faster.
    """

    def _optimize_functions(self, ll_module: Any) -> None:
        pass

    def finalize(self) -> None:
        let_signals_in()
        self._callees: dict[Any, None] = {}  # all, those of callees before their callers
        for library in self._linking_libraries:
            self._reload_init.update(library._reload_init)
            if isinstance(library, _LinkedLibrary):
                self._callees.update(library._callees)
            self._callees[library] = None
        self._finalize_dynamic_globals()
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        """The code with that of all callees, for a library that is run."""
        if self._shared_module is None:
            module = self._final_module.clone()
            # A function whose callers are not there yet would be dropped.
            for library in reversed(self._callees):
                is_kernel = isinstance(library, _LinkedLibrary)
                code = library._final_module if is_kernel else library._get_module_for_linking()
                module.link_in(code, preserve=True)
            for function in module.functions:
                if not function.is_declaration and function.linkage == llvm.Linkage.external:
                    function.linkage = llvm.Linkage.linkonce_odr
            self._shared_module = module
        return self._shared_module

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        return _NoEnvironment


class _EntryLibrary(JITCodeLibrary):
    """The code of an entry point with all that it calls, optimized once.

    Numba would do so twice, to find counts of references, make vectors of loops over single
    elements: here those are what is left of a row, and such vectors took the registers of the rest;
    and repeat the bodies of loops, which are short here, so that a few vectors or rows went through
    what is left over: a tenth of the time to compile, and of that of small layers.
    """

    def _optimize_functions(self, ll_module: Any) -> None:
        pass  # by themselves, before the others are there

    def _optimize_final_module(self) -> None:
        options = llvm.create_pipeline_tuning_options(speed_level=3)
        options.loop_vectorization = options.slp_vectorization = False
        options.loop_unrolling = False
        builder = llvm.create_pass_builder(self._codegen._tm, options)
        builder.getModulePassManager().run(self._final_module, builder)


class _NoEnvironment:
    """Stands where Numba would set the Python environment of native code that does not exist."""

    @staticmethod
    def set_env(name: str, environment: object) -> None:
        pass


class _Function(types.Function):
    """A function or an operator of Numba's that remembers what it returns for which arguments.

    Numba would try all implementations of an operator, a dozen for a sum, in each place where it is
    used: 8,000 times in the kernels, for 400 different types of arguments.
    """

    def __init__(self, templates: Any) -> None:
        self._signatures: dict[Any, Any] = {}
        super().__init__(templates)

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        key = tuple(args), tuple(kws.items())
        if key not in self._signatures:
            self._signatures[key] = super().get_call_type(context, args, kws)
        return self._signatures[key]


register_model(_Function)(models.OpaqueModel)


@cache
def _remembering(function: types.Function) -> _Function:
    return _Function(function.templates)


class _TypingContext(typing.Context):
    """Numba's typing context, with functions that remember."""

    def __init__(self, context: typing.Context) -> None:
        vars(self).update(vars(context))
        self._context = context

    def refresh(self) -> None:
        self._context.refresh()

    def _lookup_global(self, value: object) -> Any:
        found = super()._lookup_global(value)
        return _remembering(found) if type(found) is types.Function else found


_typing_context = cache(_TypingContext)


@cache
def _size(target_data: Any, kind: Any) -> int:
    """Bytes of a value of an LLVM type, for which LLVM parses a module each time it is asked."""
    return kind.get_abi_size(target_data)


class KernelCompiler(Compiler):
    """Numba's compiler, putting what it makes into a library that is only linked."""

    def __init__(self, *args: Any) -> None:
        let_signals_in()
        super().__init__(*args)
        state, target = self.state, self.state.targetctx
        state.library = _LinkedLibrary(target.codegen(), f"fastbackprop.{next(_numbers)}")
        state.library.enable_object_caching()
        state.typingctx = target.typing_context = _typing_context(state.typingctx)
        target.get_abi_sizeof = partial(_size, target.target_data)

    def define_pipelines(self) -> list[Any]:
        managers = super().define_pipelines()
        for manager in managers:
            manager.passes = [
                (kind, description)
                for kind, description in manager.passes
                if kind.__name__ not in _UNUSED_PASSES
            ]
        return managers


# Young garbage is collected as often as memory needs, old not at all.
_COLLECTIONS = 20_000, 10, 1_000


@contextlib.contextmanager
def few_collections() -> Iterator[None]:
    """Let Python look for garbage rarely, which goes through all objects of Numba each time.

    That took a tenth of all the time. Without any, memory grew by a third.
    """
    thresholds = gc.get_threshold()
    if thresholds[0] > 0:  # or somebody wants none
        gc.set_threshold(*_COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


class EntryCompiler(Compiler):
    """Numba's compiler, putting what it makes into an `_EntryLibrary`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        name = f"fastbackprop.entry.{next(_numbers)}"
        self.state.library = _EntryLibrary(self.state.targetctx.codegen(), name)
        self.state.library.enable_object_caching()

    def compile_extra(self, function: Callable[..., Any]) -> Any:
        """Compile it, under Numba's lock, so that no other thread is in here."""
        with few_collections():
            return super().compile_extra(function)


_numbers = itertools.count()


def resolve_once(resolve: Callable[..., Any]) -> Callable[..., Any]:
    """Find a kernel for types of arguments once, not for each call of it.

    And not for each constant that it is called with, for which Numba would compile it anew.
    """
    found: dict[Any, Any] = {}

    def resolve_by_type(args: tuple[types.Type, ...], kws: dict[str, types.Type]) -> Any:
        args = tuple(types.unliteral(arg) for arg in args)
        key = args, tuple(kws.items())
        if key not in found:
            found[key] = resolve(args, kws)
        return found[key]

    return resolve_by_type
