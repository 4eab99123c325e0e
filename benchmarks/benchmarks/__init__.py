"""The suite that airspeed velocity runs: each setup compiles, seeds, and checks the answer."""
