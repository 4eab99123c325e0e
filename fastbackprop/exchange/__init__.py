"""Networks in the forms of other libraries; each module knows one of them, and no Network."""
