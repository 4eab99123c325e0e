"""``python -m fastbackprop`` is the command ``fastbackprop``."""

from fastbackprop.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
