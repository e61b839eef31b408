"""Whether processes can find each other, known before weights load: an address that exists, and a port that is free.

A process that cannot reach the first one tries for as long as its strategy's timeout, half an hour by default.
"""

import socket

from lightning_m2pt.errors import BadInputError


def check_meeting_place(address: str, port: int, *, listens: bool) -> None:
    """Looks at where the processes of a training meet.

    Args:
        address: Name or number of the first process's machine.
        port: The port that the first process listens on.
        listens: Whether this process is the one that listens; torchrun does that in place of the first.

    Raises:
        BadInputError: If no machine has this address, or something else listens on the port.
    """
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BadInputError(
            f"no machine called {address!r:.60} is known here",
            where="MASTER_ADDR",
            expected="name or IP address of the first process's machine, the same in all processes",
            hint="under SLURM it is the first node of SLURM_NODELIST; MASTER_ADDR in the job's script names another",
        ) from error
    if listens and is_taken(port, found[0][0]):
        raise BadInputError(
            f"port {port} is taken on this machine",
            where="MASTER_PORT",
            expected="a free port, the same in all processes",
            hint="unset MASTER_PORT: on a single machine a free one is found, under SLURM it follows from the job",
        )


def is_taken(port: int, family: int) -> bool:
    """Tells whether somebody listens on a port; one that is only waiting to be free is not taken."""
    with socket.socket(family, socket.SOCK_STREAM) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind(("", port))
        except OSError:
            return True
    return False
