"""What holds for all tests: Ctrl-C works in the programs that they start."""

import signal

# A shell starts what it runs in the background with SIGINT ignored, and children inherit that. A
# handler they do not inherit: they begin with the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
