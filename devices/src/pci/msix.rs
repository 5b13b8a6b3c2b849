//! MSI-X: a function's table of messages.
