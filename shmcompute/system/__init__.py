"""What the operating system, the processor and the interpreter offer, a module for each."""

__all__ = [
    "addresses",
    "atomic_words",
    "call_context",
    "cgroup",
    "code_cache",
    "compiling",
    "context",
    "cores",
    "file_locks",
    "interrupts",
    "limits",
    "memory",
    "patching",
    "private_folder",
    "reloads",
    "surroundings",
    "tracebacks",
    "unpatched",
]
