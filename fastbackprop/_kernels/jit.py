"""How kernels are compiled: the one home of jit options, the SIMD width and the on-disk cache."""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from numba.core import config, types
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)
from numba.core.compiler_lock import global_compiler_lock
from numba.core.serialize import dumps
from numba.extending import intrinsic

from fastbackprop._kernels.compiler import EntryCompiler, KernelCompiler, resolve_once

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError(
        "fastbackprop needs Numba's compiler, as its kernels work on vectors and addresses that "
        "Python does not have; unset NUMBA_DISABLE_JIT."
    )

_WIDTHS = (512, 256, 128)


def _host_features() -> dict[str, bool]:
    if getattr(config, "CPU_NAME", None):  # the user has Numba compile for another processor
        features = getattr(config, "CPU_FEATURES", None) or ""
        return {name[1:]: True for name in features.split(",") if name[:1] == "+"}
    return dict(llvm.get_host_cpu_features())


def _vector_bits() -> int:
    """Width of a SIMD register: the host's widest, or what FASTBACKPROP_SIMD says."""
    forced = os.environ.get("FASTBACKPROP_SIMD", "")
    if forced:
        if forced not in {str(width) for width in _WIDTHS}:
            raise ValueError(
                f"FASTBACKPROP_SIMD is {forced!r}; it must be 512, 256 or 128 (bits), "
                "or unset to follow the machine."
            )
        return int(forced)
    features = _host_features()
    if all(features.get(name) for name in ("avx512f", "avx512bw", "avx512dq", "avx512vl")):
        return 512
    return 256 if features.get("avx2") and features.get("fma") else 128


VECTOR_BITS = _vector_bits()

# A tile must leave registers for its operands, so its height depends on how many there are.
VECTOR_REGISTERS = 32 if _host_features().get("avx512vl") or _host_features().get("neon") else 16

# AVX-512 gives 14 bits of 1/x and 1/√x in 2 cycles, where a division and a root take over 30, and
# finds 16 numbers in a table of 32 in one.
HAS_AVX512 = bool(_host_features().get("avx512vl"))


def source_digest(folder: Path | None = None) -> str:
    """SHA-256 over every kernel source, the SIMD width and the compilers.

    Numba's own cache looks at the file of the entry point only: after an edit to ``gemm.py`` it
    would go on running the old machine code of ``run.py``.
    """
    digest = hashlib.sha256()
    for path in sorted((folder or Path(__file__).parent).rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(f"{VECTOR_BITS} {VECTOR_REGISTERS} {HAS_AVX512}".encode())
    digest.update(f"{numba.__version__} {llvmlite.__version__}".encode())
    return digest.hexdigest()


_DIGEST = source_digest()


class _Stamped:
    """A cache location whose entries are valid for one digest of all kernel sources."""

    def __init__(self, function: Callable[..., Any], path: str) -> None:
        super().__init__(function, path)  # type: ignore[call-arg]
        self._index = f"*.{function.__qualname__}-{self.get_disambiguator()}.py*.nbi"

    def ensure_cache_path(self) -> None:
        """Refuse a folder that cannot be written, unless it has this function already."""
        try:
            super().ensure_cache_path()  # type: ignore[misc]
        except OSError:
            if not any(Path(self.get_cache_path()).glob(self._index)):  # type: ignore[attr-defined]
                raise

    def get_source_stamp(self) -> str:
        return _DIGEST

    def get_disambiguator(self) -> str:
        # In the file name too, so that two SIMD widths do not evict each other.
        return _DIGEST[:16]


class _UserProvided(_Stamped, UserProvidedCacheLocator):
    pass


class _BesideSources(_Stamped, InTreeCacheLocator):
    pass


class _UserWide(_Stamped, UserWideCacheLocator):
    pass


class _KernelCacheImpl(CompileResultCacheImpl):
    _locator_classes = [_UserProvided, _BesideSources, _UserWide]  # noqa: RUF012


class _SealedFile(IndexDataCacheFile):
    """Numba's cache files, with each entry sealed by its key and the digest of its bytes.

    A flipped bit would otherwise be run as machine code. And two processes that compile for two
    types or processors at once may take the same file name, and find the code of the other in it.
    """

    def save(self, key: Any, data: Any) -> None:
        """Save an entry."""
        code = dumps(data)
        super().save(key, (key, hashlib.sha256(code).digest(), code))

    def load(self, key: Any) -> Any:
        """The entry of a key; None if there is none, or not the one that was saved."""
        entry = super().load(key)
        if entry is None:
            return None
        owner, digest, code = entry
        if owner != key or digest != hashlib.sha256(code).digest():
            return None
        return pickle.loads(code)


class _KernelCache(FunctionCache):
    """Numba's function cache, for which a broken or unwritable file is a miss, not an error."""

    _impl_class = _KernelCacheImpl
    _warned = False

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _SealedFile(
            self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )

    @classmethod
    def warn_once(cls, reason: object) -> None:
        if not cls._warned:
            cls._warned = True
            warnings.warn(
                f"fastbackprop cannot keep its compiled kernels on disk ({reason}), so each new "
                "process compiles them again, which takes some seconds. Set NUMBA_CACHE_DIR to a "
                "writable folder.",
                RuntimeWarning,
                stacklevel=3,
            )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a truncated pickle or object file can raise nearly anything
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            self.warn_once(error)
        except Exception:  # the index is unreadable: begin a new one
            try:
                self.flush()
                super().save_overload(sig, data)
            except OSError as error:
                self.warn_once(error)


# A child that is forked while another thread compiles would wait for Numba's lock for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )

# No fastmath flag: every fused multiply-add is asked for by name, sums keep their order (so that
# any number of threads gives the same bits), and a test for NaN stays a test.
_njit: Any = partial(
    numba.njit, nogil=True, error_model="numpy", boundscheck=False, no_cfunc_wrapper=True
)


# A kernel counts no references. Nothing in it is to be rewritten: array expressions, constant
# indices and the like, which are slices and print statements.
_KERNEL_OPTIONS = {"_nrt": False, "no_rewrites": True}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that only other kernels call."""
    # Numba would take over the option of the kernel that first calls it.
    return _kernel(function, forceinline=False)


def inlined_kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that becomes part of each kernel that calls it.

    Where a large function takes another as an argument: that is an address at run time unless LLVM
    puts the one into its caller, and machine code with such an address cannot be kept on disk. Or
    where a call itself is what takes long.
    """
    return _kernel(function, forceinline=True)


def _kernel(function: Callable[..., Any], **options: Any) -> Any:
    options |= _KERNEL_OPTIONS
    compiler = _njit(no_cpython_wrapper=True, pipeline_class=KernelCompiler, **options)
    dispatcher = compiler(function)
    dispatcher.get_call_template = resolve_once(dispatcher.get_call_template)
    return dispatcher


def kernel_by_type(choose: Callable[[types.Type], Any]) -> Any:
    """A kernel of one argument that is one of several: the one ``choose`` gives for its type.

    Only that one is compiled.
    """

    @intrinsic
    def chosen(typingctx, x):
        """What the chosen kernel returns."""
        function = types.Dispatcher(choose(x))
        signature = typingctx.resolve_function_type(function, (x,), {})

        def codegen(context, builder, sig, args):
            return context.get_function(function, signature)(builder, args)

        return signature, codegen

    return chosen


def entry_point(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, and keep its machine code on disk."""
    dispatcher = _njit(pipeline_class=EntryCompiler)(function)
    try:
        dispatcher._cache = _KernelCache(function)
    except RuntimeError as error:  # no writable place
        _KernelCache.warn_once(error)
    return dispatcher
