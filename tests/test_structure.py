"""How the package is put together: what may import what, and what every file and name owes."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import fastbackprop as fb

ROOT = Path(fb.__file__).parent

# A file imports only from files above it.
LAYOUT = [
    "_version",
    "_kernels",
    "_kernels.signals",
    "_kernels.compiler",
    "_kernels.jit",
    "_kernels.codes",
    "_kernels.simd.types",
    "_kernels.simd.memory",
    "_kernels.simd.arithmetic",
    "_kernels.simd.polynomials",
    "_kernels.simd.tiles",
    "_kernels.simd.machine",
    "_kernels.simd",
    "_kernels.tanh_table",
    "_kernels.vmath",
    "_kernels.micro",
    "_kernels.team",
    "_kernels.narrow",
    "_kernels.columns",
    "_kernels.packing",
    "_kernels.gemm",
    "_kernels.accumulate",
    "_kernels.activation",
    "_kernels.records",
    "_kernels.dropout",
    "_kernels.gather",
    "_kernels.loss",
    "_kernels.update",
    "_kernels.dense",
    "_kernels.inputs",
    "_kernels.gradients",
    "_kernels.passes",
    "_kernels.steps",
    "_kernels.run",
    "_kernels.measure",
    "errors",
    "limits",
    "specs",
    "activations",
    "losses",
    "schedules",
    "optimizers",
    "initializers",
    "layers",
    "plan",
    "finite",
    "npy",
    "spare",
    "state",
    "cores",
    "division",
    "job",
    "team",
    "machine",
    "standard_jobs",
    "data",
    "class_weight",
    "metrics.metric",
    "metrics.classification",
    "metrics.regression",
    "metrics.names",
    "metrics",
    "history",
    "progress",
    "construction",
    "storage",
    "checkpoints",
    "callbacks.callback",
    "callbacks.monitor",
    "callbacks.checkpoint",
    "callbacks.early_stopping",
    "callbacks.reduce_lr_on_plateau",
    "callbacks.functions",
    "callbacks.loggers",
    "callbacks",
    "probe",
    "inference",
    "shards",
    "sources",
    "evaluation",
    "resumption",
    "stepping",
    "single_step",
    "pace",
    "epochs",
    "training",
    "fitting",
    "summary",
    "parameters",
    "trainable",
    "predictor",
    "exchange",
    "exchange.assembly",
    "exchange.formula",
    "exchange.onnx_writer",
    "exchange.onnx_values",
    "exchange.onnx_chain",
    "exchange.onnx_operators",
    "exchange.onnx_reader",
    "exchange.pytorch",
    "exchange.keras",
    "exchange.scikit_learn",
    "exchange.exporters",
    "network",
    "exchange.importers",
    "sklearn.objective",
    "sklearn.stochastic",
    "sklearn.lbfgs",
    "sklearn.holder",
    "sklearn.base",
    "sklearn.classifier",
    "sklearn.regressor",
    "sklearn",
    "autograd.operations",
    "autograd.promotion",
    "autograd.recording",
    "autograd.tape",
    "autograd.tensor",
    "autograd.functions",
    "autograd.transforms",
    "autograd.layers",
    "autograd.optimizers",
    "autograd",
    "presentation",
    "inspection.report",
    "inspection.measurement",
    "inspection",
    "gradcheck.differences",
    "gradcheck.verdicts",
    "gradcheck.examination",
    "gradcheck.report",
    "gradcheck.functions",
    "gradcheck.rounding",
    "gradcheck.points",
    "gradcheck.comparisons",
    "gradcheck.networks",
    "gradcheck.table",
    "gradcheck",
    "plots.canvas",
    "plots.progress",
    "plots.predictions",
    "plots.boundary",
    "plots.architecture",
    "plots",
    "datasets.splits",
    "datasets.idx",
    "datasets.tables",
    "datasets.digits",
    "datasets.mnist",
    "datasets",
    "images",
    "cli.output",
    "cli.arguments",
    "cli.compilation",
    "cli.data",
    "cli.learning_curve",
    "cli.pictures",
    "cli.termination",
    "cli.predict",
    "cli.train",
    "cli.check",
    "cli.textbook",
    "cli.bench",
    "cli",
    "__main__",
    "__init__",
    "examples",
    "examples.mnist",
    "examples.regression",
    "examples.surrogate",
    "examples.pipeline",
    "examples.classify_image",
    "examples.larger_than_memory",
]

OPTIONAL = {
    "PIL",
    "google",
    "keras",
    "matplotlib",
    "onnx",
    "pooch",
    "requests",
    "sklearn",
    "torch",
}


def module_of(path):
    """The name of a file in LAYOUT."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


SOURCES = {module_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(tree, inside_functions=True):
    """All import statements but those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.FunctionDef) and not inside_functions:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        else:
            yield from imports(node, inside_functions)


def imported_names(node, module):
    """The full names that an import statement may stand for, each from the root of a package."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        folder = SOURCES[module].parents[node.level - 1]
        package = ".".join(["fastbackprop", *folder.relative_to(ROOT).parts])
        base = f"{package}.{base}" if base else package
    return [f"{base}.{alias.name}" for alias in node.names]


def internal(name):
    """The module of the package that provides a full name, or None."""
    first, *parts = name.split(".")
    if first != "fastbackprop":
        return None
    while parts:
        if ".".join(parts) in SOURCES:
            return ".".join(parts)
        parts.pop()
    return "__init__"


def parse(module):
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def test_layout_names_every_module():
    assert sorted(LAYOUT) == sorted(SOURCES)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_up(module):
    above = LAYOUT[: LAYOUT.index(module)]
    for node in imports(parse(module)):
        for name in imported_names(node, module):
            provider = internal(name)
            assert provider is None or provider in above, f"line {node.lineno} imports {name}"


@pytest.mark.parametrize("module", SOURCES)
def test_optional_dependencies_are_imported_where_they_are_used(module):
    about_sklearn = module.split(".")[0] == "sklearn" or module == "examples.pipeline"
    allowed = {"sklearn"} if about_sklearn else set()
    for node in imports(parse(module), inside_functions=False):
        tops = {name.split(".")[0] for name in imported_names(node, module)}
        assert not tops & (OPTIONAL - allowed), f"line {node.lineno}"


@pytest.mark.parametrize("module", SOURCES)
def test_every_file_begins_with_its_idea(module):
    docstring = ast.get_docstring(parse(module))
    assert docstring, "no docstring"
    first_line = docstring.splitlines()[0]
    assert first_line.endswith((".", ":")), first_line


def test_the_checks_above_see_what_they_should():
    tree = ast.parse(
        "import PIL.Image\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from fastbackprop.network import Network\n"
        "def f():\n    from ..errors import FileFormatError\n"
    )
    names = [imported_names(node, "datasets.idx") for node in imports(tree)]
    assert names == [
        ["PIL.Image"],
        ["typing.TYPE_CHECKING"],
        ["fastbackprop.errors.FileFormatError"],
    ]
    assert len(list(imports(tree, inside_functions=False))) == 2
    assert internal("fastbackprop.errors.FileFormatError") == "errors"
    assert internal("fastbackprop.datasets.load_digits") == "datasets"
    assert internal("fastbackprop.Network") == "__init__"
    assert internal("numpy.linalg") is None


# ---------------------------------------------------------------------------------- public names


def test_public_names():
    assert sorted(fb.__all__) == sorted(set(fb.__all__))
    assert [name for name in fb.__all__ if name.startswith("_")] == ["__version__"]
    for name in fb.__all__:
        assert hasattr(fb, name), name


@pytest.mark.parametrize("name", [name for name in fb.__all__ if name != "__version__"])
def test_public_names_are_documented(name):
    thing = getattr(fb, name)
    assert vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    if not inspect.isclass(thing):
        return
    for member, value in inspect.getmembers(thing):
        if member.startswith("_") or not (inspect.isroutine(value) or isinstance(value, property)):
            continue
        assert inspect.getdoc(value), f"{name}.{member} has no docstring"


@pytest.mark.parametrize("name", [name for name in fb.__all__ if callable(getattr(fb, name))])
def test_public_arguments_have_public_names(name):
    try:
        arguments = inspect.signature(getattr(fb, name)).parameters
    except ValueError:  # of a class written in C, such as an exception
        return
    assert not [argument for argument in arguments if argument.startswith("_")]


IMPORTED = """
import sys
import numba, numpy, safetensors.numpy  # numba imports scipy where it finds it
before = set(sys.modules)
import fastbackprop
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
"""


def test_importing_the_package_imports_little():
    output = subprocess.run(
        [sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True
    ).stdout
    imported = set(output.split())
    assert "fastbackprop" in imported
    assert not imported & (OPTIONAL | {"IPython", "pandas", "scipy", "torch", "tqdm"})


# What airspeed velocity looks for in a benchmark's module, too, and takes for the benchmark's own.
ASV_ATTRIBUTES = {
    *("repeat", "number", "rounds", "timeout", "timer", "sample_time", "warmup_time", "processes"),
    *("params", "param_names", "setup", "teardown", "setup_cache", "version", "unit"),
    *("min_run_count", "pretty_name", "pretty_source"),
}


@pytest.mark.parametrize(
    "path",
    sorted((ROOT.parent / "benchmarks" / "benchmarks").glob("bench_*.py")),
    ids=lambda path: path.name,
)
def test_no_name_in_a_module_of_benchmarks_is_taken_for_an_attribute(path):
    names = set()
    for node in ast.parse(path.read_text()).body:
        names.add(getattr(node, "name", None))
        names |= {
            each.id
            for each in ast.walk(node)
            if isinstance(node, ast.Assign)
            and isinstance(each, ast.Name)
            and isinstance(each.ctx, ast.Store)
        }
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    assert not names & ASV_ATTRIBUTES
