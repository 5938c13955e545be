"""What `info` tells of huge pages: whether arrays get them, and an administrator's way to them."""

from __future__ import annotations

from pathlib import Path

from shmcompute.system import huge_pages

Fact = tuple[str, str]
_KNOB = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"


def facts(folder: Path, root: Path = huge_pages.ROOT) -> list[Fact]:
    """Whether arrays in `folder` get huge pages; where it refuses them, what would give them."""
    try:
        policy, refusal = huge_pages.policy(folder.stat().st_dev, root), _refusal(root)
    except (OSError, ValueError) as error:
        return [("huge pages", f"unknown: {error}")]
    if refusal is not None:
        return [("huge pages", refusal)]
    if huge_pages.kernel_policy(root) == "force":
        return [("huge pages", f"{_for_whom(root)} (shmem_enabled is force)")]
    if policy != "never":
        return [("huge pages", f"{_for_whom(root)} ({folder} has huge={policy}){_warning(policy)}")]
    return [("huge pages", _without_mount(folder, root)), *_remedies(folder)]


def _refusal(root: Path) -> str | None:
    """Why no array gets any, whatever the mount says; None if the mount decides."""
    if huge_pages.size(root) is None:
        return "none: this system has none for shared memory"
    if huge_pages.switched_off():
        return "switched off by SHMCOMPUTE_HUGE_PAGES=0"
    if not huge_pages.process_may(root):
        return "refused to this process and its children, by prctl(PR_SET_THP_DISABLE)"
    if huge_pages.kernel_policy(root) == "deny":
        return f"refused by the kernel; as root: echo never > {_KNOB}"
    return None


def _for_whom(root: Path) -> str:
    return f"for arrays of {(huge_pages.size(root) or 0) >> 20} MiB and more"


def _warning(policy: str) -> str:
    return (
        "; smaller arrays take a whole one, which within_size spares" if policy == "always" else ""
    )


def _without_mount(folder: Path, root: Path) -> str:
    why = f"{folder} is mounted without huge="
    if huge_pages.given(folder):
        return f"{_for_whom(root)}, made on request: {why}, which has them sooner"
    return f"refused: {why}"


def _remedies(folder: Path) -> list[Fact]:
    line = f"mount -o remount,huge=within_size {folder}"
    return [
        ("  as root", line),
        ("  in a container", f"on its host, as root: nsenter -m -t PID {line}"),
    ]
