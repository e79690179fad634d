"""Where the processes of a tree listen, from Linux' /proc."""

import contextlib
import os
import socket
import struct
from ipaddress import ip_address
from pathlib import Path


def listeners(root: int) -> dict[tuple[str, int], str]:
    """Address and port of every TCP socket on which a process of the tree below ``root`` waits, and which."""
    found = {}
    for pid in _tree(root):
        places = {**_waiting(pid, "tcp"), **_waiting(pid, "tcp6")}
        for inode in _sockets(pid) & places.keys():
            found[places[inode]] = _name(pid)
    return found


def reachable(root: int) -> dict[tuple[str, int], str]:
    """Those of the listeners that other machines could reach."""
    return {place: name for place, name in listeners(root).items() if not _is_loopback(place[0])}


def _is_loopback(address: str) -> bool:
    place = ip_address(address)
    return (getattr(place, "ipv4_mapped", None) or place).is_loopback


def _tree(root: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
    tree, more = {root}, {root}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more} - tree
        tree |= more
    return tree


def _waiting(pid: int, kind: str) -> dict[str, tuple[str, int]]:
    try:
        lines = Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]
    except OSError:
        return {}
    fields = [line.split() for line in lines]
    return {f[9]: _place(f[1]) for f in fields if f[3] == "0A"}  # 0A: LISTEN


def _place(text: str) -> tuple[str, int]:
    """The kernel prints an address as words of 32 bits in the order of the machine's bytes."""
    address, _, port = text.partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words)), int(port, 16)


def _sockets(pid: int) -> set[str]:
    found = set()
    for handle in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):  # it may have gone meanwhile
            target = os.readlink(handle)
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:120].strip()
    except OSError:
        return ""
