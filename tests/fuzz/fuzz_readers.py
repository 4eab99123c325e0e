"""Coverage-guided fuzzing of each reader of files with Atheris, a target by name.

    pip install "fastbackprop[test,fuzz]"
    python tests/fuzz/fuzz_readers.py model -max_total_time=600

The targets are the READERS of tests/hostile.py; options and folders of examples after the name are
libFuzzer's. An input is a byte that chooses one of the reader's forms, and the content of that.
It stops at any exception but FileFormatError, at a warning, at a crash, at an input that takes
more than 5 s of the processor (counting branches makes readers a few times slower) or a minute of
the clock, and at 2 GB of memory.
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

SECONDS = 5.0  # of the processor for an input
TESTS = Path(__file__).parents[1]
KERNELS = TESTS.parent / "fastbackprop" / "_kernels"


def main(name, *options):
    import atheris

    def instrumented():
        """Count branches in what is imported, but for kernels, whose bytecode Numba compiles."""
        kernels = (path.relative_to(KERNELS.parents[1]) for path in KERNELS.rglob("*.py"))
        return atheris.instrument_imports(
            include=["PIL", "csv", "fastbackprop", "json", "zipfile"],
            exclude=[".".join(path.with_suffix("").parts) for path in kernels],
        )

    sys.path.insert(0, str(TESTS))
    with instrumented():
        from hostile import READERS, fault_of

        if name not in READERS:
            sys.exit(f"unknown target {name}; there are {', '.join(READERS)}")
        reader = READERS[name]
        forms = reader.forms()  # which imports what writes and reads them

    folder = Path(tempfile.mkdtemp())
    path = folder / reader.file_name
    for companion, content in reader.companions().items():
        (folder / companion).write_bytes(content)

    def read(data):
        if data:
            wrap = forms[data[0] % len(forms)].wrap
            path.write_bytes(wrap(data[1:]))
            fault_of(reader, path)

    def read_in_time(data):
        began = time.process_time()
        read(data)
        assert time.process_time() - began < SECONDS

    examples = Path(tempfile.mkdtemp())
    for i, form in enumerate(forms):
        read(bytes([i]) + form.content)  # once, for what is compiled or imported at first use
        (examples / str(i)).write_bytes(bytes([i]) + form.content)
    warnings.simplefilter("error")
    limits = ["-timeout=60", "-rss_limit_mb=2048", "-max_len=4096"]
    atheris.Setup([sys.argv[0], *limits, *options, str(examples)], read_in_time)
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("name a target, such as model, and options of libFuzzer after it")
    main(*sys.argv[1:])
