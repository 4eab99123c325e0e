"""Compiled code only: no validation and no Python objects live below this folder."""
